"""``segdre backbone check``: a line a check, on a real clone, with a right and with wrong descriptions."""

import pytest
from processes import SEGDRE

pytestmark = [pytest.mark.slow, pytest.mark.upstream]
OWN = """
from dataclasses import replace
from segdre_plugin.adapters.atlop import BACKBONE, SCRIPT
BACKBONE = replace(BACKBONE, name="mine"{backbone})
SCRIPT = replace(SCRIPT, patch=""{script})
"""
STAGES = ["stage base", "stage identify", "stage dense", "stage sparse"]


@pytest.fixture
def check(atlop_place):
    """Run the command with a description that differs from ATLOP's; return its status, which checks passed, and all."""
    place = atlop_place
    original = (place.original / "train.py").read_text()
    (place.folder / "plain.py").write_text(original)

    def run(backbone="", script=""):
        (place.folder / "mine.py").write_text(OWN.format(backbone=backbone, script=script))
        before = {path for path in place.folder.rglob("*") if "__pycache__" not in path.parts}
        arguments = place.seg()
        result = place.python(*SEGDRE, "backbone", "check", "plain.py", "--adapter", "mine.py", "--", *arguments)
        assert "Traceback" not in result.stderr
        assert {path for path in place.folder.rglob("*") if "__pycache__" not in path.parts} == before
        lines = [line.partition(":")[0] for line in result.stdout.splitlines()]
        checks = {line[8:]: line[:2] == "ok" for line in lines if line[:8] in ("ok      ", "FAILED  ")}
        return result.returncode, checks, result

    return run


def test_a_right_description(check):
    status, checks, result = check()
    assert status == 0, result.stdout
    assert checks == dict.fromkeys(["data and model of main()", *STAGES, "--seg", "a bundle"], True)
    assert "mine: all checks passed" in result.stdout


def test_another_threshold(check):
    status, checks, result = check(backbone=", threshold=None")
    assert status == 2
    assert checks == {"data and model of main()": True} | dict.fromkeys([*STAGES, "--seg"], False)
    assert "the model itself predicts" in result.stdout
    assert "against zero" in result.stdout


def test_a_loss_that_is_not_there(check):
    status, checks, _ = check(script=", loss=lambda args, output: output[1]")
    assert status == 2
    assert [name for name, passed in checks.items() if not passed] == STAGES  # train() has a loss of its own


def test_a_report_that_is_not_named(check):
    """What fails in the clone's code is located there: report() gets no predictions of a model with --seg."""
    status, checks, result = check(script=", report=None")
    assert status == 2
    assert [name for name, passed in checks.items() if not passed] == ["--seg"]
    assert "in report, plain.py, line" in result.stdout

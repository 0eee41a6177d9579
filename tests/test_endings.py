"""How commands end: in a message and an exit status, also at Ctrl-C and when nobody reads their output any more."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest
from malformed import DOCUMENT
from processes import SEGDRE, python
from seg_runs import contents

from segdre_plugin import SegDREError
from segdre_plugin.errors import explain, explained, report
from segdre_plugin.seg.launch import messages

COMMAND = [sys.executable, *SEGDRE]


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (SegDREError("wrong", "do this"), 2, "segdre: error: wrong\n  -> do this\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 141, ""),
        (KeyboardInterrupt(), 130, "\nsegdre: stopped\n"),
        (KeyboardInterrupt("go on so"), 130, "\nsegdre: stopped; go on so\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a.json"),
            2,
            "segdre: error: cannot open a.json: Permission denied\n  -> change the permissions, or pass another path\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            2,
            "segdre: error: a file cannot be read or written: No space left on device\n"
            "  -> free some space, or write to another disk\n",
        ),
        (OSError("bert-x is not a model"), 2, "segdre: error: bert-x is not a model\n  -> check the path\n"),
    ],
)
def test_one_message_and_a_status(capsys, error, status, said):
    assert report(error) == status
    assert capsys.readouterr().err == said
    with pytest.raises(SystemExit) as ended, messages():
        raise error
    assert ended.value.code == status
    assert capsys.readouterr().err == said


def test_errors_of_copies_name_both_paths(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "astray").symlink_to("nowhere")
    with pytest.raises(shutil.Error) as caught:
        shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert str(explain(caught.value)).startswith(f"cannot copy {tmp_path}/a/astray to {tmp_path}/b/astray: ")


def test_what_is_not_of_the_operating_system_passes():
    for error in (ZeroDivisionError, BrokenPipeError, SegDREError("wrong")):
        with pytest.raises(type(error) if isinstance(error, SegDREError) else error), explained("cannot"):
            raise error


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "dev.jsonl"
    path.write_text(json.dumps(DOCUMENT, ensure_ascii=False).replace("A town", "Vibér 中"), encoding="utf-8")
    return path


@pytest.mark.slow
class TestOutput:
    @pytest.mark.parametrize(
        "command", [["validate"], ["stats"], ["--help"], ["stats", "--help"], ["stats", "--json", "-"]]
    )
    def test_that_nobody_reads(self, documents, command):
        path = [] if "--help" in command else [documents]
        line = [*COMMAND, *command[:1], *path, *command[1:]]
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        started = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered)
        started.stdout.close()
        said = started.stderr.read().decode()
        assert started.wait() == 141
        assert "Traceback" not in said
        assert "Exception" not in said
        assert "BrokenPipe" not in said

    @pytest.mark.parametrize("command", ["validate", "stats"])
    def test_on_a_full_disk(self, documents, command):
        with open("/dev/full", "wb") as full:
            ended = subprocess.run([*COMMAND, command, documents], stdout=full, stderr=subprocess.PIPE, check=False)
        assert ended.returncode == 2
        assert ended.stderr.count(b"segdre: error: a file cannot be read or written: No space left on device") == 1
        assert b"Exception" not in ended.stderr

    def test_in_a_locale_without_its_characters(self, documents):
        documents = documents.rename(documents.with_name("中é.jsonl"))
        ended = subprocess.run(
            [*COMMAND, "validate", documents],
            env=os.environ | {"PYTHONIOENCODING": "ascii:strict"},
            capture_output=True,
            check=False,
        )
        assert ended.returncode == 0
        assert b"\\u4e2d\\xe9.jsonl: 1 documents" in ended.stdout


DEMO = ["--train", "8", "--dev", "3", "--test", "2", "--epochs", "1"]


# runs before the command: Ctrl-C comes when a stage is finished, however busy the machine is
CTRL_C = """
import os, pathlib, signal

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background ignores it
rename = pathlib.Path.rename

def renamed(path, target):
    moved = rename(path, target)
    if pathlib.Path(target).name == {stage!r}:
        os.kill(os.getpid(), signal.SIGINT)
    return moved

pathlib.Path.rename = renamed
"""


def interrupt(command, stage, cwd):
    """Run a command, with Ctrl-C once a stage is finished; return its status and what it said."""
    ended = python(command, cwd=cwd, before=CTRL_C.format(stage=stage))
    return ended.returncode, ended.stderr


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(tmp_path):
    for name in ("whole", "new"):
        (tmp_path / name).mkdir()
    assert python([*SEGDRE, "demo", "demo", *DEMO], cwd=tmp_path / "whole").returncode == 0
    again = [*SEGDRE, "demo", "demo", *DEMO]
    for stage, following in (("base", "identify"), ("identify", "dense")):
        status, said = interrupt(again, stage, cwd=tmp_path / "new")
        assert status == 130, said
        assert f"segdre: stopped; the same command goes on from stage {following}\n" in said
        assert "Traceback" not in said
    assert python(again, cwd=tmp_path / "new").returncode == 0
    whole, new = (contents(tmp_path / name / "demo") for name in ("whole", "new"))
    assert whole.pop("run.json") != new.pop("run.json")  # paths
    assert {name for name in whole if whole[name] != new[name]} <= {"report.html"}


@pytest.mark.slow
@pytest.mark.upstream
def test_ctrl_c_in_a_clone(atlop_place):
    out = atlop_place.folder / "interrupted"
    command = ["train.py", *atlop_place.seg("--seg-dir", str(out))]
    status, said = interrupt(command, "base", cwd=atlop_place.folder)
    assert status == 130, said
    assert "segdre: stopped; the same command goes on from stage identify\n" in said
    assert "Traceback" not in said

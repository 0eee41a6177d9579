"""How a stage was made is recorded beside it: the command as typed, when, where, with what, and how long it took."""

import re
import sys

import pytest
from seg_runs import contents

from segdre_plugin import SegDREError, __version__
from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.seg.provenance import FORM, Origin, command
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.seg.store import Store
from segdre_plugin.stages.artifacts import PROVENANCE, check_form


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["/usr/bin/python3", "train.py", "--seg", "--data_dir", "my data"],
            "python3 train.py --seg --data_dir 'my data'",
        ),
        (["/venv/bin/python", "/venv/bin/segdre", "demo", "out"], "segdre demo out"),
        (["C:/venv/segdre.exe", "demo", "out"], "segdre.exe demo out"),
    ],
)
def test_command_is_the_one_that_was_typed(monkeypatch, typed, said):
    monkeypatch.setattr(sys, "orig_argv", typed)
    monkeypatch.setattr(sys, "argv", ["changed", "since"])
    assert command() == said


def test_stage_says_how_it_was_made_and_keeps_it_when_another_run_takes_it(tmp_path):
    first, second = Store(tmp_path / "first"), Store(tmp_path / "second")
    for store in (first, second):
        store.root.mkdir()
    with first.building("base", {"seed": 1}):
        pass
    second.adopt("base", first)
    found = RunFolder(second.root).provenance("base")
    assert found == RunFolder(first.root).provenance("base")
    assert found["command"] == command()
    assert found["versions"]["segdre_plugin"] == __version__
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", found["date"])
    assert 0 <= found["seconds"] < 60
    assert RunFolder(first.root).provenance("dense") is None
    assert set(contents(first.root)) == {"base/settings.json"}  # what the comparisons of runs look at


def test_what_is_recorded_is_checked(tmp_path):
    (tmp_path / "base").mkdir()
    made = Origin().describe()
    check_form(tmp_path, made, FORM)
    write_json(tmp_path / "base" / PROVENANCE, made | {"machine": made["machine"] | {"cores": "many"}})
    with pytest.raises(SegDREError, match=r"provenance.json: machine.cores: expected int, got 'many'"):
        RunFolder(tmp_path).provenance("base")
    assert read_json(tmp_path / "base" / PROVENANCE, "it")["command"] == made["command"]

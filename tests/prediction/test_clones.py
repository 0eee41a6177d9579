"""A clone's code comes out, and nothing of it stays in the interpreter."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from segdre_plugin import SegDREError
from segdre_plugin.backbones.clones.recognition import blob_hash
from segdre_plugin.backbones.registry import get_adapter
from segdre_plugin.prediction.clone_code import load_backbone_code

REL2ID = {"Na": 0, "P1": 1, "P2": 2}
FILES = {
    "model.py": "from losses import VALUE\nclass DocREModel:\n    value = VALUE\n",
    "losses.py": "VALUE = 7\n",
    "prepro.py": (
        "import ujson as json\n"
        "rel2id = json.load(open('meta/rel2id.json'))\n"
        "def read_docred(path, tokenizer):\n    return rel2id\n"
    ),
    "utils.py": "def collate_fn(batch):\n    return batch\n",
}


@pytest.fixture
def clone(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def untouched():
    """What an import could change, before and after."""

    def state():
        ours = {name: module for name, module in sys.modules.items() if name in ("model", "utils", "prepro", "losses")}
        return list(sys.path), ours, Path.cwd(), sys.dont_write_bytecode, "meta" in os.listdir()

    before = state()
    yield
    assert state() == before


def test_parts_come_out_and_nothing_stays(clone, untouched, monkeypatch):
    mine = ModuleType("utils")
    monkeypatch.setitem(sys.modules, "utils", mine)
    code = load_backbone_code("atlop", clone, REL2ID)
    assert sys.modules["utils"] is mine
    assert "prepro" not in sys.modules
    assert code.model.value == 7
    assert code.read("", None) == REL2ID
    assert code.collate([1]) == [1]
    assert code.backbone.name == "atlop"
    assert sorted(path.name for path in clone.iterdir()) == sorted(FILES)  # no __pycache__


@pytest.mark.slow
def test_two_clones_do_not_meet(clone, tmp_path_factory, untouched):
    other = tmp_path_factory.mktemp("other")
    for name, text in FILES.items():
        (other / name).write_text(text.replace("7", "8"))
    first, second = load_backbone_code("atlop", clone, REL2ID), load_backbone_code("dreeam", other, {"Na": 0})
    assert (first.model.value, second.model.value) == (7, 8)
    assert (first.read("", None), second.read("", None)) == (REL2ID, {"Na": 0})


def test_reference_needs_no_clone():
    from segdre_plugin.backbones.reference import ReferenceModel

    assert load_backbone_code("reference", None, REL2ID).model is ReferenceModel


def test_what_is_missing_is_named(clone, untouched):
    with pytest.raises(SegDREError, match=r"model of atlop(.|\n)*git clone https://github.com/wzhouad/ATLOP.*--clone"):
        load_backbone_code("atlop", None, REL2ID)
    with pytest.raises(SegDREError, match=r"known adapters: .*atlop.*dreeam"):
        load_backbone_code("nobody", clone, REL2ID)
    (clone / "utils.py").unlink()
    (clone / "prepro.py").unlink()
    with pytest.raises(SegDREError, match=r"prepro.py, which has read_docred\n.*utils.py, which has collate_fn"):
        load_backbone_code("atlop", clone, REL2ID)


BROKEN = {
    "a name": ("utils.py", "collate = 1\n", "missing:\n  - collate_fn in utils.py"),
    "a package": ("utils.py", "import no_such_package_anywhere\n", "pip install no_such_package_anywhere"),
    "syntax": ("model.py", "class DocREModel(:\n", "SyntaxError"),
    "an error": ("prepro.py", "1 / 0\n", "ZeroDivisionError"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_broken_clones_leave_nothing_behind(clone, untouched, case):
    name, text, message = BROKEN[case]
    (clone / name).write_text(text)
    with pytest.raises(SegDREError) as caught:
        load_backbone_code("atlop", clone, REL2ID)
    assert message in str(caught.value)


def test_what_pip_does_not_install_is_said_with_its_command(clone, untouched):
    (clone / "prepro.py").write_text("raise OSError('no model')\n")
    known = get_adapter("atlop")
    own = replace(known, script=replace(known.script, commands={"json": "no", "no_such_model": "get the model"}))
    with pytest.raises(SegDREError, match=r"prepro.py cannot be imported: OSError: no model(.|\n)*get the model"):
        load_backbone_code("atlop", clone, REL2ID, own=own)


@pytest.mark.slow
def test_other_modules_than_those_of_the_training_are_refused(clone, untouched):
    known = {name: blob_hash(text.encode()) for name, text in FILES.items()}
    known["evaluation.py"] = "0" * 40  # nothing that prediction imports
    load_backbone_code("atlop", clone, REL2ID, known)
    (clone / "losses.py").write_text("VALUE = 9\n")
    with pytest.raises(SegDREError, match=r"modules that the model was not trained with:\n  - losses.py: git blob"):
        load_backbone_code("atlop", clone, REL2ID, known)


@pytest.mark.upstream
@pytest.mark.parametrize("name", ["atlop", "dreeam"])
def test_real_clones(name, request, untouched):
    folder = request.getfixturevalue(name)
    before = sorted(path.name for path in folder.iterdir())
    code = load_backbone_code(name, folder, REL2ID)
    assert code.model.__name__ == "DocREModel"
    assert code.read.__globals__["docred_rel2id"] == REL2ID
    assert sorted(path.name for path in folder.iterdir()) == before

"""Imports run one way through the rooms of the package, no files of a room import each other in a circle."""

import subprocess
from pathlib import Path

import architecture
import pytest
from architecture import PACKAGE, against_the_direction, arrows, circles, draw, modules, read_imports, shortest
from locate import REPOSITORY


@pytest.fixture(scope="module")
def imports():
    return read_imports()


def test_imports_run_one_way(imports):
    assert against_the_direction(imports) == []


def test_no_circle_inside_a_room(imports):
    assert circles(imports) == []


def test_the_door_stays_small():
    names = [path.relative_to(REPOSITORY / PACKAGE).parts[0] for path in _tracked(REPOSITORY / PACKAGE)]
    assert len(set(names)) <= 16, sorted(set(names))


def test_the_picture_shows_the_imports_of_today(imports):
    assert architecture.PICTURE.read_text(encoding="utf-8") == draw(imports, modules()), "python docs/architecture.py"


# what is wrong in a made-up package -> what is reported of it
VIOLATIONS = {
    "upwards": ({"data/files.py": "import segdre_plugin.seg.fuse"}, "data imports seg"),
    "from": ({"data/files.py": "from segdre_plugin.seg.fuse import fuse"}, "data imports seg"),
    "a module from its package": ({"stages/wrap.py": "from segdre_plugin.seg import fuse"}, "seg.fuse"),
    "relative": ({"stages/wrap.py": "from ..seg import fuse"}, "stages imports seg"),
    "lazily": ({"salient.py": "def f():\n    from segdre_plugin.data import files"}, "equations imports data"),
    "for type checkers": (
        {"stages/wrap.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import segdre_plugin.cli"},
        "stages imports cli",
    ),
    "by name": (
        {"stages/wrap.py": "import importlib\nimportlib.import_module('segdre_plugin.seg.fuse')"},
        "stages imports seg",
    ),
    "side by side": (
        {"analysis/study.py": "import segdre_plugin.prediction.predict", "prediction/predict.py": ""},
        "analysis imports prediction",
    ),
    "through the door": ({"stages/wrap.py": "from segdre_plugin import SegConfig"}, "stages imports package"),
    "no room": ({"loft.py": "import segdre_plugin.errors"}, "loft: in no room"),
}


@pytest.mark.parametrize("case", VIOLATIONS)
def test_a_violation_is_reported(tmp_path, case):
    files, words = VIOLATIONS[case]
    assert against_the_direction(_read(tmp_path / "sound")) == []
    (problem,) = against_the_direction(_read(tmp_path / "wrong", files))
    assert words in problem


@pytest.mark.parametrize(
    "later",
    ["import segdre_plugin.seg.fuse", "def f():\n    from segdre_plugin.seg import fuse", "from . import fuse"],
)
def test_a_circle_is_reported(tmp_path, later):
    assert circles(_read(tmp_path / "sound")) == []
    found = circles(_read(tmp_path / "wrong", {"seg/store.py": later}))
    assert found == [["segdre_plugin.seg.fuse", "segdre_plugin.seg.reader", "segdre_plugin.seg.store"]]


def test_a_registry_may_look_its_entries_up_but_not_import_them(tmp_path):
    entry = {"adapters/__init__.py": "import segdre_plugin.backbones.backbone"}
    for name, how, n in [
        ("lazily", "def get():\n    import segdre_plugin.adapters", 0),
        ("at once", "import segdre_plugin.adapters", 1),
    ]:
        read = _read(tmp_path / name, entry | {"backbones/backbone.py": how})
        assert against_the_direction(read) == []
        assert len(circles(read)) == n


def test_the_version_may_be_imported_anywhere(tmp_path):
    assert against_the_direction(_read(tmp_path, {"data/files.py": "from segdre_plugin import __version__"})) == []


def test_a_module_that_imports_itself_or_others_is_nobodys_concern(tmp_path):
    code = "import torch, segdre_plugin.data.files\nfrom os import path\nfrom segdre_plugins import x"
    assert not any(found.source.endswith("data.files") for found in _read(tmp_path, {"data/files.py": code}))


def test_arrows_that_a_chain_replaces_are_pale(tmp_path):
    pairs = arrows(_read(tmp_path))
    assert ("seg", "data") in pairs
    assert ("seg", "data") not in shortest(pairs)
    assert ("stages", "data") in shortest(pairs)
    picture = draw(_read(tmp_path), modules({PACKAGE: tmp_path}))
    assert picture.count('url(#dark)"/>') == len(shortest(pairs))
    assert picture.count('url(#pale)"/>') == len(pairs) - len(shortest(pairs))
    assert "url(#wrong)" not in picture
    assert 'data-from="data" data-to="seg"' in draw(
        _read(tmp_path, {"data/files.py": "import segdre_plugin.seg.fuse"}), modules({PACKAGE: tmp_path})
    )


# A small package in which all is well: file -> its code.
SOUND = {
    "__init__.py": "from segdre_plugin.stages.wrap import SegConfig\nfrom segdre_plugin.seg import fuse",
    "errors.py": "",
    "salient.py": "import segdre_plugin.errors",
    "data/__init__.py": "",
    "data/files.py": "from segdre_plugin.errors import SegDREError",
    "stages/__init__.py": "",
    "stages/wrap.py": "from segdre_plugin.data.files import x",
    "seg/__init__.py": "",
    "seg/fuse.py": "from segdre_plugin.seg.reader import y\nfrom segdre_plugin.data import files",
    "seg/reader.py": "def f():\n    import segdre_plugin.seg.store",
    "seg/store.py": "from segdre_plugin.stages import wrap",
    "cli.py": "def f():\n    from segdre_plugin.seg import fuse",
}


def _read(folder, more=()):
    """Write the small package, changed, and read its imports."""
    for name, code in (SOUND | dict(more)).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return read_imports({PACKAGE: folder})


def _tracked(folder: Path) -> list[Path]:
    """Return the folder's files that git knows; where there is no git, all that are no build products."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "."], cwd=folder, capture_output=True, text=True, check=True)
        return [folder / name for name in listed.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]

"""Adapters of the package, of other packages (entry points) and of files; everything that is wrong is refused."""

import json
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
import tiny

from segdre_plugin import SegDREError
from segdre_plugin.adapters import NAMES
from segdre_plugin.backbones import registry
from segdre_plugin.backbones.registry import find_backbone, get_adapter, get_backbone, known_adapters, load_adapter
from segdre_plugin.cli import main

ADAPTER = """
from dataclasses import replace
from segdre_plugin.adapters.atlop import BACKBONE, SCRIPT
BACKBONE = replace(BACKBONE, name="mine", repository="https://example.org/mine")
SCRIPT = replace(SCRIPT, versions={"0" * 40: "abc1234"})
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that registers modules, name -> code, as entry points of one distribution."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(**modules):
        points = []
        for name, code in modules.items():
            module = f"installed_{tmp_path.name.replace('-', '_')}_{name}"
            (tmp_path / f"{module}.py").write_text(code)
            point = EntryPoint(name, module, registry.GROUP)
            vars(point)["dist"] = SimpleNamespace(name="their-plugin", version="1.2")
            points.append(point)
        monkeypatch.setattr(registry, "entry_points", lambda group: points)
        registry._sources.cache_clear()

    yield install
    registry._sources.cache_clear()


@pytest.fixture
def file(tmp_path):
    """Return a function that writes an adapter's file."""

    def write(code, name="my.py"):
        (tmp_path / name).write_text(code)
        return str(tmp_path / name)

    return write


def test_the_packages_own():
    assert list(known_adapters()) == list(NAMES)
    assert get_adapter("atlop").backbone is get_backbone("atlop") is tiny.ATLOP
    assert load_adapter("dreeam").require_script().file == "run.py"


def test_entry_points_are_found_and_imported_on_use(install):
    install(mine=ADAPTER, other="raise ImportError('no such thing')")
    assert get_backbone("mine").repository == "https://example.org/mine"
    assert get_adapter("mine").origin.endswith("_mine of their-plugin 1.2")
    assert find_backbone(tiny.model(), "atlop").name == "atlop"
    message = r"'other', .*_other of their-plugin 1\.2, cannot be imported: ImportError: no such thing\n.*their-plugin"
    with pytest.raises(SegDREError, match=message):
        known_adapters()


@pytest.mark.parametrize("name", ["atlop", "reference"])
def test_two_adapters_of_one_name(install, name):
    install(**{name: ADAPTER})
    with pytest.raises(SegDREError, match=rf"two adapters are called '{name}': .* and installed_.* of their-plugin"):
        get_adapter("dreeam")


def test_entry_point_of_another_name(install):
    install(theirs=ADAPTER)
    with pytest.raises(SegDREError, match=r"BACKBONE\.name is 'mine', the entry point's 'theirs'"):
        get_adapter("theirs")


def test_a_file(file):
    found = load_adapter(file(ADAPTER))
    assert (found.name, found.require_script().file, found.origin[-5:]) == ("mine", "train.py", "my.py")
    assert (
        load_adapter(
            file(
                ADAPTER.splitlines()[2] + "\nfrom segdre_plugin import Backbone\n"
                'BACKBONE = Backbone("mine", "here", ("input_ids",))\nSCRIPT = None'
            )
        ).script
        is None
    )
    with pytest.raises(SegDREError, match="unknown adapter 'mine'"):
        get_adapter("mine")  # a file registers nothing


BROKEN = {
    "no BACKBONE": ("SCRIPT = None", "not an adapter:\n  - BACKBONE: missing, expected a .*Backbone"),
    "types": (
        f"{ADAPTER}BACKBONE = 1\nSCRIPT = 'x'",
        "BACKBONE: expected Backbone, got int\n.*SCRIPT: expected Script, got str",
    ),
    "a known name": (
        ADAPTER.replace('"mine"', '"dreeam"'),
        r"two adapters are called 'dreeam': segdre_plugin\.adapters",
    ),
    "the reference's name": (ADAPTER.replace('"mine"', '"reference"'), "two adapters are called 'reference'"),
    "syntax": ("\nBACKBONE = (", r"my\.py, line 2: SyntaxError"),
    "an error": ("x = 1\n\n1 / 0", r"my\.py, line 3: ZeroDivisionError: division by zero"),
    "an unknown field": (ADAPTER + "replace(BACKBONE, classifer='x')", r"my\.py, line 6: TypeError: .*classifer"),
    "exit": ("raise SystemExit(3)", r"my\.py, line 1: SystemExit"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files(file, case):
    code, message = BROKEN[case]
    with pytest.raises(SegDREError, match=message):
        load_adapter(file(code))


def test_what_is_neither_a_name_nor_a_file(tmp_path):
    with pytest.raises(SegDREError, match=r"unknown adapter 'nobody'\n.*: .*atlop, .*; or .*--adapter FILE"):
        load_adapter("nobody")
    with pytest.raises(SegDREError, match=r"none\.py not found"):
        load_adapter(str(tmp_path / "none.py"))
    with pytest.raises(SegDREError, match="unknown adapter"):
        load_adapter(str(tmp_path))


def test_an_adapter_without_a_script(file):
    found = load_adapter(file(f"{ADAPTER}del SCRIPT"))
    with pytest.raises(SegDREError, match=r"adapter mine .* has no SCRIPT"):
        found.require_script()


def test_listing(install, tmp_path, capsys):
    install(mine=ADAPTER, model=ADAPTER.replace('"mine"', '"model"') + "del SCRIPT")
    assert main(["backbones", "--json", str(tmp_path / "list.json")]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*NAMES, "mine", "model"]
    assert head.split()[:2] == ["name", "repository"]
    rows = {row["name"]: row for row in json.loads((tmp_path / "list.json").read_text())}
    assert rows["mine"]["commit"] == ["abc1234"]
    some = ("atlop", "dreeam", "mine", "model")
    assert [rows[name]["used_by"] for name in some] == [["run", "patch"], ["run", "patch"], ["run"], ["wrap_model"]]
    for feature in ("isf", "evidence"):
        assert [rows[name][feature] for name in some] == [False, True, False, False]
    assert rows["model"]["fast"] is True
    assert rows["model"]["trainer"] is False
    assert main(["backbones", "--json", str(tmp_path / "none" / "list.json")]) == 2

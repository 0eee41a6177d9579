"""What gets installed: from a built wheel, and in place."""

import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from locate import REPOSITORY

import segdre_plugin
from segdre_plugin.adapters import BACKBONES
from segdre_plugin.data.splits import Split
from segdre_plugin.data.synthetic.corpus import generate
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.stage import ChainResult, Stage


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools leaves build/ beside what it builds
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(source)], check=True, capture_output=True)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder), "."]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_beside_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"segdre_plugin"}
    for name in ("py.typed", "patches/atlop.patch", "adapters/atlop/__init__.py", "cli.py"):
        assert f"segdre_plugin/{name}" in names


@pytest.mark.slow
def test_installed_wheel_finds_its_adapters_and_patches(wheel, tmp_path):
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import importlib.util, segdre_plugin, segdre_plugin.adapters.atlop as atlop\n"
        "from segdre_plugin.backbones.clones.patching import read_patch\n"
        "assert segdre_plugin.__file__.startswith(sys.argv[1])\n"
        "assert atlop.__file__.startswith(sys.argv[1])\n"
        "assert len(read_patch(atlop.SCRIPT)) == 2\n"
        "assert importlib.util.find_spec('adapters') is None\n"
    )
    subprocess.run([sys.executable, "-c", script, str(target)], cwd=tmp_path, check=True, timeout=120)


@pytest.mark.slow
def test_installed_in_place_there_is_no_top_level_adapters(tmp_path):
    script = "import importlib.util, segdre_plugin.adapters; assert importlib.util.find_spec('adapters') is None"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120)


def test_version_is_the_one_of_the_changelog():
    released = re.search(r"^## \[(\d+\.\d+\.\d+)\]", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    assert released
    assert released[1] == segdre_plugin.__version__


def test_public_names_are_there():
    assert [name for name in segdre_plugin.__all__ if not hasattr(segdre_plugin, name)] == []


def test_dir_shows_the_public_names():
    shown = dir(segdre_plugin)
    assert {"CountHead", "inject", "search_thresholds"} <= {*segdre_plugin.__all__} <= {*shown}
    modules = [name for name in shown if isinstance(getattr(segdre_plugin, name), ModuleType)]
    assert {*shown} == {*segdre_plugin.__all__, *modules, "__version__"}
    assert not [
        name for name in modules if importlib.util.find_spec(f"segdre_plugin.{name}") is None and name != "launch"
    ]


def test_public_objects_are_shown_in_a_line():
    config = segdre_plugin.SegConfig()
    verbaliser = segdre_plugin.Verbaliser(None, {"P1": "country"}, config)
    pipeline = object.__new__(segdre_plugin.SegPipeline)
    pipeline.description = SimpleNamespace(adapter="atlop", encoder="bert-base-cased", rel2id={"Na": 0, "P1": 1})
    pipeline.models, pipeline.device = {"base": None, "dense": None}, "cpu"
    margins = Margins(*[np.arange(2)] * 5, np.zeros((2, 0), dtype=bool))
    expected = {
        "SegPipeline('atlop', 'bert-base-cased', 1 relations, base, dense, cpu)": pipeline,
        "Verbaliser('{relation} {tail}', '{head} {relation}', 1 relations)": verbaliser,
        "Stage('sparse', 1 relations, None)": Stage("sparse", config, {"Na": 0, "P1": 1}),
        "ChainResult(base: 2 cells, 1 documents with salient entities)": ChainResult({"base": margins}, [(0,)]),
        "ChainResult(no tables, 0 documents with salient entities)": ChainResult(),
        "Margins(2 cells, 0 sentences)": margins,
        "StageFeatures(1 features, 2 triples injected, 0 left out)": segdre_plugin.StageFeatures(
            [{}], [0], [[1, 2]], 0
        ),
        "Split('dev', a/dev.json, 1 documents, 0 features)": Split("dev", Path("a/dev.json"), [{}]),
        "RunFolder('out')": RunFolder(Path("out")),
        "Injection(4 document tokens, 3 branch tokens)": segdre_plugin.inject([1, 2, 3, 4], [(1, 2)], [[5, 6, 7]]),
        "CountHead(in_features=4, hidden=3, outputs=2)": segdre_plugin.CountHead(4, 3),
        "CountLoss()": segdre_plugin.CountLoss(),
        "Backbone('atlop', 'https://github.com/wzhouad/ATLOP')": BACKBONES["atlop"],
    }
    assert {repr(value): value for value in expected.values()}.keys() == expected.keys()
    found = segdre_plugin.search_thresholds([1.0], [1.0], [1], [1], 1)
    assert not [value for value in (config, found) if "\n" in repr(value)]


def test_every_adapter_folder_is_registered_and_packaged():
    from segdre_plugin.adapters import BACKBONES, SCRIPTS

    folders = {path.parent.name for path in (REPOSITORY / "adapters").glob("*/__init__.py")}
    assert folders == set(BACKBONES) == set(SCRIPTS)
    for name in folders:
        assert importlib.util.find_spec(f"segdre_plugin.adapters.{name}") is not None
        assert f"segdre_plugin.adapters.{name}" in (REPOSITORY / "setup.cfg").read_text()


def test_constraints_pin_what_the_package_needs():
    pinned = {line.split("==")[0].lower() for line in (REPOSITORY / "constraints.txt").read_text().splitlines()}
    config = (REPOSITORY / "setup.cfg").read_text()
    section = config.split("install_requires")[1].split("[options.pack")[0]
    needed = re.findall(r"^    ([A-Za-z0-9_\-]+) >=", section, re.M)
    assert {name.lower() for name in needed} <= pinned


def light(tmp_path, script, *arguments):
    """Run a script, which must load neither torch nor transformers."""
    script += "\nimport sys; print(sorted({'torch', 'transformers'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=tmp_path, check=True, capture_output=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == b"[]"


MAIN = """
import sys
from segdre_plugin.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
assert not status
"""
HELP = [
    "demo",
    "backbones",
    "patch",
    "run",
    "study",
    "report",
    "validate",
    "evaluate",
    "stats",
    "convert",
    "bundle",
    "predict",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fusion", "injection", "metrics", "salient", "data.splits", "data.files"])
def test_modules_without_a_model_load_no_torch(tmp_path, name):
    light(tmp_path, f"import segdre_plugin.{name}")


@pytest.mark.slow
def test_help_and_version_load_no_torch(tmp_path):
    light(tmp_path, MAIN, "--version")
    light(tmp_path, MAIN, "--help")
    parts = [MAIN.replace("sys.argv[1:]", f"[{name!r}, '--help']") for name in HELP]
    light(tmp_path, "\n".join(parts))


@pytest.mark.slow
def test_commands_on_files_load_no_torch(tmp_path):
    documents = generate(2, 0)
    (tmp_path / "dev.json").write_text(json.dumps(documents))
    (tmp_path / "result.json").write_text(
        json.dumps([{"title": documents[0]["title"], "h_idx": 0, "t_idx": 1, "r": "P17"}])
    )
    light(tmp_path, MAIN, "validate", "dev.json")
    light(tmp_path, MAIN, "stats", "dev.json")
    light(tmp_path, MAIN, "evaluate", "result.json", "--gold", "dev.json")


@pytest.mark.slow
def test_torch_would_be_seen(tmp_path):
    # negative control
    with pytest.raises(AssertionError):
        light(tmp_path, "import segdre_plugin.zip_head")

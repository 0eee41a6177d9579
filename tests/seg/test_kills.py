"""Runs that are killed at any moment and run again end with the same files, byte by byte.

The sweeps over all moments take long: ``python tests/helpers/kills.py``.
"""

import json
from pathlib import Path

import pytest
import seg_runs
from processes import python

pytestmark = pytest.mark.slow
KILLS = Path(seg_runs.__file__).with_name("kills.py")


def sweep(*arguments, cwd=None):
    """Return what the sweeps found, by scenario."""
    result = python([KILLS, *arguments], cwd=cwd, timeout=900)
    assert result.returncode == 0, result.stderr[-3000:]
    return {found["scenario"]: found for found in map(json.loads, result.stdout.splitlines())}


@pytest.mark.parametrize(
    ("scenarios", "every", "kills"),
    [(("fuse again",), 1, 20), (("reuse", "bundle again"), 9, 14), (("run",), 61, 6)],
    ids=lambda value: "-".join(value).replace(" ", "-") if isinstance(value, tuple) else None,
)
def test_reference(scenarios, every, kills):
    found = sweep(*scenarios, "--every", str(every)).values()
    assert sum(one["kills"] for one in found) >= kills
    assert not [name for one in found for name in (*one["differ"], *one["mixed"])]


def test_while_the_base_is_saved_elsewhere():  # --save_path, outside the run's folder
    found = sweep("run", "--start", "135", "--stop", "150", "--every", "5")["run"]
    assert found["kills"] == 4
    assert not found["differ"]


def test_while_a_stage_is_taken_from_another_run():
    found = sweep("reuse", "--start", "27", "--stop", "30")["reuse"]
    assert found["kills"] == 4
    assert not found["differ"]


def test_a_careless_program_is_found_out():
    assert sweep("careless")["careless"]["differ"] == ["2: second"]


@pytest.mark.upstream
def test_a_clone(atlop_place):
    found = sweep("--every", "131", "--script", "train.py", "--", *atlop_place.seg(), cwd=atlop_place.folder)["script"]
    assert found["kills"] >= 3
    assert not found["differ"]
    assert not found["mixed"]

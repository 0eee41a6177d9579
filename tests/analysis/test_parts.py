"""Which part of a run helped: the differences are those of the scores, and only an interval beyond 0 is called one."""

import re

import pytest
from finished import make_run

from segdre_plugin.analysis import parts
from segdre_plugin.analysis.comparison import Comparison
from segdre_plugin.analysis.parts import part_verdict
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.run_folder import RunFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def test_difference_is_that_of_the_scores(folder):
    total, each = part_verdict(folder)
    scores = RunFolder(folder).metrics["test"]
    gain = 100 * (scores["fused"]["f1"] - scores["base_tuned"]["f1"])
    assert f" {gain:+.2f}, from " in total
    assert "over the tuned base" in total
    assert re.search(r"dense .*\([+-]\d+\.\d\d, from .*; sparse .*\([+-]\d+\.\d\d, from ", each)


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.01, 0.05, "helped"), (-0.01, 0.05, "no clear difference"), (-0.05, -0.01, "hurt")]
)
def test_only_an_interval_on_one_side_of_zero_is_a_difference(folder, monkeypatch, low, high, words):
    found = Comparison((0.5, 0.5), 0.0, low, high, 0.95, 0.5, 5, 10, 0)
    monkeypatch.setattr(parts, "compare", lambda first, second: found)
    total, each = part_verdict(folder)
    assert words in total
    assert each.count(words) == 2


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(SegDREError, match="not a finished run"):
        part_verdict(tmp_path)

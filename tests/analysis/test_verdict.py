"""The report's verdict: the scores that it compares are those of the run, and chance is called chance."""

from dataclasses import replace

import pytest
from finished import make_run

from segdre_plugin.analysis.comparison import Comparison, compare, count
from segdre_plugin.analysis.report.run_cells import load_candidates
from segdre_plugin.analysis.report.verdict import against_tuned_base, sentence
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.margins import official


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunFolder(make_run(tmp_path_factory.mktemp("run")))


@pytest.mark.parametrize("name", ["dev", "test"])
def test_compares_fused_and_tuned_base(run, name):
    cells = load_candidates(run, name)
    found = against_tuned_base(run, name, cells)
    scores = run.metrics[name]
    assert found.f1 == pytest.approx((scores["fused"]["f1"], scores["base_tuned"]["f1"]), abs=1e-12)
    assert found.low <= found.difference <= found.high
    names = {i: relation for relation, i in run.rel2id.items()}
    documents = run.documents[name]
    written = [
        official(cells.cells.take(chosen), documents, names)
        for chosen in (cells.fused, cells.cells.margin > run.tau_base_alone)
    ]
    assert found == compare(*(count(rows, documents) for rows in written))  # the same from written predictions


def test_a_split_without_gold_has_none(run):
    cells = load_candidates(run, "dev")
    blind = RunFolder(run.path)
    blind.metrics["dev"]["gold"] = False
    assert against_tuned_base(blind, "dev", cells) is None


def test_chance_is_called_chance():
    sure = Comparison((0.5, 0.45), 0.05, 0.01, 0.09, 0.95, 0.01, 40, 10, 0)
    assert sentence("test", sure) == (
        "+5.00 points of test F1 over the tuned base, 95 % from +1.00 to +9.00 (paired bootstrap over 40 documents)."
    )
    assert sentence("test", replace(sure, low=-0.02)).endswith(
        "from -2.00 to +9.00 (paired bootstrap over 40 documents): that may be chance."
    )

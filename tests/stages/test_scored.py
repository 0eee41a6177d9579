"""Curves and scores by relation of a run: those of all its candidates, ranked across models, against slow versions."""

import numpy as np
import pytest
from finished import make_run

from segdre_plugin.metrics import by_frequency, by_relation, curve_of
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.margins import CELL
from segdre_plugin.stages.scored import ScoredSplit


@pytest.fixture(scope="module", params=["union", "average"])
def run(request, tmp_path_factory):
    return RunFolder(make_run(tmp_path_factory.mktemp("run"), options=["--seg-fusion", request.param]))


def rows_of(run, table, margin):
    """The cells of a table as predictions, their margins as scores."""
    names = {i: name for name, i in run.rel2id.items()}
    columns = zip(*(getattr(table, name).tolist() for name in CELL), margin, strict=True)
    return [
        {"title": run.documents["test"][d]["title"], "h_idx": h, "t_idx": t, "r": names[r], "score": m}
        for d, h, t, r, m in columns
    ]


def test_base_is_ranked_by_its_margins(run):
    base = run.margins("base", "test")
    due = curve_of(rows_of(run, base, base.margin.tolist()), run.documents["test"]).summary()
    assert run.metrics["test"]["curves"]["base"] == due
    assert due["area"] > 0.2


def test_fused_is_ranked_by_what_exceeds_a_threshold(run):
    tables = {stage: run.margins(stage, "test") for stage in ("base", "dense", "sparse")}
    chains, taus = run.salient("test"), run.thresholds
    cells = ScoredSplit(run.split("test"), tables, chains, run.rel2id, [], taus.fusion).cells()
    best = []
    for d, h, t, base, stage in zip(
        *(part.tolist() for part in (cells.cells.document, cells.cells.head, cells.cells.tail)),
        cells.cells.margin.tolist(),
        cells.stage.tolist(),
        strict=True,
    ):
        tau = taus.tau_dense if {h, t} & {*chains[d]} else taus.tau_sparse
        best.append(max(base - taus.tau_base, stage - tau))
    rows = rows_of(run, cells.cells, best)
    found = run.metrics["test"]["curves"]["fused"]
    assert found == curve_of(rows, run.documents["test"]).summary()
    # where scores become negative, the curve stands at the fused result
    kept = [row for row in rows if row["score"] > 0]
    point, scores = curve_of(kept, run.documents["test"]), run.metrics["test"]["fused"]
    assert (point.precision[-1], point.recall[-1]) == (scores["precision"], scores["recall"])
    # negative control: margins alone rank otherwise
    raw = np.maximum(cells.cells.margin, cells.stage).tolist()
    assert found != curve_of(rows_of(run, cells.cells, raw), run.documents["test"]).summary()


def test_relations_of_the_fused_result(run):
    found = run.metrics["test"]
    due = by_relation(run.result("test"), run.documents["test"], run.train)
    assert found["relations"]["fused"] == due
    assert found["frequencies"]["fused"] == by_frequency(due)
    tuned = found["frequencies"]["base_tuned"]["all"]
    assert {name: tuned[name] for name in ("f1", "n_correct", "n_predicted", "n_gold")} == {
        name: found["base_tuned"][name] for name in ("f1", "n_correct", "n_predicted", "n_gold")
    }

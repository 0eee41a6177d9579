"""Rows of studies, fused and scored: against the run's own metrics, against slow versions, by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest
import study_runs

from segdre_plugin import SegDREError
from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.score_row import average, score
from segdre_plugin.analysis.study.studies import AVERAGE, BASE, FULL, SEEDS, STUDIES, UNION
from segdre_plugin.fusion import GRIDS
from segdre_plugin.metrics import evaluate
from segdre_plugin.salient import gold_salient
from segdre_plugin.stages.margins import Margins

pytestmark = pytest.mark.slow

SPLITS = ("dev", "test")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return FinishedRun(study_runs.make_source(tmp_path_factory.mktemp("first"), 1))


@pytest.fixture(scope="module")
def second(tmp_path_factory):
    """Another base model's margins of the same documents."""
    out = study_runs.make_source(tmp_path_factory.mktemp("second"), 2)
    return lambda split: Margins.load(out / "base" / f"margins_{split}.npz")


def absent(split):
    raise AssertionError("no second model is needed")


def cells(table):
    """A table as a dictionary."""
    columns = (table.document, table.head, table.tail, table.relation)
    return dict(zip(zip(*(c.tolist() for c in columns), strict=True), table.margin.tolist(), strict=True))


def slow(found, split, predicted):
    """Score a set of cells with the official metrics."""
    run = found
    names = {i: name for name, i in run.rel2id.items()}
    rows = [
        {"title": run.documents[split][d]["title"], "h_idx": h, "t_idx": t, "r": names[r]} for d, h, t, r in predicted
    ]
    return evaluate(rows, run.documents[split], found.train)


def test_rows_are_those_of_the_run(found):
    known = found.metrics
    due = {
        "base": "base",
        "base tuned": "base_tuned",
        "dense": "dense",
        "base on dense": "base_on_dense",
        "sparse": "sparse",
        "base on sparse": "base_on_sparse",
        "full": "fused",
    }
    assert due.keys() | {AVERAGE.name, UNION.name} == SEEDS.rows.keys()
    for name, key in due.items():
        scores = score(SEEDS.rows[name], found, absent, SPLITS)
        for split in SPLITS:
            assert scores.metrics[split].items() >= known[split][key].items(), (name, split)
    thresholds = score(FULL, found, absent, SPLITS).thresholds
    assert thresholds.items() <= known["thresholds"].items()
    assert len({known["dev"][key]["f1"] for key in due.values()}) > 5  # or one could pass for another


@pytest.mark.parametrize("pairs", ["dense", "sparse"])
def test_the_same_predictions_against_the_pairs_of_the_gold_entity(found, pairs):
    row, differs = SEEDS.rows[pairs], 0
    for split in SPLITS:
        predicted = [key for key, margin in cells(found.scored(split, None).tables[pairs]).items() if margin > 0]
        documents = []
        for document in found.documents[split]:
            salient = gold_salient(document)
            own = [x for x in document["labels"] if (salient in (x["h"], x["t"])) == (pairs == "dense")]
            documents.append(document | {"labels": own})
        names = {i: name for name, i in found.rel2id.items()}
        rows = [{"title": documents[d]["title"], "h_idx": h, "t_idx": t, "r": names[r]} for d, h, t, r in predicted]
        due = evaluate(rows, documents)["f1"]
        scores = score(row, found, absent, SPLITS).metrics[split]
        assert scores["gold_pairs_f1"] == due
        differs += due != scores["f1"]
    assert differs  # where the predicted entity is wrong


def test_a_source_that_is_left_out_has_no_say(found):
    scored = found.scored("dev")
    base, sparse = (cells(scored.tables[stage]) for stage in ("base", "sparse"))
    row = STUDIES["ablations"].rows["no dense"]
    scores = score(row, found, absent, SPLITS)
    taus = scores.thresholds
    predicted = {c for c, m in base.items() if m > taus["tau_base"]}
    predicted |= {c for c, m in sparse.items() if m > taus["tau_sparse"]}
    assert scores.metrics["dev"].items() >= slow(found, "dev", predicted).items()
    low, high = GRIDS["docred"]
    grid = np.round(np.arange(low, high + 0.05, 0.1), 10)
    best = 0.0
    for tau_base in grid[::5]:
        for tau_sparse in grid[::5]:
            chosen = {c for c, m in base.items() if m > tau_base} | {c for c, m in sparse.items() if m > tau_sparse}
            best = max(best, slow(found, "dev", chosen)["f1"])
    assert best <= taus["f1"] < score(FULL, found, absent, ("dev",)).thresholds["f1"]  # the dense model helps here


def test_thresholds_at_the_anchor_and_at_those_of_the_run(found):
    scored = found.scored("dev")
    base, dense, sparse = (cells(scored.tables[stage]) for stage in ("base", "dense", "sparse"))
    at_zero = {c for table in (base, dense, sparse) for c, m in table.items() if m > 0}
    anchor = score(replace(FULL, thresholds="anchor"), found, absent, ("dev",))
    assert anchor.metrics["dev"].items() >= slow(found, "dev", at_zero).items()
    assert [anchor.thresholds[f"tau_{stage}"] for stage in ("base", "dense", "sparse")] == [0, 0, 0]
    same = score(replace(FULL, thresholds="run"), found, absent, SPLITS)
    assert same == score(FULL, found, absent, SPLITS)
    assert same.metrics["dev"]["f1"] > anchor.metrics["dev"]["f1"]


def test_average_against_a_slow_version(found, second):
    first, other = found.scored("dev").tables["base"], second("dev")
    fast = cells(average(first, other, 1 + int(max(first.head.max(), other.head.max()))))
    tables = cells(first), cells(other)
    assert fast.keys() == tables[0].keys() | tables[1].keys()
    assert tables[0].keys() != tables[1].keys()  # or the rule for missing cells is not seen at work
    lowest = [{}, {}]
    for table, low in zip(tables, lowest, strict=True):
        for cell, margin in table.items():
            low[cell[:3]] = min(margin, low.get(cell[:3], np.inf))
    for cell, margin in fast.items():
        parts = [table.get(cell, low.get(cell[:3], -np.inf)) for table, low in zip(tables, lowest, strict=True)]
        assert margin == sum(parts) / 2


def test_averaged_stages_against_a_slow_version(found):
    scored = found.scored("dev")
    base, dense, sparse = (cells(scored.tables[stage]) for stage in ("base", "dense", "sparse"))
    row = replace(FULL, name="averaged", fusion="average")
    taus = score(row, found, absent, SPLITS).thresholds

    def averaged(other, is_dense):
        own = {c: m for c, m in base.items() if bool({c[1], c[2]} & set(scored.salient[c[0]])) == is_dense}
        lowest = [{}, {}]
        for table, low in zip((own, other), lowest, strict=True):
            for cell, margin in table.items():
                low[cell[:3]] = min(margin, low.get(cell[:3], np.inf))
        return {c: (own.get(c, lowest[0].get(c[:3])) + other.get(c, lowest[1].get(c[:3]))) / 2 for c in own | other}

    predicted = {c for c, m in base.items() if m > taus["tau_base"]}
    predicted |= {c for c, m in averaged(dense, True).items() if m > taus["tau_dense"]}
    predicted |= {c for c, m in averaged(sparse, False).items() if m > taus["tau_sparse"]}
    scores = score(row, found, absent, SPLITS)
    assert scores.metrics["dev"].items() >= slow(found, "dev", predicted).items()
    assert scores.metrics["dev"]["f1"] != score(FULL, found, absent, SPLITS).metrics["dev"]["f1"]


def test_stages_alone_in_a_run_that_averages(found):
    """What a stage says of its own pairs does not depend on how the run fuses."""
    averaging = FinishedRun(found.path)
    thresholds = found.metrics["thresholds"] | {"fusion": "average"}
    averaging.metrics = found.metrics | {"thresholds": thresholds}
    for name in ("dense", "sparse", "base on dense", "base tuned"):
        scores = [score(SEEDS.rows[name], run, absent, SPLITS) for run in (found, averaging)]
        assert scores[0].metrics == scores[1].metrics
        assert scores[0].metrics["dev"]["n_predicted"] > 0
    fused = [score(FULL, run, absent, SPLITS) for run in (found, averaging)]
    assert fused[0].metrics != fused[1].metrics
    assert [scores.thresholds["fusion"] for scores in fused] == ["union", "average"]


def test_thresholds_for_dense_pairs_only_are_the_best_for_them(found):
    """A threshold that is searched on all pairs trades recall on pairs that a model never sees."""
    row = replace(FULL, name="model on dense", sources=("dense",), pairs="dense")
    scores = score(row, found, absent, ("dev",))
    chains = found.scored("dev").salient
    run = found
    documents = [
        document | {"labels": [x for x in document["labels"] if {x["h"], x["t"]} & set(chain)]}
        for document, chain in zip(run.documents["dev"], chains, strict=True)
    ]
    names = {i: name for name, i in run.rel2id.items()}
    best = 0.0
    low, high = GRIDS["docred"]
    for tau in np.round(np.arange(low, high + 0.05, 0.1), 10):
        chosen = [c for c, m in cells(found.scored("dev").tables["dense"]).items() if m > tau]
        rows = [{"title": documents[d]["title"], "h_idx": h, "t_idx": t, "r": names[r]} for d, h, t, r in chosen]
        best = max(best, evaluate(rows, documents)["f1"])
    assert scores.metrics["dev"]["f1"] == pytest.approx(best)


def test_ensembles_hold_the_base_models_own_cut(found, second):
    alone = score(BASE, found, absent, ("dev",)).metrics["dev"]["f1"]
    union = score(UNION, found, second, SPLITS)
    assert union.metrics["dev"]["f1"] > alone
    base, other = cells(found.scored("dev").tables["base"]), cells(second("dev"))
    salient = found.salient("dev")
    taus = union.thresholds
    predicted = {c for c, m in base.items() if m > taus["tau_base"]}
    predicted |= {
        c for c, m in other.items() if m > taus["tau_dense" if set(salient[c[0]]) & set(c[1:3]) else "tau_sparse"]
    }
    assert union.metrics["dev"].items() >= slow(found, "dev", predicted).items()
    mean = score(AVERAGE, found, second, SPLITS)
    assert (mean.thresholds["tau_dense"], mean.thresholds["tau_sparse"]) == (0, 0)
    assert mean.metrics["dev"]["f1"] == mean.thresholds["f1"]


@pytest.mark.parametrize("row", [AVERAGE, UNION], ids=lambda row: row.ensemble)
def test_a_model_is_no_ensemble_with_itself(found, row):
    with pytest.raises(SegDREError, match="both base models are the same"):
        score(row, found, lambda split: found.scored(split).tables["base"], ("dev",))


def test_counts_add_up_to_the_metrics(found):
    for row in (FULL, BASE):
        scores = score(row, found, absent, SPLITS)
        for split in SPLITS:
            correct, predicted, gold = np.sum(list(scores.counts[split].values()), axis=0)
            assert scores.metrics[split]["f1"] == pytest.approx(2 * correct / (predicted + gold))


def test_splits_without_gold_are_left_out(found, tmp_path):
    import finished

    documents = finished.make_documents()
    documents["test"] = [{k: v for k, v in d.items() if k != "labels"} for d in documents["test"]]
    bare = FinishedRun(finished.make_run(tmp_path / "bare", documents))
    assert score(FULL, bare, absent, SPLITS).metrics.keys() == {"dev"}


def test_every_row_of_every_study_says_something_of_its_own():
    for name, study in STUDIES.items():
        rows = [row for line in study.lines for row in line.rows]
        assert len(study.rows) == len({json.dumps(vars(row) | {"name": ""}, default=vars) for row in rows}), name
        assert all(column.row < len(line.rows) for line in study.lines for column in study.columns)
        known = study.rows.keys()
        assert {n for pair in study.comparisons for n in pair} | {study.shifts, *(c.over for c in study.columns)} - {
            ""
        } <= known | {""}

"""The table of results on the terminal: every score in its row and column, and nothing that is not there."""

from pathlib import Path

import pytest

from segdre_plugin.seg.score_table import COLUMNS, ROWS, print_scores

KEYS = (*COLUMNS.values(), "evidence_f1")
THRESHOLDS = {"grid": "docred", "objective": "f1", "tau_base": -0.72, "tau_dense": 1.0, "tau_sparse": 0.04}


def report(rows=("base", "fused"), **more):
    """A report whose scores are all different."""
    scores = {row: {key: (10 * i + k) / 1000 for k, key in enumerate(KEYS)} for i, row in enumerate(rows)}
    dev = {"gold": True, "strategies": {"zip": {"accuracy": 0.5, "saliency": 0.75}}} | scores
    return {"dev": dev, "salient_k": 1, "thresholds": THRESHOLDS, "branches_left_out": {"dev": 0}} | more


@pytest.fixture
def printed(capsys):
    def show(found):
        print_scores(found, Path("out"))
        return capsys.readouterr().out.splitlines()

    return show


@pytest.mark.parametrize("evidence", [False, True])
def test_each_score_stands_in_its_row_and_column(printed, evidence):
    lines = printed(report(tuple(ROWS), evidence=evidence))
    assert lines[1].split() == ["dev", "(%)", *COLUMNS, *(["Evi-F1"] if evidence else [])]
    for i, (title, line) in enumerate(zip(ROWS.values(), lines[2:], strict=False)):
        assert line[:20] == f"{title:<20}"
        expected = [f"{(10 * i + k) / 10:.2f}" for k in range(7 if evidence else 6)]
        assert [line[start : start + 10].strip() for start in range(20, len(line), 10)] == expected


def test_rows_and_scores_that_are_missing(printed):
    found = report()
    del found["dev"]["fused"]["f1"]
    lines = printed(found)
    assert [line[:20].strip() for line in lines[2:4]] == ["base", "fused"]
    assert [line[40:50].strip() for line in lines[2:4]] == ["0.20", "-"]


def test_splits_without_labels_and_without_documents(printed):
    lines = printed(report(test={"gold": False}))
    assert "no gold: predictions only" in lines[lines.index(next(x for x in lines if x.startswith("test"))) + 1]
    assert not any(line.startswith("test") for line in printed(report()))


def test_an_evaluated_file_goes_by_its_name(printed):
    assert printed(report(file="mine.json"))[1].startswith("mine.json (%)  ")


@pytest.mark.parametrize(("k", "words"), [(1, "salient entity "), (3, "3 salient entities ")])
def test_strategies(printed, k, words):
    lines = printed(report(salient_k=k))
    at = next(i for i, line in enumerate(lines) if line.startswith(words))
    assert lines[at].split()[-2:] == ["accuracy", "saliency"]
    assert lines[at + 1].split() == ["zip", "50.00", "75.00"]


def test_thresholds_and_files(printed):
    lines = printed(report(isf={"tau": -12.7, "thresholds": THRESHOLDS | {"tau_base": -12.7}}))
    assert lines[-3:] == [
        "thresholds (docred grid, f1 on dev): base -0.7, dense 1.0, sparse 0.0",
        "thresholds w. ISF, tau -12.70 (docred grid, f1 on dev): base -12.7, dense 1.0, sparse 0.0",
        "written: out/result.json, out/metrics.json",
    ]


def test_triples_beyond_the_budget_are_counted(printed):
    assert "injection: 5 triples exceeded" in "\n".join(printed(report(branches_left_out={"dev": 2, "test": 3})))
    assert "injection" not in "\n".join(printed(report()))

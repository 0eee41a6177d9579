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
        "thresholds w. ISF (docred grid, f1 on dev): base tau -12.70 + 0.0, dense 1.0, sparse 0.0",
        "written: out/result.json, out/metrics.json",
    ]


@pytest.mark.parametrize(("base", "said"), [(-13.2, "-12.70 - 0.5"), (-12.7, "-12.70 + 0.0"), (-11.3, "-12.70 + 1.4")])
def test_isf_thresholds_are_tau_and_an_offset(printed, base, said):
    isf = {"tau": -12.7, "thresholds": THRESHOLDS | {"tau_base": base}}
    assert f"base tau {said}, dense" in "\n".join(printed(report(isf=isf)))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({}, None),
        ({"tau_dense": 4.0}, "(-1 to 4), a better one may lie beyond: dense"),
        ({"tau_dense": 4.0, "grid": "redocred"}, None),
        ({"tau_base": -1.0, "tau_sparse": 4.0, "tau_base_alone": -1.0}, "beyond: base, sparse, base alone"),
        ({"tau_base": 3.9}, None),
    ],
)
def test_thresholds_on_the_edge_of_the_grid(printed, found, said):
    text = "\n".join(printed(report(thresholds=THRESHOLDS | found)))
    assert ("on the edge" in text) == (said is not None)
    assert (said or "") in text


def test_the_edge_of_an_isf_grid_is_an_offset_from_tau(printed):
    for base, at_edge in ((-13.7, True), (-8.7, True), (-12.7, False), (-1.0, False)):
        isf = {"tau": -12.7, "thresholds": THRESHOLDS | {"tau_base": base}}
        assert ("on the edge" in "\n".join(printed(report(isf=isf)))) == at_edge


def test_triples_beyond_the_budget_are_counted(printed):
    assert "injection: 5 triples exceeded" in "\n".join(printed(report(branches_left_out={"dev": 2, "test": 3})))
    assert "injection" not in "\n".join(printed(report()))

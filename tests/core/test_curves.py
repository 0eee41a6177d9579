"""Precision over recall, F1 by relation and by frequency of relation: against slow versions, and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin.errors import SegDREError
from segdre_plugin.metrics import FREQUENCIES, by_frequency, by_relation, curve, curve_of, evaluate
from segdre_plugin.vocabulary import label_triples

GOLD = {"A": [(0, 1, "p"), (0, 1, "q"), (1, 2, "p"), (2, 0, "s")], "B": [(0, 1, "p"), (1, 0, "q")]}
DOCS = [
    {
        "title": title,
        "vertexSet": [[{"name": f"{title}{e}", "sent_id": 0}] for e in range(3)],
        "labels": [{"h": h, "t": t, "r": r} for h, t, r in triples],
    }
    for title, triples in GOLD.items()
]
triples = st.builds(
    lambda title, h, t, r, score: {"title": title, "h_idx": h, "t_idx": t, "r": r, "score": score},
    st.sampled_from("ABC"),
    st.integers(0, 2),
    st.integers(0, 2),
    st.sampled_from("pqrs"),
    st.sampled_from([-1.5, 0, 0.25, 1, 7]),
)


def slow_curve(scores, correct, n_gold):
    """Precision and recall at every score as a threshold, the highest first, and the area below them."""
    points, area, before = [], 0.0, 0.0
    for least in sorted(set(scores), reverse=True):
        kept = [hit for score, hit in zip(scores, correct, strict=True) if score >= least]
        points.append((least, sum(kept) / len(kept), sum(kept) / n_gold))
        area += points[-1][1] * (points[-1][2] - before)
        before = points[-1][2]
    return points, area


@given(st.lists(st.tuples(st.sampled_from([-2.0, 0.0, 0.5, 3.0, 3.5]), st.booleans()), max_size=30), st.integers(0, 5))
def test_curve_equals_a_slow_one(cells, missed):
    scores, correct = [score for score, _ in cells], [hit for _, hit in cells]
    n_gold = max(1, sum(correct) + missed)
    found = curve(scores, correct, n_gold)
    points, area = slow_curve(scores, correct, n_gold)
    assert [*zip(found.score, found.precision, found.recall, strict=True)] == points
    assert found.area == pytest.approx(area)


def test_curve_by_hand():
    found = curve([3, 1, 2, 1], [True, False, True, True], 4)
    assert found.precision.tolist() == [1, 1, 0.75]  # the two of score 1 come together, whatever their order
    assert found.recall.tolist() == [0.25, 0.5, 0.75]
    assert found.area == pytest.approx(0.25 + 0.25 + 0.75 * 0.25)
    # negative control: broken ties would be seen
    assert curve([3, 1, 2, 1.1], [True, False, True, True], 4).area != pytest.approx(found.area)


@pytest.mark.slow
def test_area_is_average_precision():
    scorer = pytest.importorskip("sklearn.metrics").average_precision_score
    rng = np.random.default_rng(0)
    scores, correct = rng.integers(0, 40, 500), rng.random(500) < 0.3
    assert curve(scores, correct, int(correct.sum())).area == pytest.approx(scorer(correct, scores))


def test_summary_keeps_points_of_the_curve():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=2000)
    full = curve(scores, scores + rng.normal(size=2000) > 1, 700)
    found = full.summary()
    assert found["area"] == full.area
    points = [*zip(full.precision, full.recall, strict=True)]
    places = [points.index(point) for point in zip(found["precision"], found["recall"], strict=True)]
    assert len(places) < 51
    assert places == sorted(places)
    assert places[-1] == len(points) - 1
    assert np.diff([0, *found["recall"]]).max() < 0.02 + 1 / 700
    assert curve([], [], 3).summary() == {"area": 0.0, "recall": [], "precision": []}


@given(st.lists(triples, max_size=12), st.randoms())
def test_curve_of_predictions(rows, random):
    gold = {(doc["title"], *triple) for doc in DOCS for triple, _ in label_triples(doc)}
    best = {}
    for row in rows:
        place = row["title"], row["h_idx"], row["r"], row["t_idx"]
        best[place] = max(row["score"], best.get(place, row["score"]))
    points, area = slow_curve([*best.values()], [place in gold for place in best], len(gold))
    random.shuffle(rows)
    found = curve_of(rows, DOCS)
    assert [*zip(found.score, found.precision, found.recall, strict=True)] == points
    assert found.area == pytest.approx(area)
    if rows:  # its end is what the predictions score as they are
        scores = evaluate(rows, DOCS)
        assert (found.precision[-1], found.recall[-1]) == (scores["precision"], scores["recall"])


@pytest.mark.parametrize(
    ("scores", "correct", "n_gold", "message"),
    [
        ([1.0, np.nan], [True, False], 1, "score nan"),
        ([1.0, -np.inf], [True, False], 1, "score -inf"),
        ([1.0], [True, False], 1, r"got \[1\] and \[2\]"),
        ([1.0], [True], 0, "no gold"),
    ],
)
def test_bad_curves(scores, correct, n_gold, message):
    with pytest.raises(SegDREError, match=message):
        curve(scores, correct, n_gold)


@pytest.mark.parametrize("score", ["1", True, float("nan"), float("inf"), 10**400, [1]])
def test_bad_scores(score):
    row = {"title": "A", "h_idx": 0, "t_idx": 1, "r": "p"}
    assert evaluate([row | {"score": None}, row | {"score": np.float32(1)}], DOCS)["n_correct"] == 1
    with pytest.raises(SegDREError, match="'score' must be a finite number"):
        evaluate([row | {"score": score}], DOCS)
    with pytest.raises(SegDREError, match="a prediction has no 'score'"):
        curve_of([row], DOCS)


@given(st.lists(triples, max_size=12))
def test_a_relation_alone_scores_the_same(rows):
    found = by_relation(rows, DOCS, DOCS[:1])
    assert found.keys() == {"p", "q", "s"} | {row["r"] for row in rows}
    for relation, scores in found.items():
        own = [doc | {"labels": [label for label in doc["labels"] if label["r"] == relation]} for doc in DOCS]
        assert scores.pop("n_train") == sum(len(doc["labels"]) for doc in own[:1])
        if scores["n_gold"]:
            alone = evaluate([row for row in rows if row["r"] == relation], own)
            assert scores == {name: alone[name] for name in scores}
        else:
            assert scores["f1"] == 0 < scores["n_predicted"]
    assert "n_train" not in by_relation(rows, DOCS)["p"]


def test_buckets_by_hand():
    relations = {
        name: {"f1": f1, "n_correct": c, "n_predicted": p, "n_gold": g, "n_train": n}
        for name, f1, c, p, g, n in (
            ("a", 0.5, 2, 4, 4, 500),
            ("b", 0.25, 1, 4, 4, 499),
            ("c", 1.0, 2, 2, 2, 100),
            ("d", 0.0, 0, 3, 0, 0),  # predicted, never gold: no relation that counts for macro F1
        )
    }
    found = by_frequency(relations)
    assert FREQUENCIES == (500, 100, 1, 0)
    assert [*found] == ["all", "500 or more", "100 to 499", "0"]
    counts = {"n_relations": 2, "n_correct": 3, "n_predicted": 6, "n_gold": 6}
    assert found["100 to 499"] == {"f1": 0.5, "macro_f1": 0.625} | counts
    assert found["0"] == {"f1": 0.0, "macro_f1": 0.0, "n_relations": 0, "n_correct": 0, "n_predicted": 3, "n_gold": 0}
    assert found["all"]["f1"] == pytest.approx(2 * 5 / (13 + 10))
    assert found["all"]["macro_f1"] == pytest.approx(1.75 / 3)
    assert found["500 or more"]["macro_f1"] == 0.5
    assert by_frequency({}) == {}


@given(st.lists(triples, max_size=12))
def test_buckets_add_up(rows):
    found = by_frequency(by_relation(rows, DOCS, DOCS))
    whole, scores = found.pop("all"), evaluate(rows, DOCS)
    for name in ("f1", "n_correct", "n_predicted", "n_gold"):
        assert whole[name] == scores[name]
    for name in ("n_relations", "n_correct", "n_predicted", "n_gold"):
        assert whole[name] == sum(bucket[name] for bucket in found.values())

"""Kinds of mistakes: by hand, and shares that add up whatever is predicted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin.analysis.comparison import mistakes
from segdre_plugin.metrics import evaluate

N, RELATIONS = 4, ("P1", "P2")
triples = st.sets(
    st.tuples(st.integers(0, N - 1), st.integers(0, N - 1), st.sampled_from(RELATIONS)).filter(lambda t: t[0] != t[1])
)


def document(gold, title="A"):
    entities = [[{"name": f"e{i}", "sent_id": 0, "pos": [i, i + 1]}] for i in range(N)]
    return {"title": title, "vertexSet": entities, "labels": [{"h": h, "t": t, "r": r} for h, t, r in sorted(gold)]}


def predict(found, title="A"):
    return [{"title": title, "h_idx": h, "t_idx": t, "r": r} for h, t, r in sorted(found)]


def test_each_kind_by_hand():
    gold = {(0, 1, "P1"), (1, 2, "P2"), (2, 3, "P1"), (3, 0, "P1")}
    found = {
        (0, 1, "P1"),  # right
        (2, 1, "P2"),  # other direction, and (1, 2) stays without prediction
        (2, 3, "P2"),  # other relation, so (2, 3, P1) is missed beside it
        (3, 1, "P1"),  # a pair without gold
        (0, 2, "P1"),  # another one
    }
    assert mistakes(predict(found), [document(gold)]) == pytest.approx(
        {
            "wrong_direction": 1 / 5,
            "wrong_relation": 1 / 5,
            "wrong_pair": 2 / 5,
            "missed_relation": 1 / 4,
            "missed_pair": 2 / 4,
        }
    )


def test_direction_goes_before_relation():
    gold = {(0, 1, "P1"), (1, 0, "P2")}
    found = mistakes(predict({(0, 1, "P2")}), [document(gold)])
    assert (found["wrong_direction"], found["wrong_relation"]) == (1, 0)


def test_titles_keep_documents_apart():
    documents = [document({(0, 1, "P1")}), document({(1, 2, "P1")}, "B")]
    found = mistakes(predict({(0, 1, "P1")}, "B"), documents)
    assert (found["wrong_pair"], found["missed_pair"]) == (1, 1)


def test_nothing_predicted():
    assert mistakes([], [document({(0, 1, "P1")})]) == {
        "wrong_direction": 0,
        "wrong_relation": 0,
        "wrong_pair": 0,
        "missed_relation": 0,
        "missed_pair": 1,
    }


@given(triples.filter(bool), triples.filter(bool))
def test_shares_add_up(gold, found):
    documents, predictions = [document(gold)], predict(found)
    kinds, scores = mistakes(predictions, documents), evaluate(predictions, documents)
    wrong = sum(value for name, value in kinds.items() if name.startswith("wrong"))
    missed = sum(value for name, value in kinds.items() if name.startswith("missed"))
    assert scores["precision"] + wrong == pytest.approx(1)
    assert scores["recall"] + missed == pytest.approx(1)

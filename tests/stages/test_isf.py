"""Inference-stage fusion: pseudo-documents, the sum of margins and tau, against slow loops (eq. 11)."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin import SegDREError
from segdre_plugin.stages.isf import PENALTY, add_margins, best_cut, pseudo_documents, pseudo_features, strongest
from segdre_plugin.stages.margins import Margins

CLS, SEP = 101, 102
# Four sentences of 4, 3, 5 and 2 tokens; the token at place i is 200 + i.
SENTENCES = [(0, 4), (4, 7), (7, 12), (12, 14)]
ENTITIES = [[(0, 2), (8, 10)], [(5, 7)], [(7, 8), (12, 14)], [(2, 4)]]  # mentions in sentences 0 2, 1, 2 3, 0


def feature(**changes):
    pairs = [[h, t] for h in range(4) for t in range(4) if h != t]
    return {
        "input_ids": [CLS, *range(200, 214), SEP],
        "entity_pos": ENTITIES,
        "sent_pos": SENTENCES,
        "hts": pairs,
        "labels": [[1, 0, 0] for _ in pairs],
        "sent_labels": [[0] * 4 for _ in pairs],
        "title": "four sentences",
    } | changes


def test_pseudo_document_of_two_sentences():
    (one,) = pseudo_documents(feature(), [(0, 1, [1, 2])])
    assert one["input_ids"] == [CLS, 204, 205, 206, 207, 208, 209, 210, 211, SEP]
    assert one["sent_pos"] == [(0, 3), (3, 8)]
    assert one["entity_map"] == {0: 0, 1: 1, 2: 2}  # the fourth entity has no mention in them
    assert one["entity_pos"] == [[(4, 6)], [(1, 3)], [(3, 4)]]
    assert one["hts"] == [[0, 1], [0, 2], [1, 0], [1, 2], [2, 0], [2, 1]]
    assert one["labels"] == [[0, 0, 0]] * 6
    assert one["sent_labels"] is None


def test_tokens_of_every_mention_and_sentence_are_those_of_the_document():
    whole = feature()
    for one in pseudo_documents(whole, [(0, 3, [2]), (2, 1, [0]), (3, 0, [3, 1])]):
        old = [one["entity_map"][e] for e in range(len(one["entity_pos"]))]
        for entity, mentions in zip(old, one["entity_pos"], strict=True):
            texts = [whole["input_ids"][s + 1 : e + 1] for s, e in ENTITIES[entity]]
            assert all(one["input_ids"][s + 1 : e + 1] in texts for s, e in mentions)
        lengths = [e - s for s, e in one["sent_pos"]]
        assert sum(lengths) == len(one["input_ids"]) - 2
        starts = [one["input_ids"][s + 1] - 200 for s, _ in one["sent_pos"]]
        assert [(s, s + n) for s, n in zip(starts, lengths, strict=True)] == [
            span for span in SENTENCES if span[0] in starts
        ]


GROUPS = {
    "evidence has both": ((0, 1, [0, 1]), [[0, 1]]),
    "no head: its first mention joins": ((0, 1, [1]), [[0, 1]]),
    "no tail": ((0, 2, [0]), [[0, 2]]),
    "neither": ((1, 3, [3]), [[0, 1, 3]]),
    "no evidence": ((0, 1, []), []),
    "a sentence that is not there": ((0, 1, [9]), []),
}


@pytest.mark.parametrize("name", GROUPS)
def test_groups_of_sentences(name):
    prediction, due = GROUPS[name]
    found = [[SENTENCES.index((t, t + e - s)) for t, (s, e) in starts(one)] for one in pseudo(prediction)]
    assert found == due


def pseudo(*predictions):
    return pseudo_documents(feature(), predictions)


def starts(one):
    return [(one["input_ids"][s + 1] - 200, (s, e)) for s, e in one["sent_pos"]]


def test_each_group_once():
    assert len(pseudo((0, 1, [0, 1]), (1, 0, [1]), (3, 1, [0, 1]), (0, 1, [2]))) == 2


def test_a_document_that_was_cut_off():
    """Tokens from the ninth on are gone: so are the mentions there, and their sentences are shorter."""
    cut = feature(input_ids=[CLS, *range(200, 209), SEP])
    (one,) = pseudo_documents(cut, [(2, 0, [2, 3])])
    assert one["input_ids"] == [CLS, 207, 208, SEP]
    assert one["sent_pos"] == [(0, 2), (2, 2)]
    assert one["entity_map"] == {0: 0, 1: 2}
    assert one["entity_pos"] == [[(1, 3)], [(0, 1)]]


def test_gold_does_not_matter():
    others = feature(labels=[[0, 1, 1]] * 12, sent_labels=[[1] * 4] * 12)
    assert pseudo_documents(others, [(0, 1, [2])]) == pseudo((0, 1, [2]))


def table(cells, evidence=None):
    columns = np.array([cell[:4] for cell in cells], dtype=np.int64).reshape(-1, 4).T
    margins = np.array([cell[4] for cell in cells], dtype=np.float64)
    rows = np.zeros((len(cells), 0), dtype=bool) if evidence is None else np.array(evidence, dtype=bool)
    return Margins(*columns, margins, rows)


def test_pseudo_features_go_with_their_documents():
    predicted = table(
        [(0, 0, 1, 1, 0.5), (2, 0, 1, 1, 0.5), (2, 3, 0, 2, 0.1)],
        [[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0]],
    )
    made, places = pseudo_features([feature(), feature(), feature()], predicted)
    assert places == [0, 2, 2]
    assert made[0]["sent_pos"] == [(0, 4), (4, 7)]
    assert len(pseudo_features([feature()], predicted.take(np.zeros(3, dtype=bool)))[0]) == 0


def test_sum_of_margins_against_a_loop():
    rng = random.Random(4)
    cells = [(d, h, t, r) for d in range(3) for h in range(3) for t in range(3) for r in (1, 2) if h != t]
    first = {cell: rng.gauss(0, 3) for cell in rng.sample(cells, 20)}
    second = [(*cell, rng.gauss(0, 3)) for cell in rng.choices(cells, k=30)]
    best = {}
    for *cell, margin in second:
        best[tuple(cell)] = max(margin, best.get(tuple(cell), -np.inf))
    evidence = [[h == 0, t == 0] for _, h, t, _ in first]
    found = add_margins(table([(*cell, m) for cell, m in first.items()], evidence), table(second), 4)
    due = {cell: first.get(cell, PENALTY) + best.get(cell, PENALTY) for cell in first.keys() | best.keys()}
    keys = list(zip(*(getattr(found, n).tolist() for n in ("document", "head", "tail", "relation")), strict=True))
    assert dict(zip(keys, found.margin.tolist(), strict=True)) == pytest.approx(due)
    assert len(keys) == len(due)
    pairs = {cell[:3] for cell in first}
    for cell, sentences in zip(keys, found.evidence.tolist(), strict=True):  # by pair, from the document itself
        assert sentences == ([cell[1] == 0, cell[2] == 0] if cell[:3] in pairs else [False, False])
    assert len(strongest(table(second), 4)) == len(best)


def test_without_pseudo_documents_every_cell_gets_the_penalty():
    found = add_margins(table([(0, 0, 1, 1, 2.5)]), table([]), 3)
    assert found.margin.tolist() == [2.5 + PENALTY]


def f1(sums, gold, n_gold, tau):
    kept = [g for s, g in zip(sums, gold, strict=True) if s > tau]
    return 2 * sum(kept) / (len(kept) + n_gold)


@given(
    st.lists(st.tuples(st.floats(-30, 30) | st.integers(-3, 3).map(float), st.booleans()), min_size=1, max_size=25),
    st.integers(0, 5),
)
def test_cut_is_the_best_of_all(cells, missed):
    sums, gold = zip(*cells, strict=True)
    n_gold = max(1, sum(gold) + missed)
    tau = best_cut(sums, gold, n_gold)
    cuts = [-np.inf, *sums, np.inf]
    assert f1(sums, gold, n_gold, tau) == max(f1(sums, gold, n_gold, cut) for cut in cuts)


def test_cut_lies_midway_and_near_zero():
    assert best_cut([3.0, 1.0, -4.0], [True, True, False], 2) == -1.5
    assert best_cut([3.0, -1.0], [False, False], 1) == 1.0  # all cuts are equally bad
    assert best_cut([1.0, 1.0 + 2**-40], [False, True], 1) == 1.0  # too near for a rounded number between them


def test_nothing_to_tune_on():
    with pytest.raises(SegDREError, match="no tau can be tuned on 0 cells"):
        best_cut([], [], 3)
    with pytest.raises(SegDREError, match="0 gold triples"):
        best_cut([1.0], [False], 0)

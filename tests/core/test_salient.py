"""Salient entities against brute force, by hand, and on real documents."""

import json

import numpy as np
import pytest
from hypothesis import given
from made_documents import document, documents, scored_pairs

from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import (
    dense_mask,
    entity_counts,
    gold_chain,
    gold_salient,
    relation_counts,
    saliency,
    select_salient,
)


class TestGold:
    def test_by_hand(self):
        doc = document([1, 1, 1], [(0, 1, "p"), (0, 1, "p"), (1, 0, "p"), (1, 2, "q")])
        assert relation_counts(doc).tolist() == [2, 3, 1]
        assert gold_salient(doc) == 1

    def test_ties(self):
        assert gold_salient(document([1, 2, 2], [(0, 1, "p"), (1, 2, "p"), (2, 0, "p")])) == 1
        assert gold_salient(document([1, 1], [(1, 0, "p")])) == 0

    def test_no_triple(self):
        doc = document([1, 4], [])
        assert gold_salient(doc) is None
        del doc["labels"]
        assert gold_salient(doc) is None
        assert relation_counts(doc).tolist() == [0, 0]

    @given(documents())
    def test_brute_force(self, doc):
        triples = {(x["h"], x["t"], x["r"]) for x in doc["labels"]}
        n = len(doc["vertexSet"])
        due = [sum(1 for h, t, _ in triples if e in (h, t)) for e in range(n)]
        assert relation_counts(doc).tolist() == due
        best = None
        for e in range(n):
            key = (due[e], len(doc["vertexSet"][e]))
            if due[e] and (best is None or key > best[0]):
                best = (key, e)
        assert gold_salient(doc) == (best and best[1])

    @pytest.mark.parametrize(
        ("doc", "message"),
        [
            ({"title": "A", "labels": []}, "vertexSet"),
            (document([1], [(0, 1, "p")], title="B"), "'B', label 0: no pair .*has 1 entities"),
            ({**document([1], []), "labels": [{"h": 0, "t": 0}]}, "lacks"),
        ],
    )
    def test_errors(self, doc, message):
        with pytest.raises(SegDREError, match=message):
            gold_salient(doc)


class TestSelect:
    @given(scored_pairs())
    def test_brute_force(self, case):
        counts, pairs, n = case
        due = [sum(c for c, p in zip(counts, pairs, strict=True) if e in p) for e in range(n)]
        assert entity_counts(counts, pairs, n).tolist() == due
        assert select_salient(counts, pairs, n) == due.index(max(due))

    def test_head_only_differs(self):
        # negative control: an aggregate over heads alone chooses another entity
        counts, pairs = [1.0, 2.0, 2.0], [(0, 1), (1, 2), (0, 2)]
        assert np.bincount([0, 1, 0], counts).argmax() == 0
        assert select_salient(counts, pairs, 3) == 2

    def test_no_pairs(self):
        assert select_salient([], [], 1) == 0
        assert select_salient(np.zeros(0), np.zeros((0, 2), dtype=int), 3) == 0

    @pytest.mark.parametrize(
        ("counts", "pairs", "n", "message"),
        [
            ([], [], 0, "n_entities=0"),
            ([1.0], [(0, 1), (1, 0)], 2, "one count for each pair"),
            ([1.0], [(0, 2)], 2, "does not exist"),
            ([1.0], [(-1, 0)], 2, "does not exist"),
            ([float("nan")], [(0, 1)], 2, "nan"),
            ([1.0], [(0.0, 1.0)], 2, "integers"),
            ([1.0], [(0, 1, 2)], 3, "integers"),
        ],
    )
    def test_errors(self, counts, pairs, n, message):
        with pytest.raises(SegDREError, match=message):
            select_salient(counts, pairs, n)


class TestSaliency:
    docs = (
        document([1, 1, 1], [(0, 1, "p"), (0, 2, "p")]),  # counts 2, 1, 1
        document([1, 1], []),
        document([1, 1, 1], [(2, 1, "p"), (2, 0, "p"), (0, 2, "p"), (2, 0, "q")]),  # counts 3, 1, 4
    )

    def test_by_hand(self):
        assert saliency(self.docs, [0, 1, 2]) == {"accuracy": 1, "saliency": 1, "saliency_micro": 1, "documents": 2}
        assert saliency(self.docs, [1, None, 2]) == {
            "accuracy": 0.5,
            "saliency": 0.75,
            "saliency_micro": pytest.approx(5 / 6),
            "documents": 2,
        }
        assert saliency(self.docs, [None, None, 0])["saliency"] == pytest.approx(0.375)

    def test_chains_of_one_are_as_single_entities(self):
        assert saliency(self.docs, [[1], (), (2,)]) == saliency(self.docs, [1, None, 2])

    def test_chains(self):
        # 2 covers the four triples of the third document alone; of the first, 0 covers both, 1 or 2 one each
        found = saliency(self.docs, [(1, 2), (), (0, 1)], k=2)
        assert found["accuracy"] == 0
        assert found["saliency"] == pytest.approx((1 + 1) / 2)
        assert saliency(self.docs, [(1,), (), (1,)], k=2)["saliency"] == pytest.approx((0.5 + 0.25) / 2)
        assert saliency(self.docs, [gold_chain(d, 2) for d in self.docs], k=2)["accuracy"] == 1

    def test_a_chain_can_cover_more_than_the_greedy_one(self):
        # 0 takes four triples and leaves 1 and 2 one each; 1 and 2 together take all six
        triples = [(0, 1, "p"), (0, 1, "q"), (0, 2, "p"), (0, 2, "q"), (1, 3, "p"), (2, 4, "p")]
        doc = document([1] * 5, triples)
        assert gold_chain(doc, 2) == [0, 1]
        assert saliency([doc], [(1, 2)], k=2) == {
            "accuracy": 0,
            "saliency": pytest.approx(6 / 5),
            "saliency_micro": pytest.approx(6 / 5),
            "documents": 1,
        }

    def test_errors(self):
        with pytest.raises(SegDREError, match=r"'doc': 2 salient entities where k is 1\n.*pass k=2"):
            saliency(self.docs, [(0, 1), (), ()])
        with pytest.raises(SegDREError, match="one salient entity"):
            saliency(self.docs, [0])
        with pytest.raises(SegDREError, match="does not exist"):
            saliency(self.docs, [0, 2, 0])
        with pytest.raises(SegDREError, match="no gold"):
            saliency(self.docs[1:2], [0])


def test_dense_mask():
    pairs = [(0, 1), (1, 2), (2, 0), (2, 1)]
    assert dense_mask(pairs, 0).tolist() == [True, False, True, False]
    assert not dense_mask(pairs, None).any()
    assert dense_mask([], 0).shape == (0,)
    assert dense_mask(pairs, [0]).tolist() == dense_mask(pairs, 0).tolist()
    assert dense_mask(pairs, (0, 2)).all()
    assert not dense_mask(pairs, ()).any()
    assert dense_mask([], (0, 1)).shape == (0,)
    with pytest.raises(SegDREError, match="integers"):
        dense_mask([0, 1, 2], 0)


@pytest.mark.slow
def test_redocred(redocred):
    docs = json.loads((redocred / "train.json").read_text(encoding="utf-8"))
    gold = [gold_salient(doc) for doc in docs]
    assert sum(entity is not None for entity in gold) == 499  # one document has no triple
    report = saliency(docs, gold)
    assert report == {"accuracy": 1, "saliency": 1, "saliency_micro": 1, "documents": 499}
    # the paper's 54.09 % (Table 6) names no split; dev alone gives this
    share = np.mean(
        [relation_counts(d)[e] / len(d["labels"]) for d, e in zip(docs, gold, strict=True) if e is not None]
    )
    assert share == pytest.approx(0.507, abs=0.001)
    for doc, entity in zip(docs[:50], gold, strict=False):
        n = len(doc["vertexSet"])
        pairs = [(h, t) for h in range(n) for t in range(n) if h != t]
        assert dense_mask(pairs, entity).sum() == 2 * (n - 1)
        counts = [sum((x["h"], x["t"]) == pair for x in doc["labels"]) for pair in pairs]
        assert entity_counts(counts, pairs, n).tolist() == relation_counts(doc).tolist()

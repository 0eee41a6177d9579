"""Chains of salient entities against brute force and by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_documents import document, documents, scored_pairs

from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import as_chain, gold_chain, gold_salient, relation_counts, select_chain, select_salient


def covered(doc, chain):
    """Count the distinct triples that involve an entity of the chain."""
    return len({(x["h"], x["t"], x["r"]) for x in doc["labels"] if {x["h"], x["t"]} & set(chain)})


class TestChain:
    def test_by_hand(self):
        # 1 and 3 cover three triples: the lower index; of the three left 2, 3 and 4 cover two each: 4 is mentioned more
        doc = document([1, 1, 1, 1, 2], [(0, 1, "p"), (1, 0, "p"), (1, 3, "q"), (3, 2, "p"), (3, 4, "p"), (4, 2, "p")])
        assert gold_chain(doc) == [1, 4, 2]  # 2 and 3 cover the last one
        assert [gold_chain(doc, k) for k in (1, 2, 9)] == [[1], [1, 4], [1, 4, 2]]
        assert gold_chain(document([1, 4], [])) == []

    def test_what_is_covered_counts_no_more(self):
        # negative control: 1 has the second largest count of all, but every triple of it is covered by 0
        doc = document([1, 1, 1, 1], [(0, 1, "p"), (0, 1, "q"), (1, 0, "p"), (2, 3, "p")])
        assert np.argsort(-relation_counts(doc), kind="stable")[:2].tolist() == [0, 1]
        assert gold_chain(doc, 2) == [0, 2]
        assert select_chain([2.0, 1.0, 1.0], [(0, 1), (1, 0), (2, 3)], 4, 2) == [0, 2]

    @given(documents(), st.integers(1, 5))
    def test_brute_force(self, doc, k):
        chain = gold_chain(doc, k)
        n = range(len(doc["vertexSet"]))
        for i, entity in enumerate(chain):
            gain = {e: covered(doc, [*chain[:i], e]) - covered(doc, chain[:i]) for e in n}
            best = [e for e in n if gain[e] == max(gain.values())]
            most = max(len(doc["vertexSet"][e]) for e in best)
            assert entity == next(e for e in best if len(doc["vertexSet"][e]) == most)
            assert gain[entity] > 0
        assert len(chain) == k or covered(doc, chain) == covered(doc, n)
        assert chain[:1] == [e for e in [gold_salient(doc)] if e is not None]
        assert gold_chain(doc)[:k] == chain

    @given(documents(), st.integers(1, 5))
    def test_predicted_with_the_gold_counts_is_gold(self, doc, k):
        n = len(doc["vertexSet"])
        for mentions in doc["vertexSet"]:
            del mentions[1:]  # ties are broken by the index alone
        triples = sorted({(x["h"], x["t"], x["r"]) for x in doc["labels"]})
        pairs = sorted({(h, t) for h, t, _ in triples})
        counts = [sum((h, t) == pair for h, t, _ in triples) for pair in pairs]
        chain = select_chain(counts, pairs, n, k)
        assert chain == (gold_chain(doc, k) or [0])
        assert chain[0] == select_salient(counts, pairs, n)

    @given(scored_pairs(), st.integers(1, 6))
    def test_select_brute_force(self, case, k):
        counts, pairs, n = case
        chain = select_chain(counts, pairs, n, k)
        assert len(set(chain)) == len(chain)
        for i, entity in enumerate(chain):
            left = [(c, p) for c, p in zip(counts, pairs, strict=True) if not set(p) & set(chain[:i])]
            due = [sum(c for c, p in left if e in p) for e in range(n)]
            assert entity == due.index(max(due))
        assert len(chain) == k or all(c == 0 or set(p) & set(chain) for c, p in zip(counts, pairs, strict=True))

    def test_counts_below_zero(self):
        # a linear head may expect less than nothing: the best is chosen, and nothing that would make it worse
        assert select_chain([-1.0, -3.0], [(0, 1), (2, 1)], 4, 3) == [3]
        assert select_chain([2.0, -3.0], [(0, 1), (2, 3)], 4, 3) == [0]

    def test_counts_are_left_as_they_are(self):
        counts = np.array([2.0, 1.0])
        assert select_chain(counts, [(0, 1), (2, 3)], 4, 2) == [0, 2]
        assert counts.tolist() == [2, 1]

    @pytest.mark.parametrize("k", [0, -1])
    def test_refuses(self, k):
        with pytest.raises(SegDREError, match=f"got k={k}"):
            select_chain([1.0], [(0, 1)], 2, k)


@pytest.mark.parametrize(
    ("salient", "chain"),
    [(None, ()), (3, (3,)), (np.int64(3), (3,)), ([2, 0], (2, 0)), ((), ()), (np.array([1]), (1,))],
)
def test_as_chain(salient, chain):
    assert as_chain(salient) == chain
    assert all(type(entity) is int for entity in as_chain(salient))


@pytest.mark.parametrize("salient", ["12", [1.0], [None], [[1]]])
def test_as_chain_refuses(salient):
    with pytest.raises(SegDREError, match="salient entities are indices"):
        as_chain(salient)

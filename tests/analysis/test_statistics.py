"""Statistics against slow re-computations, by hand, and the paper's numbers on real documents."""

import json
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin.analysis.evaluate import load_gold
from segdre_plugin.analysis.statistics.coverage import (
    CRITERIA,
    Coverage,
    chain_coverage,
    coverage,
    max_intra_relation,
    max_mention,
    max_relation,
)
from segdre_plugin.analysis.statistics.measure import RelationClass, describe, sort_relations
from segdre_plugin.analysis.statistics.table import as_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import gold_chain, gold_salient

# what the paper says of Re-DocRED's dev split in Table 1
PAPER = {"entities": 19.4, "pairs": 386.5, "triples": 34.6, "sentences": 8.2, "relations": 10.0}


def document(sentences, triples, title="doc"):
    """Entity e has one mention in each of sentences[e]."""
    n_sentences = 1 + max((s for ids in sentences for s in ids), default=0)
    return {
        "title": title,
        "sents": [["word"]] * n_sentences,
        "vertexSet": [
            [{"name": f"e{e}", "sent_id": s, "pos": [0, 1], "type": "MISC"} for s in ids]
            for e, ids in enumerate(sentences)
        ],
        "labels": [{"h": h, "t": t, "r": r, "evidence": []} for h, t, r in triples],
    }


@st.composite
def documents(draw, min_triples=0):
    sentences = draw(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=2, max_size=6))
    entity = st.integers(0, len(sentences) - 1)
    triple = st.tuples(entity, entity, st.sampled_from("pqr")).filter(lambda x: x[0] != x[1])
    return document(sentences, draw(st.lists(triple, min_size=min_triples, max_size=12)))


def edges(doc):
    return {(x["h"], x["t"], x["r"]) for x in doc["labels"]}


def walk(doc, start, hops):
    """Triples on walks of at most ``hops`` triples from an entity, by following them one after the other."""
    seen, ends = set(), [start]
    for _ in range(hops):
        steps = [(triple, end) for end in ends for triple in edges(doc) if end in triple[:2]]
        seen |= {triple for triple, _ in steps}
        ends = [triple[1] if triple[0] == end else triple[0] for triple, end in steps]
    return seen


def first_best(doc, scores):
    best = 0
    for e in range(1, len(scores)):
        if (scores[e], len(doc["vertexSet"][e])) > (scores[best], len(doc["vertexSet"][best])):
            best = e
    return best


class TestCriteria:
    # most triples: 0; most intra triples: 1; most mentions: 2
    doc = document(
        [[0], [1], [2, 3, 4], [1], [1], [5], [6]],
        [(0, 2, "p"), (0, 5, "p"), (6, 0, "p"), (0, 6, "q"), (1, 3, "p"), (4, 1, "p"), (1, 0, "p")],
    )

    def test_by_hand(self):
        assert (max_relation(self.doc), max_intra_relation(self.doc), max_mention(self.doc)) == (0, 1, 2)

    def test_ties_go_to_mentions_then_to_the_lower_index(self):
        doc = document([[0], [1, 1], [0, 0]], [(0, 1, "p"), (1, 2, "p"), (2, 0, "p")])
        assert {name: choose(doc) for name, choose in CRITERIA.items()} == {
            "Max Relation": 1,
            "Max Intra-relation": 2,
            "Max Mention": 1,
        }

    def test_without_intra_triple_mentions_decide(self):
        assert max_intra_relation(document([[0], [1], [2, 3]], [(0, 1, "p"), (1, 2, "p")])) == 2

    @given(documents())
    def test_brute_force(self, doc):
        n = len(doc["vertexSet"])
        places = [{m["sent_id"] for m in mentions} for mentions in doc["vertexSet"]]
        related = [sum(e in x[:2] for x in edges(doc)) for e in range(n)]
        intra = [sum(e in x[:2] and bool(places[x[0]] & places[x[1]]) for x in edges(doc)) for e in range(n)]
        assert max_relation(doc) == first_best(doc, related)
        assert max_intra_relation(doc) == first_best(doc, intra)
        assert max_mention(doc) == first_best(doc, [0] * n)
        if edges(doc):
            assert max_relation(doc) == gold_salient(doc)


class TestCoverage:
    def test_by_hand(self):
        # a path 0 - 1 - 2 - 3 - 4 with directions that change, and 1 - 2 twice
        doc = document([[0]] * 5, [(0, 1, "p"), (2, 1, "p"), (1, 2, "q"), (2, 3, "p"), (4, 3, "p")])
        assert coverage(doc, 0) == Coverage(1 / 5, 3 / 5)
        assert coverage(doc, 1) == Coverage(3 / 5, 4 / 5)
        assert coverage(doc, 2) == Coverage(3 / 5, 1)

    def test_both_ends_near_would_give_another(self):
        # negative control: with both ends among an entity and its neighbours, 1 - 2 alone would join 0 - 1
        doc = document([[0]] * 3, [(0, 1, "p"), (1, 2, "p")])
        near = {0, 1}
        assert sum({h, t} <= near for h, t, _ in edges(doc)) / 2 == 0.5
        assert coverage(doc, 0).hop_2 == 1

    def test_an_entity_without_triples_covers_nothing(self):
        assert coverage(document([[0]] * 3, [(0, 1, "p")]), 2) == Coverage(0, 0)

    @given(documents(min_triples=1), st.integers(0, 5))
    def test_brute_force(self, doc, entity):
        entity %= len(doc["vertexSet"])
        found = coverage(doc, entity)
        n = len(edges(doc))
        assert (found.hop_1, found.hop_2) == (len(walk(doc, entity, 1)) / n, len(walk(doc, entity, 2)) / n)
        assert 0 <= found.hop_1 <= found.hop_2 <= 1
        assert coverage(doc, max_relation(doc)).hop_1 >= found.hop_1


class TestChain:
    @given(documents())
    def test_covers_every_triple_exactly_once(self, doc):
        chain, counts = gold_chain(doc), chain_coverage(doc)
        left = edges(doc)
        for entity, count in zip(chain, counts, strict=True):
            covered = {triple for triple in left if entity in triple[:2]}
            assert count == len(covered) > 0
            left -= covered
        assert not left
        assert counts == sorted(counts, reverse=True)
        assert len(set(chain)) == len(chain)
        assert chain[:1] == ([] if gold_salient(doc) is None else [gold_salient(doc)])


class TestDescribe:
    docs = (
        document([[0], [0, 1], [2]], [(0, 1, "p"), (1, 2, "p"), (1, 2, "p"), (0, 2, "q")], "A"),
        document([[0], [3]], [], "B"),
        document([[0], [0], [1], [1]], [(0, 1, "p"), (2, 3, "q")], "C"),
    )

    def test_by_hand(self):
        found = describe(self.docs)
        assert (found.documents, found.entities, found.pairs, found.sentences) == (
            3,
            3,
            pytest.approx((6 + 2 + 12) / 3),
            3,
        )
        labels = found.labels
        assert labels.without_triple == 1
        assert labels.triples == pytest.approx(5 / 3)
        assert labels.relations == pytest.approx(4 / 3)
        assert labels.salient_share == pytest.approx(3 / 5)  # entity 1 of A, entity 0 of C
        assert labels.classes == (RelationClass("p", 3, 0), RelationClass("q", 0, 2))
        assert labels.chain == (3, 2)
        assert labels.chain_log_ratios == (0, pytest.approx(math.log(2 / 3)))
        assert labels.coverage["Max Relation"] == Coverage(pytest.approx((2 / 3 + 1 / 2) / 2), pytest.approx(3 / 4))

    def test_without_labels_nothing_is_said_of_them(self):
        bare = [{key: value for key, value in doc.items() if key != "labels"} for doc in self.docs]
        found = describe(bare)
        assert found.labels is None
        assert (found.documents, found.entities, found.sentences) == (3, 3, 3)
        assert describe([doc | {"labels": None} for doc in bare]) == found

    def test_no_document(self):
        with pytest.raises(SegDREError, match=r"x\.json: expected documents, got none"):
            describe([], "x.json")

    @given(st.lists(documents(), min_size=1, max_size=5))
    def test_brute_force(self, docs):
        found = describe(iter(docs))
        pairs = [(i, j) for d in docs for i in range(len(d["vertexSet"])) for j in range(len(d["vertexSet"])) if i != j]
        assert found.pairs == pytest.approx(len(pairs) / len(docs))
        related = [doc for doc in docs if edges(doc)]
        if not related:
            assert found.labels is None
            return
        labels = found.labels
        triples = [(triple, gold_salient(doc) in triple[:2]) for doc in related for triple in edges(doc)]
        dense = Counter(r for (_, _, r), is_dense in triples if is_dense)
        sparse = Counter(r for (_, _, r), is_dense in triples if not is_dense)
        assert (
            labels.classes
            == tuple(
                RelationClass(r, dense[r], sparse[r]) for r in sorted("pqr", key=lambda r: (-dense[r] - sparse[r], r))
            )[: len(labels.classes)]
        )
        assert len(labels.classes) == len({r for (_, _, r), _ in triples})
        assert labels.salient_share == pytest.approx(len([x for x in triples if x[1]]) / len(triples))
        assert labels.salient_share == pytest.approx(labels.chain[0] / sum(labels.chain))
        assert sum(labels.chain) == len(triples)
        assert labels.without_triple == len(docs) - len(related)
        for name, choose in CRITERIA.items():
            for hops, share in ((1, labels.coverage[name].hop_1), (2, labels.coverage[name].hop_2)):
                shares = [len(walk(doc, choose(doc), hops)) / len(edges(doc)) for doc in related]
                assert share == pytest.approx(sum(shares) / len(shares))
            assert labels.coverage[name].hop_1 <= labels.coverage["Max Relation"].hop_1 + 1e-12


def test_json_has_the_logarithms_and_names():
    labels = as_json(describe(TestDescribe.docs), {"p": "part of", "q": "capital"})["labels"]
    assert labels["classes"] == [
        {"relation": "p", "dense": 3, "sparse": 0, "log_dense": math.log10(3), "log_sparse": None, "name": "part of"},
        {"relation": "q", "dense": 0, "sparse": 2, "log_dense": None, "log_sparse": math.log10(2), "name": "capital"},
    ]
    assert labels["chain"] == [{"covered": 3, "log_ratio": 0}, {"covered": 2, "log_ratio": pytest.approx(-0.405465)}]
    assert "name" not in as_json(describe(TestDescribe.docs), {})["labels"]["classes"][0]


def test_relations_of_several_files_are_sorted_together():
    first = describe(TestDescribe.docs).labels  # p 3, q 2
    second = describe([document([[0], [0]], [(0, 1, "q"), (1, 0, "q"), (0, 1, "a"), (1, 0, "a")])]).labels
    assert sort_relations([first, second]) == ["q", "p", "a"]


@pytest.fixture(scope="module")
def found(redocred):
    return describe(load_gold(redocred / "train.json"))


@pytest.mark.slow
class TestRealDocuments:
    def test_table_1(self, found):
        labels = found.labels
        ours = {
            "entities": found.entities,
            "pairs": found.pairs,
            "triples": labels.triples,
            "sentences": found.sentences,
            "relations": labels.relations,
        }
        assert {name: round(value, 1) for name, value in ours.items()} == PAPER
        assert (found.documents, labels.without_triple) == (500, 1)

    def test_table_6(self, found):
        ours = {
            name: (round(100 * near.hop_1, 2), round(100 * near.hop_2, 2))
            for name, near in found.labels.coverage.items()
        }
        assert ours == {  # as in docs/statistics.md
            "Max Relation": (50.73, 91.25),
            "Max Intra-relation": (41.41, 86.98),
            "Max Mention": (27.91, 81.13),
        }

    def test_figures(self, found, redocred):
        labels = found.labels
        n_triples = sum(len(doc["labels"]) for doc in json.loads((redocred / "train.json").read_text(encoding="utf-8")))
        assert sum(labels.chain) == sum(c.dense + c.sparse for c in labels.classes) == n_triples == 17284
        assert labels.chain[:3] == (8298, 4106, 2184)
        assert len(labels.chain) == 12
        assert round(100 * labels.salient_share, 2) == 48.01
        assert len(labels.classes) == 95

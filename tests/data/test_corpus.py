"""The embedded corpus: valid DocRED files, facts that its sentences tell, and no lookup game."""

import hashlib
import importlib.util
import json
import random
import sys
from collections import Counter
from itertools import permutations

import pytest

from segdre_plugin.data.synthetic import vocabulary as words
from segdre_plugin.data.synthetic.corpus import RELATIONS, generate, rel2id, write_corpus
from segdre_plugin.data.synthetic.facts import build_world, closure, derived
from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import gold_salient, relation_counts, saliency
from segdre_plugin.stages.strategies import choose_salient, get_strategy
from segdre_plugin.vocabulary import Triple

SIZES = {
    "default": {},
    "small": {"sentences": (2, 3), "entities": (4, 5)},
    "large": {"sentences": (15, 20), "entities": (20, 30)},  # takes seconds
}


@pytest.fixture(scope="module")
def documents():
    return generate(300, seed=0)


def triples(document):
    return {Triple(label["h"], label["r"], label["t"]) for label in document["labels"]}


def two_hop_triples(document):
    """Return the labels that follow from two others."""
    known = triples(document)
    return {fact for fact, _ in derived(known)} & known


def check(document):
    """Fail if ATLOP, DREEAM or a reader of DocRED would stumble over the document."""
    assert set(document) == {"title", "sents", "vertexSet", "labels"}
    sents, n = document["sents"], len(document["vertexSet"])
    assert all(sents)
    assert all(word and word == word.strip() and " " not in word for words_ in sents for word in words_)
    names = [{mention["name"] for mention in mentions} for mentions in document["vertexSet"]]
    assert all(names)
    assert sum(map(len, names)) == len(set().union(*names))  # no name means two entities
    spans = set()
    for mentions in document["vertexSet"]:
        assert len({mention["type"] for mention in mentions}) == 1
        for mention in mentions:
            start, end = mention["pos"]
            assert mention["type"] in {"PER", "LOC", "ORG", "MISC"}
            assert 0 <= start < end <= len(sents[mention["sent_id"]])
            assert " ".join(sents[mention["sent_id"]][start:end]) == mention["name"]
            cells = {(mention["sent_id"], k) for k in range(start, end)}
            assert not cells & spans  # mentions do not overlap
            spans |= cells
    assert len(triples(document)) == len(document["labels"]) > 0
    for label in document["labels"]:
        assert label["r"] in RELATIONS
        assert label["h"] != label["t"]
        assert 0 <= min(label["h"], label["t"]) <= max(label["h"], label["t"]) < n
        assert label["evidence"] == sorted(set(label["evidence"]))
        for end in (label["h"], label["t"]):  # the evidence names both ends
            assert {m["sent_id"] for m in document["vertexSet"][end]} & set(label["evidence"])


@pytest.mark.parametrize("name", ["default", "small", pytest.param("large", marks=pytest.mark.slow)])
def test_documents_are_valid_and_of_the_size_asked_for(name):
    sizes = SIZES[name]
    documents = generate(60, seed=5, **sizes)
    for document in documents:
        check(document)
    assert len({document["title"] for document in documents}) == len(documents) == 60
    sentences, entities = sizes.get("sentences", (4, 6)), sizes.get("entities", (7, 9))
    assert all(sentences[0] <= len(document["sents"]) <= sentences[1] for document in documents)
    assert all(entities[0] <= len(document["vertexSet"]) <= entities[1] for document in documents)


DIGEST = "dc5593b3d0e9419d"  # the same in any Python: change it with the words or the generator


def test_seed_decides():
    assert generate(5, seed=1) == generate(5, seed=1) == generate(9, seed=1)[:5]
    assert generate(5, seed=1) != generate(5, seed=2)
    digest = hashlib.sha256(json.dumps(generate(20, seed=0)).encode()).hexdigest()
    assert digest[:16] == DIGEST


def test_shape_of_the_corpus(documents):
    """What makes it a small DocRED: the numbers of the brief, with room."""
    labels = [(document, label) for document in documents for label in document["labels"]]
    assert 10 <= len(RELATIONS) <= 14
    assert {label["r"] for _, label in labels} == set(RELATIONS)
    assert min(Counter(label["r"] for _, label in labels).values()) >= 20

    def sentences(document, entity):
        return {mention["sent_id"] for mention in document["vertexSet"][entity]}

    intra = sum(bool(sentences(d, label["h"]) & sentences(d, label["t"])) for d, label in labels) / len(labels)
    assert 0.6 < intra < 0.85
    two_hop = sum(len(two_hop_triples(document)) for document in documents) / len(labels)
    assert 0.25 < two_hop < 0.45
    several = [len(mentions) > 1 for document in documents for mentions in document["vertexSet"]]
    assert sum(several) / len(several) > 0.2
    shortened = [len({m["name"] for m in mentions}) > 1 for document in documents for mentions in document["vertexSet"]]
    assert sum(shortened) / len(shortened) > 0.1


def test_no_rule_finds_the_salient_entity(documents):
    """The topic holds half of the triples; neither title, place nor mentions tell which entity it is."""
    gold = [gold_salient(document) for document in documents]
    held = sum(int(relation_counts(document).max()) for document in documents)
    assert 0.4 < held / sum(len(document["labels"]) for document in documents) < 0.65
    assert sum(entity == 0 for entity in gold) / len(documents) < 0.5
    for name, most in {"edit-distance": 0.35, "max-mention": 0.8, "random": 0.2}.items():
        found = choose_salient(get_strategy(name), documents)
        assert saliency(documents, found)["accuracy"] < most, name


def test_sparse_pairs_need_the_dense_triples(documents):
    """Most sparse triples follow from two dense ones, none from others; kinds do not tell which pairs they hold for."""
    sparse = follow = 0
    holds = Counter()  # (relation, entity types) -> sparse pairs for which a relation of these types holds, or may
    for document in documents:
        facts, salient = triples(document), gold_salient(document)
        dense = {fact for fact in facts if salient in (fact.head, fact.tail)}
        own = facts - dense
        sparse += len(own)
        follow += len({fact for fact, _ in derived(dense)} & own)
        kinds = [mentions[0]["type"] for mentions in document["vertexSet"]]
        for head, tail in permutations(set(range(len(kinds))) - {salient}, 2):
            holds[kinds[head], kinds[tail], any((f.head, f.tail) == (head, tail) for f in own)] += 1
    assert 0.5 < follow / sparse < 0.8
    for head, tail in {key[:2] for key in holds}:
        assert holds[head, tail, True] < holds[head, tail, False], (head, tail)


def test_what_follows_follows_through_the_topic():
    for seed in range(40):
        world = build_world(random.Random(seed), ("band", "company", "town")[seed % 3], 12)
        proofs = {fact: proof for fact, proof in closure(world.stated()).items() if proof}
        assert all(0 in (fact.head, fact.tail, proof[0].tail) for fact, proof in proofs.items())


def test_wording_does_not_decide_alone(documents):
    """The same wording states different relations, and words between two entities do not mean a relation."""
    shared = Counter(template for wording in words.WORDINGS.values() for template in wording.shared)
    assert sum(count > 1 for count in shared.values()) >= 8
    assert all(count > 1 for count in shared.values())
    unlabelled = 0
    for document in documents:
        related = {frozenset((h, t)) for h, _, t in triples(document)}
        where = [{mention["sent_id"] for mention in mentions} for mentions in document["vertexSet"]]
        unlabelled += sum(
            bool(where[h] & where[t]) and frozenset((h, t)) not in related for h in range(len(where)) for t in range(h)
        )
    assert unlabelled > 5 * len(documents)


def test_names_of_test_documents_are_mostly_new(documents):
    def names(part):
        return {m["name"] for document in part for mentions in document["vertexSet"] for m in mentions[:1]}

    old, new = names(documents[:240]), names(documents[240:])
    assert len(new & old) < 0.15 * len(new)


def test_closure():
    album, band, town, country, label = range(5)
    stated = [(album, "P175", band), (band, "P740", town), (town, "P17", country), (band, "P264", label)]
    facts = {Triple(*fact) for fact in stated}
    known = closure(facts)
    assert {fact for fact, proof in known.items() if proof is None} == facts
    assert set(known) - facts == {(band, "P495", country), (album, "P495", country), (album, "P264", label)}
    assert known[album, "P495", country] == ((album, "P175", band), (band, "P495", country))


def test_labels_are_closed_under_the_rules_and_consistent(documents):
    for document in documents:
        facts = triples(document)
        assert set(closure(facts)) == facts
        functional = [(h, r) for h, r, _ in facts if r in words.FUNCTIONAL]
        assert len(functional) == len(set(functional))


def test_two_hop_evidence_holds_both_hops(documents):
    for document in documents[:100]:
        evidence = {(label["h"], label["r"], label["t"]): set(label["evidence"]) for label in document["labels"]}
        for head, relation, tail in two_hop_triples(document):
            proofs = [
                evidence[one] | evidence[two]
                for first, second, result in words.RULES
                for one in evidence
                for two in evidence
                if (result, one[0], two[2]) == (relation, head, tail) and (one[1], two[1]) == (first, second)
                if one[2] == two[0]
            ]
            assert evidence[head, relation, tail] in proofs


def test_every_move_has_words():
    assert {relation for relation, _, _ in words.WORDINGS} | {result for _, _, result in words.RULES} == set(RELATIONS)
    for topic in words.CORE:
        for relation, *ends in [move for row in words.CORE[topic] for move in row] + list(words.EXTRA[topic]):
            kinds = tuple(topic if end in ("topic", "twin") else end.removeprefix("+") for end in ends)
            assert (relation, *kinds) in words.WORDINGS


def test_write_corpus(tmp_path):
    write_corpus(tmp_path / "new" / "corpus", train=5, dev=3, test=2, seed=7)
    folder = tmp_path / "new" / "corpus"
    expected = {"train_annotated.json", "dev.json", "test.json", "rel2id.json", "rel_info.json"}
    assert {path.name for path in folder.iterdir()} == expected  # and no temporary file
    contents = {path.name: json.loads(path.read_text()) for path in folder.iterdir()}
    splits = [contents[name] for name in ("train_annotated.json", "dev.json", "test.json")]
    assert [len(split) for split in splits] == [5, 3, 2]
    assert len({document["title"] for split in splits for document in split}) == 10
    assert contents["rel2id.json"] == rel2id()
    assert sorted(rel2id().values()) == list(range(len(RELATIONS) + 1))
    assert rel2id()["Na"] == 0
    assert contents["rel_info.json"] == RELATIONS


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sentences": (5, 3)}, r"sentences is \(5, 3\)"),
        ({"sentences": (1, 3)}, "2 <= fewest"),
        ({"entities": (2, 3)}, "4 <= fewest"),
        ({"n_documents": -1}, "n_documents is -1"),
    ],
)
def test_bad_sizes(arguments, message):
    with pytest.raises(SegDREError, match=message):
        generate(**({"n_documents": 1, "seed": 0} | arguments))


@pytest.mark.upstream
@pytest.mark.parametrize("clone", ["atlop", "dreeam"])
def test_upstream_reads_it(clone, request, tmp_path, monkeypatch):
    pytest.importorskip("ujson")
    folder = request.getfixturevalue(clone)
    from segdre_plugin.backbones.reference import build_features, build_tokenizer

    write_corpus(tmp_path / "meta", train=20, dev=2, test=2)
    documents = json.loads((tmp_path / "meta" / "train_annotated.json").read_text())
    tokenizer = build_tokenizer(documents, list(RELATIONS.values()))
    # transformers 5 dropped this method; upstream calls it.
    build_inputs = {
        "build_inputs_with_special_tokens": lambda ids: [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
    }
    for name, function in build_inputs.items():
        monkeypatch.setattr(tokenizer, name, function, raising=False)
    monkeypatch.chdir(tmp_path)  # prepro reads meta/rel2id.json at import
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location("prepro", folder / "prepro.py")
    prepro = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepro)
    features = prepro.read_docred(str(tmp_path / "meta" / "train_annotated.json"), tokenizer)
    ours = [build_features(document, tokenizer, rel2id()) for document in documents]
    assert [{key: feature[key] for key in ours[0]} for feature in features] == ours

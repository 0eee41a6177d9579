"""The embedded corpus: valid DocRED files, facts that its sentences tell, and no lookup game."""

import hashlib
import importlib.util
import json
import sys
from collections import Counter

import pytest

from segdre_plugin.data.synthetic import vocabulary as words
from segdre_plugin.data.synthetic.corpus import RELATIONS, generate, rel2id, write_corpus
from segdre_plugin.data.synthetic.facts import closure, derived
from segdre_plugin.errors import SegDREError
from segdre_plugin.vocabulary import Triple

SIZES = {
    "default": {},
    "small": {"sentences": (2, 3), "entities": (4, 5)},
    "large": {"sentences": (15, 20), "entities": (20, 30)},
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


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_documents_are_valid_and_of_the_size_asked_for(sizes):
    documents = generate(60, seed=5, **sizes)
    for document in documents:
        check(document)
    assert len({document["title"] for document in documents}) == len(documents) == 60
    sentences, entities = sizes.get("sentences", (5, 8)), sizes.get("entities", (6, 12))
    assert all(sentences[0] <= len(document["sents"]) <= sentences[1] for document in documents)
    assert all(entities[0] <= len(document["vertexSet"]) <= entities[1] for document in documents)


DIGEST = "bc9137a86ba89d03"  # the same in any Python: change it with the words or the generator


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
    assert min(Counter(label["r"] for _, label in labels).values()) >= 30

    def sentences(document, entity):
        return {mention["sent_id"] for mention in document["vertexSet"][entity]}

    intra = sum(bool(sentences(d, label["h"]) & sentences(d, label["t"])) for d, label in labels) / len(labels)
    assert 0.4 < intra < 0.75
    two_hop = sum(len(two_hop_triples(document)) for document in documents) / len(labels)
    assert 0.25 < two_hop < 0.45
    several = [len(mentions) > 1 for document in documents for mentions in document["vertexSet"]]
    assert sum(several) / len(several) > 0.3
    shortened = [len({m["name"] for m in mentions}) > 1 for document in documents for mentions in document["vertexSet"]]
    assert sum(shortened) / len(shortened) > 0.15
    unrelated = [
        entity
        for document in documents
        for entity in range(len(document["vertexSet"]))
        if all(entity not in (label["h"], label["t"]) for label in document["labels"])
    ]
    assert len(unrelated) > len(documents) / 2  # distractors


def test_salient_entity(documents):
    """The topic holds about half of the triples, and the simplest heuristics do not always find it."""
    shares, first, most_mentions = [], 0, 0
    for document in documents:
        n = len(document["vertexSet"])
        counts = Counter(entity for h, _, t in triples(document) for entity in (h, t))
        salient = max(range(n), key=lambda k: (counts[k], len(document["vertexSet"][k]), -k))
        shares.append(counts[salient] / len(document["labels"]))
        first += salient == 0
        most_mentions += salient == max(range(n), key=lambda k: (len(document["vertexSet"][k]), -k))
    assert 0.45 < sum(shares) / len(shares) < 0.7
    assert 0.6 < first / len(documents) < 0.9
    assert 0.6 < most_mentions / len(documents) < 0.95


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


def test_every_relation_is_said_and_every_idle_move_has_words():
    assert {relation for relation, _, _ in words.WORDINGS} | {result for _, _, result in words.RULES} == set(RELATIONS)
    idle = {(head, tail) for head, tail, _ in words.IDLE}
    for topic in words.CORE:
        moves = [move for _, move in words.CORE[topic]] + list(words.EXTRA[topic])
        for relation, *ends in moves:
            kinds = tuple(topic if end == "topic" else end.removeprefix("+") for end in ends)
            assert (kinds in idle) if relation == "idle" else ((relation, *kinds) in words.WORDINGS)


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

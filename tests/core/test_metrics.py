"""Scores by hand, their properties, and equality with the scorer of a real ATLOP clone."""

import copy
import importlib.util
import json
import shutil
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin.errors import SegDREError
from segdre_plugin.metrics import evaluate, has_gold, in_train, is_intra, train_facts
from segdre_plugin.vocabulary import Triple

SCORES = ("precision", "recall", "f1", "ign_f1", "intra_f1", "inter_f1", "evidence_f1")


def document(title, sentences, labels):
    """Entity e has one mention in each of sentences[e]; it is called by the title, its index and the sentence."""
    return {
        "title": title,
        "vertexSet": [[{"name": f"{title}{e}.{s}", "sent_id": s} for s in ids] for e, ids in enumerate(sentences)],
        "labels": [{"h": h, "t": t, "r": r, "evidence": evidence} for h, t, r, evidence in labels],
        "sents": [],
    }


def prediction(title, h, t, r, **more):
    return {"title": title, "h_idx": h, "t_idx": t, "r": r, **more}


DOCS = [
    document("A", [[0, 1], [1], [2]], [(0, 1, "p", [0, 1]), (0, 2, "q", [2]), (1, 2, "p", None)]),
    document("B", [[0], [0]], [(0, 1, "p", [0])]),
]
TRAIN = [document("A", [[5, 1], [1], [2]], [(0, 1, "p", []), (0, 1, "q", [])])]  # knows A0.1 p A1.1
PREDICTIONS = [
    prediction("A", 0, 1, "p", evidence=[1, 3]),  # right, intra, known from training
    prediction("A", 0, 1, "p", evidence=[0, 1]),  # again: does not count
    prediction("A", 0, 2, "q"),  # right, inter
    prediction("A", 2, 0, "q", evidence=[2]),  # wrong, inter
    prediction("B", 1, 0, "p", evidence=None),  # wrong, intra
    prediction("C", 9, 7, "p", evidence=[4]),  # unknown title: wrong, neither intra nor inter, its evidence not counted
]


class TestByHand:
    def test_scores(self):
        report = evaluate(PREDICTIONS, DOCS, TRAIN)
        ign = 1 / (4 + 1e-5)
        assert report == {
            "precision": 2 / 5,
            "recall": 2 / 4,
            "f1": pytest.approx(2 * 2 / (5 + 4)),
            "ign_f1": pytest.approx(2 * ign * 0.5 / (ign + 0.5)),
            "intra_f1": pytest.approx(2 * 1 / (2 + 2)),
            "inter_f1": pytest.approx(2 * 1 / (2 + 2)),
            "evidence_f1": pytest.approx(2 * 1 / (3 + 4)),
            "n_predicted": 5,
            "n_gold": 4,
            "n_correct": 2,
        }

    def test_no_train_documents(self):
        precision = 2 / (5 + 1e-5)
        assert evaluate(PREDICTIONS, DOCS)["ign_f1"] == pytest.approx(2 * precision * 0.5 / (precision + 0.5))

    def test_intra(self):
        assert [is_intra(DOCS[0], h, t) for h, t in ((0, 1), (1, 0), (0, 2), (1, 2))] == [True, True, False, False]

    def test_nothing_predicted(self):
        report = evaluate([], DOCS, TRAIN)
        assert [report[name] for name in SCORES] == [0.0] * 7

    def test_facts(self):
        facts = train_facts(TRAIN)
        assert facts == {(f"A0.{s}", r, "A1.1") for s in (5, 1) for r in "pq"}
        assert in_train(DOCS[0], Triple(0, "p", 1), facts)
        assert not in_train(DOCS[0], Triple(1, "p", 0), facts)
        assert not in_train(DOCS[1], Triple(0, "p", 1), facts)

    def test_has_gold(self):
        assert has_gold(DOCS)
        assert not has_gold([{"title": "A"}, {"title": "B", "labels": []}])


predictions = st.lists(
    st.builds(prediction, st.sampled_from("AC"), st.integers(0, 2), st.integers(0, 2), st.sampled_from("pq"))
    | st.builds(prediction, st.just("B"), st.integers(0, 1), st.integers(0, 1), st.just("p"), evidence=st.just([0])),
    max_size=8,
)


@given(predictions, st.randoms())
def test_order_and_duplicates_do_not_matter(items, random):
    report = evaluate(items, DOCS, TRAIN)
    assert all(0 <= report[name] <= 1 for name in SCORES)
    more = items + random.sample(items, len(items) // 2)
    random.shuffle(more)
    before = copy.deepcopy(more)
    assert evaluate(more, DOCS[::-1], TRAIN) == report
    assert more == before


def test_gold_scores_one():
    gold = [
        prediction(doc["title"], x["h"], x["t"], x["r"], evidence=x["evidence"]) for doc in DOCS for x in doc["labels"]
    ]
    report = evaluate(gold, DOCS)
    assert [report[name] for name in SCORES] == [1, 1, 1, pytest.approx(1, abs=1e-5), 1, 1, 1]
    # negative control: one relation changed is seen
    gold[0]["r"] = "q"
    assert evaluate(gold, DOCS)["f1"] == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (prediction("A", 3, 0, "p"), "prediction 1 .*'A'.*'h_idx' must be an index below 3, got 3"),
        (prediction("A", 0, -1, "p"), "'t_idx'.*got -1"),
        (prediction("A", 0, "1", "p"), "'t_idx'.*got '1'"),
        (prediction("C", True, 1, "p"), "'h_idx' must be an index, got True"),
        (prediction("A", 0, 1, 5), "'r' must be str"),
        (prediction(None, 0, 1, "p"), "'title' must be str"),
        (prediction("A", 0, 1, "p", evidence="01"), "'evidence'"),
        (prediction("A", 0, 1, "p", evidence=[0.5]), "'evidence'"),
        (prediction("S", 0, 1, "p", evidence=[1, 2]), "'evidence' must be a list of sentence indices below 2, got"),
        ({"title": "A", "h_idx": 0}, "lacks 't_idx', 'r'"),
        (("A", 0, 1, "p"), "expected a dict, got tuple"),
    ],
)
def test_malformed_predictions(bad, message):
    sentences = document("S", [[0], [1]], []) | {"sents": [["one"], ["two"]]}
    with pytest.raises(SegDREError, match=message):
        evaluate([PREDICTIONS[0], bad], [*DOCS, sentences])


def test_all_malformed_predictions_are_listed():
    with pytest.raises(SegDREError, match="2 of 3") as error:
        evaluate([PREDICTIONS[0], {}, prediction("A", 9, 0, "p")], DOCS)
    assert "prediction 1" in str(error.value)
    assert "prediction 2" in str(error.value)


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        ([], "no gold"),
        ([{"title": "A", "vertexSet": []}], "no gold"),
        ([DOCS[0], DOCS[0]], "two documents"),
        ([{"vertexSet": []}], "'title'"),
        ([{"title": "A", "labels": [{"h": 0, "t": 0, "r": "p"}]}], "vertexSet"),
        ([document("A", [[0]], [(0, 1, "p", [])])], "'A', label 0: no pair"),
        ([{**DOCS[1], "labels": [{"h": 0, "r": "p"}]}], "lacks"),
        ([{**DOCS[1], "vertexSet": [[{"name": "x"}]] * 2}], "sent_id"),
    ],
)
def test_malformed_documents(documents, message):
    with pytest.raises(SegDREError, match=message):
        evaluate([], documents)


def test_predictions_must_be_a_list():
    with pytest.raises(SegDREError, match="must be a list"):
        evaluate({"A": []}, DOCS)


@pytest.fixture(scope="module")
def corpus(redocred):
    train, dev = (json.loads((redocred / f"{name}.json").read_text(encoding="utf-8")) for name in ("train", "dev"))
    return train[:120], train[120:150], dev[:40]


def random_predictions(docs, rng):
    """Gold and noise, some with evidence, some of unknown titles, some twice (with other evidence the second time)."""
    out = []
    for doc in docs:
        n = len(doc["vertexSet"])
        title = doc["title"] if rng.random() < 0.95 else "no such title"
        triples = [(x["h"], x["t"], x["r"]) for x in doc["labels"] if rng.random() < 0.6]
        triples += [(*rng.choice(n, 2, replace=False).tolist(), str(rng.choice(["P17", "P131"]))) for _ in range(6)]
        for h, t, r in triples:
            evidence = (
                {"evidence": rng.integers(0, min(4, len(doc["sents"])), rng.integers(0, 4)).tolist()}
                if rng.random() < 0.7
                else {}
            )
            out.extend(prediction(title, h, t, r, **evidence) for _ in range(2 if rng.random() < 0.2 else 1))
    rng.shuffle(out)
    return out


@pytest.mark.slow
@pytest.mark.upstream
@pytest.mark.parametrize("seed", range(2))
def test_equals_atlop(atlop, redocred, corpus, tmp_path, monkeypatch, seed):
    train, distant, dev = corpus
    for name, docs in (("train_annotated", train), ("train_distant", distant), ("dev", dev)):
        (tmp_path / f"{name}.json").write_text(json.dumps(docs), encoding="utf-8")
    (tmp_path / "meta").mkdir()
    shutil.copy(redocred / "rel2id.json", tmp_path / "meta" / "rel2id.json")
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("_atlop_evaluation_for_test", atlop / "evaluation.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec.loader.exec_module(module)

    items = random_predictions(dev, np.random.default_rng(seed))
    f1, evidence_f1, ign_annotated, ign_distant = module.official_evaluate(copy.deepcopy(items), ".")
    report = evaluate(items, dev, train)
    assert report["f1"] == pytest.approx(f1, rel=0, abs=1e-12)
    assert report["evidence_f1"] == pytest.approx(evidence_f1, rel=0, abs=1e-12)
    assert report["ign_f1"] == pytest.approx(ign_annotated, rel=0, abs=1e-12)
    assert evaluate(items, dev, distant)["ign_f1"] == pytest.approx(ign_distant, rel=0, abs=1e-12)
    assert ign_annotated < f1 - 1e-3  # some facts were known, so the comparison says something
    assert 0 < report["intra_f1"] != report["inter_f1"] > 0

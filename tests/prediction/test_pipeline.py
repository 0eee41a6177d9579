"""Prediction: the same numbers as the run, one by one and in batches; awkward documents; bundles saved and loaded."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import promises
import pytest
import torch
from bundles import bundle, mixed, run_folder  # noqa: F401 - fixtures

from segdre_plugin import SegDREError, SegPipeline
from segdre_plugin.backbones.batching import batches
from segdre_plugin.backbones.windows import sliding
from segdre_plugin.data.files import read_weights
from segdre_plugin.prediction import pipeline as module
from segdre_plugin.prediction.answers import official_rows
from segdre_plugin.prediction.features import Rejection
from segdre_plugin.stages import scoring
from segdre_plugin.stages.margins import Margins

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=promises.DEVICES)
def pipeline(bundle, request):  # noqa: F811
    return SegPipeline.from_pretrained(bundle, device=request.param)


@pytest.fixture(scope="module")
def documents(run_folder):  # noqa: F811
    return json.loads((run_folder.parent / "corpus" / "dev.json").read_text())


def assert_same(one, other, tolerance):
    """Answers are equal, numbers up to a tolerance; relative, since these models' logits go into the hundreds."""
    tolerance = promises.tolerance(tolerance)
    assert one["title"] == other["title"]
    for key in ("injected", "unseen_entities"):
        assert one[key] == other[key]
    assert (one["salient"] is None) == (other["salient"] is None)
    if one["salient"]:
        assert one["salient"]["entity"] == other["salient"]["entity"]
        assert one["salient"]["count"] == pytest.approx(other["salient"]["count"], rel=tolerance)
    scores = [[t.pop("score") for t in copy.deepcopy(answer["triples"])] for answer in (one, other)]
    assert scores[0] == pytest.approx(scores[1], rel=tolerance, abs=tolerance)
    plain = [[{k: v for k, v in t.items() if k != "score"} for t in answer["triples"]] for answer in (one, other)]
    assert plain[0] == plain[1]


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_predictions_are_those_of_the_run(pipeline, run_folder, split, batch_size):  # noqa: F811
    documents = json.loads((run_folder.parent / "corpus" / f"{split}.json").read_text())
    result = "result_dev.json" if split == "dev" else "result.json"
    expected = json.loads((run_folder / result).read_text())
    assert len(expected) > 20  # something to compare
    assert official_rows(pipeline(documents, batch_size=batch_size)) == expected


def test_salient_entities_and_injections_are_those_of_the_run(pipeline, run_folder, documents):  # noqa: F811
    answers = pipeline(documents)
    salient = json.loads((run_folder / "identify" / "salient.json").read_text())["dev"]
    assert [[answer["salient"]["entity"]] for answer in answers] == salient
    injected = json.loads((run_folder / "sparse" / "injected.json").read_text())["dev"]["triples"]
    assert [[[t["h_idx"], t["r"], t["t_idx"]] for t in answer["injected"]] for answer in answers] == injected
    assert any(injected)


def test_scores_and_sources_follow_from_the_margins(pipeline, run_folder, documents):  # noqa: F811
    tables = {name: Margins.load(run_folder / name / "margins_dev.npz") for name in ("base", "dense", "sparse")}
    margins = {
        name: {
            (int(d), int(h), int(t), int(r)): float(m)
            for d, h, t, r, m in zip(table.document, table.head, table.tail, table.relation, table.margin, strict=True)
        }
        for name, table in tables.items()
    }
    taus = vars(pipeline.description.thresholds)
    for d, answer in enumerate(pipeline(documents)):
        for triple in answer["triples"]:
            cell = (d, triple["h_idx"], triple["t_idx"], pipeline.description.rel2id[triple["r"]])
            above = {name: margins[name].get(cell, -np.inf) - taus[f"tau_{name}"] for name in margins}
            assert triple["source"] == [name for name in ("base", "dense", "sparse") if above[name] > 0]
            assert triple["score"] == pytest.approx(max(above.values()), rel=1e-4, abs=promises.tolerance(0))
            assert triple["relation"] == pipeline.description.relation_names[triple["r"]]


def test_one_by_one_equals_batches_of_mixed_lengths(pipeline, documents):
    several = mixed(documents)
    lengths = [sum(map(len, document["sents"])) for document in several]
    assert max(lengths) > 4 * min(lengths)
    together = pipeline(several, batch_size=5)
    assert sum(len(answer["triples"]) for answer in together) > 100
    for document, answer in zip(several, together, strict=True):
        assert_same(pipeline(document), answer, 1e-5)
    backwards = pipeline(several[::-1], batch_size=2)[::-1]
    for one, other in zip(backwards, together, strict=True):
        assert_same(one, other, 1e-5)


def test_documents_with_many_pairs_are_read_in_parts(pipeline, documents, monkeypatch):
    expected = pipeline(documents)
    classifier = pipeline.models["base"].bilinear
    monkeypatch.setattr(scoring, "PAIR_MEMORY", 7 * 4 * classifier.in_features)
    for one, other in zip(pipeline(documents), expected, strict=True):
        assert_same(one, other, 1e-5)


def test_batches_hold_every_pair_once_and_stay_within_bounds(pipeline):
    features = [
        {"input_ids": [0] * n, "hts": [[0, k] for k in range(pairs)], "labels": [[k] for k in range(pairs)]}
        for n, pairs in ((9, 4), (3, 11), (5, 1), (3, 2), (9, 30))
    ]
    made = list(batches(features, pipeline.code.backbone, 2, 8))
    assert all(len(batch) <= 2 and sum(len(f["hts"]) for f in batch) <= 8 for batch, _ in made)
    found = {place: [] for place in range(5)}
    for batch, places in made:
        for feature, place in zip(batch, places, strict=True):
            assert [[0, label[0]] for label in feature["labels"]] == feature["hts"]
            found[place] += feature["hts"]
    assert list(found.values()) == [feature["hts"] for feature in features]
    lengths = [len(feature["input_ids"]) for batch, _ in made for feature in batch]
    assert lengths == sorted(lengths)


def test_gold_is_not_read(pipeline, documents):
    labelled = copy.deepcopy(documents)
    for document in labelled:
        document["labels"] = [{"h": 1, "t": 0, "r": "P-of-another-scheme", "evidence": [0]}]
    unlabelled = [{k: v for k, v in document.items() if k != "labels"} for document in documents]
    for document in unlabelled:
        for mention in (m for entity in document["vertexSet"] for m in entity):
            mention.pop("type", None)
    for one, other in zip(pipeline(labelled), pipeline(unlabelled), strict=True):
        assert_same(one, other, 1e-6)


@pytest.mark.parametrize("n", [0, 1])
def test_less_than_two_entities_give_an_empty_answer(pipeline, documents, n):
    lone = documents[0] | {"vertexSet": documents[0]["vertexSet"][:n], "labels": []}
    answer = pipeline(lone)
    assert answer == {
        "title": lone["title"], "salient": None, "triples": [], "injected": [], "unseen_entities": []
    }  # fmt: skip
    mixed_in = pipeline([documents[0], lone, documents[1]])
    assert mixed_in[1] == answer
    assert_same(mixed_in[2], pipeline(documents[1]), 1e-5)
    assert pipeline([]) == []


def test_long_documents_are_read_in_as_many_windows_as_they_take(pipeline, documents, monkeypatch):
    long = copy.deepcopy(documents[0])
    filler = [["word"] * 100 for _ in range(14)]
    long["vertexSet"].append([{"name": "word", "sent_id": len(long["sents"]) + 13, "pos": [98, 99]}])
    long["sents"] += filler
    last = len(long["vertexSet"]) - 1
    answer, _, other = pipeline([long, documents[1], long | {"title": "again"}])
    assert answer["unseen_entities"] == []
    assert answer["triples"]
    assert_same(other | {"title": long["title"]}, answer, 1e-5)
    assert_same(pipeline(documents[1]), pipeline([long, documents[1]])[1], 1e-5)
    # a backbone that reads two windows cuts the document, and says what it does not see
    cut = replace(pipeline.code, backbone=sliding(pipeline.code.backbone, 2))
    monkeypatch.setattr(pipeline, "code", cut)
    answer = pipeline(long)
    assert answer["unseen_entities"] == [last]
    assert answer["triples"]


def test_two_entities_leave_the_sparse_model_nothing(pipeline, documents):
    two = documents[0] | {"vertexSet": documents[0]["vertexSet"][:2], "labels": []}
    sources = {name for triple in pipeline(two)["triples"] for name in triple["source"]}
    assert sources <= {"base", "dense"}


def test_bad_documents_are_all_named(pipeline, documents):
    bad = [documents[0], {"title": "B"}, documents[1] | {"vertexSet": 3}]
    with pytest.raises(SegDREError) as caught:
        pipeline(bad)
    for words in ("document 1 'B': sents", f"document 2 {documents[1]['title']!r}: vertexSet"):
        assert words in str(caught.value)
    first, second, third = pipeline.answer(bad, first=100)
    assert first["title"] == documents[0]["title"]
    assert isinstance(second, Rejection)
    assert third.reasons[0].startswith("document 102 ")
    with pytest.raises(SegDREError, match="batch_size"):
        pipeline(documents, batch_size=0)


def test_a_document_that_breaks_the_reader_or_the_model_is_rejected_alone(pipeline, documents, monkeypatch):
    read, predict = pipeline.code.read, pipeline._predict

    def fragile(path, tokenizer, **arguments):
        if '"breaks"' in Path(path).read_text(encoding="utf-8"):
            raise AssertionError("too much")
        return read(path, tokenizer, **arguments)

    def touchy(split, batch_size):
        if any(document["title"] == "touchy" for document in split.documents):
            raise SegDREError("not this one", "leave it out")
        return predict(split, batch_size)

    monkeypatch.setattr(pipeline, "code", module.BackboneCode(**(vars(pipeline.code) | {"read": fragile})))
    monkeypatch.setattr(pipeline, "_predict", touchy)
    breaking = copy.deepcopy(documents[1])
    breaking["sents"][0][0] = "breaks"
    results = pipeline.answer([documents[0], breaking, documents[2] | {"title": "touchy"}, documents[3]])
    assert [isinstance(result, Rejection) for result in results] == [False, True, True, False]
    assert results[1].reasons == [
        f"document 1 {breaking['title']!r}: the backbone's reader stopped: AssertionError: too much"
    ]
    assert "document 2 'touchy': not this one" in results[2].reasons[0]
    assert_same(results[3], pipeline(documents[3]), 1e-5)


def test_too_many_sentences_for_a_model_with_evidence(pipeline, documents, monkeypatch):
    script = vars(pipeline.code.script) | {"max_sentences": "max_sent_num"}
    monkeypatch.setattr(
        pipeline,
        "code",
        module.BackboneCode(**(vars(pipeline.code) | {"script": type(pipeline.code.script)(**script)})),
    )
    monkeypatch.setitem(pipeline.description.arguments, "max_sent_num", len(documents[0]["sents"]))
    longer = documents[0] | {"sents": [*documents[0]["sents"], ["More", "."]]}
    fine, rejected = pipeline.answer([documents[0], longer])
    assert isinstance(fine, dict)
    assert "sents: " in rejected.reasons[0]
    assert f"expected at most {len(documents[0]['sents'])} sentences, got" in rejected.reasons[0]


@pytest.mark.parametrize("limit", ["max_height", 4], ids=["an argument", "a number"])
def test_too_many_entities_for_the_model(pipeline, documents, monkeypatch, limit):
    script = vars(pipeline.code.script) | {"max_entities": limit}
    code = vars(pipeline.code) | {"script": type(pipeline.code.script)(**script)}
    monkeypatch.setattr(pipeline, "code", module.BackboneCode(**code))
    monkeypatch.setitem(pipeline.description.args, "max_height", 4)
    fewer = {"title": "fewer", "sents": documents[0]["sents"], "vertexSet": documents[0]["vertexSet"][:4]}
    more = fewer | {"title": "more", "vertexSet": documents[0]["vertexSet"][:5]}
    fine, rejected = pipeline.answer([fewer, more])
    assert isinstance(fine, dict)
    assert "vertexSet: expected at most 4 entities, got 5" in rejected.reasons[0]


def test_random_numbers_and_models_stay_as_they_are(bundle, pipeline, documents):  # noqa: F811
    before = torch.get_rng_state()
    loaded = SegPipeline.from_pretrained(str(bundle), device="cpu")
    assert torch.equal(torch.get_rng_state(), before)
    loaded(documents[0])
    for stage, model in loaded.models.items():
        assert not model.training
        for name, value in model.state_dict().items():
            assert torch.equal(value, pipeline.models[stage].state_dict()[name].cpu())


def test_weights_are_the_checkpoints(run_folder, pipeline):  # noqa: F811
    for stage, model in pipeline.models.items():
        expected = read_weights(run_folder / stage / "checkpoint.pt", stage)
        state = model.state_dict()
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name].cpu(), value.cpu()) for name, value in expected.items())

"""From a ``--seg`` run of a real clone to a bundle, to predictions that are the run's."""

import json

import pytest
import seg_runs

from segdre_plugin import SegDREError, SegPipeline
from segdre_plugin.cli import main
from segdre_plugin.prediction.answers import official_rows
from segdre_plugin.seg.bundle import bundle_run

pytestmark = [pytest.mark.upstream, pytest.mark.slow]


@pytest.fixture(scope="module", params=seg_runs.UPSTREAM)
def place(request):
    return request.getfixturevalue(f"{request.param}_place")


@pytest.fixture(scope="module")
def bundle(place, tmp_path_factory):
    return bundle_run(place.finished[0], tmp_path_factory.mktemp(place.name) / "bundle")


def test_predictions_are_those_of_the_run(place, bundle, tmp_path, recwarn):
    out, _ = place.finished
    pipeline = SegPipeline.from_pretrained(bundle, place.original)  # an unpatched clone will do
    assert [str(w.message) for w in recwarn.list if issubclass(w.category, UserWarning)] == []
    for split, result in (("dev", "result_dev.json"), ("test", "result.json")):
        documents, expected = place.documents(split), json.loads((out / result).read_text())
        assert official_rows(pipeline(documents)) == expected
        assert official_rows([pipeline(document) for document in documents]) == expected
    for answer in pipeline(place.documents("dev")):
        assert all(("evidence" in triple) == place.upstream.evidence for triple in answer["triples"])
    pipeline.save_pretrained(tmp_path / "again")
    again = SegPipeline.from_pretrained(tmp_path / "again", place.original)
    assert again(place.documents("dev")[0]) == pipeline(place.documents("dev")[0])


def test_awkward_documents(place, bundle):
    pipeline = SegPipeline.from_pretrained(bundle, place.original)
    first, second, *_ = place.documents("dev")
    lone = second | {"vertexSet": second["vertexSet"][:1], "labels": []}
    untyped = json.loads(json.dumps({k: v for k, v in first.items() if k != "labels"}))
    for mention in (m for entity in untyped["vertexSet"] for m in entity):
        del mention["type"]
    long = first | {"title": "long", "sents": [*first["sents"], ["word"] * 1100]}
    results = pipeline.answer([first, lone, untyped, long])
    assert results[1]["triples"] == []
    assert [t["r"] for t in results[2]["triples"]] == [t["r"] for t in results[0]["triples"]]
    assert results[3]["triples"] or results[3]["salient"]  # of more than two windows
    assert results[3]["unseen_entities"] == []
    if place.name == "dreeam":
        many = first | {"sents": [*first["sents"], *[["More", "."]] * 30]}
        (rejected,) = pipeline.answer([many])
        assert "expected at most 25 sentences, got" in rejected.reasons[0]


def test_without_its_clone_nothing_is_left_behind(place, bundle, tmp_path, capsys):
    with pytest.raises(SegDREError, match=rf"model of {place.name}(.|\n)*git clone https://github.com/"):
        SegPipeline.from_pretrained(bundle)
    source, target = tmp_path / "documents.json", tmp_path / "out.jsonl"
    source.write_text(json.dumps(place.documents("test")))
    command = ["predict", str(bundle), "--input", str(source), "--output", str(target)]
    for wrong, words in (
        ([], "--clone DIR"),
        (["--clone", str(tmp_path)], "model.py, which has DocREModel"),
        (["--clone", str(tmp_path / "nowhere")], "nowhere"),
    ):
        assert main([*command, *wrong]) == 2
        assert words in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == [source]
    assert main([*command, "--clone", str(place.original)]) == 0  # the corrected command, as it is
    assert len(target.read_text().splitlines()) == len(place.documents("test"))

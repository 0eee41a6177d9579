"""experiments/answers.py: dense pairs, and their gold triples in the branches."""

import json
import shutil
import sys

import bundles
import pytest
from locate import REPOSITORY
from scripts import importer

from segdre_plugin import SegDREError
from segdre_plugin.branches import gold_dense_triples
from segdre_plugin.features import FEATURE
from segdre_plugin.stages import read_salient
from segdre_plugin.store import Store

script = importer(REPOSITORY / "experiments")
run_folder = bundles.run_folder
pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_answer_to_every_pair_is_injected(script, run_folder, tmp_path, monkeypatch):
    answers = script("answers")
    shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
    run = Store(tmp_path / "answers")
    run.root.mkdir()
    for stage in ("base", "identify", "dense"):
        run.adopt(stage, Store(run_folder))
    seen = {}

    class Seen(answers.Answers):
        def prepare(self, split, model):
            seen[split.name] = super().prepare(split, model)
            return seen[split.name]

    monkeypatch.setattr(answers, "Answers", Seen)
    monkeypatch.setattr(sys, "argv", ["answers.py"])
    arguments = bundles.arguments(run.root, "--seg-stage", "sparse")
    answers.train(None, arguments)

    documents = {name: json.loads((tmp_path / "corpus" / f"{name}.json").read_text()) for name in ("dev", "test")}
    for name, chosen in read_salient(run.folder("identify")).items():
        assert len(seen[name].documents) > 1
        for place, feature in zip(seen[name].documents, seen[name].features, strict=True):
            (entity,) = chosen[place]
            assert all(entity in pair for pair in feature["hts"])
            assert len(feature["hts"]) == 2 * (len(documents[name][place]["vertexSet"]) - 1)
            gold = gold_dense_triples(documents[name][place], entity)
            assert seen[name].injected[place] == gold
            (injection,) = feature[FEATURE]
            assert (len(injection.input_ids) > injection.n_document) == bool(gold)
    assert set(json.loads((run.folder("sparse") / "metrics.json").read_text())) == {"dev", "test"}

    answers.train(None, arguments)  # what is there is not trained again
    with pytest.raises(SegDREError, match="pairs"):  # nor taken for a sparse model
        bundles._run(run.root, "--seg-stage", "sparse")


def test_rows_without_a_measurement_are_empty(script):
    answers = script("answers")
    scores = {split: dict.fromkeys(answers.METRICS, 0.5) for split in ("dev", "test")}
    lines = answers.table({"66": {answers.DENSE: scores, answers.PLAIN: scores}}).text().splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["50.00", "50.00", "-"]

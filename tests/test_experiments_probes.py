"""experiments/answers.py and longer.py: a stage more, on other pairs than a run has."""

import json
import shutil
import sys
from types import SimpleNamespace

import bundles
import pytest
from locate import REPOSITORY
from scripts import importer

from segdre_plugin import SegDREError
from segdre_plugin.branches import gold_dense_triples
from segdre_plugin.features import FEATURE
from segdre_plugin.margins import Margins
from segdre_plugin.stages import read_salient
from segdre_plugin.store import Store
from segdre_plugin.study.finished import Finished

script = importer(REPOSITORY / "experiments")
run_folder = bundles.run_folder
pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_answer_to_every_pair_is_injected(script, run_folder, tmp_path, monkeypatch):
    answers, probe = script("answers"), script("probe")
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
    probe.train(answers.Answering, None, arguments)

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

    probe.train(answers.Answering, None, arguments)  # what is there is not trained again
    with pytest.raises(SegDREError, match="pairs"):  # nor taken for a sparse model
        bundles._run(run.root, "--seg-stage", "sparse")


def test_rows_without_a_measurement_are_empty(script):
    answers = script("answers")
    scores = {split: dict.fromkeys(answers.METRICS, 0.5) for split in ("dev", "test")}
    lines = answers.table({"66": {answers.DENSE: scores, answers.PLAIN: scores}}).text().splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["50.00", "50.00", "-"]


def test_longer_reads_all_pairs_and_stands_in_every_place(script, run_folder, tmp_path, monkeypatch):
    longer, probe, run = script("longer"), script("probe"), script("run")
    shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
    folder = tmp_path / "probes" / "longer-66"
    folder.mkdir(parents=True)
    shutil.copytree(run_folder, tmp_path / "full")
    for stage in ("base", "identify"):
        Store(folder).adopt(stage, Store(run_folder))
    (tmp_path / "probes" / "corpus").symlink_to(tmp_path / "corpus")
    monkeypatch.setattr(sys, "argv", ["longer.py"])
    probe.train(longer.AllPairs, None, bundles.arguments(folder, "--seg-stage", "dense"))
    margins = {stage: Margins.load(folder / stage / "margins_dev.npz") for stage in ("base", "dense")}
    pairs = {stage: set(zip(m.document, m.head, m.tail, strict=True)) for stage, m in margins.items()}
    assert pairs["dense"] == pairs["base"]

    monkeypatch.setattr(run.Experiments, "__init__", lambda self: None)
    monkeypatch.setattr(run.Experiments, "runs", lambda *_: SimpleNamespace(path=lambda *_: tmp_path / "full"))
    monkeypatch.setattr(longer, "probe", lambda *_, **__: Store(folder))
    assert not longer.measure(run.Experiments(), "atlop", "from-base", [66]).scores["two longer"]  # one is no pair
    results = longer.measure(run.Experiments(), "atlop", "from-base", [66, 67])
    scores = {name: found[66] for name, found in results.scores.items()}
    assert scores.keys() == longer.LONGER.rows.keys()
    assert scores["two longer"].metrics == scores["longer"].metrics  # the same one twice
    assert scores["longer"].metrics != scores["base tuned"].metrics
    own = longer.score(longer.BASE_TUNED, _second_for_base(tmp_path, folder), None, ("dev",))
    assert scores["longer"].metrics["dev"] == own.metrics["dev"]


def _second_for_base(tmp_path, folder):
    """The run with the longer trained model's margins as the base's."""
    shutil.copytree(tmp_path / "full", tmp_path / "swapped")
    for split in ("dev", "test"):
        target = tmp_path / "swapped" / "base" / f"margins_{split}.npz"
        target.unlink()
        shutil.copyfile(folder / "dense" / f"margins_{split}.npz", target)
    return Finished(tmp_path / "swapped")

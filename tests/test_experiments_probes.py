"""experiments/answers.py, distilled.py, imitated.py, longer.py, sparse.py: stages trained in another way."""

import json
import shutil
import sys

import bundles
import numpy as np
import pytest
from locate import REPOSITORY
from scripts import importer

from segdre_plugin import SegDREError
from segdre_plugin.adapters import BACKBONES
from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.backbones.features import FEATURE
from segdre_plugin.data.synthetic.corpus import write_corpus
from segdre_plugin.salient import gold_salient
from segdre_plugin.seg.store import Store
from segdre_plugin.stages.artifacts import read_salient
from segdre_plugin.stages.branches import gold_dense_triples
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.prepare import StageFeatures
from segdre_plugin.vocabulary import Triple

script = importer(REPOSITORY / "experiments")
run_folder = bundles.run_folder
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_the_answer_to_every_pair_is_injected(script, run_folder, tmp_path, monkeypatch):
    answers, probe = script("answers"), script("probe")
    shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
    run = Store(tmp_path / "answers")
    run.root.mkdir()
    for stage in ("base", "identify", "dense"):
        run.adopt(stage, Store(run_folder))
    seen = {}

    class SeenStage(answers.AnswersStage):
        def prepare(self, split, model, known):
            seen[split.name] = super().prepare(split, model, known)
            return seen[split.name]

    class SeenRun(answers.AnswersRun):
        stage_kind = SeenStage

    monkeypatch.setattr(sys, "argv", ["answers.py"])
    arguments = bundles.arguments(run.root, "--seg-stage", "sparse")
    probe.train(SeenRun, None, arguments)

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

    probe.train(answers.AnswersRun, None, arguments)  # what is there is not trained again
    with pytest.raises(SegDREError, match="pairs"):  # nor taken for a sparse model
        bundles._run(run.root, "--seg-stage", "sparse")


def test_the_table_has_what_any_seed_has_measured(script):
    answers = script("answers")
    scores = {split: dict.fromkeys(answers.METRICS, 0.5) for split in ("dev", "test")}
    other = {split: dict.fromkeys(answers.METRICS, 0.7) for split in ("dev", "test")}
    title = f"{answers.ANSWERS}, 8 epochs"
    found = {"66": {title: other, answers.ANSWERS: scores, answers.DENSE: scores}, "67": {answers.DENSE: other}}
    lines = answers.table(found).lines
    assert [name for name, _ in lines] == [answers.DENSE, answers.ANSWERS, title]
    assert [cells[0].values for _, cells in lines] == [[50.0, 70.0], [50.0], [70.0]]


@pytest.mark.slow
def test_longer_reads_all_pairs_and_stands_in_every_place(script, run_folder, tmp_path, monkeypatch):
    longer, probe = script("longer"), script("probe")
    shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
    folder = tmp_path / "probes" / "longer-66"
    folder.mkdir(parents=True)
    shutil.copytree(run_folder, tmp_path / "full")
    for stage in ("base", "identify"):
        Store(folder).adopt(stage, Store(run_folder))
    (tmp_path / "probes" / "corpus").symlink_to(tmp_path / "corpus")
    monkeypatch.setattr(sys, "argv", ["longer.py"])
    probe.train(longer.AllPairsRun, None, bundles.arguments(folder, "--seg-stage", "dense"))
    margins = {stage: Margins.load(folder / stage / "margins_dev.npz") for stage in ("base", "dense")}
    pairs = {stage: set(zip(m.document, m.head, m.tail, strict=True)) for stage, m in margins.items()}
    assert pairs["dense"] == pairs["base"]

    full = FinishedRun(tmp_path / "full")
    assert not longer.score_runs({66: full}, {66: folder}).scores["two longer"]  # one is not a pair
    results = longer.score_runs({66: full, 67: full}, {66: folder, 67: folder})
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
    return FinishedRun(tmp_path / "swapped")


def test_predictions_become_labels(script):
    documents = [{"title": name, "vertexSet": [], "labels": [{"h": 0, "t": 1, "r": "gold"}]} for name in "abc"]
    rows = [{"title": title, "h_idx": 1, "t_idx": 2, "r": r} for title, r in (("c", "P1"), ("a", "P2"), ("c", "P3"))]
    first, third = script("distilled").label(documents, rows)
    assert (first["title"], third["title"]) == ("a", "c")
    assert first["labels"] == [{"h": 1, "t": 2, "r": "P2", "evidence": []}]
    assert [label["r"] for label in third["labels"]] == ["P1", "P3"]
    assert documents[0]["labels"][0]["r"] == "gold"


def test_documents_of_dev_and_test_are_not_learnt(script, tmp_path):
    distilled = script("distilled")
    write_corpus(tmp_path, train=4, dev=3, test=3)
    train, test = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("train_annotated", "test"))
    assert len(distilled.unlabelled_documents(tmp_path / "train_annotated.json", 4, tmp_path)) == 4
    (tmp_path / "mixed.json").write_text(json.dumps([*train, test[0]]))
    with pytest.raises(SegDREError, match=f"'{test[0]['title']}': a document of dev or test"):
        distilled.unlabelled_documents(tmp_path / "mixed.json", 5, tmp_path)


def test_what_has_been_labelled_is_not_taken_for_other_documents(script, tmp_path):
    distilled = script("distilled")
    path = tmp_path / "probes" / "unlabelled.json"
    distilled.keep_documents(path, [{"title": "a"}])
    distilled.keep_documents(path, [{"title": "a"}])
    with pytest.raises(SegDREError, match="other documents have been labelled"):
        distilled.keep_documents(path, [{"title": "a"}, {"title": "b"}])
    assert json.loads(path.read_text()) == [{"title": "a"}]


@pytest.mark.slow
def test_a_base_learns_from_what_segdre_has_labelled(script, run_folder, tmp_path, monkeypatch):
    distilled, probe = script("distilled"), script("probe")
    shutil.copytree(run_folder.parent / "corpus", tmp_path / "probes" / "corpus")
    shutil.copytree(run_folder, tmp_path / "full")
    full = FinishedRun(tmp_path / "full")
    predictions = json.loads((run_folder / "result.json").read_text())
    labelled = distilled.label(full.documents["test"], predictions)
    assert labelled
    (tmp_path / "probes" / distilled.LABELLED.format(0)).write_text(json.dumps(labelled))
    monkeypatch.setattr(sys, "argv", ["distilled.py"])
    learnt, made = {}, {}
    for name, kind in (("longer", distilled.AllPairsRun), ("distilled", distilled.DistilledRun)):
        folder = made[name, 0] = tmp_path / "probes" / f"{name}-0"
        for stage in ("base", "identify"):
            Store(folder).adopt(stage, Store(run_folder))

        class SeenRun(kind):
            def prepare(self, stage, name=name):
                learnt[name] = len(self.splits["train"].features)
                return super().prepare(stage)

        probe.train(SeenRun, None, bundles.arguments(folder, "--seed", "0", "--seg-stage", "dense"))
    assert learnt == {"longer": len(full.train), "distilled": len(full.train) + len(labelled)}
    settings = json.loads((made["distilled", 0] / "dense" / "settings.json").read_text())
    assert settings["labelled"]  # other labels are another stage
    results = distilled.score_runs({0: full}, made)
    f1 = {name: results.scores[name][0].metrics["test"]["f1"] for name in ("longer", "distilled", "base tuned")}
    assert len({*f1.values()}) == 3


def test_documents_get_the_triples_of_the_model_that_has_not_seen_them(script, tmp_path):
    sparse = script("sparse")
    documents = [{"title": str(i), "labels": [{"h": 0, "r": "gold", "t": 1}]} for i in range(5)]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("dev.json", "rel_info.json"):
        (source / name).write_text("[]")
    (source / sparse.TRAIN).write_text(json.dumps(documents))
    folds, rel2id = [], {"Na": 0} | {str(i): i + 1 for i in range(5)}
    for k in range(sparse.FOLDS):
        target = tmp_path / str(k)
        sparse.write_fold(source, target, k)
        seen, unseen = (json.loads((target / name).read_text()) for name in (sparse.TRAIN, "test.json"))
        assert sorted(int(d["title"]) for d in seen + unseen) == list(range(5))
        place = np.arange(len(unseen)).repeat(3)  # of each document three pairs: two dense ones and a sparse one
        head, tail = np.tile([0, 2, 2], len(unseen)), np.tile([1, 0, 3], len(unseen))
        relation = np.array([rel2id[d["title"]] for d in unseen]).repeat(3)  # tells documents apart
        margin = np.tile([1.0, 2.0, 3.0], len(unseen))
        folds.append(Margins(place, head, tail, relation, margin, np.zeros((len(place), 0), dtype=bool)))
    found = sparse.cross_fitted(folds, [(0,)] * 4 + [()], rel2id)
    assert found == [[(2, str(i), 0), (0, str(i), 1)] for i in range(4)] + [[]]


def test_sampling_keeps_every_pair_with_a_relation(script):
    sparse = script("sparse")
    labels = np.zeros((400, 3), dtype=int)
    labels[:, 0] = 1
    labels[:8] = (0, 1, 1)
    pairs = [[i, i + 1] for i in range(400)]
    alone = {"hts": pairs[:1], "labels": labels[8:9].tolist()}
    features = [{"hts": pairs, "labels": labels.tolist(), "title": "kept"}, *[alone] * 50]
    made = sparse.sample(StageFeatures(features, list(range(3, 54)), [[]], 7), BACKBONES["atlop"], 66)
    assert made.features[0]["hts"][:8] == pairs[:8]
    assert 60 < len(made.features[0]["hts"]) - 8 < 140
    assert made.documents[0] == 3
    assert 0 < len(made.documents) - 1 == len(made.features) - 1 < 25
    assert (made.injected, made.left_out) == ([[]], 7)
    assert len(features[0]["hts"]) == 400


@pytest.mark.slow
def test_sparse_models_are_trained_in_every_way(script, run_folder, tmp_path, monkeypatch):
    sparse, probe = script("sparse"), script("probe")
    shutil.copytree(run_folder, tmp_path / "full")
    shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
    train = FinishedRun(tmp_path / "full").train
    ends = [[(label["h"], label["r"], label["t"]) for label in (d["labels"][0], d["labels"][-1])] for d in train]
    dense = [[t for t in ts if gold_salient(d) in (t[0], t[2])] for d, ts in zip(train, ends, strict=True)]
    assert 0 < sum(map(len, dense)) < 2 * len(train)
    rel2id = FinishedRun(tmp_path / "full").rel2id
    for k in range(sparse.FOLDS):  # models that predict just the first and the last gold triple of a document
        cells = [(place, h, t, rel2id[r]) for place, ts in enumerate(ends[k :: sparse.FOLDS]) for h, r, t in ts]
        folder = sparse.fold(tmp_path, k, 0) / "base"
        folder.mkdir(parents=True)
        margins = Margins(*np.array(cells).T, np.ones(len(cells)), np.zeros((len(cells), 0), dtype=bool))
        margins.save(folder / "margins_test.npz")

    monkeypatch.setattr(sys, "argv", ["sparse.py"])
    for name, way in sparse.WAYS.items():
        target = Store(tmp_path / name)
        for before in ("base", "identify", "dense"):
            target.adopt(before, Store(run_folder))
        probe.train(way.kind, None, bundles.arguments(target.root, *way.options))
    results = sparse.score_ways(
        {name: {0: FinishedRun(tmp_path / name)} for name in ("full", *sparse.WAYS)}, sparse.SPARSE
    )
    assert all(results.scores[row.name][0].metrics.keys() == {"dev", "test"} for row in results.study.rows.values())
    injected = {
        name: json.loads((tmp_path / name / "sparse" / "injected.json").read_text()) for name in ("full", *sparse.WAYS)
    }
    assert injected["crossfit"]["train"]["triples"] == [[list(t) for t in triples] for triples in dense]
    assert injected["negatives"] == injected["full"] == injected["clauses"]
    made = {name: json.loads((tmp_path / name / "sparse" / "settings.json").read_text()) for name in sparse.WAYS}
    assert made["clauses"]["options"]["template_from"] == "has {relation} {tail}"
    assert made["negatives"]["negatives"] == sparse.KEPT


def test_errors_are_counted(script):
    imitated = script("imitated")
    right, same, other = Triple(0, "P1", 1), Triple(0, "P2", 1), Triple(0, "P1", 2)
    missed = Triple(2, "P1", 0)
    found = imitated.count_errors(
        [{right: 3.0, same: 0.5, other: 2.0}, {}], [[right, missed], [missed, right]], (1, 2.5)
    )
    assert (found.found, found.wrong, found.same_pair) == (0.25, 2.0, 0.5)
    assert (found.right_words, found.wrong_words) == ((0, 0, 1), (0.5, 0.5, 0))
    nothing = imitated.count_errors([{}], [[right]], (1, 2))
    assert (nothing.found, nothing.wrong, sum(nothing.right_words)) == (0, 0, pytest.approx(1))


@pytest.mark.parametrize(("found", "wrong"), [(0.6, 0.5), (1.0, 0.0), (0.0, 0.5)])
def test_imitated_triples_err_as_predicted_ones(script, found, wrong):
    imitated = script("imitated")
    words = ((0, 0.25, 0.75), (1, 0, 0))
    errors = imitated.Errors(found, wrong, 0.5, *words)
    document = {"vertexSet": [[{}]] * 60}
    gold = [Triple(3, "P1", tail) for tail in range(4, 24)] + [Triple(head, "P2", 3) for head in range(24, 44)]
    chance = np.random.default_rng(0)
    relations = [f"Q{k}" for k in range(50)]
    made = [imitated.imitate(document, gold, (3,), errors, relations, chance) for _ in range(100)]
    kept = sum(t in gold for each in made for t in each)
    others = [t for each in made for t in each if t not in gold]
    assert kept / (100 * len(gold)) == pytest.approx(found, abs=0.02)
    assert len(others) == pytest.approx(wrong * kept, rel=0.25)  # some are drawn twice, are gold, or are no pair
    assert all(3 in (t.head, t.tail) and t.head != t.tail for t in others)
    same_pair = [t for t in others if t.relation in relations]
    assert all((t.head, t.tail) in {(g.head, g.tail) for g in gold} for t in same_pair)
    assert len(same_pair) == pytest.approx(0.5 * len(others), rel=0.25)
    assert {word for each in made for t, word in each.items() if t not in gold} <= {"perhaps"}
    said = [word for each in made for t, word in each.items() if t in gold]
    assert said.count("surely") == pytest.approx(0.75 * len(said), rel=0.1)
    assert "perhaps" not in said
    assert imitated.imitate(document, [], (3,), errors, relations, chance) == {}


@pytest.mark.slow
def test_models_read_what_is_as_wrong_as_predictions(script, run_folder, tmp_path, monkeypatch):
    imitated, probe = script("imitated"), script("probe")
    shutil.copytree(run_folder, tmp_path / "runs" / "full-0")
    shutil.copytree(run_folder.parent / "corpus", tmp_path / "probes" / "corpus")
    full = FinishedRun(tmp_path / "runs" / "full-0")
    monkeypatch.setattr(sys, "argv", ["imitated.py"])
    runs, injected = {"full": {0: full}}, {}
    for name, way in imitated.WAYS.items():
        target = Store(tmp_path / "probes" / name)
        for before in ("base", "identify", "dense"):
            target.adopt(before, Store(run_folder))
        last = ("--seg-stage", "sparse") if name == "second" else ()
        probe.train(way.kind, None, bundles.arguments(target.root, "--seed", "0", *way.options, *last))
        runs[name] = {0: FinishedRun(target.root) if not last else imitated.SecondFinished(full.path, target.root)}
        injected[name] = json.loads((target.folder("sparse") / "injected.json").read_text())
    results = imitated.score_ways(runs, imitated.IMITATED)
    assert all(results.scores[row.name][0].metrics.keys() == {"dev", "test"} for row in results.study.rows.values())

    predicted = {
        stage: [
            sorted(each)
            for each in imitated.scored_triples(full.margins(stage, "dev"), len(full.documents["dev"]), full.rel2id)
        ]
        for stage in ("base", "dense", "sparse")
    }
    assert all(map(any, predicted.values()))
    read = {name: [sorted(map(tuple, each)) for each in found["dev"]["triples"]] for name, found in injected.items()}
    assert read["linked"] == read["imitated"] == predicted["dense"]
    for name, source in (("words", "dense"), ("both", "base"), ("second", "sparse")):
        assert [sorted((h, r.split()[1], t) for h, r, t in each) for each in read[name]] == predicted[source]
        assert {r.split()[0] for each in read[name] for _, r, _ in each} <= {*imitated.SURENESS}
    assert {r.split()[0] for each in read["words"] for _, r, _ in each} == {*imitated.SURENESS}

    gold = [sorted(gold_dense_triples(d, gold_salient(d))) for d in full.train]
    learnt = {
        name: [sorted(map(tuple, each)) for each in found["train"]["triples"]] for name, found in injected.items()
    }
    assert learnt["linked"] == gold != learnt["imitated"]
    for name, stage in (("both", "sparse"), ("second", "dense")):  # whose pairs the models have
        for split in ("dev", "test"):
            made, own = (run.scored(split).tables[stage] for run in (runs[name][0], full))
            assert len(own) > 10
            assert {*made.pairs(99)} == {*own.pairs(99)}
            assert {*made.margin} != {*own.margin}

"""The experiments: the plan is sound, jobs keep out of each other's way, and pages say what the raw results say."""

import json
import re
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from locate import REPOSITORY
from scripts import importer

from segdre_plugin.adapters import BACKBONES
from segdre_plugin.data import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.margins import Margins
from segdre_plugin.options import parse
from segdre_plugin.prepare import Prepared
from segdre_plugin.study.runs import TRAININGS
from segdre_plugin.study.studies import STUDIES

FOLDER = REPOSITORY / "experiments"


script = importer(FOLDER)


@pytest.fixture
def experiments(script, tmp_path):
    data = tmp_path / "source"
    data.mkdir()
    for name in ("train", "dev", "test", "rel_info"):
        (data / f"{name}.json").write_text("[]")
    return script("run").Experiments(tmp_path / "out", data, "/somewhere/model")


def test_the_plan_is_sound(script):
    plan = script("plan")
    for recipe in plan.RECIPES.values():
        options, rest = parse(["--seg", *plan.COMMON, *recipe])
        assert options.new_layer_lr == 1e-3
        assert not any(part.startswith("--seg") for part in rest)
    assert {job.run for job in plan.JOBS} <= TRAININGS.keys()
    assert len(set(plan.JOBS)) == len(plan.JOBS)
    full = {(job.backbone, job.recipe, job.seed) for job in plan.JOBS if job.run == "full"}
    for reader in (*plan.STUDIES, *plan.PROBES):
        assert {(reader.backbone, reader.recipe, seed) for seed in reader.seeds} <= full
    assert {study.name for study in plan.STUDIES} <= STUDIES.keys()


def test_runs_of_a_seed_are_trained_one_after_the_other(experiments, monkeypatch):
    lock, active, seen = threading.Lock(), set(), []

    def train(job, threads):
        place = (job.backbone, job.seed)
        with lock:
            assert place not in active
            active.add(place)
        threading.Event().wait(0.002)
        with lock:
            active.remove(place)
            seen.append(job)
        return 0

    monkeypatch.setattr(experiments, "_train", train)
    run = sys.modules["run"]
    monkeypatch.setattr(run, "RETRY", 0.001)
    experiments.do_jobs(3, 1)
    assert sorted(seen, key=str) == sorted(run.JOBS, key=str)
    for place in {(job.backbone, job.seed) for job in seen}:
        assert [job for job in seen if (job.backbone, job.seed) == place] == [
            job for job in run.JOBS if (job.backbone, job.seed) == place
        ]


def test_probes_run_beside_what_is_finished(experiments, script, monkeypatch, tmp_path):
    plan, run = script("plan"), sys.modules["run"]
    started = []

    def start(command, cwd, env, check):
        arguments, rest = script("probe").arguments(None).parse_known_args(command[2:])
        place = (arguments.backbone, arguments.recipe, tuple(arguments.seeds))
        started.append(plan.Probe(Path(command[1]).name, *place, tuple(rest)))
        assert (FOLDER / started[-1].script).is_file()
        assert (arguments.out, arguments.data, cwd) == (experiments.out, experiments.data, tmp_path)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(run.subprocess, "run", start)
    monkeypatch.setattr(run, "clone", lambda backbone: tmp_path)
    experiments.do_probes(1)
    assert not started
    for probe in plan.PROBES:
        folder = experiments.runs(probe.backbone, probe.recipe).path("full", probe.seeds[0])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").touch()
    experiments.do_probes(1)
    assert started == [replace(probe, seeds=probe.seeds[:1]) for probe in plan.PROBES]


def test_raw_results_name_no_places(experiments, monkeypatch, tmp_path):
    monkeypatch.setattr(sys.modules["run"], "RAW", tmp_path / "raw")
    text = (
        f"segdre study {experiments.folder('atlop', 'paper')} --data_dir {experiments.data} --x {experiments.encoder}"
    )
    experiments.keep("atlop", "paper", "seeds.json", text)
    kept = (tmp_path / "raw" / "atlop" / "paper" / "seeds.json").read_text()
    assert kept == "segdre study OUT/atlop/paper --data_dir DATA --x ENCODER\n"


def test_missing_data_are_refused(script, tmp_path):
    with pytest.raises(SegDREError, match=r"no train_annotated\.json or train\.json"):
        script("run").Experiments(tmp_path / "out", tmp_path, "encoder")


def test_the_page_says_what_the_raw_results_say(script):
    tables = script("tables")
    page = tables.PAGE.read_text(encoding="utf-8")
    places = [found[1] for found in tables.BLOCK.findall(page)]
    assert places
    assert tables.render(page) == page
    first = tables.BLOCK.search(page)
    for other in ("| 99.99 |\n", ""):
        spoilt = page[: first.start(3)] + other + page[first.end(3) :]
        assert tables.render(spoilt) == page
    assert page.count("<!-- table ") == page.count("<!-- end -->") == len(places)


def test_readme_has_the_pages_numbers():
    page = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Does it help?")[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.+)\|$", section, re.M)
    rows = [row for row in rows if re.search(r"\d", row)]
    assert rows
    for row in rows:
        for number in re.findall(r"[-+]?\d+\.\d\d", row):
            assert number in page, row


def test_no_raw_result_names_a_place():
    for path in (FOLDER / "raw").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        assert not re.search(r"/(root|home|tmp|work)/", text), path


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
    split = Split("train", source / sparse.TRAIN, documents)
    stage = sparse.CrossFitted("sparse", rel2id, {"train": split}, {"train": [(0,)] * 4 + [()]}, folds=folds)
    assert stage.triples(split) == [[(2, str(i), 0), (0, str(i), 1)] for i in range(4)] + [[]]


def test_sampling_keeps_every_pair_with_a_relation(script):
    sparse = script("sparse")
    labels = np.zeros((400, 3), dtype=int)
    labels[:, 0] = 1
    labels[:8] = (0, 1, 1)
    pairs = [[i, i + 1] for i in range(400)]
    alone = {"hts": pairs[:1], "labels": labels[8:9].tolist()}
    features = [{"hts": pairs, "labels": labels.tolist(), "title": "kept"}, *[alone] * 50]
    made = sparse.sample(Prepared(features, list(range(3, 54)), {3: []}, 7), BACKBONES["atlop"], 66)
    assert made.features[0]["hts"][:8] == pairs[:8]
    assert 60 < len(made.features[0]["hts"]) - 8 < 140
    assert made.documents[0] == 3
    assert 0 < len(made.documents) - 1 == len(made.features) - 1 < 25
    assert (made.injected, made.left_out) == ({3: []}, 7)
    assert len(features[0]["hts"]) == 400

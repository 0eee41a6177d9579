"""The experiments: the plan is sound, jobs keep out of each other's way, and pages say what the raw results say."""

import json
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from locate import REPOSITORY
from scripts import importer

from segdre_plugin.analysis.study.runs import TRAININGS
from segdre_plugin.analysis.study.studies import STUDIES
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.options import parse

FOLDER = REPOSITORY / "experiments"


script = importer(FOLDER)


@pytest.fixture
def experiments(script, tmp_path):
    data = tmp_path / "source"
    data.mkdir()
    for name in ("train", "dev", "test", "rel_info"):
        (data / f"{name}.json").write_text("[]")
    return script("run").Experiments(tmp_path / "out", data, "/somewhere/model", tmp_path / "raw")


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


def test_runs_of_a_seed_are_trained_one_after_the_other(experiments):
    lock, active, seen = threading.Lock(), set(), []

    def train(job, threads, device):
        place = (job.backbone, job.seed)
        with lock:
            assert place not in active
            active.add(place)
        threading.Event().wait(0.002)
        with lock:
            active.remove(place)
            seen.append(job)
        return 0

    plan = sys.modules["plan"]
    experiments.do_jobs(3, 1, train, retry=0.001)
    assert sorted(seen, key=str) == sorted(plan.JOBS, key=str)
    for place in {(job.backbone, job.seed) for job in seen}:
        assert [job for job in seen if (job.backbone, job.seed) == place] == [
            job for job in plan.JOBS if (job.backbone, job.seed) == place
        ]


def test_probes_run_beside_what_is_finished(experiments, script, monkeypatch, tmp_path):
    plan = script("plan")
    started = []

    def start(command, cwd, env, check):
        arguments, rest = script("probe").arguments(None).parse_known_args(command[2:])
        place = (arguments.backbone, arguments.recipe, tuple(arguments.seeds))
        started.append(plan.Probe(Path(command[1]).name, *place, tuple(rest)))
        assert (FOLDER / started[-1].script).is_file()
        assert (arguments.out, arguments.data) == (experiments.out, experiments.data)
        assert cwd == tmp_path / arguments.backbone
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", start)
    for backbone in plan.BACKBONES.values():
        (tmp_path / backbone.title.lower()).mkdir()
        (tmp_path / backbone.title.lower() / backbone.script).touch()
        monkeypatch.setenv(backbone.variable, str(tmp_path / backbone.title.lower()))
    experiments.do_probes(1)
    assert not started
    for probe in plan.PROBES:
        folder = experiments.runs(probe.backbone, probe.recipe).path("full", probe.seeds[0])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").touch()
    experiments.do_probes(1)
    assert started == [replace(probe, seeds=probe.seeds[:1]) for probe in plan.PROBES]


def test_raw_results_name_no_places(experiments, tmp_path):
    text = (
        f"segdre study {experiments.folder('atlop', 'paper')} --data_dir {experiments.data} --x {experiments.encoder}"
    )
    experiments.keep("atlop", "paper", "seeds.json", text)
    kept = (tmp_path / "raw" / "atlop" / "paper" / "seeds.json").read_text()
    assert kept == "segdre study OUT/atlop/paper --data_dir DATA --x ENCODER\n"


def test_missing_data_are_refused(script, tmp_path):
    with pytest.raises(SegDREError, match=r"no train_annotated\.json or train_revised\.json or train\.json"):
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


def test_readme_has_a_real_runs_table():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    rows = json.loads((REPOSITORY / "experiments/raw/atlop/from-base/seeds.json").read_text())["rows"]
    table = re.search(r"```\ntest \(%\) .*\n((?:.+\n)+?)```", readme)
    printed = [re.findall(r"\d+\.\d\d", line) for line in table[1].splitlines()]
    names = ("base", "base tuned", "dense", "base on dense", "sparse", "base on sparse", "full")
    columns = ("precision", "recall", "f1", "ign_f1", "intra_f1", "inter_f1")
    found = [rows[name]["seeds"]["66"]["test"] for name in names]
    assert printed == [[f"{100 * row[column]:.2f}" for column in columns] for row in found]


def test_no_raw_result_names_a_place():
    for path in (FOLDER / "raw").rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        assert not re.search(r"/(root|home|tmp|work)/", text), path

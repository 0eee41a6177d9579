"""The experiments: the plan is sound, jobs keep out of each other's way, and pages say what the raw results say."""

import contextlib
import json
import re
import subprocess
import sys
import tarfile
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from locate import REPOSITORY
from scripts import importer

from segdre_plugin.analysis.study.runs import TRAININGS
from segdre_plugin.analysis.study.studies import STUDIES
from segdre_plugin.data.progress import duration
from segdre_plugin.data.synthetic.corpus import write_corpus
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.options import parse
from segdre_plugin.stages.config import STAGES

FOLDER = REPOSITORY / "experiments"


script = importer(FOLDER)


@pytest.fixture
def experiments(script, tmp_path):
    data = tmp_path / "source"
    data.mkdir()
    for name in ("train", "dev", "test", "rel_info"):
        (data / f"{name}.json").write_text("[]")
    return script("run").Experiments(tmp_path / "out", data, "/somewhere/model", tmp_path / "raw")


@pytest.mark.parametrize("name", ["small", "converged", "few"])
def test_the_plan_is_sound(script, name):
    plan = script("plan").PLANS[name]
    for title, recipe in plan.recipes.items():
        options, rest = parse(["--seg", *plan.common, *recipe])
        assert options.new_layer_lr == 1e-3
        assert not any(part.startswith("--seg") for part in rest)
        assert script("plan").plan_of(title) is plan
    assert {job.run for job in plan.jobs} <= TRAININGS.keys()
    assert len(set(plan.jobs)) == len(plan.jobs)
    full = {(job.backbone, job.recipe, job.seed) for job in plan.jobs if job.run == "full"}
    for reader in (*plan.studies, *plan.probes):
        assert {(reader.backbone, reader.recipe, seed) for seed in reader.seeds} <= full
    assert {study.name for study in plan.studies} <= STUDIES.keys()


def test_the_archive_has_what_was_found_so_far(experiments, tmp_path):
    run = experiments.folder("atlop", "paper") / "runs" / "full-66"
    names = ("metrics.json", "base/margins_dev.npz", "base/checkpoint.pt", "resume.tmp")
    found = []

    def train(job, threads, device):
        with contextlib.suppress(FileNotFoundError), tarfile.open(tmp_path / "all.tar.gz") as tar:
            found.append(tar.getnames())
        for name in names:
            (run / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).write_text("{}")
        return 0

    experiments.plan = replace(experiments.plan, jobs=experiments.plan.jobs[:2])
    experiments.do_jobs(1, 1, train, retry=0.001, archive=tmp_path / "all.tar.gz")
    place = "atlop/paper/runs/full-66"
    assert found == [[f"{place}/metrics.json", f"{place}/base/margins_dev.npz"]]


def test_runs_at_a_time_take_the_devices_in_turn(experiments, monkeypatch):
    seen = []

    def start(command, cwd, env, check):
        seen.append(env.get("CUDA_VISIBLE_DEVICES"))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", start)
    monkeypatch.setattr(experiments, "clone", lambda backbone: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    experiments.plan = replace(experiments.plan, jobs=experiments.plan.jobs[:1])
    experiments.do_jobs(1, 1, retry=0.001, devices=["3", "5"])
    experiments.do_jobs(1, 1, retry=0.001)
    assert seen == ["3", None]


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


def test_a_plan_may_have_the_documents_with_the_fewest_entities(script, tmp_path):
    data = tmp_path / "source"
    write_corpus(data, train=8, dev=6, test=5)
    run, plan = script("run"), replace(script("plan").FEW, sizes=(3, 2, 4))
    made = run.Experiments(tmp_path / "out", data, "encoder", plan=plan)
    for name, source, size in (("train_annotated", "train_annotated", 3), ("dev", "dev", 2), ("test", "test", 4)):
        found, given = (json.loads((f / f"{n}.json").read_text()) for f, n in ((made.data, name), (data, source)))
        entities = [len(document["vertexSet"]) for document in found]
        assert entities == sorted(len(document["vertexSet"]) for document in given)[:size]
        assert all(document in given for document in found)
    run.Experiments(tmp_path / "out", made.data, "encoder", plan=plan)  # a run's process is told of these
    with pytest.raises(SegDREError, match="made from other documents"):
        run.Experiments(tmp_path / "out", data, "encoder", plan=replace(plan, sizes=(4, 2, 4)))
    with pytest.raises(SegDREError, match="expected at least 9 documents, got 5"):
        run.Experiments(tmp_path / "new", data, "encoder", plan=replace(plan, sizes=(3, 2, 9)))
    assert not [*(tmp_path / "new").rglob("*.json")]


def test_another_corpus_in_the_same_folder_is_refused(experiments, script, tmp_path):
    (tmp_path / "source" / "dev.json").write_text("[{}]")
    with pytest.raises(SegDREError, match=r"dev\.json has been made from other documents"):
        script("run").Experiments(experiments.out, tmp_path / "source", "encoder")


class TestPaper:
    """The paper's tables: their studies have the paper's lines and columns, and its numbers stand beside ours."""

    CASES = (
        ("table2", "base"),
        ("table2", "large"),
        ("table3", "large"),
        ("table4", "base"),
        ("table5", "base"),
        ("table7", "base"),
        ("table7", "large"),
    )

    def test_all_cases(self, script):
        tables = script("printed").TABLES
        assert [*self.CASES] == [(name, size) for name, table in tables.items() for size in table.numbers]

    @pytest.mark.parametrize(("name", "size"), CASES)
    def test_a_table_is_its_study(self, script, name, size):
        table, plan = script("printed").TABLES[name], script("paper").make_plan(name, size)
        study = STUDIES[table.study]
        assert {*table.columns} <= {column.title for column in study.columns}
        for lines in table.numbers[size].values():
            assert lines.keys() <= {line.title for line in study.lines}
            assert all(len(numbers) == len(table.columns) for numbers in lines.values())
        options, rest = parse(["--seg", *plan.common])
        assert options.grid == table.grid[size]
        assert (options.identify_epochs, options.identify_warmup, options.dense_epochs) == (10, 0.3, None)
        assert rest[rest.index("--transformer_type") + 1] == {"base": "bert", "large": "roberta"}[size]
        assert {job.seed for job in plan.jobs} == {66, 67, 68, 69, 70}
        needed = {run for row in study.rows.values() for run in row.trainings} - {"partner"}
        for backbone in table.numbers[size]:
            assert {job.run for job in plan.jobs if job.backbone == backbone} == needed

    def test_another_encoder_than_the_papers(self, script):
        with pytest.raises(SegDREError, match=r"table4 has no RoBERTa-large(.|\n)*take BERT-base"):
            script("paper").make_plan("table4", "large")

    @pytest.fixture
    def paper(self, script, experiments):
        """The plan of table 7 with made-up raw results: the dev F1 of seed s and line k is s + k percent."""
        plan = script("paper").make_plan("table7", "base")
        experiments.plan = plan
        folder = experiments.raw / "dreeam" / "table7-base"
        folder.mkdir(parents=True)
        seeds = plan.studies[0].seeds
        rows = {
            line.rows[0].name: {
                "errors": {},
                "seeds": {
                    str(seed): {"thresholds": {}, "dev": {"f1": (seed + k) / 100, "ign_f1": 0.5}} for seed in seeds
                },
            }
            for k, line in enumerate(STUDIES["injection"].lines)
        }
        raw = {"seeds": seeds, "rows": rows, "comparisons": []}
        (folder / "injection.json").write_text(json.dumps(raw))
        return experiments

    def test_its_numbers_stand_beside_ours(self, script, paper):
        found = script("paper").result(paper, "table7", "base")
        ours = found["dreeam"]["dense inference"]["dev F1"]
        assert (ours["ours"], ours["paper"]) == (pytest.approx([67, 68, 69, 70, 71]), 41.05)
        text = script("paper").page("table7", "base", found, dry=False)
        assert "| original text | 50.00 ± 0.00 | 30.97 | 70.00 ± 1.58 | 31.63 |" in text
        assert "| original text, same model | 50.00 ± 0.00 | - | 71.00 ± 1.58 | - |" in text
        assert "dry run" not in text

    def test_the_estimate_by_hand(self, script, paper, monkeypatch):
        stages = {stage: {"seconds": 3600.0 * 10**k, "bytes": 1e9} for k, stage in enumerate(STAGES)}
        file = script("paper").check_file(paper, "dreeam")
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"arguments": paper.arguments("dreeam", "table7-base"), "stages": stages}))
        assert TRAININGS["plain"].shares == ("base", "identify", "dense")
        said = script("paper").estimate(paper, 1, at_once=2)
        hours = 5 * 1111 + 5 * 1000  # five runs of all stages, and five of the sparse stage alone
        assert said.startswith(f"10 runs take about {duration(3600 * hours)}, {duration(1800 * hours)} with a device")
        assert "25.0 GB" in said
        paper.encoder = "another"  # steps are measured again
        monkeypatch.setattr(paper, "start", lambda *_, **__: 2)
        with pytest.raises(SegDREError, match="DREEAM: --seg-check failed"):
            script("paper").estimate(paper, 1, at_once=1)


@pytest.mark.slow
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

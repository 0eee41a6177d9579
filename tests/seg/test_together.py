"""Several processes that train together: the numbers of one process, who writes, and that none outlives the others."""

import json
import os
import re
import signal
import textwrap
import time
from importlib.util import find_spec
from pathlib import Path

import bundles
import numpy as np
import pytest
import seg_objects
import torch
from processes import Together, python
from seg_runs import contents

from segdre_plugin import SegDREError
from segdre_plugin.backbones.trainer import Resume
from segdre_plugin.data.files import read_arrays
from segdre_plugin.data.synthetic.corpus import rel2id, write_corpus
from segdre_plugin.seg.launch import run_reference

pytestmark = pytest.mark.skipif(not find_spec("accelerate"), reason='no Accelerate: pip install "segdre-plugin[scale]"')
HELPERS = Path(bundles.__file__).parent
STAGES = ("base", "identify", "dense", "sparse")
# a run of the reference model from a command line, with relations above the threshold class
PROGRAM = """
import sys
import bundles
from segdre_plugin.backbones.reference import train
from segdre_plugin.seg.launch import messages, run_reference
train.DocREModel = bundles.Talkative
with messages():
    run_reference(sys.argv[1:])
"""
# before it: rows of a loss are not counted
MEAN_OF_MEANS = """
from segdre_plugin.seg import stage_training
stage_training.n_rows = lambda rows, features: 1
"""
# before it: a process that comes to a certain step of stage dense waits for a signal
WAITS = """
import os, pathlib, time
from segdre_plugin.backbones import trainer
forward, steps = trainer.BatchLoss.forward, []
def waiting(self, batch):
    steps.append(1)
    if len(steps) == 12:
        pathlib.Path("here" + os.environ["RANK"]).touch()
        time.sleep(600)
    return forward(self, batch)
trainer.BatchLoss.forward = waiting
"""
# before it: a process that is not the main one may write nothing but what libraries put into the system's folder
READS = """
import os, sys, tempfile
system = (tempfile.gettempdir() + "/tmp", os.devnull)
def refuse(event, args):
    changes = event in ("os.mkdir", "os.rename", "os.link", "os.truncate")
    if event == "open":
        changes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if changes and not isinstance(args[0], int) and not str(args[0]).startswith(system):
        raise RuntimeError(f"{event} {args}")
if os.environ["RANK"] != "0":
    sys.addaudithook(refuse)
"""
# before it: no process waits long for the others to say why they fail
IMPATIENT = """
from segdre_plugin.backbones import end_together
end_together.PATIENCE = 1.0
"""
BATCH = 3  # documents: two processes have two of them and one


def command(out, *more, **own):
    words = {"data_dir": "data", "num_class": len(rel2id()), "num_train_epochs": 2, "train_batch_size": BATCH}
    words |= {"seg-dir": out, "seg-hidden": 16, "seg-identify-epochs": 1, "seg-trainer": "own", "seg-checkpoint": 0}
    words |= {"learning_rate": 1e-3, "new_layer_lr": 2e-3} | own
    return [
        "-c",
        PROGRAM,
        "--seg",
        *(str(part) for name, value in words.items() for part in (f"--{name}", value)),
        *more,
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    write_corpus(folder / "data", train=10, dev=5, test=3, seed=5)
    return folder


class Launcher:
    """Starts processes in a folder."""

    def __init__(self, place, tmp_path):
        self.place, self.tmp_path, self.n = place, tmp_path, 0

    def start(self, commands, **how):
        self.n += 1
        printed = self.tmp_path / str(self.n)
        return Together.start(commands, printed, **{"cwd": self.place, "paths": [HELPERS]} | how)

    def run(self, out, *more, n=2, before="", **own):
        """Run in ``n`` processes to the end."""
        made = self.start([command(out, *more, **own)] * n, before=before)
        assert made.join() == [0] * n, made.errors()
        return made


@pytest.fixture
def launcher(place, tmp_path):
    return Launcher(place, tmp_path)


@pytest.fixture(scope="module")
def one(place):
    """A run in one process, without a launcher."""
    ended = python(command("one"), cwd=place, paths=[HELPERS])
    assert ended.returncode == 0, ended.stderr[-3000:]
    return place / "one"


@pytest.fixture(scope="module")
def two(place, tmp_path_factory):
    """The same in two."""
    made = Launcher(place, tmp_path_factory.mktemp("printed")).run("two")
    return place / "two", made


def distance(one, other, checkpoint="checkpoint.pt", stages=STAGES):
    """The largest difference between weights, margins and counts of two runs, which have the same cells."""
    found = []
    for stage in stages:
        weights = [torch.load(run / stage / checkpoint, weights_only=True) for run in (one, other)]
        found += [float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]]
        for split in ("dev", "test"):
            name = "counts" if stage == "identify" else "margins"
            tables = [read_arrays(run / stage / f"{name}_{split}.npz") for run in (one, other)]
            for key in tables[0]:
                if key in ("margin", "count"):
                    found.append(float(np.abs(tables[0][key] - tables[1][key]).max()))
                else:
                    assert (tables[0][key] == tables[1][key]).all(), (stage, split, key)
    return max(found)


def result(run):
    return json.loads((run / "result.json").read_text()), json.loads((run / "metrics.json").read_text())


@pytest.mark.slow
class TestNumbers:
    def test_two_processes_end_as_one(self, one, two):
        assert distance(one, two[0]) < 1e-4
        assert result(one)[0] == result(two[0])[0]
        assert result(one)[0], "nothing was predicted"

    def test_three_processes_share_four_documents(self, place, launcher):
        launcher.run("four", n=1, train_batch_size=4)
        launcher.run("four-by-three", n=3, train_batch_size=4)
        assert distance(place / "four", place / "four-by-three") < 1e-4

    def test_batches_add_up_to_a_step(self, place, launcher):
        launcher.run("added", n=1, gradient_accumulation_steps=2)
        launcher.run("added-by-two", gradient_accumulation_steps=2)
        assert distance(place / "added", place / "added-by-two") < 1e-4

    def test_with_layers_computed_again_and_batches_of_like_length(self, place, launcher):
        more = ("--seg-stage", "base", "--seg-buckets")
        launcher.run("buckets", *more, n=1)
        launcher.run("buckets-by-two", *more, "--seg-checkpointing")
        assert distance(place / "buckets", place / "buckets-by-two", stages=("base",)) < 1e-4

    def test_control_means_of_means_end_elsewhere(self, place, one, launcher):
        launcher.run("means", "--seg-stage", "base", before=MEAN_OF_MEANS)
        weights = [torch.load(run / "base" / "checkpoint.pt", weights_only=True) for run in (one, place / "means")]
        assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) > 1e-3

    def test_only_the_main_process_prints_and_it_prints_the_same(self, one, two, place):
        main, other = two[1].outputs()
        assert other == ""
        assert "thresholds (docred grid, f1 on dev)" in main

    def test_the_settings_are_those_of_one_process(self, one, two):
        for stage in STAGES:
            names = [(run / stage / "settings.json").read_bytes() for run in (one, two[0])]
            assert names[0] == names[1]
            origins = [json.loads((run / stage / "provenance.json").read_text()) for run in (one, two[0])]
            assert [origin["processes"] for origin in origins] == [1, 2]


@pytest.mark.slow
class TestWrites:
    def test_only_the_main_process_does(self, place, launcher):
        launcher.run("one-writes", "--seg-stage", "base", before=READS)
        assert (place / "one-writes" / "base" / "checkpoint.pt").is_file()

    def test_the_folder_need_not_be_shared(self, place, launcher, two):
        made = launcher.start([command("mine"), command("nowhere/theirs")])
        assert made.join() == [0, 0], made.errors()
        assert not (place / "nowhere").exists()
        one, other = contents(place / "mine"), contents(two[0])
        assert one == other


def until(true, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
class TestEnds:
    """A process is stopped in the middle of stage dense."""

    def stop(self, place, launcher, out, victim, waits):
        """Kill one process while ``waits`` is busy with something else; return statuses, messages and the seconds."""
        for name in ("here0", "here1"):
            (place / name).unlink(missing_ok=True)
        before = f"import os\nif os.environ['RANK'] == '{waits}':\n" + textwrap.indent(WAITS, "    ")
        made = launcher.start([command(out)] * 2, before=before)
        until(lambda: (place / f"here{waits}").exists())
        begun = time.monotonic()
        os.kill(made.processes[victim].pid, signal.SIGKILL)
        statuses = made.join(60)
        return statuses, made.errors(), time.monotonic() - begun

    @pytest.mark.parametrize("waits", [0, 1])
    def test_a_process_dies_and_the_same_command_goes_on(self, place, launcher, two, waits):
        out = f"killed-{waits}"
        statuses, errors, seconds = self.stop(place, launcher, out, 1, waits)
        assert statuses == [2, -signal.SIGKILL]
        assert "segdre: error: process 1 of 2 has died\n  -> see what the launcher says of it\n" in errors[0]
        assert seconds < 60
        assert list((place / out).glob(".*.partial/unfinished-*.pt"))
        launcher.run(out)
        assert contents(place / out) == contents(two[0])

    def test_of_three_the_third_ends_without_a_word(self, place, launcher):
        (place / "here0").unlink(missing_ok=True)
        before = "import os\nif os.environ['RANK'] == '0':\n" + textwrap.indent(WAITS, "    ")
        made = launcher.start([command("three")] * 3, before=before + IMPATIENT)
        until((place / "here0").exists)
        os.kill(made.processes[1].pid, signal.SIGKILL)
        assert made.join(60) == [2, -signal.SIGKILL, 2]
        main, _, third = made.errors()
        assert "segdre: error: process 1 of 3 has died" in main
        assert "segdre: error" not in third

    def test_the_main_process_dies(self, place, launcher):
        statuses, errors, seconds = self.stop(place, launcher, "headless", 0, 1)
        assert statuses == [-signal.SIGKILL, 2]
        assert "segdre: error: process 0 of 2 has died" in errors[1]
        assert seconds < 60

    def test_one_process_fails_and_the_main_one_says_why(self, place, launcher):
        fails = """
import os
if os.environ["RANK"] == "1":
    from segdre_plugin import SegDREError
    from segdre_plugin.seg import stage_training
    def prepare(*_):
        raise SegDREError("no space for features", "free some")
    stage_training.StageTraining._prepare = prepare
"""
        made = launcher.start([command("fails")] * 2, before=fails)
        assert made.join(60) == [2, 2]
        main, other = made.errors()
        assert "segdre: error: process 1 of 2: no space for features\n  -> free some\n" in main
        assert "segdre: error" not in other
        assert not (place / "fails" / "base").exists()

    def test_the_main_process_fails(self, place, launcher):
        (place / "taken").mkdir()
        (place / "taken" / "base").mkdir()
        made = launcher.start([command("taken")] * 2)
        assert made.join(60) == [2, 2]
        main, other = made.errors()
        assert main.count("segdre: error: ") == 1
        assert "exists, but is not a finished stage" in main
        assert "segdre: error" not in other


@pytest.mark.slow
class TestRefused:
    """Before anything is trained; the message is the main process's."""

    def refused(self, launcher, commands, words):
        made = launcher.start(commands, before=IMPATIENT)
        assert set(made.join(60)) == {2}
        main, *others = made.errors()
        assert re.search(words, main), main
        assert main.count("segdre: error") == 1
        assert not any("segdre: error" in text for text in others)

    def test_settings_that_differ(self, place, launcher):
        commands = [command("x"), command("x", "--seed", "3", learning_rate=2e-3, **{"seg-hidden": 8})]
        lines = [
            "the processes have different settings:",
            "arguments.learning_rate: 0.001 in the main process, 0.002 in process 1",
            "arguments.seed: 0 in the main process, 3 in process 1",
            "options.hidden: 16 in the main process, 8 in process 1",
        ]
        self.refused(launcher, commands, r"\n  - ".join(lines))
        assert not (place / "x").exists()

    def test_data_that_differ(self, place, launcher):
        write_corpus(place / "others", train=10, dev=5, test=3, seed=6)
        self.refused(launcher, [command("x"), command("x", data_dir="others")], "- data.train: ")

    def test_libraries_of_other_versions(self, launcher):
        other = "import os, transformers\nif os.environ['RANK'] == '1':\n    transformers.__version__ = '4.0'\n"
        made = launcher.start([command("x")] * 2, before=other + IMPATIENT)
        assert made.join(60) == [2, 2]
        assert re.search(r"- versions.transformers: '.*' in the main process, '4.0' in process 1", made.errors()[0])

    def test_reading_in_batches_of_other_sizes(self, launcher):
        commands = [command("x"), command("x", test_batch_size=7)]
        self.refused(launcher, commands, "- arguments.test_batch_size: 16 in the main process, 7 in process 1")

    def test_a_process_without_documents(self, place, launcher):
        words = "3 processes share batches of --train_batch_size 2: 1 of them have no document"
        self.refused(launcher, [command("x", train_batch_size=2)] * 3, words)
        assert not (place / "x").exists()

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            (("--seg-trainer", "script"), r"started as 2 processes, and the script's own train\(\) knows nothing"),
            (("--seg-parallel",), "--seg-parallel starts processes of its own"),
            (("--seg-check",), "only training is shared"),
            (("--seg-share-encoder",), "--seg-share-encoder adds up means over all pairs and over dense ones"),
        ],
    )
    def test_the_work_of_one(self, launcher, more, words):
        self.refused(launcher, [command("x", *more)] * 2, words)

    def test_a_process_that_does_not_come(self, place, launcher):
        impatient = "from datetime import timedelta\nfrom segdre_plugin.backbones import launched\n"
        impatient += "launched.JOINING = timedelta(seconds=2)"
        made = launcher.start([command("x")], before=impatient, WORLD_SIZE=2)
        assert made.join(60) == [2]
        assert "segdre: error: process 0 of 2 did not meet the others in 2 seconds: " in made.errors()[0]
        assert not (place / "x").exists()

    def test_data_that_only_one_has(self, launcher):
        self.refused(launcher, [command("x"), command("x", data_dir="nowhere")], "process 1 of 2: .*nowhere")


class TestAccelerateSettings:
    """In one process, as ``accelerate launch`` starts it."""

    @pytest.fixture
    def run(self, tmp_path, monkeypatch):
        data = seg_objects.corpus(tmp_path / "data")
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")

        def made(*more):
            own = ["--data_dir", str(data), "--num_class", str(len(rel2id())), "--seg", "--seg-hidden", "16"]
            found = []
            training = lambda *parts: found.append(seg_objects.TrainingRun(*parts)) or Stopped(found[0])  # noqa: E731
            run_reference([*own, "--seg-dir", str(tmp_path / "out"), *more], training)
            return found[0]

        return made

    def test_they_are_settings_of_the_stages(self, run, monkeypatch):
        plain = run("--seg-trainer", "own").settings.of("base")
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
        made = run("--seg-trainer", "own").settings.of("base")
        assert "mixed_precision" not in plain["options"]
        assert made["options"]["mixed_precision"] == "bf16"
        assert [found["arguments"]["gradient_accumulation_steps"] for found in (plain, made)] == [1, 2]

    def test_they_contradict_the_scripts(self, run, monkeypatch):
        monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
        with pytest.raises(SegDREError, match="--gradient_accumulation_steps 4, and 2 in Accelerate's settings"):
            run("--seg-trainer", "own", "--gradient_accumulation_steps", "4")

    def test_the_scripts_own_loop_knows_nothing_of_them(self, run, monkeypatch):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
        with pytest.raises(SegDREError, match="started with Accelerate's settings, and the script's own train"):
            run()

    def test_begun_with_stages_side_by_side(self, run, tmp_path):
        made = run("--seg-trainer", "own")
        training = made.training("dense", made, None, tmp_path, None, None, None, Resume(tmp_path / "unfinished.pt", 0))
        training._refuse_later_looks()
        (tmp_path / "looks").mkdir()
        with pytest.raises(SegDREError, match="begun with --seg-parallel"):
            training._refuse_later_looks()


class Stopped:
    """A run that is not begun."""

    def __init__(self, run):
        self.found = run

    def run(self):
        pass


@pytest.mark.upstream
@pytest.mark.slow
@pytest.mark.parametrize("name", ["atlop", "dreeam"])
def test_a_clone(request, name, tmp_path):
    """Its encoder has no dropout, so that one process and two draw the same."""
    place = request.getfixturevalue(f"{name}_place")
    more = ("--seg-trainer", "own", "--train_batch_size", "3")
    place.run("--seg-dir", "alone", *more)
    script = [place.upstream.script, *place.seg("--seg-dir", "by-two", *more)]
    made = Together.start([script] * 2, tmp_path / "printed", cwd=place.folder)
    assert made.join() == [0, 0], made.errors()
    one, other = place.folder / "alone", place.folder / "by-two"
    assert distance(one, other, place.upstream.checkpoint) < 1e-4
    assert result(one) == result(other)

"""``--seg-parallel``: the files of a run one stage after the other, also when it is killed; processes that fail."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import bundles
import pytest
import seg_objects
import torch
from processes import python, start
from seg_runs import contents

from segdre_plugin import SegDREError
from segdre_plugin.data.synthetic.corpus import rel2id, write_corpus
from segdre_plugin.seg import parallel, processes
from segdre_plugin.seg.later_looks import LaterLooks
from segdre_plugin.seg.parallel import Children, visible_gpus
from segdre_plugin.seg.store import Store

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
# before it: processes of stages start at once, and Ctrl-C is not ignored, as by a shell's job in the background
FORKED = """
import signal, processes
from segdre_plugin.seg import parallel
parallel.start = processes.Forked.start
signal.signal(signal.SIGINT, signal.default_int_handler)
"""
HELPERS = Path(bundles.__file__).parent
# Ctrl-C at the moment at which a process is forked, which is when the tests see that there is one
CTRL_C_AT_FORK = """
import os, signal, sys, time
from pathlib import Path
import processes
signal.signal(signal.SIGINT, signal.default_int_handler)
os.register_at_fork(after_in_parent=lambda: os.kill(os.getpid(), signal.SIGINT))
try:
    processes.Forked.start([sys.executable, "-c", "import time; time.sleep(0.1)"], Path("log"), os.environ)
    time.sleep(1)
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    write_corpus(folder / "data", train=6, dev=4, test=2, seed=5)
    return folder


def command(out, *more):
    own = {"data_dir": "data", "num_class": len(rel2id()), "num_train_epochs": 3, "seg-dir": out, "seg-hidden": 16}
    own |= {"learning_rate": 1e-3, "new_layer_lr": 2e-3, "seg-identify-epochs": 2, "seg-dense-epochs": 2}
    words = [str(part) for name, value in own.items() for part in (f"--{name}", value)]
    return ["-c", PROGRAM, "--seg", *words, *more]


def run(place, out, *more):
    """Run to the end; return what was printed."""
    ended = python(command(out, *more), cwd=place, paths=[HELPERS], before=FORKED)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout


def files(folder, *without):
    """The bytes of a run's files; logs are left out."""
    found = {name: content for name, content in contents(folder).items() if not name.endswith(".log")}
    return {name: content for name, content in found.items() if Path(name).name not in without}


OWN = ("--seg-trainer", "own", "--seg-checkpoint", "0")


@pytest.fixture(scope="module")
def one_by_one(place):
    run(place, "one-by-one", *OWN)
    return place / "one-by-one"


@pytest.mark.slow
def test_the_files_are_those_of_one_stage_after_the_other(place, one_by_one):
    printed = run(place, "together", "--seg-parallel", "--save_path", "saved")
    assert "segdre: dense and sparse keep a checkpoint of every look at dev" in printed
    for stage in ("base", "identify", "dense", "sparse"):
        assert re.search(f"segdre: stage {stage} starts; its log: together/{stage}.log", printed)
        assert re.search(f"segdre: stage {stage} is finished after", printed)
    starts = [line.split()[2] for line in printed.splitlines() if " starts; " in line]
    assert starts == ["base", "dense", "sparse", "identify"]
    # the two runs have the same loop under two names
    assert files(place / "together", "settings.json") == files(one_by_one, "settings.json")
    assert (place / "saved").read_bytes() == (one_by_one / "base" / "checkpoint.pt").read_bytes()
    looks = re.findall(r"^dev F1 (.*), dev F1_ign", (place / "together" / "dense.log").read_text(), re.MULTILINE)
    assert len(set(looks)) == len(looks) == 2  # or any choice would be the best one


def children(process):
    """The processes that a process has started."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text("utf-8").split()]


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(true, process=None, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        assert process is None or process.is_alive()
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="looks for processes in /proc")
def test_killed_and_stopped_it_goes_on_and_no_process_is_left(place, one_by_one, tmp_path):
    out = place / "killed"

    def disturb(moment, strike):
        """Start the run, and disturb it at a moment; return how it ended, what it said, and what is left of it."""
        said = tmp_path / f"{strike.__name__}-{moment.__name__}"
        process = start(
            command("killed", "--seg-parallel", *OWN), (os.devnull, said), cwd=place, paths=[HELPERS], before=FORKED
        )
        until(lambda: moment() and children(process), process)
        started = children(process)
        strike(process, started)
        process.join(60)
        until(lambda: not any(map(is_alive, started)), seconds=10)
        return process.exitcode, said.read_text()

    def one_child(_, started):
        os.kill(started[0], signal.SIGKILL)

    def ctrl_c(process, _):
        os.kill(process.pid, signal.SIGINT)

    def whole(process, _):
        process.kill()

    def sparse_has_looked():
        return any(out.glob(".sparse.partial/looks/*"))

    def dense_waits():
        return any(out.glob(".dense.partial/unfinished-*.trained"))

    def base_is_done():
        return (out / "base").is_dir()

    status, said = disturb(sparse_has_looked, one_child)
    assert status == 2
    assert re.fullmatch(
        r"segdre: error: stage \w+: its process was ended by signal 9 \(Killed\), as the system does when memory runs "
        r"out\n  -> leave --seg-parallel out if it does, .* \(log: killed/\w+\.log\)\n",
        said,
    )
    status, said = disturb(dense_waits, ctrl_c)
    assert status == 130
    assert said.count("segdre:") == 1
    assert "segdre: stopped; the same command goes on from stage" in said
    assert dense_waits()
    assert disturb(base_is_done, whole)[0] == -signal.SIGKILL
    assert dense_waits()
    run(place, "killed", "--seg-parallel", *OWN)
    assert files(out) == files(one_by_one)


def test_ctrl_c_is_not_lost_when_it_comes_at_a_fork(tmp_path):
    ended = python(["-c", CTRL_C_AT_FORK], cwd=tmp_path, paths=[HELPERS])
    assert (ended.stdout, ended.stderr) == ("stopped\n", "")


@pytest.mark.slow
def test_gold_salient_entities_of_dev_choose_meanwhile(place):
    run(place, "gold", "--seg-select", "gold")
    printed = run(place, "gold-together", "--seg-select", "gold", "--seg-parallel")
    assert "keep a checkpoint" not in printed
    assert files(place / "gold") == files(place / "gold-together")


@pytest.mark.upstream
@pytest.mark.slow
def test_a_clone(atlop_place):
    out, _ = atlop_place.finished
    more = atlop_place.seg("--seg-dir", "together", "--seg-parallel")
    ended = python(["train.py", *more], cwd=atlop_place.folder, before=FORKED)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert files(atlop_place.folder / "together") == files(out)


class TestProcesses:
    """With a program in place of the run's."""

    @pytest.fixture
    def started(self, tmp_path, monkeypatch):
        def make(program):
            monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", f"import os, sys, time\n{program}"])
            return Children(Store(tmp_path))

        return make

    def test_one_fails_and_the_others_are_ended(self, started, tmp_path):
        fails = """
if os.environ["SEGDRE_STAGE"] == "dense":
    sys.exit("segdre: error: too hot\\n  -> cool it")
time.sleep(600)"""
        with started(fails) as children:
            for stage in ("base", "dense", "sparse"):
                children.start(stage)
            pids = [child.process for child in children.running.values()]
            with pytest.raises(SegDREError) as failed:
                until(children.finished)
        assert failed.value.problem == "stage dense: too hot -> cool it"
        assert str(tmp_path / "dense.log") in failed.value.hint
        assert [process.poll() for process in pids] == [-signal.SIGKILL, 1, -signal.SIGKILL]

    def test_one_that_ends_without_its_stage(self, started):
        with started("print('all is well')") as children:
            children.start("base")
            with pytest.raises(SegDREError, match="stage base: all is well"):
                until(children.finished)

    def test_what_is_said_is_shown_but_no_error(self, started, tmp_path, capsys):
        Store(tmp_path).folder("base").mkdir()
        (tmp_path / "base" / "settings.json").write_text("{}")
        with started("print('segdre: base: train: 3 of 7\\nsegdre: error: x\\nloss 3')") as children:
            children.start("base")
            until(lambda: children.finished() == ["base"])
        assert capsys.readouterr().out.splitlines() == [
            f"segdre: stage base starts; its log: {tmp_path / 'base.log'}",
            "segdre: base: train: 3 of 7",
            "segdre: stage base is finished after 0 s",
        ]

    def test_gpus_in_turn(self, started, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-a,6")
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert visible_gpus() == ["4", "GPU-a"]
        with started("print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(600)") as children:
            for stage in ("base", "dense", "sparse"):
                children.start(stage)
            assert [child.gpu for child in children.running.values()] == ["4", "GPU-a", "4"]
            until(lambda: (tmp_path / "dense.log").read_text() == "GPU-a\n")

    @pytest.mark.parametrize(
        ("given", "n", "gpus"), [(None, 2, ["0", "1"]), ("", 0, []), (None, 0, []), ("1", 1, ["1"])]
    )
    def test_gpus_that_are_visible(self, monkeypatch, given, n, gpus):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if given is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
        assert visible_gpus() == gpus

    def test_a_process_ends_with_the_one_that_started_it(self, tmp_path):
        child = "import time; from segdre_plugin.seg.processes import end_with_parent as end; end(); end(); "
        child += "open('alive', 'w').close(); time.sleep(600)"
        parent = "import os, sys, time; from pathlib import Path; from segdre_plugin.seg.processes import start; "
        parent += f"p = start([sys.executable, '-c', {child!r}], Path('log'), os.environ); print(p.pid, flush=True); "
        parent += "time.sleep(600)"
        with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=tmp_path) as process:
            pid = int(process.stdout.readline())
            until((tmp_path / "alive").exists)
            process.kill()
        until(lambda: not is_alive(pid), seconds=10)


class TestBeforeAnythingIsTrained:
    def test_a_run_that_was_started_from_python(self, monkeypatch, tmp_path):
        data = seg_objects.corpus(tmp_path / "data")
        run = seg_objects.training_run(monkeypatch, data, tmp_path / "out", "--seg-parallel")
        with pytest.raises(SegDREError, match="--seg-parallel: each stage gets the command line of this process"):
            run.run()
        assert not (tmp_path / "out").exists()

    def test_one_stage_has_nothing_beside_it(self, monkeypatch, tmp_path, capsys):
        data = seg_objects.corpus(tmp_path / "data")
        run = seg_objects.training_run(monkeypatch, data, tmp_path / "out", "--seg-parallel", "--seg-stage", "fuse")
        with pytest.raises(SegDREError, match="stage fuse needs stage base"):
            run.run()
        assert "segdre: --seg-parallel: --seg-stage fuse is alone\n" in capsys.readouterr().out

    def test_the_stages_that_begin_at_once(self, monkeypatch, tmp_path):
        data = seg_objects.corpus(tmp_path / "data")
        for more, dense in (((), ()), (("--seg-start", "base"), ("base",))):
            run = seg_objects.training_run(monkeypatch, data, tmp_path / "out", *more)
            found = {stage: run._begins_after(stage) for stage in ("base", "identify", "dense", "sparse")}
            assert found == {"base": (), "identify": ("base",), "dense": dense, "sparse": dense}


class TestLaterLooks:
    def scores(self, looks, by_name):
        return looks.best(lambda path: by_name[path.read_text()])

    def test_the_first_of_the_best_is_kept(self, tmp_path):
        looks = LaterLooks(tmp_path / "looks", tmp_path / "model.pt")
        given = []
        for name in "abcd":
            given.append(looks.put_off())
            if name != "c":  # the script did not write
                looks.checkpoint.write_text(name)
        looks.put_aside()
        assert given == sorted(set(given))
        assert -1 < given[0] < given[-1] < 1e-3
        best = self.scores(looks, {"a": 0.1, "b": 0.4, "d": 0.4})
        looks.settle(best)
        assert {path.name for path in tmp_path.iterdir()} == {"model.pt"}
        assert looks.checkpoint.read_text() == "b"

    def test_a_look_that_comes_again_after_a_kill(self, tmp_path):
        looks = LaterLooks(tmp_path / "looks", tmp_path / "model.pt")
        for steps in (4, 8):
            looks.put_off(steps)
            looks.checkpoint.write_text(str(steps))
            looks.put_aside()
        looks.checkpoint.write_text("half")
        again = LaterLooks(tmp_path / "looks", tmp_path / "model.pt")
        again.put_off(8)
        again.checkpoint.write_text("8 again")
        again.put_aside()
        assert [path.read_text() for path in again.paths] == ["4", "8 again"]

    def test_it_draws_what_reading_dev_draws(self, tmp_path):
        looks = LaterLooks(tmp_path / "looks", tmp_path / "model.pt")
        torch.manual_seed(3)
        looks.put_off()
        after = torch.rand(2)
        torch.manual_seed(3)
        iter(torch.utils.data.DataLoader([0]))
        assert torch.equal(after, torch.rand(2))
        torch.manual_seed(3)
        assert not torch.equal(after, torch.rand(2))


def test_a_stage_is_told_once_that_it_is_one(monkeypatch):
    ended = []
    monkeypatch.setattr(parallel, "end_with_parent", lambda: ended.append(True))
    monkeypatch.setattr(signal, "signal", lambda *given: ended.append(given))
    monkeypatch.setenv("SEGDRE_STAGE", "dense")
    assert parallel.own_stage() == "dense"
    assert parallel.own_stage() is None
    assert ended == [True, (signal.SIGINT, signal.SIG_IGN)]
    assert "SEGDRE_STAGE" not in os.environ


def test_last_words(tmp_path):
    log = tmp_path / "log"
    for text, words in (("", "it printed nothing"), ("a\nb\n\n", "b"), ("segdre: error: c\n  -> d\n", "c -> d")):
        log.write_text(text)
        assert processes.last_words(log) == words

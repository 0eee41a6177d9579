"""``segdre study`` where something is missing, wrong or cut off; bad arguments make nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import study_runs
from scripts import declaring

from segdre_plugin.adapters import SCRIPTS
from segdre_plugin.analysis.study import runs
from segdre_plugin.cli import main

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_no_training_scores_what_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(runs, "launch", study_runs.make_up(tmp_path))
    out, more = tmp_path / "out", (*study_runs.TINY, "--seeds", "1", "2")
    assert main(["study", "seeds", str(out), *study_runs.TINY, "--seeds", "1"]) == 0
    started = []
    monkeypatch.setattr(runs, "launch", lambda *arguments: started.append(arguments))
    assert main(["study", "seeds", str(out), *more, "--no-training"]) == 2
    assert started == []
    assert "run full-2 is not finished" in capsys.readouterr().err
    rows = json.loads((out / "seeds.json").read_text())["rows"]
    assert all(row["seeds"].keys() == {"1"} and row["errors"].keys() == {"2"} for row in rows.values())
    assert not (out / "runs" / "full-2").exists()


def test_rows_that_share_with_a_failed_run_fail_without_a_try(tmp_path, monkeypatch, capsys):
    calls = []

    def failing(arguments, log, environment):
        calls.append(arguments)
        log.write_text("Traceback ...\nMemoryError: all of it\n")
        return 1

    monkeypatch.setattr(runs, "launch", failing)
    assert main(["study", "injection", str(tmp_path / "out"), *study_runs.TINY]) == 2
    assert len(calls) == 1
    printed = capsys.readouterr().err
    assert "4 of 4 rows failed" in printed
    assert "MemoryError: all of it (exit status 1" in printed
    assert "needs stage base of full-66" in printed
    assert (tmp_path / "out" / "injection.md").is_file()


@pytest.mark.slow
def test_a_terminated_study_ends_and_goes_on(tmp_path, monkeypatch):
    def terminated(arguments, log, environment):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        raise AssertionError("the signal did not end the wait")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(runs, "launch", terminated)
    with pytest.raises(SystemExit) as stop:
        main(["study", "seeds", str(tmp_path / "out"), *study_runs.TINY])
    assert stop.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    monkeypatch.setattr(runs, "launch", study_runs.make_up(tmp_path))
    assert main(["study", "seeds", str(tmp_path / "out"), *study_runs.TINY]) == 0


BAD = {
    "seed twice": (["--seeds", "1", "1"], "a seed is listed twice"),
    "no seed": (["--seeds", "1", "-1"], "--seeds: expected 0 to 4294966295, got -1"),
    "one model twice": (["--partners", "next"], "--partners next with one seed"),
    "no such study": (["--reuse", "nowhere"], "--reuse: no folder nowhere"),
    "no documents": (["--dev", "0"], "--dev is 0"),
    "set by the study": (["--", "--seg-dir", "x"], "--seg-dir is set by the study"),
    "set by the study, too": (["--", "--seed=3"], "--seed is set by the study"),
    "unknown option": (["--", "--seg-alhpa", "1"], "unknown option --seg-alhpa"),
    "no script": (["--", "nowhere/train.py"], "nowhere/train.py not found"),
    "size with a script": (["--train", "5", "--", "SCRIPT"], "--train is a size of the embedded corpus"),
    "other script": (["--", "OTHER"], "no known train script"),
    "unknown adapter": (["--adapter", "nobody", "--", "SCRIPT"], "unknown adapter 'nobody'"),
    "adapter without a script": (["--adapter", "atlop"], "--adapter atlop without a script"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_end_in_one_message_and_make_nothing(tmp_path, capsys, case):
    arguments, words = BAD[case]
    for name, text in (("train.py", declaring(SCRIPTS["atlop"])), ("other.py", "")):
        (tmp_path / name).write_text(text)
    places = {"SCRIPT": str(tmp_path / "train.py"), "OTHER": str(tmp_path / "other.py")}
    out = tmp_path / "out"
    assert main(["study", "alpha", str(out), *(places.get(part, part) for part in arguments)]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_is_for_one_study_at_a_time(tmp_path, capsys):
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"):
        assert main(["study", "alpha", str(tmp_path), *study_runs.TINY]) == 2
    assert "another study is using it" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_command_without_script_takes_nothing_behind_two_dashes(capsys):
    with pytest.raises(SystemExit):
        main(["demo", "--", "x"])
    assert "unrecognized arguments: -- x" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_is_a_process_of_its_own(tmp_path):
    log = tmp_path / "log"
    status = runs.launch(
        ["--", "--data_dir", str(tmp_path), "--seg", "--seg-dir", str(tmp_path / "x")], log, os.environ
    )
    assert status == 2
    assert "rel2id.json" in runs.last_words(log)
    assert not runs.last_words(log).startswith("segdre")
    assert Path(log).read_text(encoding="utf-8").startswith("segdre: error: ")


# A study's process whose worker holds a lock and would go on for a minute.
PARENT = """
import os, sys
from pathlib import Path
from segdre_plugin.analysis.study import runs
runs.WORKER = '''
import sys, time
from filelock import FileLock
from segdre_plugin.analysis.study import worker
def work(arguments):
    with FileLock(arguments[0]):
        print("working", repr(sys.stdin.read()), flush=True)
        time.sleep(60)
worker.main = work
worker.serve(sys.argv[1:])
'''
runs.launch(sys.argv[1:2], Path(sys.argv[2]), os.environ)
"""


@pytest.mark.slow
def test_a_worker_ends_with_the_study_that_was_killed(tmp_path):
    from filelock import FileLock

    lock, log = tmp_path / "lock", tmp_path / "log"
    study = subprocess.Popen([sys.executable, "-c", PARENT, str(lock), str(log)])
    try:
        deadline = time.time() + 60
        while not (log.exists() and log.read_text(encoding="utf-8")) and time.time() < deadline:
            time.sleep(0.1)
        assert log.read_text(encoding="utf-8") == "working ''\n"  # a script that asks for input finds none
    finally:
        study.kill()
        study.wait()
    with FileLock(lock, timeout=20):  # the worker is gone
        pass

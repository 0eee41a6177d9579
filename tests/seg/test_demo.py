"""``segdre demo``, small: the same stages as on a clone, in seconds."""

import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import torch

from segdre_plugin.cli import main
from segdre_plugin.metrics import evaluate
from segdre_plugin.seg.launch import run_reference

SIZES = ["--train", "32", "--dev", "8", "--test", "8", "--epochs", "2"]


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo") / "out"
    argv, printed = list(sys.argv), StringIO()
    with redirect_stdout(printed):
        assert main(["demo", str(folder), *SIZES]) == 0
    assert sys.argv == argv
    return folder, printed.getvalue()


@pytest.fixture(scope="module")
def finished(run) -> Path:
    return run[0]


def test_demo_leaves_results_that_agree(finished):
    dev, train = (json.loads((finished / "corpus" / f"{name}.json").read_text()) for name in ("dev", "train_annotated"))
    metrics = json.loads((finished / "metrics.json").read_text())
    scores = evaluate(json.loads((finished / "result_dev.json").read_text()), dev, train)
    assert scores == pytest.approx(metrics["dev"]["fused"], abs=1e-12)
    assert scores["f1"] == pytest.approx(metrics["thresholds"]["f1"], abs=1e-12)
    assert scores["f1"] >= metrics["dev"]["base"]["f1"]
    for stage in ("base", "identify", "dense", "sparse"):
        assert (finished / stage / "checkpoint.pt").is_file()


def test_demo_says_what_will_happen_then_what_happened(run):
    printed = run[1]
    order = [
        "in four stages",
        "before: the test document",
        "entities: ",
        "segdre: stage base",
        "all four stages will take about",
        "segdre: stage identify",
        "max-mention",
        "after: ",
        "salient entity: ",
        "base finds",
        "sparse adds",
        "verdict:",
        "over the tuned base",
        "against the same fusion without it: dense ",
        "report: ",
        "of processor time",
    ]
    places = [printed.index(words) for words in order]
    assert places == sorted(places)
    assert printed.count("will take about") == 1


def test_a_finished_demo_is_shown_again(run, capsys):
    finished, first = run
    before = (finished / "metrics.json").read_bytes()
    assert main(["demo", str(finished), *SIZES]) == 0
    printed = capsys.readouterr().out
    assert printed.count("is done") == 4
    after = slice(first.index("after: "), first.index("report: "))
    assert first[after] in printed
    assert (finished / "metrics.json").read_bytes() == before


def test_another_demo_in_the_same_folder_is_refused(finished, capsys):
    assert main(["demo", str(finished), *SIZES, "--seed", "1"]) == 2
    message = capsys.readouterr().err
    assert "made with other settings" in message
    assert "--seed 0 there" in message
    assert main(["demo", str(finished), *SIZES[:-1], "3"]) == 2
    assert "arguments.num_train_epochs: 2.0 there, 3.0 now" in capsys.readouterr().err
    assert main(["demo", str(finished), *SIZES, "--seg-salient", "random", "--seg-salient-k", "2"]) == 2
    message = capsys.readouterr().err
    assert "options.salient: 'zip' there, 'random' now" in message
    assert "options.salient_k: 1 there, 2 now" in message


def test_another_loss(finished, tmp_path, capsys):
    assert main(["demo", str(finished), *SIZES, "--seg-loss", "hinge-abl"]) == 2
    assert "options.loss: 'atl' there, 'hinge-abl' now" in capsys.readouterr().err
    assert main(["demo", str(tmp_path / "out"), *SIZES, "--seg-loss", "afl"]) == 2
    assert "unknown loss 'afl'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "value"), [*((name, 0) for name in ("train", "dev", "test", "epochs")), ("seed", -1)])
def test_sizes_and_seed_are_checked(tmp_path, capsys, name, value):
    assert main(["demo", str(tmp_path / "out"), f"--{name}={value}"]) == 2
    assert f"--{name} is {value}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_quick_is_smaller_and_sizes_that_are_given_stay(monkeypatch):
    seen = []
    monkeypatch.setattr("segdre_plugin.seg.demo.demo", lambda folder, **how: seen.append(how))
    monkeypatch.setattr("segdre_plugin.analysis.parts.part_verdict", lambda folder: [])
    monkeypatch.setattr("segdre_plugin.analysis.report.render.write_report", lambda folder: folder)
    for arguments in ([], ["--quick"], ["--quick", "--train", "77", "--seg-alpha", "0"]):
        assert main(["demo", *arguments]) == 0
    default, quick, own = seen
    assert all(quick[name] < default[name] for name in ("train", "dev", "test", "epochs"))
    assert own == quick | {"train": 77, "options": ["--seg-alpha=0"]}


def test_base_stage_equals_the_script_without_seg(finished, tmp_path):
    checkpoint = tmp_path / "plain.pt"
    data = str(finished / "corpus")
    arguments = ["--data_dir", data, "--num_class", "15", "--num_train_epochs", "2"]
    run_reference([*arguments, "--save_path", str(checkpoint)])
    run_reference([*arguments, "--seg", "--seg-dir", str(tmp_path), "--seg-stage", "base", "--no-seg-fast"])
    plain, ours = (torch.load(path, weights_only=True) for path in (checkpoint, tmp_path / "base" / "checkpoint.pt"))
    assert plain.keys() == ours.keys()
    assert all(torch.equal(plain[name], ours[name]) for name in plain)

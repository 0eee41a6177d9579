"""``--seg`` on a real clone of ATLOP, from the command line: a generated corpus, a tiny random encoder, every stage."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from segdre_plugin.demo.corpus import write_corpus
from segdre_plugin.margins import Margins
from segdre_plugin.metrics import evaluate
from segdre_plugin.patching import patch
from segdre_plugin.reference.tokenizer import build_encoder, build_tokenizer

pytestmark = pytest.mark.upstream

STAGES = ("base", "identify", "dense", "sparse")


def make_encoder(folder: Path, documents: list, names: dict, kind: str) -> None:
    """Write a tiny random encoder and a tokenizer, as ``from_pretrained`` reads them."""
    from transformers import RobertaConfig, RobertaModel

    tokenizer = build_tokenizer(documents, list(names.values()))
    torch.manual_seed(0)
    if kind == "bert":
        encoder = build_encoder(len(tokenizer), hidden=32, layers=2, heads=2)
    else:
        config = RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=514,
            type_vocab_size=1,
            pad_token_id=1,
        )
        encoder = RobertaModel(config)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def place(atlop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patched clone with data and encoders in it."""
    clone = tmp_path_factory.mktemp("seg") / "ATLOP"
    shutil.copytree(atlop, clone, ignore=shutil.ignore_patterns(".git", "meta", "dataset"))
    patch(clone)
    write_corpus(clone / "data", train=10, dev=5, test=5, seed=3)
    (clone / "meta").mkdir()
    shutil.copy(clone / "data" / "rel2id.json", clone / "meta")
    documents = json.loads((clone / "data" / "train_annotated.json").read_text())
    names = json.loads((clone / "data" / "rel_info.json").read_text())
    for kind in ("bert", "roberta"):
        make_encoder(clone / kind, documents, names, kind)
    return clone


def command(place: Path, *more: str, kind: str = "bert", script: tuple[str, ...] = ("train.py",)) -> list[str]:
    """The command of ATLOP's README with ``--seg``."""
    n_classes = len(json.loads((place / "meta" / "rel2id.json").read_text()))
    own = {
        "data_dir": "data",
        "transformer_type": kind,
        "model_name_or_path": kind,
        "train_batch_size": "4",
        "test_batch_size": "4",
        "num_train_epochs": "2",
        "learning_rate": "1e-3",
        "num_class": str(n_classes),
    }
    flags = [part for name, value in own.items() for part in (f"--{name}", value)]
    # hidden 16 in place of 768 keeps the count head, and so the checkpoint, small
    return [sys.executable, *script, *flags, "--seg", "--seg-identify-epochs", "1", "--seg-hidden", "16", *more]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def run(place: Path, *more: str, **how) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(place, *more, **how), cwd=place, env=environment(), capture_output=True, text=True, timeout=500
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[Path, str]:
    """One whole run: its folder and what it printed."""
    result = run(place, "--seg-dir", "out")
    assert result.returncode == 0, result.stderr[-3000:]
    return place / "out", result.stdout


def test_run_leaves_every_stage_and_consistent_results(place, finished):
    out, printed = finished
    for stage in STAGES:
        assert (out / stage / "checkpoint.pt").is_file()
        assert (out / stage / "metrics.json").is_file()
    assert not (place / "result.json").exists()  # the stages' own results do not land in the clone
    dev, train = (json.loads((place / "data" / f"{name}.json").read_text()) for name in ("dev", "train_annotated"))
    metrics = json.loads((out / "metrics.json").read_text())
    scores = evaluate(json.loads((out / "result_dev.json").read_text()), dev, train)
    assert scores == pytest.approx(metrics["dev"]["fused"], abs=1e-12)
    assert scores["f1"] == pytest.approx(metrics["thresholds"]["f1"], abs=1e-12)
    assert metrics["dev"]["fused"]["f1"] >= metrics["dev"]["base"]["f1"]  # the grid holds the base's own cut
    assert {"title", "h_idx", "t_idx", "r"} == set(json.loads((out / "result.json").read_text())[0])
    for word in ("fused", "thresholds", "saliency", "Intra-F1"):
        assert word in printed


def test_margins_cover_the_pairs_of_their_stage(place, finished):
    out, _ = finished
    documents = json.loads((place / "data" / "dev.json").read_text())
    salient = json.loads((out / "identify" / "salient.json").read_text())["dev"]
    pairs = {
        stage: {
            (d, h, t)
            for m in [Margins.load(out / stage / "margins_dev.npz")]
            for d, h, t in zip(m.document, m.head, m.tail, strict=True)
        }
        for stage in ("base", "dense", "sparse")
    }
    n = [len(document["vertexSet"]) for document in documents]
    assert pairs["base"] == {(d, h, t) for d, k in enumerate(n) for h in range(k) for t in range(k) if h != t}
    assert pairs["dense"] == {(d, h, t) for d, h, t in pairs["base"] if salient[d] in (h, t)}
    assert pairs["sparse"] == pairs["base"] - pairs["dense"]


def test_second_run_skips_everything_and_changes_nothing(place, finished):
    out, _ = finished
    before = contents(out)
    result = run(place, "--seg-dir", "out")
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("is done") == len(STAGES)
    assert "Total steps" not in result.stdout
    assert contents(out) == before


def test_killed_run_ends_with_the_same_files(place, finished):
    out, _ = finished
    other = place / "killed"
    process = subprocess.Popen(
        command(place, "--seg-dir", "killed"),
        cwd=place,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.time() + 300
    while not (other / ".dense.partial").exists() and time.time() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (other / ".dense.partial").exists()
    assert not (other / "dense").exists()
    result = run(place, "--seg-dir", "killed")
    assert result.returncode == 0, result.stderr[-3000:]
    assert contents(other) == contents(out)


def test_unpatched_clone_runs_through_the_launcher(place, finished, atlop):
    out, _ = finished
    clean = place / "clean"
    shutil.copytree(atlop, clean, ignore=shutil.ignore_patterns(".git"))
    entry = "from segdre_plugin.cli import main; import sys; sys.exit(main())"
    launcher = ("-c", entry, "run", "clean/train.py", "--")
    result = run(place, "--seg-dir", "launched", "--seg-stage", "base", script=launcher)
    assert result.returncode == 0, result.stderr[-3000:]
    assert contents(place / "launched" / "base") == contents(out / "base")


def test_roberta(place):
    result = run(place, "--seg-dir", "out-roberta", kind="roberta")
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((place / "out-roberta" / "metrics.json").read_text())
    assert metrics["dev"]["fused"]["f1"] >= metrics["dev"]["base"]["f1"]


def test_without_seg_the_script_is_upstreams_own(place, finished):
    out, _ = finished
    # upstream's Ign-F1 wants the distantly supervised documents, too
    shutil.copy(place / "data" / "train_annotated.json", place / "data" / "train_distant.json")
    plain = command(place)
    plain = [*plain[: plain.index("--seg")], "--save_path", "plain.pt"]
    result = subprocess.run(plain, cwd=place, env=environment(), capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "dev_F1_ign" in result.stdout
    assert isinstance(json.loads((place / "result.json").read_text()), list)
    (place / "result.json").unlink()
    own, ours = (torch.load(p, weights_only=True) for p in (place / "plain.pt", out / "base" / "checkpoint.pt"))
    assert own.keys() == ours.keys()
    # the encoder's pooler is made before upstream seeds, and used by nobody
    assert all(torch.equal(own[name], ours[name]) for name in own if "pooler" not in name)
    loaded = subprocess.run(
        [*plain[: plain.index("--save_path")], "--load_path", "plain.pt"],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert loaded.returncode == 0, loaded.stderr[-3000:]
    assert "dev_F1" in loaded.stdout
    (place / "result.json").unlink()


def test_load_path_takes_the_base_from_a_checkpoint(place, finished):
    out, _ = finished
    more = ("--seg-dir", "loaded", "--seg-stage", "base", "--load_path", str(out / "base" / "checkpoint.pt"))
    result = run(place, *more)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Total steps" not in result.stdout
    ours, theirs = contents(place / "loaded" / "base"), contents(out / "base")
    assert ours["margins_test.npz"] == theirs["margins_test.npz"]
    assert ours["metrics.json"] == theirs["metrics.json"]


BAD = {
    "other settings": (["--seg-dir", "out", "--seed", "1"], ["out/base", "arguments.seed", "66", "now"]),
    "no predecessor": (["--seg-dir", "new", "--seg-stage", "dense"], ["stage dense needs", "identify"]),
    "classes": (["--seg-dir", "new", "--num_class", "5"], ["rel2id.json", "5", "--num_class"]),
    "no data": (["--seg-dir", "new", "--data_dir", "nowhere"], ["nowhere/"]),
    "unknown option": (["--seg-dri", "new"], ["unknown option --seg-dri"]),
    "alpha": (["--seg-alpha", "2"], ["alpha is 2"]),
    "batch": (["--seg-dir", "new", "--train_batch_size", "64"], ["10 documents", "--train_batch_size"]),
    "lone entity": (
        ["--seg-dir", "new", "--dev_file", "lone.json"],
        ["lone.json", "1 entities", "--seg-skip-unusable"],
    ),
    "mention": (["--seg-dir", "new", "--dev_file", "outside.json"], ["outside.json", "vertexSet[0][0]", "pos"]),
    "truncated": (["--seg-dir", "new", "--max_seq_length", "12"], ["without a mention", "--max_seq_length"]),
    "no names": (["--seg-dir", "new", "--seg-rel-info", "nowhere.json"], ["nowhere.json", "--seg-rel-info"]),
}


def test_bad_input_ends_in_one_message_and_writes_nothing(place, finished):
    out, _ = finished
    documents = json.loads((place / "data" / "dev.json").read_text())
    lone = documents[0] | {"vertexSet": documents[0]["vertexSet"][:1], "labels": []}
    (place / "data" / "lone.json").write_text(json.dumps([*documents[1:], lone]))
    moved = json.loads(json.dumps(documents))
    moved[1]["vertexSet"][0][0]["pos"] = [0, 999]
    (place / "data" / "outside.json").write_text(json.dumps(moved))
    before = contents(out)
    driver = """
import contextlib, io, json, sys, traceback
cases = json.loads(sys.argv.pop())
import train
for name, arguments in cases.items():
    sys.argv = ["train.py", *arguments]
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        try:
            train.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        except Exception:
            status = traceback.format_exc()
    cases[name] = [status, printed.getvalue()]
print(json.dumps(cases))
"""
    base = command(place)[2:]
    cases = {name: [*base, *more] for name, (more, _) in BAD.items()}
    result = subprocess.run(
        [sys.executable, "-c", driver, json.dumps(cases)],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    messages = json.loads(result.stdout.splitlines()[-1])
    for name, (_, words) in BAD.items():
        status, message = messages[name]
        assert status == 2, (name, status, message)
        assert "segdre: error:" in message, (name, message)
        assert "->" in message, (name, message)
        for word in words:
            assert word in message, (name, word, message)
    assert contents(out) == before
    assert not any(path.is_file() for path in (place / "new").rglob("*") if path.name != ".lock")


def test_documents_without_pairs_can_be_left_out(place, finished):
    result = run(place, "--seg-dir", "skipped", "--dev_file", "lone.json", "--seg-skip-unusable", "--seg-stage", "base")
    assert result.returncode == 0, result.stderr[-3000:]
    margins = Margins.load(place / "skipped" / "base" / "margins_dev.npz")
    assert np.unique(margins.document).tolist() == [0, 1, 2, 3]  # the fifth has one entity

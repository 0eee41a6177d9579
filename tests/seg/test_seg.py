"""``--seg`` on real clones of every backbone: all stages, skipping, resuming, the unpatched clone, bad input."""

import json
import re
import shutil

import pytest
import seg_runs
import torch
from processes import SEGDRE
from seg_runs import STAGES, contents

from segdre_plugin.metrics import evaluate
from segdre_plugin.stages.margins import Margins

pytestmark = [pytest.mark.upstream, pytest.mark.slow]

LEFTOVERS = {"last.ckpt", "scores.csv", "results.json", "topk_results.json"}  # of DREEAM's own
TIME = re.compile(r"\d{4}-\d{2}-\d{2}")  # DREEAM names a folder by the time of day


@pytest.fixture(scope="module", params=seg_runs.UPSTREAM)
def place(request):
    return request.getfixturevalue(f"{request.param}_place")


def test_run_leaves_every_stage_and_consistent_results(place):
    before = {path.name for path in place.folder.iterdir()} | {"out"}
    out, printed = place.finished
    left = {"metrics.json", "settings.json", place.upstream.checkpoint}
    scores = {"margins_dev.npz", "margins_test.npz"}
    counts = {"counts_dev.npz", "counts_test.npz", "salient.json"}
    for stage in STAGES:
        more = counts if stage == "identify" else scores | ({"injected.json"} if stage == "sparse" else set())
        names = {path.name for path in (out / stage).iterdir()}
        assert names >= left | more
        assert not any(name in LEFTOVERS or TIME.match(name) for name in names)
    assert {path.name for path in place.folder.iterdir()} - {"__pycache__"} == before - {"__pycache__"}
    dev, train = place.documents("dev"), place.documents("train_annotated")
    metrics = json.loads((out / "metrics.json").read_text())
    predicted = json.loads((out / "result_dev.json").read_text())
    found = evaluate(predicted, dev, train)
    assert found == pytest.approx(metrics["dev"]["fused"], abs=1e-12)
    assert found["f1"] == pytest.approx(metrics["thresholds"]["f1"], abs=1e-12)
    assert metrics["dev"]["fused"]["f1"] >= metrics["dev"]["base"]["f1"]  # the grid holds the base's own cut
    due = {"title", "h_idx", "t_idx", "r"} | ({"evidence"} if place.upstream.evidence else set())
    assert due == set(json.loads((out / "result.json").read_text())[0])
    for word in ("fused", "thresholds", "saliency", "Intra-F1"):
        assert word in printed
    assert ("Evi-F1" in printed) == place.upstream.evidence


def test_margins_cover_the_pairs_of_their_stage(place):
    out, _ = place.finished
    salient = json.loads((out / "identify" / "salient.json").read_text())["dev"]
    pairs = {
        stage: {
            (d, h, t)
            for m in [Margins.load(out / stage / "margins_dev.npz")]
            for d, h, t in zip(m.document, m.head, m.tail, strict=True)
        }
        for stage in ("base", "dense", "sparse")
    }
    n = [len(document["vertexSet"]) for document in place.documents("dev")]
    assert pairs["base"] == {(d, h, t) for d, k in enumerate(n) for h in range(k) for t in range(k) if h != t}
    assert pairs["dense"] == {(d, h, t) for d, h, t in pairs["base"] if salient[d][0] in (h, t)}
    assert pairs["sparse"] == pairs["base"] - pairs["dense"]


def test_second_run_skips_everything_and_changes_nothing(place):
    out, _ = place.finished
    before = contents(out)
    printed = place.run("--seg-dir", "out")
    assert printed.count("is done") == len(STAGES)
    assert "Total steps" not in printed
    assert contents(out) == before


def test_killed_run_ends_with_the_same_files(place):
    out, _ = place.finished
    other = place.folder / "killed"
    place.kill("killed", other / ".dense.partial")
    assert not (other / "dense").exists()
    place.run("--seg-dir", "killed")
    assert contents(other) == contents(out)


def test_unpatched_clone_runs_through_the_launcher(place):
    out, _ = place.finished
    clean = place.folder / "clean"
    shutil.copytree(place.original, clean, ignore=shutil.ignore_patterns(".git"))
    more = place.seg("--seg-dir", "launched", "--seg-stage", "base")
    result = place.python(*SEGDRE, "run", f"clean/{place.upstream.script}", "--", *more)
    assert result.returncode == 0, result.stderr[-3000:]
    assert contents(place.folder / "launched" / "base") == contents(out / "base")


def test_without_seg_the_script_is_upstreams_own(place):
    place.run("--seg-dir", "plainly", "--seg-stage", "base", "--no-seg-fast")
    data, upstream = place.folder / "data", place.upstream
    # upstream's Ign-F1 wants the distantly supervised documents, too
    shutil.copy(data / "train_annotated.json", data / "train_distant.json")
    target = f"upstreams-{upstream.saved}"
    printed = place.plain(*place.arguments("--save_path", target))
    assert "F1_ign" in printed or "rel_ign" in printed
    saved = place.folder / target
    if saved.is_dir():  # DREEAM makes a folder with the time of day in it
        (made,) = saved.iterdir()
        saved = made / upstream.checkpoint
    own, ours = (
        torch.load(p, weights_only=True) for p in (saved, place.folder / "plainly" / "base" / upstream.checkpoint)
    )
    assert own.keys() == ours.keys()
    # the encoder's pooler is made before upstream seeds, and used by nobody
    assert all(torch.equal(own[name], ours[name]) for name in own if "pooler" not in name)
    path = saved.parent if saved.name == "best.ckpt" else saved
    loaded = place.arguments("--load_path", str(path), "--test_file", "test.json", train=False)
    assert "F1" in place.plain(*loaded) or (path / "results.json").is_file()


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
    "truncated": (["--seg-dir", "new", "--max_seq_length", "12"], ["train_annotated.json", "--max_seq_length"]),
    "no names": (["--seg-dir", "new", "--seg-rel-info", "nowhere.json"], ["nowhere.json", "--seg-rel-info"]),
    "no checkpoint": (["--seg-dir", "new", "--load_path", "nowhere"], ["--load_path", "nowhere"]),
    "labels": (["--seg-dir", "new", "--num_labels", "99"], ["--num_labels: expected at most", "got 99"]),
    "seed": (["--seg-dir", "new", "--seed=-1"], ["--seed: expected 0 to 4294967295, got -1"]),
    "not finite": (
        ["--seg-dir", "new", "--adam_epsilon", "nan"],
        ["--adam_epsilon: expected a finite number, got nan"],
    ),
    "epochs": (["--seg-dir", "new", "--num_train_epochs", "0.5"], ["--num_train_epochs: expected 1 or more, got 0.5"]),
    "empty name": (["--seg-dir", "new", "--dev_file", ""], ["--dev_file: expected the name of a file", "got ''"]),
    "empty folder": (["--seg-dir", ""], ["--seg-dir: expected a path, got ''"]),
    "save path": (["--seg-dir", "new", "--save_path", "data/dev.json/x"], ["--save_path data/dev.json/x", "no folder"]),
    "no encoder": (["--seg-dir", "new", "--model_name_or_path", "nowhere"], ["'nowhere' cannot be loaded", "OSError"]),
    "type": (["--seg-dir", "new", "--transformer_type", "xlm"], ["--transformer_type: expected bert or roberta"]),
    "unfit": (
        ["--seg-dir", "new", "--transformer_type", "roberta"],
        ["BertModel as --transformer_type roberta", "511"],
    ),
}


def test_bad_input_ends_in_one_message_and_writes_nothing(place):
    out, _ = place.finished
    documents = place.documents("dev")
    lone = documents[0] | {"vertexSet": documents[0]["vertexSet"][:1], "labels": []}
    place.write("lone", [*documents[1:], lone])
    moved = json.loads(json.dumps(documents))
    moved[1]["vertexSet"][0][0]["pos"] = [0, 999]
    place.write("outside", moved)
    before = contents(out)
    rate = "--learning_rate" if place.name == "atlop" else "--lr_transformer"
    diverging = {"rate": (["--seg-dir", "new", rate, "1e6"], ["stage base", "finite", "lower", "learning rate"])}
    cases = (BAD | diverging).items()
    seg_runs.check_messages(place, {name: (place.seg(*more), words) for name, (more, words) in cases})
    assert contents(out) == before
    assert not any(path.is_file() for path in (place.folder / "new").rglob("*") if path.name != ".lock")


def test_a_changed_module_of_the_clone_is_refused(place):
    out, _ = place.finished
    before = contents(out)
    for name in ("losses.py", place.upstream.script):
        path = place.folder / name
        original = path.read_text()
        path.write_text(f"{original}# changed\n")
        try:
            words = ["out/base", f"modules.{name}"]
            seg_runs.check_messages(place, {"again": (place.seg("--seg-dir", "out"), words)})
        finally:
            path.write_text(original)
    assert contents(out) == before

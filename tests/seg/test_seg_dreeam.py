"""``--seg`` on a real clone of DREEAM: evidence, evaluation of a finished run, inference-stage fusion, teachers."""

import json
import pickle
import shutil

import numpy as np
import pytest
from seg_runs import STAGES, check_messages, contents

from segdre_plugin.metrics import evaluate
from segdre_plugin.stages.margins import Margins

pytestmark = [pytest.mark.upstream, pytest.mark.slow]


@pytest.fixture(scope="module")
def place(dreeam_place):
    return dreeam_place


@pytest.fixture(scope="module")
def evaluated(place):
    """A finished run, evaluated on dev, test and test without labels, with and without ISF; what that printed."""
    finished, _ = place.finished
    out = place.folder / "evaluated"
    shutil.copytree(finished, out)
    place.write("bare", [{k: v for k, v in d.items() if k != "labels"} for d in place.documents("test")])
    before = contents(out)
    printed = {
        (name, mode): place.evaluate(out, "--test_file", f"{name}.json", "--eval_mode", mode)
        for mode in ("single", "fushion")
        for name in ("dev", "test", "bare")
    }
    after = contents(out)
    assert {name: after[name] for name in before} == before  # evaluation adds files, and changes none
    assert {name.split("/")[0] for name in after.keys() - before.keys()} == {"eval", "isf.json"}
    return out, printed


def read(path):
    return json.loads(path.read_text())


def test_predictions_have_the_base_models_evidence(place):
    out, _ = place.finished
    documents = place.documents("dev")
    base = Margins.load(out / "base" / "margins_dev.npz")
    evidence = {
        (documents[d]["title"], h, t): row.nonzero()[0].tolist()
        for d, h, t, row in zip(base.document, base.head, base.tail, base.evidence, strict=True)
    }
    predictions = read(out / "result_dev.json")
    assert any(p["evidence"] for p in predictions)
    assert all(p["evidence"] == evidence[p["title"], p["h_idx"], p["t_idx"]] for p in predictions)
    lengths = {d["title"]: len(d["sents"]) for d in documents}
    assert all(s < lengths[p["title"]] for p in predictions for s in p["evidence"])
    scores = read(out / "metrics.json")["dev"]
    assert scores["fused"]["evidence_f1"] == evaluate(predictions, documents)["evidence_f1"]


class TestEvaluation:
    def test_gives_what_training_gave(self, place, evaluated):
        out, printed = evaluated
        for name, due in (("dev", "result_dev.json"), ("test", "result.json")):
            assert read(out / "eval" / name / "result.json") == read(out / due)
            found, known = read(out / "eval" / name / "metrics.json"), read(out / "metrics.json")
            assert found[name] == known[name]
            assert found["thresholds"] == known["thresholds"]
            assert "Evi-F1" in printed[name, "single"]
            assert "w. ISF" not in printed[name, "single"]

    def test_without_labels_the_cut_is_the_same(self, evaluated):
        out, printed = evaluated
        for end in ("", "_isf"):
            assert read(out / "eval" / f"bare{end}" / "result.json") == read(
                out / "eval" / f"test{end}" / "result.json"
            )
        for mode in ("single", "fushion"):
            assert "no gold: predictions only" in printed["bare", mode]

    def test_fusion_is_tuned_on_dev_alone(self, evaluated):
        out, printed = evaluated
        tuned = read(out / "isf.json")
        for name in ("dev", "test", "bare"):
            assert read(out / "eval" / f"{name}_isf" / "metrics.json")["isf"] == tuned
        dev = read(out / "eval" / "dev_isf" / "metrics.json")["dev"]
        assert dev["base_isf"]["f1"] > dev["base"]["f1"]  # the best of all cuts
        assert dev["fused_isf"]["f1"] >= dev["base_isf"]["f1"]  # the grid around tau holds tau
        assert dev["fused_isf"]["f1"] == pytest.approx(tuned["thresholds"]["f1"], abs=1e-12)
        for row in ("base w. ISF", "fused w. ISF", "tau"):
            assert row in printed["test", "fushion"]

    def test_nothing_is_left_in_the_clone(self, place, evaluated):
        assert not {"thresh", "fused_results.json", "results.json"} & {path.name for path in place.folder.iterdir()}


def test_train_without_evidence(place):
    """Missing, null and empty evidence; and RoBERTa, and no test file, through all stages."""
    bare = json.loads(json.dumps(place.documents("train_annotated")))
    for k, label in enumerate(label for document in bare for label in document["labels"]):
        label["evidence"] = [] if k % 3 == 0 else None
        if k % 3 == 2:
            del label["evidence"]
    place.write("train_bare", bare)
    printed = place.run("--seg-dir", "bare", "--train_file", "train_bare.json", "--test_file", "", kind="roberta")
    assert printed.count("no label of train has evidence: training without the evidence loss") == 1
    assert "test" not in read(place.folder / "bare" / "metrics.json")
    assert read(place.folder / "bare" / "result.json") == read(place.folder / "bare" / "result_dev.json")


def test_some_evidence_is_enough(place):
    partly = json.loads(json.dumps(place.documents("train_annotated")))
    for document in partly[1:]:
        for label in document["labels"]:
            del label["evidence"]
    place.write("train_partly", partly)
    printed = place.run("--seg-dir", "partly", "--seg-stage", "base", "--train_file", "train_partly.json")
    assert "without the evidence loss" not in printed


def test_teacher_attentions(place):
    """Upstream's own script stores them, and every stage learns from them."""
    out, _ = place.finished
    teacher = place.folder / "teacher"
    teacher.mkdir()
    shutil.copy(out / "base" / "best.ckpt", teacher)
    shutil.copy(place.folder / "data" / "train_annotated.json", place.folder / "data" / "train_distant.json")
    more = ("--load_path", "teacher", "--save_attn", "--test_file", "train_annotated.json")
    place.plain(*place.arguments(*more, train=False))
    with (teacher / "train_annotated.attns").open("rb") as file:
        assert len(pickle.load(file)) == len(place.documents("train_annotated"))
    place.run("--seg-dir", "taught", "--teacher_sig_path", "teacher")
    for stage in STAGES:
        assert len(read(place.folder / "taught" / stage / "settings.json")["data"]["teacher_attentions"]) == 64
    weights = [(folder / "dense" / "best.ckpt").read_bytes() for folder in (out, place.folder / "taught")]
    assert weights[0] != weights[1]


def test_load_path_is_where_training_starts(place):
    """DREEAM's meaning of the option: fine-tuning."""
    out, _ = place.finished
    more = ("--seg-dir", "tuned", "--seg-stage", "base", "--load_path", str(out / "base"))
    assert "Total steps" in place.run(*more, "--save_path", "copy")
    weights = (place.folder / "tuned" / "base" / "best.ckpt").read_bytes()
    assert weights != (out / "base" / "best.ckpt").read_bytes()


def test_bad_input_ends_in_one_message_and_writes_nothing(place):
    out, _ = place.finished
    dev, train = place.documents("dev"), place.documents("train_annotated")
    place.write("long", [*dev[:4], dev[4] | {"sents": [*dev[4]["sents"], ["town"] * 1100]}])
    typeless = json.loads(json.dumps(dev))
    del typeless[2]["vertexSet"][1][0]["type"]
    place.write("typeless", typeless)
    teachers = {
        "short": pickle.dumps([np.ones((1, 1))] * 3),
        "others": pickle.dumps([np.full((2, 900), 1 / 900)] * len(train)),
        "text": b"text",
    }
    for name, content in teachers.items():
        (place.folder / name).mkdir()
        (place.folder / name / "train_annotated.attns").write_bytes(content)
    titles = repr(dev[4]["title"]), repr(dev[2]["title"])
    new = ("--seg-dir", "new")
    cases = {
        "sentences": ((*new, "--max_sent_num", "2"), ["sentences", "--max_sent_num", "data/train_annotated.json"]),
        "tokens": ((*new, "--dev_file", "long.json"), ["long.json", titles[0], "--max_seq_length 1024"]),
        "no type": ((*new, "--dev_file", "typeless.json"), ["typeless.json", titles[1], "type"]),
        "no teacher": ((*new, "--teacher_sig_path", "nowhere"), ["nowhere/train_annotated.attns not found"]),
        "few teachers": ((*new, "--teacher_sig_path", "short"), ["short/", repr(train[3]["title"]), "no attentions"]),
        "other teachers": ((*new, "--teacher_sig_path", "others"), [repr(train[0]["title"]), "[pairs, tokens]"]),
        "broken teachers": ((*new, "--teacher_sig_path", "text"), ["text/train_annotated.attns", "cannot be read"]),
        "save_attn": ((*new, "--save_attn"), ["--save_attn", "without --seg"]),
    }
    known = {name: (place.seg(*more), words) for name, (more, words) in cases.items()}
    saved = ["--data_dir", "data", "--seg", "--seg-dir", "out"]
    known |= {
        "nothing to do": (saved, ["--do_train", "--test_file"]),
        "not finished": (
            [*saved[:-1], "new", "--test_file", "dev.json"],
            ["new: not a finished run", "stage base", "--do_train"],
        ),
        "no tau": ([*saved, "--test_file", "test.json", "--eval_mode", "fushion"], ["isf.json not found", "dev file"]),
        "other labels": ([*saved, "--test_file", "dev.json", "--num_labels", "3"], ["--num_labels: 4 there, 3 now"]),
        "other alpha": ([*saved, "--test_file", "dev.json", "--seg-alpha", "0.5"], ["--seg-alpha: 1.0 there"]),
        "other grid": ([*saved, "--test_file", "dev.json", "--seg-grid", "redocred"], ["--seg-grid: 'docred' there"]),
        "other train": (
            [*saved, "--test_file", "dev.json", "--train_file", "dev.json"],
            ["data/dev.json", "same ones"],
        ),
        "a checkpoint": ([*saved, "--test_file", "dev.json", "--load_path", "x"], ["--load_path", "--seg-dir"]),
        "no file": ([*saved, "--test_file", "nowhere.json"], ["nowhere.json"]),
        "a stage": ([*saved, "--test_file", "dev.json", "--seg-stage", "base"], ["--seg-stage base", "--do_train"]),
    }
    before = contents(out)
    check_messages(place, known)
    assert contents(out) == before
    assert not any(path.is_file() for path in (place.folder / "new").rglob("*") if path.name != ".lock")


def test_evaluation_with_other_files_than_those_of_training_is_refused(place):
    place.finished  # noqa: B018
    evaluate = ["--data_dir", "data", "--seg", "--seg-dir", "out", "--test_file", "dev.json"]
    for file, word in {
        "bert/config.json": "encoder.model_name_or_path.config.json",
        "run.py": "modules.run.py",
    }.items():
        path = place.folder / file
        original = path.read_bytes()
        path.write_bytes(original + b"\n")
        try:
            check_messages(place, {file: (evaluate, ["made with other code or another encoder", word])})
        finally:
            path.write_bytes(original)

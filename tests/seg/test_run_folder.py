"""A run's folder: every file missing, cut off and with a field of the wrong type ends in one message that names it."""

import json
import math
import shutil

import numpy as np
import pytest
from finished import make_run, rewrite

from segdre_plugin import SegDREError
from segdre_plugin.data.files import read_arrays, write_arrays
from segdre_plugin.seg.checkpoints import read_model
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.config import SegConfig


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    out = make_run(tmp_path_factory.mktemp("run"), sparse={"alpha": 0.5, "salient_k": 1})
    thresholds = json.loads((out / "metrics.json").read_text())["thresholds"]
    (out / "isf.json").write_text(json.dumps({"tau": 0.5, "thresholds": thresholds}))
    (out / "base" / "encoder").mkdir()
    model = {"repository": "", "arguments": {"emb_size": 64}, "arrays": {"priors": [0.1]}, "args": {"tau": 1.0}}
    model["reading"] = {}
    (out / "base" / "model.json").write_text(json.dumps(model))
    (out / "eval" / "other").mkdir(parents=True)
    shutil.copy(out / "metrics.json", out / "eval" / "other")
    return out


@pytest.fixture
def broken(out, tmp_path):
    """A copy of a run whose files may be broken; its data are where they were."""
    return RunFolder(shutil.copytree(out, tmp_path / "out"))


READERS = {  # file -> what reads it
    "run.json": lambda run: run.sources,
    "metrics.json": lambda run: run.thresholds,
    "isf.json": lambda run: run.isf,
    "eval/other/metrics.json": lambda run: run.evaluations,
    "base/settings.json": lambda run: run.seed,
    "base/model.json": lambda run: read_model(run.stage("base")),
    "identify/settings.json": lambda run: run.config,
    "sparse/settings.json": lambda run: run.config,
    "identify/metrics.json": lambda run: run.stage_metrics("identify", "dev"),
    "identify/salient.json": lambda run: run.salient("dev"),
    "sparse/injected.json": lambda run: run.injected("dev"),
    "result_dev.json": lambda run: run.result("dev"),
    "base/margins_dev.npz": lambda run: run.margins("base", "dev"),
    "identify/counts_dev.npz": lambda run: run.counts("dev"),
}
MAY_BE_MISSING = ("isf.json", "eval/other/metrics.json")


def message(run, file):
    with pytest.raises(SegDREError) as error:
        READERS[file](run)
    assert str(run.path / file) in str(error.value)
    assert error.value.hint
    return str(error.value)


@pytest.mark.parametrize("file", READERS)
def test_whole_files_are_read(out, file):
    assert READERS[file](RunFolder(out)) is not None


@pytest.mark.parametrize("file", sorted(READERS.keys() - set(MAY_BE_MISSING)))
def test_missing_files(broken, file):
    (broken.path / file).unlink()
    message(broken, file)


@pytest.mark.parametrize("file", MAY_BE_MISSING)
def test_files_that_may_be_missing(broken, file):
    (broken.path / file).unlink()
    assert not READERS[file](broken)


@pytest.mark.parametrize("file", READERS)
def test_truncated_files(broken, file):
    content = (broken.path / file).read_bytes()
    (broken.path / file).write_bytes(content[: len(content) // 2])
    message(broken, file)


@pytest.mark.parametrize("file", [file for file in READERS if file.endswith(".json")])
@pytest.mark.parametrize("value", ["null", "3", '"text"', "[3]", '{"dev": 3, "thresholds": [], "options": 3}'])
def test_files_of_another_type(broken, file, value):
    (broken.path / file).write_text(value)
    message(broken, file)


FIELDS = {  # file, change, words of the message
    "no adapter": ("run.json", lambda x: x | {"adapter": 3}, "adapter: expected str, got 3"),
    "no hash": ("run.json", lambda x: x | {"hashes": {}}, "hashes.rel2id missing"),
    "no file": ("run.json", lambda x: x | {"files": {"train": "a"}}, "files.dev missing"),
    "class in words": ("run.json", lambda x: x | {"rel2id": {"P1": "one"}}, "rel2id.P1: expected int, got 'one'"),
    "no tau": ("metrics.json", lambda x: x | {"thresholds": x["thresholds"] | {"tau_base": None}}, "tau_base"),
    "a grid": ("metrics.json", lambda x: x | {"thresholds": x["thresholds"] | {"grid": "mine"}}, "thresholds.grid"),
    "tau of NaN": ("metrics.json", lambda x: x | {"thresholds": x["thresholds"] | {"tau_base": math.nan}}, "got nan"),
    "tau of infinity": ("isf.json", lambda x: x | {"tau": math.inf}, "tau: expected int or float, got inf"),
    "tau of true": ("isf.json", lambda x: x | {"tau": True}, "tau: expected int or float, got True"),
    "a class twice": ("run.json", lambda x: x | {"rel2id": {"Na": 0, "P1": 1, "P2": 1}}, "classes 0, 1, 2"),
    "another class 0": ("run.json", lambda x: x | {"rel2id": {"P1": 0, "P2": 1}}, "class 0 is 'P1'"),
    "a checkpoint elsewhere": (
        "run.json",
        lambda x: x | {"checkpoint": "/x.pt"},
        "expected {folder}/ and a file in it",
    ),
    "a list of arguments": ("base/model.json", lambda x: x | {"arguments": {"emb_size": [64]}}, "arguments.emb_size"),
    "words in an array": ("base/model.json", lambda x: x | {"arrays": {"priors": ["x"]}}, "arrays.priors[0]: expected"),
    "a list of args": ("base/model.json", lambda x: x | {"args": {"tau": [1.0]}}, "args.tau: expected bool or int"),
    "a key in numbers": ("run.json", lambda x: x | {"checkpoint_key": 1}, "checkpoint_key: expected str or NoneType"),
    "a list to read with": ("base/model.json", lambda x: x | {"reading": []}, "reading: expected dict, got []"),
    "no fusion": (
        "metrics.json",
        lambda x: x | {"thresholds": {k: v for k, v in x["thresholds"].items() if k != "fusion"}},
        "thresholds.fusion missing",
    ),
    "an evaluation of another fusion": (
        "eval/other/metrics.json",
        lambda x: x | {"thresholds": x["thresholds"] | {"grid": "redocred"}},
        "evaluated with other thresholds",
    ),
    "no f1": (
        "metrics.json",
        lambda x: x | {"dev": x["dev"] | {"fused": {"precision": 1}}},
        "dev.fused.recall missing",
    ),
    "gold in words": ("metrics.json", lambda x: x | {"dev": {"gold": "yes"}}, "dev.gold: expected bool"),
    "tau in words": ("isf.json", lambda x: x | {"tau": "0.5"}, "tau: expected int or float, got '0.5'"),
    "an evaluation": ("eval/other/metrics.json", lambda x: x | {"test": 1}, "test: expected dict, got 1"),
    "seed in words": ("base/settings.json", lambda x: x | {"arguments": {"seed": "1"}}, "arguments.seed: expected int"),
    "no seed": ("base/settings.json", lambda x: x | {"arguments": {}}, "arguments.seed missing"),
    "width in words": ("identify/settings.json", lambda x: x | {"options": {"hidden": "wide"}}, "options.hidden"),
    "alpha in words": ("sparse/settings.json", lambda x: x | {"options": {"alpha": "all"}}, "options.alpha: expected"),
    "alpha of 2": ("sparse/settings.json", lambda x: x | {"options": {"alpha": 2}}, "alpha is 2"),
    "link of 1": ("sparse/settings.json", lambda x: x | {"options": {"link": 1}}, "options.link: expected bool, got 1"),
    "a salient entity": ("identify/salient.json", lambda x: x | {"dev": [3]}, "dev[0]: expected list, got 3"),
    "no split": ("identify/salient.json", lambda x: {}, "dev missing"),
    "a score": ("identify/metrics.json", lambda x: x | {"dev": {"accuracy": "1"}}, "dev.accuracy: expected int or"),
    "half a triple": (
        "sparse/injected.json",
        lambda x: x | {"dev": {"left_out": 0, "triples": [[[0, "P1"]]]}},
        "dev.triples[0][0]: expected [head, relation, tail]",
    ),
    "no triples": ("sparse/injected.json", lambda x: x | {"dev": {"left_out": 0}}, "dev.triples missing"),
    "a prediction": ("result_dev.json", lambda x: [x[0] | {"h_idx": "0"}], "[0].h_idx: expected int, got '0'"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_fields_of_another_type(broken, case):
    file, change, words = FIELDS[case]
    rewrite(broken.path / file, change)
    assert words in message(broken, file)


ARRAYS = {
    "no margin": ("base/margins_dev.npz", "margin", None, "margin missing"),
    "one less": ("base/margins_dev.npz", "head", lambda x: x[1:], "expected arrays of one length"),
    "integers": ("base/margins_dev.npz", "margin", lambda x: x.astype(int), "margin: expected finite"),
    "infinite": ("base/margins_dev.npz", "margin", lambda x: abs(x) * np.inf, "margin: expected finite"),
    "not a number": ("base/margins_dev.npz", "margin", lambda x: x * np.nan, "margin: expected finite"),
    "negative": ("base/margins_dev.npz", "tail", lambda x: x - 99, "tail: expected indices from 0"),
    "two columns": ("base/margins_dev.npz", "document", lambda x: np.stack([x, x], 1), "document: expected indices"),
    "evidence": ("base/margins_dev.npz", "evidence", lambda x: np.zeros((2, 3), bool), "evidence: expected bool"),
    "no pair": ("identify/counts_dev.npz", "pair", None, "pair missing"),
    "half a pair": ("identify/counts_dev.npz", "pair", lambda x: x[:, 0], "pair: expected pairs of indices"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_of_another_kind(broken, case):
    file, name, change, words = ARRAYS[case]
    arrays = read_arrays(broken.path / file)
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays.get(name))
    write_arrays(broken.path / file, arrays)
    assert words in message(broken, file)


def test_what_does_not_fit_the_documents(broken):
    few = broken.documents["dev"][:1]
    for read in (broken.salient, broken.injected, broken.counts, lambda *how: broken.margins("base", *how)):
        read("dev", broken.documents["dev"])
        with pytest.raises(SegDREError, match="dev"):
            read("dev", few)
    with pytest.raises(SegDREError, match="expected 0 to 1"):
        broken.margins("base", "dev", broken.documents["dev"], 2)


def test_an_injected_triple_of_an_entity_that_the_document_lacks(broken):
    def change(found):
        place = next(triples for triples in found["dev"]["triples"] if triples)
        place[0][2] = 99
        return found

    rewrite(broken.injected_file, change)
    with pytest.raises(SegDREError, match="does not fit the 12 documents of dev"):
        broken.injected("dev", broken.documents["dev"])


def test_a_run_that_is_not_finished_says_what_is_missing(broken):
    broken.require_finished()
    assert broken.is_finished
    broken.settings_file("dense").unlink()
    broken.sources_file.unlink()
    assert not broken.is_finished
    with pytest.raises(SegDREError, match=r"not a finished run; missing:\n.*stage dense\n.*run.json"):
        broken.require_finished()


def test_settings_of_identify_and_sparse_make_the_configuration(broken):
    rewrite(broken.settings_file("identify"), lambda x: x | {"options": {"hidden": 16, "salient": "zip"}})
    assert RunFolder(broken.path).config == SegConfig(hidden=16, alpha=0.5)


def test_files_are_where_the_run_says(broken):
    assert broken.checkpoint("dense") == broken.path / "dense" / "checkpoint.pt"
    assert broken.result_file("test").name == "result.json"
    assert broken.evaluation("x") == broken.path / "eval" / "x"
    assert broken.search == {"grid": "docred", "objective": "f1"}
    assert broken.left_out == {"dev": 0, "test": 0}

"""Bundles: whole or not at all, no pickle and no code, damage and strangers named; made by command and by option."""

import json
import shutil

import pytest
import torch
from bundles import bundle, run_folder, sign  # noqa: F401 - fixtures
from finished import rewrite

from segdre_plugin import SegDREError, SegPipeline, __version__
from segdre_plugin.cli import main
from segdre_plugin.data.files import fingerprint
from segdre_plugin.seg.bundle import bundle_fingerprint, read_bundle, write_bundle

NAMES = {
    "bundle.json",
    "rel2id.json",
    "rel_info.json",
    "metrics.json",
    "encoder/config.json",
    "encoder/tokenizer.json",
    "encoder/tokenizer_config.json",
    *(f"{stage}.safetensors" for stage in ("base", "identify", "dense", "sparse")),
}


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def copied(bundle, tmp_path):  # noqa: F811
    return shutil.copytree(bundle, tmp_path / "bundle")


def edit(folder, change):
    path = folder / "bundle.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_holds_everything_and_says_what(bundle, run_folder):  # noqa: F811
    assert names(bundle) >= NAMES
    said = json.loads((bundle / "bundle.json").read_text())
    assert said["files"].keys() == names(bundle) - {"bundle.json"}
    for name, known in said["files"].items():
        assert known == {"bytes": (bundle / name).stat().st_size, "sha256": fingerprint(bundle / name)}
    corpus = run_folder.parent / "corpus"
    assert json.loads((bundle / "rel2id.json").read_text()) == json.loads((corpus / "rel2id.json").read_text())
    assert json.loads((bundle / "rel_info.json").read_text()) == json.loads((corpus / "rel_info.json").read_text())
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert json.loads((bundle / "metrics.json").read_text()) == metrics
    assert said["thresholds"].items() <= metrics["thresholds"].items()
    assert said["versions"]["segdre_plugin"] == __version__
    assert said["config"]["hidden"] == 16
    assert said["arguments"]["num_labels"] == 4


def test_saved_again_it_is_the_same(bundle, tmp_path):  # noqa: F811
    SegPipeline.from_pretrained(bundle).save_pretrained(tmp_path / "again")
    assert names(tmp_path / "again") == names(bundle)
    for name in names(bundle):
        assert (tmp_path / "again" / name).read_bytes() == (bundle / name).read_bytes(), name
    assert vars(read_bundle(tmp_path / "again")) == vars(read_bundle(bundle))
    SegPipeline.from_pretrained(bundle).save_pretrained(tmp_path / "again")  # replaces a bundle
    assert names(tmp_path) == {f"again/{name}" for name in names(bundle)}


def test_writing_fails_whole(bundle, tmp_path):  # noqa: F811
    description = read_bundle(bundle)

    def weights(stage):
        if stage == "dense":
            raise OSError("disk full")
        return {"a": torch.zeros(2)}

    with pytest.raises(SegDREError, match=r"cannot write .*disk full"):
        write_bundle(tmp_path / "new", description, weights, lambda folder: None)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(SegDREError, match="already exists and is not a bundle"):
        write_bundle(tmp_path / "mine", description, weights, lambda folder: None)


def test_tied_weights_are_written_apart(bundle, tmp_path):  # noqa: F811
    from safetensors.torch import load_file

    shared = torch.arange(6.0).reshape(2, 3)
    state = {"a": shared, "b": shared, "c": shared.t()}
    write_bundle(tmp_path / "new", read_bundle(bundle), lambda stage: state, lambda folder: None)
    found = load_file(tmp_path / "new" / "base.safetensors")
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_unfinished_copies_and_strangers_are_named(copied, tmp_path):
    whole = (copied / "dense.safetensors").read_bytes()
    (copied / "dense.safetensors").write_bytes(whole[:-1])
    (copied / "rel_info.json").unlink()
    with pytest.raises(SegDREError) as caught:
        SegPipeline.from_pretrained(copied)
    for words in ("damaged bundle", "rel_info.json: missing", f"dense.safetensors: {len(whole) - 1} bytes, expected"):
        assert words in str(caught.value)
    with pytest.raises(SegDREError, match=r"not a bundle(.|\n)*segdre bundle SEG_DIR"):
        SegPipeline.from_pretrained(tmp_path)
    with pytest.raises(SegDREError, match="not a bundle"):
        SegPipeline.from_pretrained(tmp_path / "nowhere")


CHANGES = {
    "later format": (lambda said: said.update(format=2), "format 2"),
    "no thresholds": (lambda said: said.pop("thresholds"), "thresholds"),
    "unknown setting": (lambda said: said["config"].update(magic=1), "magic"),
    "unknown adapter": (lambda said: said.update(adapter="nobody"), "unknown adapter 'nobody'"),
    "a clone is needed": (lambda said: said.update(adapter="atlop"), "git clone https://github.com/wzhouad/ATLOP"),
    "other sizes": (lambda said: said["arguments"].update(emb_size=64), "weights of stage base do not fit"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_does_not_fit_is_named(copied, case):
    change, message = CHANGES[case]
    edit(copied, change)
    with pytest.raises(SegDREError) as caught:
        SegPipeline.from_pretrained(copied)
    assert message in str(caught.value)
    assert str(copied) in str(caught.value)


FILES = {  # change of the folder -> words of the message
    "a flipped bit": (
        lambda path: flip(path / "dense.safetensors"),
        r"dense\.safetensors: other content \(SHA-256\) than in the list",
    ),
    "weights of the right size": (
        lambda path: (path / "sparse.safetensors").write_bytes(b"\xff" * (path / "sparse.safetensors").stat().st_size),
        r"sparse\.safetensors: other content",
    ),
    "a relation renamed": (
        lambda path: rewrite(path / "rel_info.json", lambda names: names | {"P17": "x"}),
        r"rel_info\.json: .* bytes, expected",
    ),
    "a file more": (
        lambda path: (path / "encoder" / "vocab.txt").write_text("a"),
        r"encoder/vocab\.txt: not in the list",
    ),
    "a file less": (lambda path: (path / "metrics.json").unlink(), r"metrics\.json: missing, expected"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_are_those_of_the_list(copied, case):
    change, words = FILES[case]
    read_bundle(copied)
    change(copied)
    with pytest.raises(SegDREError, match=words) as caught:
        SegPipeline.from_pretrained(copied)
    assert "a damaged bundle" in str(caught.value)


def flip(path):
    """Flip the last bit of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_broken_weights(copied):
    (copied / "sparse.safetensors").write_bytes(b"\xff" * 100)
    sign(copied)
    with pytest.raises(SegDREError, match=r"sparse.safetensors: cannot be read"):
        SegPipeline.from_pretrained(copied)


VALUES = {  # file, field, value -> words of the message
    "NaN": ("bundle.json", "thresholds.tau_base", float("nan"), "thresholds.tau_base: expected int or float, got nan"),
    "infinite": ("bundle.json", "thresholds.tau_dense", float("inf"), "thresholds.tau_dense: expected"),
    "true": ("bundle.json", "thresholds.tau_sparse", True, "thresholds.tau_sparse: expected int or float, got True"),
    "a list": ("bundle.json", "thresholds.tau_base", [0], "thresholds.tau_base: expected int or float, got [0]"),
    "fusion": ("bundle.json", "thresholds.fusion", "mine", "thresholds.fusion: expected union or average"),
    "a threshold more": ("bundle.json", "thresholds.tau", 0.0, "thresholds: unknown:\n  - tau"),
    "ISF": ("bundle.json", "isf", {"tau": float("nan")}, "isf.tau: expected int or float, got nan"),
    "ISF without thresholds": ("bundle.json", "isf", {"tau": 0.0, "thresholds": {}}, "isf.thresholds.tau_base missing"),
    "alpha": ("bundle.json", "config.alpha", float("nan"), "config.alpha: expected"),
    "alpha of 2": ("bundle.json", "config.alpha", 2, "alpha is 2"),
    "width": ("bundle.json", "config.hidden", "16", "config.hidden: expected int"),
    "strategy": ("bundle.json", "config.salient", "mine", "unknown strategy 'mine'"),
    "seed": ("bundle.json", "seed", 1.5, "seed: expected int, got 1.5"),
    "argument": ("bundle.json", "arguments.num_labels", [4], "arguments.num_labels: expected"),
    "size of the model": ("bundle.json", "arguments.emb_size", "64", "weights of stage base do not fit"),
    "number of labels": ("bundle.json", "arguments.num_labels", "4", "arguments.num_labels: expected int, got '4'"),
    "reading": ("bundle.json", "reading", [], "reading: expected dict"),
    "files": ("bundle.json", "files", ["base.safetensors"], "files: expected dict"),
    "a class of -1": ("rel2id.json", "P17", -1, "expected relation -> class with classes 0, 1, 2"),
    "a class of true": ("rel2id.json", "Na", False, "expected relation -> class"),
    "a class twice": ("rel2id.json", "P17", 2, "expected relation -> class"),
    "a relation more": ("rel2id.json", "P99", 15, "P99"),
    "a name": ("rel_info.json", "P17", 7, "relations without a name"),
}


@pytest.mark.parametrize("case", VALUES)
def test_values_are_checked(copied, case):
    file, place, value, words = VALUES[case]

    def change(content):
        *outer, last = place.split(".")
        inner = content
        for name in outer:
            inner = inner[name]
        inner[last] = value
        return content

    rewrite(copied / file, change)
    if file != "bundle.json":
        sign(copied)
    with pytest.raises(SegDREError) as caught:
        SegPipeline.from_pretrained(copied)
    assert words in str(caught.value)


def test_relations_that_the_models_do_not_know(copied):
    rewrite(copied / "rel2id.json", lambda classes: classes | {"P99": len(classes)})
    rewrite(copied / "rel_info.json", lambda names: names | {"P99": "something else"})
    sign(copied)
    with pytest.raises(SegDREError, match=r"16 relations \(NA included\), its models know 15"):
        SegPipeline.from_pretrained(copied)


def test_command(run_folder, bundle, tmp_path, capsys):  # noqa: F811
    assert main(["bundle", str(run_folder), str(tmp_path / "made")]) == 0
    assert "written: " in capsys.readouterr().out
    assert bundle_fingerprint(tmp_path / "made") == bundle_fingerprint(bundle)
    assert main(["bundle", str(run_folder), str(tmp_path / "made")]) == 0  # again


OLD = {
    "stage missing": ("dense", "missing:\n  - stage dense"),
    "not fused": ("metrics.json", "missing:\n  - metrics.json"),
    "older than bundles": ("base/model.json", "without which the model cannot be built again"),
}


@pytest.mark.parametrize("case", OLD)
def test_runs_that_cannot_be_bundled(run_folder, tmp_path, capsys, case):  # noqa: F811
    name, message = OLD[case]
    run = shutil.copytree(run_folder, tmp_path / "run")
    shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()
    assert main(["bundle", str(run), str(tmp_path / "made")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "made").exists()


def test_option_of_a_run(run_folder, bundle, tmp_path, capsys):  # noqa: F811
    from bundles import repeat

    assert "segdre bundle" in repeat(run_folder, capsys)
    assert "bundle for segdre predict" in repeat(run_folder, capsys, "--seg-bundle", str(tmp_path / "made"))
    assert bundle_fingerprint(tmp_path / "made") == bundle_fingerprint(bundle)
    (tmp_path / "mine").mkdir()
    with pytest.raises(SegDREError, match="already exists and is not a bundle"):
        repeat(run_folder, capsys, "--seg-bundle", str(tmp_path / "mine"))


@pytest.mark.parametrize("place", ["{run}", "{run}/bundle", "{run}/.."])
def test_a_bundle_where_its_run_is(run_folder, capsys, monkeypatch, place):  # noqa: F811
    from bundles import repeat

    folder = place.format(run=run_folder)
    with pytest.raises(SegDREError, match="inside the other"):
        repeat(run_folder, capsys, "--seg-bundle", folder)
    assert "stage base" not in capsys.readouterr().out  # before anything is trained
    assert main(["bundle", str(run_folder), folder]) == 2
    assert "inside the other" in capsys.readouterr().err


def test_a_bundle_whose_replacement_was_killed_is_found(copied):
    copied.rename(copied.with_name(".bundle.old"))
    (copied.with_name(".bundle.partial")).mkdir()
    assert read_bundle(copied).adapter == "reference"
    assert [path.name for path in copied.parent.iterdir() if path.name != ".bundle.partial"] == ["bundle"]

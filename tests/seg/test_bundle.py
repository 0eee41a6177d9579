"""Bundles: whole or not at all, no pickle and no code, damage and strangers named; made by command and by option."""

import contextlib
import json
import pickle
import shutil
import sys

import pytest
import torch
from bundles import bundle, run_folder  # noqa: F401 - fixtures

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

    with pytest.raises(OSError, match="disk full"):
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


class Bomb:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return (exec, ("import sys; sys.segdre_exploded = True",))


def test_loading_runs_no_code_and_reads_no_pickle(copied, monkeypatch):
    for name in ("pytorch_model.bin", "base.bin", "model.pt"):
        (copied / name).write_bytes(pickle.dumps(Bomb()))
        (copied / "encoder" / name).write_bytes(pickle.dumps(Bomb()))
    code = "import sys\nsys.segdre_exploded = True\n"
    for name in ("model.py", "prepro.py", "utils.py", "encoder/evil.py", "encoder/tokenizer.py", "sitecustomize.py"):
        (copied / name).write_text(code)
    monkeypatch.chdir(copied)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    monkeypatch.setattr(pickle, "load", lambda *_, **__: pytest.fail("pickle.load was called"))
    pipeline = SegPipeline.from_pretrained(copied)
    assert not hasattr(sys, "segdre_exploded")
    assert set(pipeline.models) == {"base", "identify", "dense", "sparse"}


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_an_encoder_with_code_of_its_own_is_refused_or_its_code_left_alone(copied, file):
    (copied / "encoder" / "evil.py").write_text("import sys\nsys.segdre_exploded = True\nclass Evil: pass\n")
    path = copied / "encoder" / file
    maps = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    content = json.loads(path.read_text()) | {"auto_map": maps, "model_type": "evil"}
    path.write_text(json.dumps(content))
    edit(copied, lambda said: said["files"][f"encoder/{file}"].update(bytes=path.stat().st_size))
    with contextlib.suppress(SegDREError):
        SegPipeline.from_pretrained(copied)
    assert not hasattr(sys, "segdre_exploded")


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
    "unknown adapter": (lambda said: said.update(adapter="docunet"), "unknown adapter 'docunet'"),
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


def test_broken_weights_of_the_right_size(copied):
    path = copied / "sparse.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(SegDREError, match=r"sparse.safetensors: cannot be read"):
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

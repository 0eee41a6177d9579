"""``--seg-start``: what dense and sparse start from. ``--seg-reuse``: stages of other runs with the same settings."""

import json
import shutil

import bundles
import pytest
import torch

from segdre_plugin import SegConfig, SegDREError
from segdre_plugin.backbones.reference import train

run_folder = bundles.run_folder
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def starts(monkeypatch):
    """The weights with which each stage's training began."""
    found = []

    def record(args, model, *rest):
        found.append({name: weight.clone() for name, weight in model.state_dict().items()})
        return upstream(args, model, *rest)

    upstream = train.train
    monkeypatch.setattr(train, "train", record)
    return found


@pytest.fixture
def place(run_folder, tmp_path):
    shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
    return tmp_path


def weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def settings(folder, stage):
    return json.loads((folder / stage / "settings.json").read_text())["options"]


def test_dense_and_sparse_start_from_the_base(place, starts):
    bundles._run(place / "run", "--seg-start", "base", "--learning_rate", "1e-3", "--new_layer_lr", "2e-3")
    base = weights(place / "run" / "base")
    at_base, _, at_dense, at_sparse = starts
    assert same(base, at_dense)
    assert same(base, at_sparse)
    assert not same(base, at_base)
    assert not same(base, weights(place / "run" / "dense"))  # and are trained from there
    assert settings(place / "run", "dense")["start"] == settings(place / "run", "sparse")["start"] == "base"
    assert "start" not in settings(place / "run", "base") | settings(place / "run", "identify")


@pytest.mark.parametrize(
    ("start", "later"), [("base", 2e-3), ("encoder", 5e-3)], ids=["a base has no new layers", "an encoder has"]
)
def test_learning_rate_of_new_layers(place, monkeypatch, start, later):
    rates = []

    def optimizer(groups, **how):
        rates.append([group.get("lr", how["lr"]) for group in groups])
        return upstream(groups, **how)

    upstream = train.AdamW
    monkeypatch.setattr(train, "AdamW", optimizer)
    own = ("--learning_rate", "1e-3", "--new_layer_lr", "2e-3", "--seg-new-layer-lr", "5e-3")
    bundles._run(place / "run", "--seg-start", start, *own)
    assert rates == [[1e-3, 5e-3], [1e-3, 5e-3], [1e-3, later], [1e-3, later]]


def test_from_the_encoder_otherwise(place, starts):
    bundles._run(place / "run", "--learning_rate", "1e-3", "--new_layer_lr", "2e-3")
    base = weights(place / "run" / "base")
    at_base, _, at_dense, at_sparse = starts
    assert same(at_base, at_dense)
    assert same(at_base, at_sparse)
    assert not same(base, at_dense)
    assert settings(place / "run", "dense")["start"] == "encoder"


def test_an_unknown_start_is_refused():
    with pytest.raises(SegDREError, match="start is 'dense'\n  -> choose from encoder, base"):
        SegConfig(start="dense")


def test_stages_of_the_same_settings_are_taken(run_folder, place, starts, capsys):
    empty = place / "empty"
    empty.mkdir()
    bundles._run(place / "run", "--seg-alpha", "0.5", "--seg-reuse", str(empty), "--seg-reuse", str(run_folder))
    assert len(starts) == 1  # alpha is a setting of the sparse stage alone
    printed = capsys.readouterr().out
    for stage in ("base", "identify", "dense"):
        assert f"stage {stage} is that of {run_folder}" in printed
        assert (place / "run" / stage / "settings.json").read_text() == (
            run_folder / stage / "settings.json"
        ).read_text()
    assert same(weights(place / "run" / "dense"), weights(run_folder / "dense"))
    assert not same(weights(place / "run" / "sparse"), weights(run_folder / "sparse"))
    assert (place / "run" / "metrics.json").is_file()
    assert bundles.repeat(place / "run", capsys, "--seg-alpha", "0.5").count("is done") == 4


def test_stages_of_other_settings_are_not(run_folder, place, starts, capsys):
    bundles._run(place / "run", "--seed", "1", "--seg-stage", "base", "--seg-reuse", str(run_folder))
    assert len(starts) == 1
    assert "is that of" not in capsys.readouterr().out


def test_a_missing_run_is_refused_before_anything_is_made(place):
    with pytest.raises(SegDREError, match="--seg-reuse: no folder"):
        bundles._run(place / "run", "--seg-reuse", str(place / "nowhere"))
    assert not (place / "run").exists()

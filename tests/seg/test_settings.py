"""The settings of a stage: which option they hold, what a change of one makes again, the clone's modules."""

import sys
from argparse import Namespace
from dataclasses import fields, replace
from pathlib import Path

import pytest

from segdre_plugin import SegConfig, SegDREError
from segdre_plugin.backbones.clones.recognition import MARK
from segdre_plugin.seg.options import Options
from segdre_plugin.seg.settings import RunSettings, clone_modules, encoder_files
from segdre_plugin.stages.config import NEEDS, STAGES, settings_of

# another legal value of every field that a stage depends on
OTHER = {
    "hidden": 16,
    "alpha": 0.5,
    "branch_budget": 64,
    "link": True,
    "template_from": "{tail}",
    "template_to": "{head}",
    "salient": "random",
    "salient_k": 2,
    "train_salient": "same",
    "loss": "hinge-abl",
    "start": "base",
    "share_encoder": True,
    "identify_epochs": 3.0,
    "identify_warmup": 0.1,
    "dense_epochs": 4.0,
    "sparse_epochs": 5.0,
    "new_layer_lr": 1e-3,
    "select": "gold",
    "trainer": "own",
    "windows": 3,
    "fast": False,
    "bf16": True,
    "buckets": True,
    "skip_unusable": True,
    "pairs": ("PER:LOC",),
}


def make(options=None, **more):
    own = {"adapter": "atlop", "arguments": {"seed": 1}, "data": {"train": "a"}, "modules": {"model.py": "b"}}
    own["encoder"] = {"model_name_or_path": {"config.json": "d"}}
    return RunSettings(**own | {"rel_info": "c", "load_path": None, "options": options or Options(seg=True)} | more)


def affected(stages):
    """The stages themselves, and those that need one of them."""
    found = set(stages)
    for stage in STAGES:
        if found & set(NEEDS[stage]):
            found.add(stage)
    return found


def test_every_field_that_a_stage_depends_on_is_listed():
    known = settings_of(Options) | settings_of(SegConfig)
    assert {name for name, setting in known.items() if setting.stages} == OTHER.keys() | {"rel_info"}


@pytest.mark.parametrize("name", OTHER)
def test_a_change_concerns_the_fields_own_stages_and_those_behind_them(name):
    config = SegConfig(salient="max-mention") if name == "train_salient" else SegConfig()
    before = Options(seg=True, config=config)
    if name in {f.name for f in fields(SegConfig)}:
        after = replace(before, config=replace(config, **{name: OTHER[name]}))
    else:
        after = replace(before, **{name: OTHER[name]})
    stages = (settings_of(Options) | settings_of(SegConfig))[name].stages
    changed = {stage for stage in STAGES if make(before).of(stage) != make(after).of(stage)}
    assert changed == affected(stages)


@pytest.mark.parametrize(
    ("what", "stages"),
    [
        ({"modules": {"model.py": "z"}}, STAGES),
        ({"encoder": {"model_name_or_path": {"config.json": "z"}}}, STAGES),
        ({"load_path": "z"}, ("base",)),
        ({"rel_info": "z"}, ("sparse",)),
    ],
)
def test_a_change_of_files(what, stages):
    changed = {stage for stage in STAGES if make().of(stage) != make(**what).of(stage)}
    assert changed == affected(stages)


def test_options_of_the_search_concern_no_stage():
    other = Options(
        seg=True, grid="redocred", objective="ign_f1", fusion="average", directory=Path("other"), parallel=True
    )
    assert all(make().of(stage) == make(other).of(stage) for stage in STAGES)


def test_checkpointing_may_be_added_to_a_run_that_has_begun():
    assert all(make().of(stage) == make(Options(seg=True, checkpointing=True)).of(stage) for stage in STAGES)


def test_stage_that_trains_nothing_does_not_depend_on_training():
    options = Options(seg=True, config=SegConfig(salient="random"))
    assert not {"hidden", "identify_epochs", "identify_warmup"} & make(options).of("identify")["options"].keys()


def test_a_base_that_shares_its_encoder_depends_on_what_its_heads_learn():
    shared = SegConfig(share_encoder=True, salient="max-mention")
    for other in ({"hidden": 16}, {"salient": "random"}, {"salient_k": 2}, {"train_salient": "same"}):
        for config, depends in ((shared, True), (replace(shared, share_encoder=False), False)):
            before, after = (make(Options(seg=True, config=c)).of("base") for c in (config, replace(config, **other)))
            assert (before != after) == depends
    epochs = [make(Options(seg=True, config=shared, dense_epochs=n, identify_epochs=n)) for n in (1.0, 2.0)]
    assert all(epochs[0].of(stage) == epochs[1].of(stage) for stage in STAGES)


@pytest.mark.parametrize(("start", "expected"), [("encoder", [1e-3] * 4), ("base", [1e-3, 1e-3, None, None])])
def test_learning_rate_of_new_layers(start, expected):
    options = Options(seg=True, config=SegConfig(start=start), new_layer_lr=1e-3)
    assert [make(options).new_layer_lr(stage) for stage in STAGES] == expected


@pytest.mark.slow
def test_modules_of_a_clone_are_those_that_were_imported_beside_the_script(tmp_path, monkeypatch):
    for name in ("train", "segdre_imported", "segdre_not_imported"):
        (tmp_path / f"{name}.py").write_text(f"NAME = {name!r}\n")
    monkeypatch.syspath_prepend(tmp_path)
    import segdre_imported  # noqa: F401

    try:
        found = clone_modules(str(tmp_path / "train.py"))
        assert found.keys() == {"segdre_imported.py", "train.py"}
        (tmp_path / "train.py").write_bytes(
            (tmp_path / "train.py").read_bytes() + b"import segdre_plugin  " + MARK + b"\n"
        )
        assert clone_modules(str(tmp_path / "train.py")) == found  # patched
        (tmp_path / "train.py").write_text("NAME = 'changed'\n")
        assert clone_modules(str(tmp_path / "train.py"))["train.py"] != found["train.py"]
        (tmp_path / "segdre_imported.py").write_text("NAME = 'changed'\n")
        assert clone_modules(str(tmp_path / "train.py")) != found
    finally:
        del sys.modules["segdre_imported"]
    assert clone_modules(None) == {}


@pytest.mark.slow
def test_packages_in_a_clones_folder_are_its_modules_and_installed_ones_are_not(tmp_path, monkeypatch):
    inside = {
        "segdre_own": tmp_path / "segdre_own",
        "segdre_other": tmp_path / ".venv" / "site-packages" / "segdre_other",
    }
    for folder in inside.values():
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        monkeypatch.syspath_prepend(folder.parent)
    (tmp_path / "train.py").write_text("")
    try:
        for name in inside:
            __import__(name)
        assert clone_modules(str(tmp_path / "train.py")).keys() == {"segdre_own/__init__.py", "train.py"}
    finally:
        for name in inside:
            sys.modules.pop(name, None)


class TestEncoderFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "encoder"
        (folder / "onnx").mkdir(parents=True)
        for name in ("config.json", "model.safetensors", "vocab.txt", "README.md", "optimizer.pt", "onnx/model.bin"):
            (folder / name).write_text(name)
        return folder

    def test_those_that_are_read(self, folder):
        found = encoder_files(Namespace(model_name_or_path=str(folder), config_name="", seed=1))
        assert {name: sorted(files) for name, files in found.items()} == {
            "model_name_or_path": ["config.json", "model.safetensors", "vocab.txt"]
        }
        for name in found["model_name_or_path"]:
            (folder / name).write_text("other")
            now = encoder_files(Namespace(model_name_or_path=str(folder)))["model_name_or_path"]
            assert now[name] != found["model_name_or_path"][name]

    def test_of_other_arguments(self, folder):
        args = Namespace(model_name_or_path="", config_name=str(folder / "config.json"), tokenizer_name=str(folder))
        assert {name: len(files) for name, files in encoder_files(args).items()} == {
            "config_name": 1,
            "tokenizer_name": 3,
        }

    def test_there_may_be_none(self):
        assert encoder_files(Namespace(model_name_or_path="")) == encoder_files(Namespace()) == {}

    def test_a_name_stands_for_its_commit(self, tmp_path, monkeypatch):
        constants = pytest.importorskip("huggingface_hub.constants")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        model, commit = tmp_path / "models--made--up", "0123456789abcdef0123456789abcdef01234567"
        for file, text in {"refs/main": commit, f"snapshots/{commit}/config.json": "{}"}.items():
            (model / file).parent.mkdir(parents=True)
            (model / file).write_text(text)
        assert encoder_files(Namespace(model_name_or_path="made/up")) == {"model_name_or_path": {"commit": commit}}

    @pytest.mark.parametrize("name", ["no/where", "/no/where", "./no where at all"])
    def test_what_is_not_there(self, name):
        with pytest.raises(SegDREError, match=rf"--model_name_or_path {name}: not a folder, and not found"):
            encoder_files(Namespace(model_name_or_path=name))

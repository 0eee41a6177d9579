"""Models from a bundle: without the encoder's weights or a download, in the form that the stage's checkpoint has."""

import json
from types import SimpleNamespace

import pytest
import tiny
import torch
from seg_objects import tokenizer

from segdre_plugin import SegConfig, SegDREError, wrap_collate, wrap_model
from segdre_plugin.backbones.reference import collate_fn
from segdre_plugin.data.synthetic.corpus import rel2id
from segdre_plugin.prediction.clone_code import load_backbone_code
from segdre_plugin.prediction.models import build_model, load_encoder
from segdre_plugin.seg.checkpoints import ENCODER, keep_model, read_model

STAGES = ("base", "identify", "dense", "sparse")
CONFIG = SegConfig(hidden=8)


@pytest.fixture
def kept(tmp_path):
    """The folder of a model, and the model."""
    model = tiny.model(seed=4, vocabulary=len(tokenizer()))
    keep_model(tmp_path, model, tokenizer(), tiny.ATLOP, {})
    return tmp_path, model


def build(folder, stage, state, config=CONFIG):
    description = SimpleNamespace(**read_model(folder), config=config)
    encoder, words = load_encoder(folder / ENCODER)
    return build_model(load_backbone_code("reference", None, rel2id()), encoder, words, description, stage, state)


@pytest.mark.parametrize("stage", STAGES)
def test_the_weights_of_a_stage_fit(kept, stage):
    folder, model = kept
    state = {
        name: weight.clone() for name, weight in wrap_model(model, stage=stage, config=CONFIG).state_dict().items()
    }
    built = build(folder, stage, state)
    assert built.load_state_dict(state).missing_keys == []
    feature = tiny.feature(30, seed=1)
    if stage == "sparse":
        feature = tiny.injected(feature, tiny.branches(3))
    batch = wrap_collate(collate_fn, adapter=tiny.ATLOP)([feature])
    with torch.no_grad():
        expected, found = (tiny.logits(one.eval(), batch) for one in (model, built))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("pooler", [True, False])
def test_a_pooler_is_there_if_its_weights_are(kept, pooler):
    folder, model = kept
    state = {name: weight for name, weight in model.state_dict().items() if pooler or ".pooler." not in name}
    built = build(folder, "base", state)
    assert {name for name in built.state_dict() if ".pooler." in name} == {name for name in state if ".pooler." in name}
    assert built.load_state_dict(state).missing_keys == []


def test_an_encoder_that_had_been_saved_in_half_precision(kept):
    folder, model = kept
    path = folder / ENCODER / "config.json"
    config = json.loads(path.read_text())
    names = config.keys() & {"dtype", "torch_dtype"}  # transformers 5 and 4
    path.write_text(json.dumps(config | dict.fromkeys(names or {"dtype"}, "float16")))
    built = build(folder, "base", model.state_dict())
    built.load_state_dict(model.state_dict())
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in built.state_dict().items())


def test_random_numbers_stay_as_they_are(kept):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build(kept[0], "sparse", kept[1].state_dict())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_of_the_users_own_need_not_be_registered(kept):
    build(kept[0], "base", kept[1].state_dict(), SegConfig(hidden=8, loss="somebodys-own"))


DAMAGE = {
    "gone": "cannot read",
    "cut off": "is not JSON",
    "no tokenizer": "cannot be loaded",
    "code of its own": "auto_map",
    "a list": "expected dict",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_encoder_ends_in_a_message(kept, damage):
    encoder = kept[0] / ENCODER
    if damage == "gone":
        encoder.rename(encoder.with_name("elsewhere"))
    elif damage == "cut off":
        (encoder / "config.json").write_text('{"model_type": ')
    elif damage == "no tokenizer":
        (encoder / "tokenizer.json").write_text("{}")
    elif damage == "a list":
        (encoder / "tokenizer_config.json").write_text("[]")
    else:
        (encoder / "config.json").write_text('{"model_type": "strange", "auto_map": {"AutoConfig": "own.Config"}}')
    with pytest.raises(SegDREError, match=DAMAGE[damage]):
        load_encoder(encoder)

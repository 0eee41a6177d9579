"""Gradient checkpointing: the same logits, gradients and dropout in every stage; layers run twice; undone."""

import pytest
import tiny
import torch

from segdre_plugin import SegDREError, unwrap_model, wrap_collate, wrap_model
from segdre_plugin.backbones import checkpointing
from segdre_plugin.backbones.checkpointing import checkpoint_layers
from segdre_plugin.backbones.reference import collate_fn
from segdre_plugin.stages.config import STAGES

pytestmark = pytest.mark.slow

DROPOUT = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}


def batch(kind, stage):
    features = [tiny.feature(n, kind=kind, seed=n) for n in (40, 33)]
    if stage == "sparse":
        features = [tiny.injected(one, tiny.branches(3, seed=3), kind=kind) for one in features]
    return wrap_collate(collate_fn, adapter="atlop")(features)


class Calls:
    """Counts how often the encoder's layers attend."""

    def __init__(self, model):
        self.n = 0
        for name, module in model.model.named_modules():
            if name.endswith("attention.self.query"):
                module.register_forward_hook(self)

    def __call__(self, *_):
        self.n += 1


def both(kind, stage, **how):
    """Return what a step finds without and with checkpointing, and how often layers attended in it."""
    model = tiny.model(kind, **DROPOUT).double()
    calls = Calls(model)

    def step(model):
        calls.n = 0
        loss, *_ = model(*batch(kind, stage))
        loss.backward()
        grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return loss.detach(), grads, calls.n

    return tiny.plain_and_checkpointed(model, stage, step, **how)


def switched_on(model):
    return any(getattr(module, "gradient_checkpointing", False) for module in model.model.modules())


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("stage", STAGES)
def test_numbers_are_the_same_and_layers_are_computed_twice(kind, stage, fast):
    (due, due_grads, once), (loss, grads, twice) = both(kind, stage, fast=fast)
    assert twice == 2 * once
    assert loss == due
    assert grads.keys() == due_grads.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(grad, due_grads[name], rtol=1e-12, atol=1e-14, msg=name)


def test_control_other_dropout_the_second_time_is_seen(monkeypatch):
    monkeypatch.setitem(checkpointing.HOW, "preserve_rng_state", False)
    (_, due, _), (_, grads, _) = both("bert", "sparse")
    assert not all(torch.allclose(grads[name], due[name]) for name in due)


def test_in_bfloat16():
    (due, due_grads, _), (loss, grads, _) = both("bert", "sparse", bf16=True)
    assert loss == due
    assert all(torch.equal(grads[name], due_grads[name]) for name in due_grads)


def test_less_is_kept_for_the_gradients():
    def kept(checkpointed):
        model = wrap_model(tiny.model(**DROPOUT, num_hidden_layers=6).train(), checkpointing=checkpointed)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.nbytes) or t, lambda t: t):
            model(*batch("bert", "base"))
        return sum(sizes)

    assert kept(True) < 0.6 * kept(False)


def test_undone():
    model = tiny.model(**DROPOUT)
    calls = Calls(model)
    unwrap_model(wrap_model(model, checkpointing=True))
    assert not switched_on(model)
    calls.n = 0
    model.train()(*batch("bert", "base"))[0].backward()
    assert calls.n == model.config.num_hidden_layers


def test_what_its_owner_switched_on_stays_on():
    model = tiny.model()
    checkpoint_layers(model.model)
    unwrap_model(wrap_model(model, checkpointing=True))
    assert switched_on(model)


def test_predicting_computes_once():
    model = wrap_model(tiny.model(), checkpointing=True)
    calls = Calls(model)
    tiny.logits(model, batch("bert", "base"))
    assert calls.n == model.config.num_hidden_layers


def test_an_encoder_that_cannot_is_refused():
    with pytest.raises(SegDREError, match="Linear cannot compute its layers again"):
        checkpoint_layers(torch.nn.Linear(2, 2))

"""Training ends at the first loss or gradient that is not finite; a scaler's skipped step is none."""

from contextlib import nullcontext
from functools import partial

import amp_loop
import pytest
import tiny
import torch
from torch import nn

from segdre_plugin import SegDREError, wrap_collate, wrap_model
from segdre_plugin.backbones.clones import apex as amp
from segdre_plugin.backbones.reference import collate_fn
from segdre_plugin.backbones.watch import watch_finite

TITLES = ("A town", "A river")


def watched(model, stage="dense"):
    return watch_finite(model, stage, lambda: TITLES)


class Poison:
    """A forward hook that multiplies the loss of one step, in value or in gradient."""

    def __init__(self, step, factor, gradient=False):
        self.step, self.factor, self.gradient, self.seen = step, factor, gradient, 0

    def __call__(self, model, args, output):
        self.seen += 1
        if self.seen != self.step:
            return output
        loss, *rest = output
        if self.gradient:
            loss.register_hook(lambda grad: grad * self.factor)
        else:
            loss = loss * self.factor
        return loss, *rest


def train(poison, prepare=lambda *both: both, **how):
    """Run the backbones' loop; give the model and the error that ended it."""
    model, optimizer = prepare(*amp_loop.build())
    model.register_forward_hook(poison)
    with nullcontext() if how.pop("fine", False) else pytest.raises(SegDREError) as caught, watched(model):
        amp_loop.train(model, optimizer, **how)
    return model, caught and str(caught.value)


@pytest.mark.parametrize("clip", [1.0, 0.0])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_first_loss_that_is_not_finite(value, clip):
    model, error = train(Poison(7, value), clip=clip)
    assert error.startswith("stage dense, step 7, learning rate 0.006 and 0.03, documents 'A town', 'A river': ")
    assert f"got a loss of {value:g}" in error
    assert "weights" not in error
    assert all(p.isfinite().all() for p in model.parameters())  # it ended before they were changed


@pytest.mark.parametrize("clip", [1.0, 0.0])
def test_first_gradient_that_is_not_finite(clip):
    model, error = train(Poison(7, float("nan"), gradient=True), clip=clip)
    assert "step 7, " in error
    assert "gradients that are not, of encoder.weight, encoder.bias, bilinear.weight and 1 more" in error
    assert all(p.isfinite().all() for p in model.parameters())


def test_without_a_watch_all_weights_are_lost():
    model, optimizer = amp_loop.build()
    model.register_forward_hook(Poison(7, float("nan")))
    amp_loop.train(model, optimizer)
    assert all(p.isnan().all() for p in model.parameters())


def test_broken_weights_are_named():
    def broken(model, optimizer):
        with torch.no_grad():
            model.encoder.weight[0, 0] = torch.nan
        return model, optimizer

    _, error = train(Poison(0, 1), broken)
    assert "step 1, " in error
    assert "weights that are not, encoder.weight" in error
    assert "starts from broken weights" in error


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_loss_whose_step_is_not_the_optimisers(accumulation):
    _, error = train(Poison(6, float("nan")), accumulation=accumulation)
    assert "step 6, " in error


def test_the_last_loss():
    _, error = train(Poison(12, float("nan")), accumulation=12)
    assert "step 12, " in error


class TestMixedPrecision:
    low = staticmethod(partial(amp.initialize, opt_level="O1", verbosity=0, **amp_loop.LOW))

    def test_a_step_that_the_scaler_leaves_out_is_legal(self):
        poison = Poison(7, float("inf"), gradient=True)
        model, error = train(poison, self.low, fine=True)
        assert error is None
        assert poison.seen == 12
        assert all(p.isfinite().all() for p in model.parameters())

    def test_a_loss_has_to_be_finite(self):
        model, error = train(Poison(7, float("nan")), self.low)
        assert "step 7, " in error
        assert all(p.isfinite().all() for p in model.parameters())


def test_nothing_is_changed():
    plain, optimizer = amp_loop.build()
    due = amp_loop.train(plain, optimizer)
    model, optimizer = amp_loop.build()
    with watched(model) as watch:
        assert amp_loop.train(model, optimizer) == due
    assert watch.step == 12
    assert not model._forward_hooks
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    model(*amp_loop.batches(1)[0])[0].mul(torch.nan).backward()
    optimizer.step()  # the watch is over


def test_predicting_is_not_watched():
    model, _ = amp_loop.build()
    with watched(model) as watch:
        model.eval()
        model(*amp_loop.batches(1)[0])
        with torch.no_grad():
            model.train()(*amp_loop.batches(1)[0])
    assert watch.step == 0


def test_losses_of_a_dictionary():
    class Nested(nn.Module):
        def forward(self, x):
            return {"loss": {"rel_loss": x.sum(), "evi_loss": x.sum() * torch.inf}, "rel_pred": x}

    model = Nested()
    with pytest.raises(SegDREError, match="a loss of 2 and inf"), watched(model):
        model(torch.ones(2, requires_grad=True))


def test_a_loss_that_the_model_does_not_give():
    model, optimizer = amp_loop.build()
    x, labels = amp_loop.batches(1)[0]
    (nn.functional.cross_entropy(model(x)[0], labels) * torch.nan).backward()
    with pytest.raises(SegDREError, match=r"got gradients that are not, of encoder\.weight"), watched(model):
        optimizer.step()


def test_titles_are_those_of_the_batch():
    model = wrap_model(tiny.model())
    collate = wrap_collate(collate_fn, adapter=tiny.ATLOP)
    batch = collate([tiny.feature(40, seed=1), tiny.feature(40, seed=2)])
    with torch.no_grad():
        model.bilinear.bias[0] = torch.inf
    with (
        pytest.raises(SegDREError, match=r"documents 'random 1', 'random 2': .*weights that are not, bilinear.bias"),
        watch_finite(model, "base", lambda: collate.titles),
    ):
        model.train()(*batch)

"""The stand-in for apex, in the loop that the backbones' train scripts run."""

import warnings

import pytest
import torch
from amp_loop import LOW, batches, build, train
from torch import nn
from transformers import get_linear_schedule_with_warmup

from segdre_plugin import SegDREError
from segdre_plugin.backbones.clones import apex as amp


def plain_train(model, optimizer, n=12):
    """Train without any stand-in."""
    torch.manual_seed(1)
    scheduler = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=n)
    losses = []
    for x, labels in batches(n):
        model.train()
        loss = model(x, labels)[0]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        model.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("level", "where"), [("O0", {}), ("O1", {}), ("O0", LOW)])
def test_float32_stays_bit_for_bit(level, where):
    plain, optimizer = build()
    due = plain_train(plain, optimizer)
    model, optimizer = build()
    model, optimizer = amp.initialize(model, optimizer, opt_level=level, verbosity=0, **where)
    assert "forward" not in vars(model)
    losses, _ = train(model, optimizer)
    assert losses == due
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))


class TestLowPrecision:
    @pytest.mark.parametrize(("accumulation", "clip"), [(1, 1.0), (3, 1.0), (1, 0.0)])
    def test_trains(self, accumulation, clip):
        model, optimizer = build()
        before = [p.clone() for p in model.parameters()]
        model, optimizer = amp.initialize(model, optimizer, opt_level="O1", verbosity=0, **LOW)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # "lr_scheduler.step() before optimizer.step()" among others
            losses, _ = train(model, optimizer, n=36, accumulation=accumulation, clip=clip)
        assert sum(losses[-6:]) < 0.9 * sum(losses[:6])
        assert all((p != q).any() for p, q in zip(model.parameters(), before, strict=True))
        assert {p.dtype for p in model.parameters()} == {torch.float32}

    def test_computes_in_the_low_type(self):
        model, optimizer = build()
        model, optimizer = amp.initialize(model, optimizer, opt_level="O1", **LOW)
        loss, logits = model(*batches(1)[0])
        assert logits.dtype == torch.bfloat16
        assert loss.dtype == torch.float32

    def test_clips_what_is_not_scaled(self):
        plain, plain_optimizer = build()
        _, due = train(plain, plain_optimizer, n=1)
        model, optimizer = build()
        model, optimizer = amp.initialize(model, optimizer, **LOW)
        _, norms = train(model, optimizer, n=1)
        assert norms == pytest.approx(due, rel=0.02)  # and not 65,536 times as much

    def test_first_step_is_that_of_float32(self):
        plain, plain_optimizer = build()
        train(plain, plain_optimizer, n=3)
        model, optimizer = build()
        train(*amp.initialize(model, optimizer, **LOW), n=3)
        for mine, due in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine, due, rtol=0, atol=5e-3)

    def test_step_with_infinite_gradients_is_left_out(self):
        model, optimizer = build()
        model, optimizer = amp.initialize(model, optimizer, **LOW)
        x, labels = batches(1)[0]

        def step(factor):
            before = [p.clone() for p in model.parameters()]
            with amp.scale_loss(model(x, labels)[0] * factor, optimizer) as scaled:
                scaled.backward()
            nn.utils.clip_grad_norm_(amp.master_params(optimizer), 1.0)
            optimizer.step()
            model.zero_grad()
            return any((p != q).any() for p, q in zip(model.parameters(), before, strict=True))

        with amp.scale_loss(torch.ones(()), optimizer) as scaled:
            first = scaled.item()
        assert step(1.0)
        assert not step(float("inf"))
        with amp.scale_loss(torch.ones(()), optimizer) as scaled:
            assert scaled.item() == first / 2
        assert all(torch.isfinite(p).all() for p in model.parameters())
        assert step(1.0)

    def test_a_model_alone(self):
        """What ATLOP does before it only evaluates."""
        model, _ = build()
        keys = list(model.state_dict())
        assert amp.initialize(model, opt_level="O1", verbosity=0, **LOW) is model
        assert list(model.state_dict()) == keys
        assert model(batches(1)[0][0])[0].dtype == torch.bfloat16


def test_master_params_are_the_optimisers():
    model, optimizer = build()
    assert [id(p) for p in amp.master_params(optimizer)] == [id(p) for p in model.parameters()]


@pytest.mark.parametrize("level", ["O2", "O3", "o1"])
def test_other_levels_are_refused(level):
    with pytest.raises(SegDREError, match=f"opt_level '{level}' has no stand-in"):
        amp.initialize(*build(), opt_level=level)

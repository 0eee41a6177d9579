"""Every tensor that a step makes is on the model's device: on a GPU, and on a device that only pretends to be one.

Without a GPU the pretended device shows where tensors of two devices meet.
"""

import numpy as np
import pytest
import tiny
import torch
from pretend import DEVICE, PretendDevice, TwoDevicesError
from promises import DEVICES

from segdre_plugin import SegConfig, wrap_collate, wrap_model
from segdre_plugin.backbones.fast.pooling import Layout
from segdre_plugin.backbones.losses import loss_names
from segdre_plugin.backbones.reference import collate_fn
from segdre_plugin.backbones.watch import watch_finite
from segdre_plugin.stages.config import STAGES
from segdre_plugin.stages.scoring import score_counts, score_relations

pytestmark = pytest.mark.slow

STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
PLACES = ["pretended", *DEVICES[1:]]
CASES = [*((stage, True) for stage in STAGES), ("identify", False), ("sparse", False)]
collate = wrap_collate(collate_fn, adapter="atlop")


def wrapped(stage, fast=True, **settings):
    torch.manual_seed(1)  # of the count head
    model = wrap_model(tiny.model(**STILL), stage=stage, config=SegConfig(hidden=8, **settings), fast=fast)
    some = tiny.two_windows(model, [tiny.feature(n, seed=n) for n in (40, 33)])
    return model, [tiny.injected(one, tiny.branches(3, seed=3)) for one in some] if stage == "sparse" else some


def trained(model, some, device):
    """Take a training step as scripts do; give the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with watch_finite(model, "base", lambda: collate.titles):
        batch = [part.to(device) if isinstance(part, torch.Tensor) else part for part in collate(some)]
        loss, *_ = model.train()(*batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return loss.detach()


def both(place, run, *how, **more):
    """Return what ``run(model, features, device)`` finds on the CPU and on another device."""
    due = run(*wrapped(*how, **more), torch.device("cpu"))
    model, some = wrapped(*how, **more)
    if place != "pretended":
        found = run(model.to(place), some, torch.device(place))
        return due, found.cpu() if isinstance(found, torch.Tensor) else found
    device = PretendDevice()
    device.move(model)
    with device:
        found = run(model, some, DEVICE)
        return due, found.cpu() if isinstance(found, torch.Tensor) else found


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("stage", "fast"), CASES)
def test_training(place, stage, fast):
    due, found = both(place, trained, stage, fast)
    torch.testing.assert_close(found, due, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("loss", loss_names())
def test_losses(place, loss):
    due, found = both(place, trained, "base", loss=loss)
    torch.testing.assert_close(found, due, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("stage", "fast"), CASES)
def test_scoring(place, stage, fast):
    def score(model, some, device):
        how = {"batch_size": 2, "device": device, "label": ""}
        if stage == "identify":
            return np.concatenate(score_counts(model, some, collate, **how))
        return score_relations(model, some, range(len(some)), collate, **how).margin

    due, found = both(place, score, stage, fast)
    np.testing.assert_allclose(found, due, rtol=1e-4, atol=1e-5)


def test_control_indices_that_stay_on_the_cpu_are_seen(monkeypatch):
    moved = Layout.to
    monkeypatch.setattr(Layout, "to", lambda layout, device: moved(layout, torch.device("cpu")))
    with pytest.raises(TwoDevicesError, match="on the CPU"):
        both("pretended", trained, "base")


def test_control_a_loss_on_the_cpu_is_seen():
    device = PretendDevice()
    with device, pytest.raises(TwoDevicesError):
        torch.ones(3).to(DEVICE) + torch.ones(3)
    with device:
        assert (torch.ones(3).to(DEVICE) * torch.tensor(2.0)).cpu().tolist() == [2.0, 2.0, 2.0]

"""Our training loop: the same bits wherever it was cut off, the recipe by hand, steps of several batches."""

from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from segdre_plugin import SegDREError
from segdre_plugin.backbones.trainer import Recipe, Resume, set_seed, train

RECIPE = Recipe(epochs=3, learning_rate=0.1, new_layer_lr=0.02, warmup_ratio=0.2, max_grad_norm=1.0, seed=4)
ROWS = torch.randn(23, 5, generator=torch.Generator().manual_seed(0))


class Cut(BaseException):
    """A kill."""


class Loop:
    """A small model with dropout, and all that happened in its training."""

    def __init__(self, tmp_path, recipe=RECIPE, size=4, drop_last=True):
        torch.manual_seed(1)
        self.model = nn.ModuleDict({"encoder": nn.Linear(5, 4), "drop": nn.Dropout(0.3), "bilinear": nn.Linear(4, 1)})
        self.loader = DataLoader(ROWS, batch_size=size, shuffle=True, drop_last=drop_last)
        self.recipe, self.losses, self.looks, self.kept = recipe, [], 0, None
        self.resume = Resume(tmp_path / "unfinished.pt", 0)

    def loss(self, rows):
        hidden = self.model["drop"](torch.tanh(self.model["encoder"](rows)))
        loss = (self.model["bilinear"](hidden)[:, 0] - rows.sum(-1)).square().mean()
        self.losses.append(loss.item())
        return [(loss, len(rows))]

    def look(self, _=0):
        self.looks += 1
        torch.rand(1)  # as a data loader does
        return -float(self.model["bilinear"].weight.detach().sum().abs()) / 1000

    def keep(self):
        self.kept = {name: value.clone() for name, value in self.model.state_dict().items()}

    def train(self, **how):
        parts = {"loss": self.loss, "evaluate": self.look, "keep": self.keep, "resume": self.resume} | how
        train(self.model, self.loader, self.recipe, **parts)
        return self.model.state_dict()


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


CUTS = [k if k in (1, 7) else pytest.param(k, marks=pytest.mark.slow) for k in range(1, 16)]  # five batches an epoch


@pytest.mark.parametrize("cut", CUTS)
def test_cut_off_anywhere_it_ends_with_the_same_bits(tmp_path, cut):
    whole = Loop(tmp_path)
    due = whole.train(resume=None)
    one = Loop(tmp_path)

    def loss(rows):
        if len(one.losses) == cut - 1:
            raise Cut
        return one.loss(rows)

    with pytest.raises(Cut):
        one.train(loss=loss)
    assert one.resume.path.exists() == (cut > 1)
    other = Loop(tmp_path)
    torch.rand(cut)  # another process has drawn other numbers
    assert equal(other.train(), due)
    assert one.losses + other.losses == whole.losses
    assert equal(other.kept or one.kept, whole.kept)
    assert not other.resume.path.exists()


def test_cut_off_while_dev_is_judged(tmp_path):
    due = Loop(tmp_path).train(resume=None)
    one = Loop(tmp_path)

    def look(_):
        raise Cut

    with pytest.raises(Cut):
        one.train(evaluate=look)
    assert equal(Loop(tmp_path).train(), due)


def test_without_the_random_states_it_would_end_elsewhere(tmp_path, monkeypatch):
    due = Loop(tmp_path).train(resume=None)
    one = Loop(tmp_path)
    with pytest.raises(Cut):
        one.train(loss=lambda rows: one.loss(rows) if len(one.losses) < 7 else raise_cut())
    monkeypatch.setattr("segdre_plugin.backbones.trainer.set_random_states", lambda states, device: None)
    assert not equal(Loop(tmp_path).train(), due)


def raise_cut():
    raise Cut


def test_the_recipe_by_hand(tmp_path):
    """Two groups, linear warm-up and decay, clipping, dropout in the order of the loop."""
    loop = Loop(tmp_path)
    found = loop.train(resume=None)
    slow = Loop(tmp_path)
    encoder, bilinear = slow.model["encoder"], slow.model["bilinear"]
    groups = [{"params": encoder.parameters(), "lr": 0.1}, {"params": bilinear.parameters(), "lr": 0.02}]
    adam = torch.optim.Adam(groups, eps=1e-6)
    set_seed(4)
    step, total, warmup = 0, 15, 3
    for _ in range(3):
        for rows in slow.loader:
            share = step / warmup if step < warmup else (total - step) / (total - warmup)
            for group, rate in zip(adam.param_groups, (0.1, 0.02), strict=True):
                group["lr"] = rate * share
            adam.zero_grad()
            slow.model.train()
            slow.loss(rows)[0][0].backward()
            nn.utils.clip_grad_norm_(slow.model.parameters(), 1.0)
            adam.step()
            step += 1
        slow.look()
    assert all(torch.allclose(found[name], slow.model.state_dict()[name], rtol=0, atol=1e-7) for name in found)


def test_two_batches_a_step_are_one_of_twice_the_size(tmp_path):
    plain = replace(RECIPE, epochs=1)

    def weights(recipe, size):
        loop = Loop(tmp_path, recipe, size)
        loop.model["drop"].p = 0.0
        loop.loader = DataLoader(ROWS[:20], batch_size=size, shuffle=True)
        return loop.train(resume=None)

    due, found = weights(plain, 4), weights(replace(plain, accumulation=2), 2)
    assert all(torch.allclose(due[name], found[name], rtol=0, atol=1e-6) for name in due)
    assert not torch.allclose(due["encoder.weight"], weights(plain, 2)["encoder.weight"], atol=1e-3)


@pytest.mark.parametrize(("changes", "looks"), [({}, 3), ({"evaluation_steps": 2}, 3 + 7 - 1), ({"epochs": 1.5}, 1)])
def test_dev_is_judged(tmp_path, changes, looks):
    loop = Loop(tmp_path, replace(RECIPE, **changes))
    loop.train(resume=None)
    assert loop.looks == looks


def test_before_the_last_step(tmp_path):
    seen = []
    loop = Loop(tmp_path, replace(RECIPE, before_last_step=True))
    loop.train(resume=None, evaluate=lambda _: seen.append(len(loop.losses)) or 0.0)
    assert seen == [4, 9, 14]


def test_no_batch_and_nothing_to_train(tmp_path):
    loop = Loop(tmp_path, size=24)
    with pytest.raises(SegDREError, match="make no batch"):
        loop.train()
    args = Namespace(num_train_epochs=0.5, train_batch_size=1, warmup_ratio=0.1, max_grad_norm=1.0, seed=0)
    with pytest.raises(SegDREError, match=r"num_train_epochs is 0\.5"):
        Recipe.of(args, learning_rate=1.0, new_layer_lr=1.0)


def test_a_file_of_another_form_is_refused(tmp_path):
    loop = Loop(tmp_path)
    for other in ({}, {"model": loop.model.state_dict()}, [1]):
        torch.save(other, loop.resume.path)
        with pytest.raises(SegDREError, match=r"unfinished\.pt: expected at_start, batch"):
            loop.train()


def test_a_file_of_anything_else_is_not_unpickled(tmp_path):
    loop = Loop(tmp_path)
    loop.resume.path.write_bytes(b"cos\nsystem\n(S'exit'\ntR.")
    with pytest.raises(SegDREError, match="unfinished training"):
        loop.train()

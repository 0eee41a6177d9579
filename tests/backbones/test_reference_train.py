"""The reference model's training loop: its schedule, its groups, and that it learns."""

from argparse import Namespace

import pytest
import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from segdre_plugin import SegDREError
from segdre_plugin.backbones.reference import train
from segdre_plugin.backbones.trainer import warmup_linear


class Model(nn.Module):
    """Two layers that take a batch as the reference model does; ``losses`` keeps the loss of each step."""

    def __init__(self):
        super().__init__()
        self.encoder, self.bilinear = nn.Linear(3, 3), nn.Linear(3, 1)
        self.losses = []

    def forward(self, x, *_):
        loss = (self.bilinear(self.encoder(x)) - 1).pow(2).mean()
        self.losses.append(loss.item())
        return (loss,)


@pytest.fixture
def run(monkeypatch):
    """Train the small model; return it, and the number of steps before each evaluation."""

    def trained(n=5, scores=(0.5, 0.7, 0.6), save_path="", optimizer=torch.optim.AdamW, **changes):
        torch.manual_seed(0)
        model, evaluated = Model(), []

        def evaluate(args, model, features, tag):
            evaluated.append(len(model.losses))
            return scores[len(evaluated) - 1], {}

        monkeypatch.setattr(train, "collate_fn", lambda batch: (torch.stack(batch), torch.ones(2), [], [], []))
        monkeypatch.setattr(train, "evaluate", evaluate)
        monkeypatch.setattr(train, "AdamW", optimizer)
        recipe = {"num_train_epochs": 3.0, "train_batch_size": 2, "learning_rate": 0.1, "new_layer_lr": 0.2}
        recipe |= {"warmup_ratio": 0.5, "max_grad_norm": 0.0, "seed": 1, "save_path": save_path, "device": "cpu"}
        documents = [torch.randn(3) for _ in range(n)]
        train.train(Namespace(**(recipe | changes)), model, documents, [], [])
        return model, evaluated

    return trained


def test_schedule_is_that_of_transformers():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=3, num_training_steps=10)
    for step in range(10):
        assert warmup_linear(step, 3, 10) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_each_epoch_drops_the_smaller_batch_and_is_followed_by_an_evaluation(run):
    model, evaluated = run()
    assert evaluated == [2, 4, 6]
    assert model.losses[-1] < model.losses[0]


def test_the_best_checkpoint_is_kept(run, tmp_path):
    path = tmp_path / "checkpoint.pt"
    last, _ = run(save_path=path)
    kept = torch.load(path, weights_only=True)
    assert not torch.equal(kept["bilinear.bias"], last.bilinear.bias)  # the second of three epochs
    last, _ = run(save_path=path, scores=(0.5, 0.6, 0.7))
    assert torch.equal(torch.load(path, weights_only=True)["bilinear.bias"], last.bilinear.bias)


def test_new_layers_have_their_own_learning_rate(run):
    groups = []

    def optimizer(given, **how):
        groups.extend({**group, "lr": group.get("lr", how["lr"])} for group in given)
        return torch.optim.AdamW(given, **how)

    model, _ = run(optimizer=optimizer)
    assert [group["lr"] for group in groups] == [0.1, 0.2]
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in model.bilinear.parameters()]


def test_gradients_are_clipped(run):
    norms = []

    class Optimizer(torch.optim.SGD):
        def step(self, closure=None):
            gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
            norms.append(torch.cat(gradients).norm().item())
            return super().step(closure)

    plain = {"optimizer": lambda groups, lr, eps, weight_decay: Optimizer(groups, lr=lr)}
    run(**plain, max_grad_norm=1e-9)
    assert norms
    assert max(norms) <= 1.001e-9
    norms.clear()
    run(**plain)
    assert min(norms) > 1e-3


@pytest.mark.parametrize("change", [{"num_train_epochs": 0.0}, {"train_batch_size": 0}])
def test_training_nothing_is_refused(run, change):
    with pytest.raises(SegDREError, match="pass 1 or more"):
        run(**change)


def test_too_few_documents_are_refused(run):
    with pytest.raises(SegDREError, match="1 documents make no batch"):
        run(n=1)

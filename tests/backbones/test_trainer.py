"""The training loop: its schedule, its groups, and that it learns."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from segdre_plugin import SegDREError
from segdre_plugin.backbones.batching import LengthBuckets
from segdre_plugin.backbones.clones.stand_ins import progress_loader
from segdre_plugin.backbones.reference.trainer import Recipe, fit, warmup_linear

RECIPE = Recipe(epochs=3, batch_size=2, learning_rate=0.1, new_layer_lr=0.2, warmup_ratio=0.5, max_grad_norm=0.0)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.bilinear = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, x):
        return self.bilinear(self.encoder(x))


def run(recipe=RECIPE, n=5, **how):
    torch.manual_seed(0)
    model, losses, epochs = Model(), [], []
    documents = [torch.randn(3) for _ in range(n)]

    def step_loss(batch):
        loss = (model(batch) - 1).pow(2).mean()
        losses.append(loss.item())
        return loss

    fit(model, documents, torch.stack, step_loss, recipe, after_epoch=lambda: epochs.append(len(losses)), **how)
    return model, losses, epochs


def test_schedule_is_that_of_transformers():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=3, num_training_steps=10)
    for step in range(10):
        assert warmup_linear(step, 3, 10) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_each_epoch_drops_the_smaller_batch_and_is_followed_by_an_evaluation():
    _, losses, epochs = run()
    assert epochs == [2, 4, 6]
    assert losses[-1] < losses[0]


def test_new_layers_have_their_own_learning_rate():
    groups = []

    def optimizer(given, **how):
        groups.extend({**group, "lr": group.get("lr", how["lr"])} for group in given)
        return torch.optim.AdamW(given, **how)

    model, _, _ = run(optimizer=optimizer)
    assert [group["lr"] for group in groups] == [0.1, 0.2]
    assert [id(p) for p in groups[1]["params"]] == [id(p) for p in model.bilinear.parameters()]


def test_gradients_are_clipped():
    tight = Recipe(**{**vars(RECIPE), "max_grad_norm": 1e-9})
    norms = []

    class Optimizer(torch.optim.SGD):
        def step(self, closure=None):
            norms.append(
                torch.cat([p.grad.flatten() for group in self.param_groups for p in group["params"]]).norm().item()
            )
            return super().step(closure)

    run(tight, optimizer=lambda groups, lr, eps, weight_decay: Optimizer(groups, lr=lr))
    assert norms
    assert max(norms) <= 1.001e-9


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}])
def test_impossible_recipe_is_refused(change):
    with pytest.raises(SegDREError, match="give 1 or more"):
        Recipe(**{**vars(RECIPE), **change})


def test_too_few_documents_are_refused():
    with pytest.raises(SegDREError, match="1 documents make no batch of 2"):
        run(n=1)


def test_buckets_hold_every_document_once_and_documents_of_like_length():
    lengths = [7 * k % 101 for k in range(203)]
    sampler = LengthBuckets(lengths, 4)
    torch.manual_seed(0)
    first, second = list(sampler), list(sampler)
    assert first != second  # each epoch draws anew
    for made in (first, second):
        assert len(made) == len(sampler) == 50
        assert all(len(batch) == 4 for batch in made)
        assert len({i for batch in made for i in batch}) == 200  # three are left over, others each time
    assert sorted(i for batch in first for i in batch) != sorted(i for batch in second for i in batch)
    padded = sum(4 * max(lengths[i] for i in batch) - sum(lengths[i] for i in batch) for batch in first)
    shuffled = torch.randperm(200).view(50, 4).tolist()
    assert padded < 0.25 * sum(4 * max(lengths[i] for i in b) - sum(lengths[i] for i in b) for b in shuffled)
    assert [max(lengths[i] for i in batch) for batch in first] != sorted(max(lengths[i] for i in b) for b in first)


def test_the_loader_takes_buckets_only_where_the_script_shuffles():
    features = [{"input_ids": [0] * n} for n in (9, 1, 9, 1, 9, 1)]
    how = {"collate_fn": lambda batch: [len(feature["input_ids"]) for feature in batch]}
    loader = progress_loader("x", buckets=True)
    shuffled = loader(features, batch_size=2, shuffle=True, drop_last=True, **how)
    assert sum(len(set(batch)) == 2 for batch in shuffled) <= 1
    assert len(shuffled) == 3
    assert list(loader(features, batch_size=2, shuffle=False, drop_last=False, **how)) == [[9, 1]] * 3
    epochs = []
    for plain in (progress_loader("x"), DataLoader):  # without buckets, the script's own batches
        torch.manual_seed(3)
        epochs.append(list(plain(features, batch_size=2, shuffle=True, drop_last=True, **how)))
    assert epochs[0] == epochs[1]

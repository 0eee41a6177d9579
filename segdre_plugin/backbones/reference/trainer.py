"""A small training loop with the backbones' recipe: two learning rates, linear warm-up and decay, clipped gradients.

The backbones train in their own loops; this one is for models that come without one, such as the reference model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segdre_plugin.backbones.features import Feature
from segdre_plugin.errors import SegDREError

NEW_LAYERS = ("extractor", "bilinear")  # parameters with these in their name are not the encoder's


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: how often the documents are gone through.
        batch_size: documents of a step; a smaller last batch is dropped.
        learning_rate: of the encoder.
        new_layer_lr: of the layers on top of it.
        warmup_ratio: share of the steps in which the learning rates rise from 0; afterwards they fall to 0.
        max_grad_norm: gradients are scaled down to this norm; 0 leaves them.
        epsilon: of Adam.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    new_layer_lr: float
    warmup_ratio: float
    max_grad_norm: float
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise SegDREError(f"epochs {self.epochs}, batch_size {self.batch_size}", "give 1 or more of each")


def warmup_linear(step: int, warmup: int, total: int) -> float:
    """Return the share of the learning rate: up from 0 to 1 in ``warmup`` steps, then down to 0 at ``total``."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def fit(
    model: nn.Module,
    features: Sequence[Feature],
    collate_fn: Callable[[list[Feature]], Any],
    step_loss: Callable[[Any], Tensor],
    recipe: Recipe,
    *,
    after_epoch: Callable[[], None],
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW,
    loader: Callable[..., Any] = DataLoader,
) -> None:
    """Train a model.

    Args:
        model: the model, on its device.
        features: the training documents.
        collate_fn: makes a batch of features.
        step_loss: gives the loss of a batch.
        recipe: how to train.
        after_epoch: called after each epoch, to evaluate and to save.
        optimizer: makes the optimiser from parameter groups; the group of the new layers has its own ``lr``.
        loader: makes the data loader (:func:`segdre_plugin.backbones.clones.stand_ins.progress_loader`: with a bar).

    Raises:
        SegDREError: if there are fewer documents than one batch has.
    """
    made = loader(features, batch_size=recipe.batch_size, shuffle=True, drop_last=True, collate_fn=collate_fn)
    if len(made) == 0:
        raise SegDREError(
            f"{len(features)} documents make no batch of {recipe.batch_size}", "use a smaller batch, or more documents"
        )
    named = list(model.named_parameters())
    new = [p for name, p in named if any(layer in name for layer in NEW_LAYERS)]
    old = [p for name, p in named if not any(layer in name for layer in NEW_LAYERS)]
    groups = [{"params": old}, {"params": new, "lr": recipe.new_layer_lr}]
    adam = optimizer(groups, lr=recipe.learning_rate, eps=recipe.epsilon, weight_decay=0.0)
    total = len(made) * recipe.epochs
    warmup = int(total * recipe.warmup_ratio)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: warmup_linear(step, warmup, total))
    for _ in range(recipe.epochs):
        model.train()
        for batch in made:
            step_loss(batch).backward()
            if recipe.max_grad_norm > 0:
                torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
            adam.step()
            schedule.step()
            model.zero_grad(set_to_none=True)
        after_epoch()

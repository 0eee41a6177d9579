"""Margins decide as the backbone itself does, or its model is refused: what is read must be what it predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.errors import SegDREError

PAIRS = 64  # with random logits


def decisions(logits: Tensor, num_labels: int, threshold: int | None) -> Tensor:
    """Return which classes of each pair margins predict, bool [pairs, classes]; class 0 is none of them.

    Args:
        logits: [pairs, classes].
        num_labels: a class is among the ``num_labels`` largest logits of its pair (ties included); not positive: all.
        threshold: the class whose logit a relation's has to exceed; None: zero.
    """
    limit = logits[:, threshold : threshold + 1] if threshold is not None else torch.zeros_like(logits[:, :1])
    found = logits > limit
    if num_labels > 0:
        found &= logits >= logits.topk(min(num_labels, logits.shape[1]), dim=1).values[:, -1:]
    found[:, 0] = False
    return found


def check_rule(model: nn.Module, backbone: Backbone) -> None:
    """Compare decisions on random logits with those of the loss's ``get_label``.

    Raises:
        SegDREError: if they differ, or ``num_labels`` exceeds the number of classes.
    """
    if backbone.loss is None:  # the rule is that of the train script
        return
    classes, most = backbone.classes(model), backbone.most_labels(model)
    if most > classes:
        raise SegDREError(
            f"{type(model).__name__}: num_labels is {most}, the classifier has {classes} classes",
            "pass --num_labels with at most the number of classes",
        )
    logits = torch.randn(PAIRS, classes, generator=torch.Generator().manual_seed(0))
    own = getattr(model, backbone.loss).get_label(logits.clone(), num_labels=model.num_labels)
    _compare(own, logits, model, backbone, "random logits")


def check_predictions(output: Any, logits: Tensor, model: nn.Module, backbone: Backbone) -> None:
    """Compare decisions on logits with what ``forward`` predicts, or, where it gives logits, with those on them.

    Raises:
        SegDREError: if they differ.
    """
    if isinstance(output, Mapping):
        own = output.get(backbone.predictions)
    elif isinstance(output, Tensor):
        own = output
    elif backbone.logits == "output":
        own = next(iter(output))
    else:  # (predictions,), or (loss, predictions) where labels are passed
        own = next((part for part in output if isinstance(part, Tensor) and part.dim() == 2), output)
    if backbone.loss is None and isinstance(own, Tensor) and own.dim() == 2:
        own = decisions(own, backbone.most_labels(model), backbone.threshold)
    _compare(own, logits, model, backbone, "pairs of the first batch")


def _compare(own: Any, logits: Tensor, model: nn.Module, backbone: Backbone, where: str) -> None:
    ours = decisions(logits, backbone.most_labels(model), backbone.threshold)
    name = f"{type(model).__name__} as a {backbone.name}"
    if not isinstance(own, Tensor) or own.shape != ours.shape:
        found = list(own.shape) if isinstance(own, Tensor) else type(own).__name__
        raise SegDREError(
            f"{name}: expected predictions {list(ours.shape)} [pairs, classes] on {len(ours)} {where}, got {found}",
            "is it the right adapter=? forward and get_label give 0 or 1 for each pair and class",
        )
    theirs = own.bool().clone()
    theirs[:, 0] = False
    if not torch.equal(theirs.to(ours.device), ours):
        against = "zero" if backbone.threshold is None else f"the logit of class {backbone.threshold}"
        raise SegDREError(
            f"{name}: on {len(ours)} {where} the model itself predicts {int(theirs.sum())} relations, "
            f"the {backbone.logits}'s logits against {against} {int(ours.sum())}",
            "say in its Backbone what the threshold is, and where the logits are that decide (logits=)",
        )

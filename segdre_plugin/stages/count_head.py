"""The count head of stage identify in a backbone's model (eq. 4-6): in its classifier's place, or beside it.

In the place of the classifier it needs nothing else: ``forward`` passes its logits to the loss, which is swapped, too.
Where a model does more with its logits than that, or has no loss module, the head reads what the classifier reads, and
the model predicts, without labels, while the head learns from them.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segdre_plugin.backbones.hooks import WrapState
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.strategies import CountHeadSpec


def replace_classifier(model: nn.Module, spec: CountHeadSpec, hidden: int, state: WrapState) -> None:
    """Put a count head and its loss in the place of classifier and loss."""
    backbone = state.backbone
    assert backbone.loss is not None
    classifier, loss = getattr(model, backbone.classifier), getattr(model, backbone.loss)
    state.head, state.count_loss = backbone.classifier, spec.loss()
    head = spec.module(classifier.in_features, hidden).to(classifier.weight)
    state.undo += [
        partial(setattr, model, backbone.classifier, classifier),  # no lambda: a deep copy undoes itself
        partial(setattr, model, backbone.loss, loss),
    ]
    setattr(model, backbone.classifier, head)
    setattr(model, backbone.loss, state.count_loss)


def place_beside(model: nn.Module, spec: CountHeadSpec, hidden: int, state: WrapState) -> None:
    """Add a count head that reads what the classifier reads, and make ``forward`` return its loss."""
    classifier = getattr(model, state.backbone.classifier)
    state.head, state.count_loss = f"{state.backbone.classifier}_counts", spec.loss()
    model.add_module(state.head, spec.module(classifier.in_features, hidden).to(classifier.weight))
    state.undo.append(partial(delattr, model, state.head))
    beside = HeadBeside(state, inspect.signature(model.forward))
    state.undo.append(classifier.register_forward_pre_hook(beside.read).remove)
    state.undo.append(model.register_forward_pre_hook(beside.enter, with_kwargs=True).remove)
    state.undo.append(model.register_forward_hook(beside.leave).remove)


class HeadBeside:
    """The hooks of a count head beside the classifier."""

    def __init__(self, state: WrapState, signature: inspect.Signature) -> None:
        self.state, self.signature = state, signature
        self.features: list[Tensor] = []  # of the pairs of the current batch, as the classifier gets them
        self.labels: Any = None
        self.pairs: Any = None

    def enter(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Keep the labels back, so that the model predicts."""
        backbone = self.state.backbone
        given = dict(self.signature.bind(*args, **kwargs).arguments)
        self.features, self.pairs = [], given["hts"]
        self.labels = given.get("labels")
        if self.labels is None and model.training and torch.is_grad_enabled():
            raise SegDREError("stage identify is trained without labels", "pass labels to the model's forward")
        kept = {name: value for name, value in given.items() if name not in {"labels", *backbone.not_for_prediction}}
        return (), kept | dict(backbone.constants)

    def read(self, classifier: nn.Module, args: tuple[Any, ...]) -> None:
        """Note the features of the batch's pairs."""
        self.features.append(args[0])

    def leave(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        """Count, and return the loss as the model returns its own."""
        assert self.state.head is not None
        features, self.features = self.features, []
        logits = getattr(model, self.state.head)(pair_rows(features, self.pairs))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        labels, self.labels = self.labels, None
        if labels is None:
            return output
        rows = labels if isinstance(labels, Tensor) else torch.cat([torch.as_tensor(part) for part in labels])
        rows = rows.to(logits)
        if self.state.pairs is not None:
            chosen = self.state.pairs.to(logits.device)
            logits, rows = logits[chosen], rows[chosen]
        return self.state.backbone.trained(self.state.count_loss(logits, rows), output)


def pair_rows(features: list[Tensor], pairs: Any) -> Tensor:
    """Return the features of a batch's pairs, [pairs, width], in the order of ``pairs``.

    Args:
        features: what the classifier got, call by call: [pairs, width], or squares of entities, [documents, n, n,
            width].
        pairs: of each document, (head, tail).
    """
    whole = features[0] if len(features) == 1 else torch.cat(features)
    if whole.dim() == 2:
        return whole
    ends = [torch.as_tensor(part, device=whole.device).reshape(-1, 2).T for part in pairs]
    return torch.cat([square[heads, tails] for square, (heads, tails) in zip(whole, ends, strict=True)])

"""One encoder for base, identify and dense, which read the same text (beyond the paper, ``share_encoder``).

Beside the classifier of the base stand the count head of identify (eq. 4-5) and a second classifier, that of dense.
Both read what the classifier reads. A batch's loss, with the model's own loss L and the count head's (eq. 6), is

    L(base logits, all pairs) + L_count(count logits, all pairs) + L(dense logits, dense pairs)

where the dense pairs of a training document are those of its gold salient entity (section 3.4); a batch without any
adds nothing. One reading of a document gives base margins, expected counts and dense margins of all pairs; those of the
dense pairs are taken when the salient entity is chosen.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.hooks import WrapState
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.config import SegConfig


def head_names(backbone: Backbone) -> dict[str, str]:
    """Return stage -> attribute of its head; optimisers that know the classifier by its name know these, too."""
    return {stage: f"{backbone.classifier}_{stage}" for stage in ("identify", "dense")}


def check_shared(backbone: Backbone) -> None:
    """Refuse a backbone whose base cannot have further heads.

    Raises:
        SegDREError: with what is in the way.
    """
    reasons = {
        "its forward computes the loss itself": backbone.loss is None,
        f"its {backbone.logits} gives the logits that decide, not its classifier": backbone.logits != "classifier",
        "it computes with all pairs in every stage": backbone.all_pairs,
    }
    found = [reason for reason, holds in reasons.items() if holds]
    if found:
        raise SegDREError(
            f"share_encoder: {backbone.name} cannot train three heads: {'; '.join(found)}",
            "leave it out: each stage then has an encoder of its own",
        )


def add_heads(model: nn.Module, config: SegConfig, state: WrapState) -> None:
    """Add the heads of identify, if its strategy has one, and of dense to a base that is being wrapped.

    Raises:
        SegDREError: if its backbone cannot have them.
    """
    backbone, spec = state.backbone, config.strategy.head
    check_shared(backbone)
    classifier, loss = getattr(model, backbone.classifier), getattr(model, str(backbone.loss))
    made: dict[str, nn.Module] = {}
    if spec is not None:
        made["identify"], state.count_loss = spec.module(classifier.in_features, config.hidden), spec.loss()
    made["dense"] = nn.Linear(classifier.in_features, classifier.out_features, bias=classifier.bias is not None)
    for stage, head in made.items():
        state.shared[stage] = head_names(backbone)[stage]
        model.add_module(state.shared[stage], head.to(classifier.weight))
        state.undo.append(partial(delattr, model, state.shared[stage]))
    heads = SharedHeads(state, made)
    state.undo.append(model.register_forward_pre_hook(heads.enter).remove)
    state.undo.append(classifier.register_forward_pre_hook(heads.read).remove)
    state.undo.append(loss.register_forward_hook(heads.add).remove)
    state.undo.append(model.register_forward_hook(heads.leave).remove)


class SharedHeads:
    """The hooks of the heads beside the base's classifier, by stage."""

    def __init__(self, state: WrapState, heads: dict[str, nn.Module]) -> None:
        self.state, self.heads = state, heads
        self.features: list[Tensor] = []  # of the pairs of the current batch, as the classifier gets them

    def enter(self, model: nn.Module, args: tuple[Any, ...]) -> None:
        """Forget a batch that failed."""
        self.features = []

    def read(self, classifier: nn.Module, args: tuple[Any, ...]) -> None:
        """Note the features of the batch's pairs."""
        self.features.append(args[0])

    def add(self, loss: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Add the losses of the heads to the base's own, once a batch; nothing is learnt without gradients."""
        if not self.features or not torch.is_grad_enabled():
            return output
        logits, labels = args[:2]  # [pairs, classes] each
        features, dense = self._take(), self.state.pairs
        if dense is None:
            raise SegDREError(
                "stage base, which shares its encoder, got a batch without its dense pairs",
                "prepare features with prepare_features(..., salient=...) and collate them with wrap_collate",
            )
        if "identify" in self.heads:
            output = output + self.state.count_loss(self.heads["identify"](features).to(logits), labels)
        dense = dense.to(logits.device)
        dense_logits = self.heads["dense"](features[dense]).to(logits)
        # the mean over no pair would be NaN; not called as a module, which would come back here
        found = loss.forward(dense_logits, labels[dense]) if len(dense_logits) else dense_logits.sum()
        return output + found

    def leave(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Keep what the heads put out for all pairs, where a batch was read and not learnt from."""
        if not torch.is_grad_enabled():
            features = self._take()
            self.state.found = {stage: head(features).detach() for stage, head in self.heads.items()}
        elif model.training and self.features:
            raise SegDREError(
                f"stage base: {type(model).__name__} computed no loss from labels, so that the heads of identify and "
                "dense would not learn",
                "pass labels to the model's forward",
            )

    def _take(self) -> Tensor:
        features, self.features = self.features, []
        return features[0] if len(features) == 1 else torch.cat(features)

"""Wrap a backbone's model and its collate function, in place and reversibly.

Nothing of the backbone is replaced but, in stage ``identify``, its classifier and its loss (or neither, where a count
head stands beside the classifier), and in the others its loss if the settings name another one. What a stage needs
beyond that travels through forward hooks on the encoder: the backbone's own ``encode`` cuts a document into windows,
the hook appends the branches to each window with their soft positions and visible matrix (eq. 9-10), and cuts the
branch tokens off again before the backbone merges the windows.
Hooks also put the encoder's outputs where the backbones look for them: attentions last, hidden states before them, in
every transformers version.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from segdre_plugin.backbones.alignment import align
from segdre_plugin.backbones.attention import check_encoder, force_eager, position_range
from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.checkpointing import checkpoint_layers
from segdre_plugin.backbones.fast import speed_up
from segdre_plugin.backbones.features import DENSE_PAIRS, FEATURE, STAGE_PAIRS
from segdre_plugin.backbones.guards import guard, use_bf16
from segdre_plugin.backbones.hooks import (
    STATE,
    BatchReceiver,
    BatchReset,
    BranchAppender,
    BranchCutter,
    InjectedPositions,
    PairSelector,
    WrapState,
    wrap_state,
)
from segdre_plugin.backbones.losses import UPSTREAM, build_loss
from segdre_plugin.backbones.registry import find_backbone, get_backbone
from segdre_plugin.backbones.windows import SlidingEncode
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.config import STAGES, SegConfig
from segdre_plugin.stages.count_head import place_beside, replace_classifier
from segdre_plugin.stages.decisions import check_rule
from segdre_plugin.stages.shared_encoder import add_heads

M = TypeVar("M", bound=nn.Module)


def wrap_model(
    model: M,
    *,
    stage: str = "base",
    adapter: str | Backbone | None = None,
    config: SegConfig | None = None,
    fast: bool = True,
    bf16: bool = False,
    checkpointing: bool = False,
) -> M:
    """Return a backbone's model, made the model of one stage in place.

    In the stages base, dense and sparse the state_dict keeps the backbone's keys; a base that shares its encoder has
    those of two heads besides. In stage sparse, and to train such a base, the model takes batches from
    :func:`wrap_collate`.

    Args:
        model: the backbone's model.
        stage: one of base, identify, dense, sparse.
        adapter: the backbone's name or spec; None recognises it.
        config: settings; None takes the paper's.
        fast: compute the same numbers (to about 1e-6, not to the last bit) in less time and memory.
        bf16: compute in bfloat16 where that is safe (torch's autocast); not the same numbers.
        checkpointing: compute the encoder's layers a second time for the gradients: the same numbers in less memory.

    Raises:
        SegDREError: if the stage is unknown, the model is already wrapped, or it lacks something that the stage
            needs, the fit of its encoder to all stages included; the model is then as it was.
    """
    if stage not in STAGES:
        raise SegDREError(f"unknown stage {stage!r}", f"stages of a model: {', '.join(STAGES)}")
    if hasattr(model, STATE):
        raise SegDREError(
            f"this {type(model).__name__} is already wrapped (stage {wrap_state(model).stage})",
            "call unwrap_model(model) first",
        )
    backbone = find_backbone(model, adapter)
    settings = config or SegConfig()
    if settings.share_encoder and stage not in settings.models:
        raise SegDREError(f"share_encoder: stage {stage} has no model of its own", "wrap the model for stage base")
    encoder: nn.Module = getattr(model, backbone.encoder)
    known: Any = model.config
    wrapped = WrapState(stage, backbone)
    try:
        wrapped.undo.append(force_eager(encoder))
        form = check_encoder(encoder, known.transformer_type, backbone.window)
        check_rule(model, backbone)
        if stage == "identify":
            _add_head(model, settings, wrapped)
        else:
            _swap_loss(model, settings, wrapped)
        if stage == "base" and settings.share_encoder:
            add_heads(model, settings, wrapped)
        if stage == "sparse":
            wrapped.mask_form = form
        _hook_batch(model, encoder, wrapped)  # after the head, which needs a batch's pairs when forward has ended
        if fast:
            speed_up(model, wrapped)
        if backbone.windows != 2:
            model.encode = SlidingEncode(model.encode, known, backbone)  # type: ignore[assignment, arg-type]
            wrapped.undo.append(partial(delattr, model, "encode"))
        if bf16:
            use_bf16(model, wrapped)
            align(model, wrapped, position_range(encoder, known.transformer_type)[0])
        if checkpointing:
            wrapped.undo.append(checkpoint_layers(encoder))
        _hook_outputs(model, encoder, wrapped)
    except Exception:
        _undo(wrapped)
        raise
    object.__setattr__(model, STATE, wrapped)
    return model


def place_outputs(model: M, adapter: str | Backbone) -> M:
    """Return a backbone's model, changed so that it finds its encoder's outputs, in every transformers version.

    That is all that a script without ``--seg`` needs, with any encoder that its backbone can use.

    Raises:
        SegDREError: if the adapter is unknown, or the model is not of that backbone.
    """
    wrapped = WrapState("base", find_backbone(model, adapter))
    encoder: nn.Module = getattr(model, wrapped.backbone.encoder)
    force_eager(encoder)
    _hook_outputs(model, encoder, wrapped)
    return model


def unwrap_model(model: M) -> M:
    """Return a model as it was before :func:`wrap_model`, weights that were trained since excepted.

    Raises:
        SegDREError: if it is not wrapped.
    """
    _undo(wrap_state(model))
    object.__delattr__(model, STATE)
    return model


def wrap_collate(collate_fn: Callable[[list[dict[str, Any]]], Any], *, adapter: str | Backbone) -> Collate:
    """Return a backbone's collate function, wrapped so that injections reach the model.

    A batch of features without injections comes out as the backbone made it. SegDREError is raised for a batch that has
    another layout than the backbone's, or of which only some documents are prepared.

    Raises:
        SegDREError: if the adapter is unknown.
    """
    return Collate(collate_fn, get_backbone(adapter))


class Collate:
    """What :func:`wrap_collate` returns; a class so that the workers of a data loader can pickle it."""

    def __init__(self, collate_fn: Callable[[list[dict[str, Any]]], Any], backbone: Backbone) -> None:
        self.collate_fn = collate_fn
        self.backbone = backbone
        self.features: list[dict[str, Any]] = []  # of the last batch

    @property
    def titles(self) -> list[str]:
        """Those of the last batch."""
        return [str(feature.get("title")) for feature in self.features]

    def __call__(self, features: list[dict[str, Any]]) -> Any:
        """Collate features and attach their injections."""
        self.features = features
        batch = self.collate_fn(features)
        _check_layout(batch, self.backbone)
        injections = self._of_each(features, FEATURE, "injection")
        pairs = self._of_each(features, STAGE_PAIRS, "choice of pairs")
        pairs = pairs or self._of_each(features, DENSE_PAIRS, "choice of dense pairs")
        if not injections and not pairs:
            return batch
        at = self.backbone.batch.index("entity_pos")
        carrier = InjectedPositions(batch[at])
        if injections:
            carrier.injections = [injection for windows in injections for injection in windows]
        if pairs:
            carrier.pairs = torch.from_numpy(np.concatenate(pairs))
        return (*batch[:at], carrier, *batch[at + 1 :])

    def _of_each(self, features: list[dict[str, Any]], field: str, what: str) -> list[Any]:
        """Return what ``prepare_features`` gave each feature of a batch; empty if it gave none."""
        found = [feature[field] for feature in features if field in feature]
        if found and len(found) < len(features):
            titles = [title for title, feature in zip(self.titles, features, strict=True) if field not in feature]
            raise SegDREError(
                f"{len(titles)} of {len(features)} documents of a batch have no {what}: {', '.join(titles[:3])}",
                "prepare all of them with prepare_features",
            )
        return found


def _check_layout(batch: Any, backbone: Backbone) -> None:
    """Refuse a batch that is not the backbone's."""
    expected = f"{len(backbone.batch)} parts ({', '.join(backbone.batch)})"
    hint = f"wrap the collate function of {backbone.repository}, or pass the right adapter="
    most, least = len(backbone.batch), len(backbone.batch) - len(backbone.optional)
    if not isinstance(batch, Sequence) or not least <= len(batch) <= most:
        size = f"{len(batch)} parts" if isinstance(batch, Sequence) else type(batch).__name__
        raise SegDREError(f"collate: a batch of {backbone.name} has {expected}, got {size}", hint)
    ids, mask = batch[backbone.batch.index("input_ids")], batch[backbone.batch.index("attention_mask")]
    if not (isinstance(ids, Tensor) and isinstance(mask, Tensor) and ids.dim() == 2 and ids.shape == mask.shape):
        raise SegDREError(
            f"collate: a batch of {backbone.name} has {expected}, the first two [documents, tokens]; "
            f"got {_describe(ids)} and {_describe(mask)}",
            hint,
        )


def _describe(part: Any) -> str:
    return str(list(part.shape)) if isinstance(part, Tensor) else type(part).__name__


def _undo(wrapped: WrapState) -> None:
    for step in reversed(wrapped.undo):
        step()
    wrapped.undo.clear()


def _hook_outputs(model: nn.Module, encoder: nn.Module, wrapped: WrapState) -> None:
    """Put the encoder's outputs where the backbone looks for them, and guard what it computes from them."""
    guard(model, wrapped)
    wrapped.undo.append(encoder.register_forward_hook(BranchCutter(wrapped)).remove)


def _add_head(model: nn.Module, config: SegConfig, wrapped: WrapState) -> None:
    """Give the model the count head of the strategy, and its loss (eq. 4-6)."""
    spec = config.strategy.head
    if spec is None:
        raise SegDREError(f"strategy {config.salient} trains nothing in stage identify", "leave this stage out")
    add = place_beside if wrapped.backbone.counts_beside else replace_classifier
    add(model, spec, config.hidden, wrapped)


def _swap_loss(model: nn.Module, config: SegConfig, wrapped: WrapState) -> None:
    """Put the loss that the settings name in the place of the backbone's own."""
    backbone = wrapped.backbone
    name = backbone.loss
    if config.loss != UPSTREAM and (backbone.threshold is None or name is None):
        why = "learns a threshold class, which" if name else "cannot take the place of the own one, which"
        has = "has not" if name else "computes itself"
        raise SegDREError(
            f"loss {config.loss!r} {why} {backbone.name} {has}", f"leave it at {UPSTREAM!r}, the backbone's own"
        )
    if name is None:
        return
    own = getattr(model, name)
    wrapped.undo.append(partial(setattr, model, name, own))
    setattr(model, name, build_loss(config.loss, own))


def _hook_batch(model: nn.Module, encoder: nn.Module, wrapped: WrapState) -> None:
    """Hand what a batch carries on from ``forward``: injections to the encoder, the stage's pairs to the loss."""
    injects, chooses = wrapped.stage == "sparse", wrapped.backbone.all_pairs and wrapped.stage != "base"
    needed = ({"injections": "injections"} if injects else {}) | ({"pairs": "its pairs"} if chooses else {})
    if not needed and not wrapped.shared:
        return
    undo = wrapped.undo  # one by one: a step that fails leaves those before it to be undone
    take = BatchReceiver(wrapped, inspect.signature(model.forward), needed)
    undo.append(model.register_forward_pre_hook(take, with_kwargs=True).remove)
    undo.append(model.register_forward_hook(BatchReset(wrapped), always_call=True).remove)
    if injects:
        undo.append(encoder.register_forward_pre_hook(BranchAppender(wrapped), with_kwargs=True).remove)
    if chooses:
        loss = getattr(model, str(wrapped.backbone.loss))
        undo.append(loss.register_forward_pre_hook(PairSelector(wrapped)).remove)

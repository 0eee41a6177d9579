"""Install the fast path in a wrapped model, where its numbers are the model's own."""

from __future__ import annotations

import inspect
import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segdre_plugin.backbones.fast.encoder import pool_last_layers
from segdre_plugin.backbones.fast.pairs import PairRows
from segdre_plugin.backbones.fast.pooling import PairPooler
from segdre_plugin.backbones.features import START_TOKENS
from segdre_plugin.backbones.hooks import WrapState

SAME = 1e-4  # most by which the two ways of pooling may differ on the example, relative and absolute
# An example with all that upstream's pooling tells apart: one mention, several, one beyond the input, none inside it.
LENGTH = 12
ENTITIES = ([[(1, 2)], [(3, 5), (6, 7)], [(8, 9), (40, 41)], [(50, 51)]], [[(0, 3), (4, 5), (9, 10)], [(6, 8)]])
PAIRS = ([[0, 1], [2, 0], [1, 2], [1, 0], [3, 1]], [[0, 1]])


def speed_up(model: nn.Module, state: WrapState) -> None:
    """Install what fits in a model that is being wrapped, whose attention is eager; each part with its undo step."""
    pooling = state.backbone.pooling
    if pooling is None:
        return
    pool = PairPooler(START_TOKENS, pooling.epsilon, pooling.with_attention)
    if not _pools_like(model, pool):
        warnings.warn(
            f"{type(model).__name__}.get_hrt does not pool as {state.backbone.name}'s does: it is used as it is, "
            "slower; fast=False says nothing",
            stacklevel=4,
        )
        return
    model.get_hrt = pool  # type: ignore[assignment]
    state.undo.append(partial(delattr, model, "get_hrt"))
    restore = pool_last_layers(getattr(model, state.backbone.encoder), pooling.layers)
    if restore is not None:
        state.undo.append(restore)


@torch.no_grad()
def _pools_like(model: Any, pool: PairPooler) -> bool:
    """Return whether a model's own ``get_hrt`` and ours agree on an example."""
    classifier = next(p for p in model.parameters() if p.is_floating_point())
    draw = torch.Generator().manual_seed(0)
    heads = getattr(model.config, "num_attention_heads", 2)
    states = torch.randn(len(PAIRS), LENGTH, model.config.hidden_size, generator=draw).to(classifier)
    attention = torch.rand(len(PAIRS), heads, LENGTH, LENGTH, generator=draw).to(classifier)
    arguments: list[Any] = [states, attention, ENTITIES, PAIRS]
    if "offset" in inspect.signature(model.get_hrt).parameters:
        arguments.append(pool.offset)
    try:
        theirs = model.get_hrt(*arguments)
    except Exception:  # a get_hrt that does not take what upstream's takes
        return False
    ours = pool(*arguments)
    return len(theirs) == len(ours) and all(_same(*parts) for parts in zip(theirs, ours, strict=True))


def _same(theirs: Any, ours: Any) -> bool:
    ours = ours.tensor() if isinstance(ours, PairRows) else ours
    if not isinstance(theirs, Tensor):
        return bool(theirs == ours)
    return theirs.shape == ours.shape and torch.allclose(ours.to(theirs), theirs, SAME, SAME)

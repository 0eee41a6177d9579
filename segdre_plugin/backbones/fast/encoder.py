"""Attention weights only from the layers that a backbone pools; the other layers take torch's fused attention.

The backbones read the attention of the last layer, or of the last three, and ask the encoder for all of it. Where the
encoder looks its attention function up by name (transformers 5), it gets one that returns weights in those layers only.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdre_plugin.backbones.attention import probe
from segdre_plugin.backbones.fast.dropout import attend, draw_kept

NAME = "segdre_last_{layers}"  # of the attention function; a plain name, so that it survives a deep copy of the model
SAME = 1e-4  # most by which the two ways may differ on four tokens, relative and absolute


def pool_last_layers(encoder: nn.Module, layers: int) -> Callable[[], None] | None:
    """Make an encoder with eager attention return the weights of its last layers only.

    Returns:
        A function that restores eager attention; None if this encoder (or version of transformers) does not take
        attention functions by name, or computes other numbers with ours: then it is unchanged.
    """
    try:
        from transformers import AttentionInterface
        from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface
    except ImportError:
        return None
    name = NAME.format(layers=layers)
    AttentionInterface.register(name, partial(_attend, layers=layers))
    # without a mask function of the same name, transformers drops the padding mask without a word
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS["eager"])
    switch: Callable[[str], None] = getattr(encoder, "set_attn_implementation", lambda _: None)
    # compared on four tokens, one of them padding
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    ids = torch.arange(4)
    before = probe(encoder, mask, ids)
    with suppress(Exception):  # each version of transformers has its own way of refusing a name
        switch(name)
        if _agree(before, probe(encoder, mask, ids), layers):
            return partial(switch, "eager")
    switch("eager")
    return None


def _agree(before: Any, after: Any, layers: int) -> bool:
    """Return whether all states and the last layers' weights are the same, and no other layer returns weights."""
    expected = before.attentions[-layers:]
    found = [weights for weights in after.attentions if weights is not None]
    return (
        len(found) == len(expected)
        and all(torch.allclose(ours, theirs, SAME, SAME) for theirs, ours in zip(expected, found, strict=True))
        and torch.allclose(after.last_hidden_state[:, :3], before.last_hidden_state[:, :3], SAME, SAME)
    )


def fuses(device: torch.device, dropout: float) -> bool:
    """Return whether torch has a fused kernel for attention with this dropout."""
    return dropout == 0 or device.type != "cpu"


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    layers: int,
    **_: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attend as transformers' attention functions do; the last ``layers`` layers return weights.

    Query, key and value are [batch, heads, L, d]; the mask is additive, broadcastable to [batch, heads, L, L]; for
    ``scaling`` None the dot products are scaled by 1 / sqrt(d).

    Returns:
        [batch, L, heads, d], and the weights [batch, heads, L, L] or None.
    """
    pooled = module.layer_idx >= module.config.num_hidden_layers - layers
    fused = fuses(query.device, dropout)
    if fused and not pooled:
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        )
        return mixed.transpose(1, 2).contiguous(), None
    # in full, for the weights or for dropout on a CPU
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(2, 3))
    if attention_mask is not None:
        scores = scores + attention_mask
    if not fused:
        kept, share = draw_kept(scores.shape, dropout)
        if not pooled:
            return attend(scores, value, kept, share).transpose(1, 2).contiguous(), None
        weights = torch.softmax(scores, dim=-1) * (kept.to(scores.dtype) / share)
    else:
        weights = F.dropout(torch.softmax(scores, dim=-1), dropout, training=dropout > 0)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights if pooled else None

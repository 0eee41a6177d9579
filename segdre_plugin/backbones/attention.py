"""The encoder's attention, its mask and its weights, for every supported transformers version.

The visible matrix (eq. 10) has to reach the encoder in the one form that its version of transformers reads correctly:
up to 4.x a 3-D mask of 0 and 1, from 5.0 on a 4-D additive float mask. Other forms raise, or let hidden pairs leak
without a word. :func:`mask_form` therefore tries the forms on the encoder itself and looks at the attention.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from segdre_plugin.errors import SegDREError

MaskForm = Callable[[Tensor, torch.dtype], Tensor]


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask of transformers 5: 0 where a token sees another, the lowest number of ``dtype`` elsewhere.

    The lowest number and not -inf: a row that sees nothing (padding) stays finite. From bool [batch, L, L] to float
    [batch, 1, L, L].
    """
    mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return mask.masked_fill_(~visible, torch.finfo(dtype).min).unsqueeze(1)


def binary_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the mask of transformers 4, float [batch, L, L]: 1 where a token sees another, 0 elsewhere."""
    return visible.to(dtype)


MASK_FORMS: tuple[MaskForm, ...] = (additive_mask, binary_mask)


def visible_tokens(node_ids: Tensor, visibility: Tensor, present: Tensor) -> Tensor:
    """Return the visible matrices of a batch (eq. 10), built from its integers: bool [batch, L, L].

    Element (b, i, j) says whether token i sees token j. ``node_ids`` [batch, L] has each token's node, ``visibility``
    is bool [batch, nodes, nodes], ``present`` [batch, L] is False at padding, which nobody sees.
    """
    batch, length = node_ids.shape
    nodes = visibility.shape[1]
    # what each node sees of the tokens, then each token's row of that: whole rows are copied, no pair is looked up
    seen = visibility.gather(2, node_ids[:, None, :].expand(-1, nodes, -1)) & present[:, None, :]  # [batch, nodes, L]
    rows = node_ids + nodes * torch.arange(batch, device=node_ids.device)[:, None]
    return seen.flatten(end_dim=1).index_select(0, rows.flatten()).view(batch, length, length)


def mask_form(encoder: nn.Module) -> MaskForm:
    """Return the form of pairwise mask that an encoder with eager attention reads correctly.

    Each is tried on four tokens.

    Raises:
        SegDREError: if no form hides exactly what it should.
    """
    visible = torch.ones(1, 4, 4, dtype=torch.bool)
    visible[0, 1, 2] = visible[0, 2, 1] = False
    seen = []
    for form in MASK_FORMS:
        try:
            attention = probe(encoder, form(visible, encoder_dtype(encoder))).attentions
        except Exception as error:  # each transformers version has its own way of refusing a mask
            seen.append(f"{form.__name__}: {_first_line(error)}")
            continue
        if not attention:
            seen.append(f"{form.__name__}: no attention weights")
        elif all(((layer > 0) == visible.to(layer.device)[:, None]).all() for layer in attention):
            return form
        else:
            seen.append(f"{form.__name__}: hidden pairs got attention")
    raise SegDREError(
        f"{type(encoder).__name__}: no form of pairwise mask works with this encoder ({'; '.join(seen)})",
        "use an encoder of the BERT or RoBERTa family, and transformers 4.48 or later",
    )


def check_outputs(encoder: nn.Module) -> None:
    """Refuse an encoder that does not return attention weights, which the backbones pool.

    Raises:
        SegDREError: if it returns none, or does not take the arguments of the BERT and RoBERTa families.
    """
    try:
        attention = probe(encoder, torch.ones(1, 4)).attentions
    except Exception as error:  # whatever a foreign encoder raises
        raise SegDREError(
            f"{type(encoder).__name__}: the encoder cannot be run: {_first_line(error)}",
            "use an encoder of the BERT or RoBERTa family, which takes position_ids and token_type_ids",
        ) from error
    if not attention:
        raise SegDREError(
            f"{type(encoder).__name__}: the encoder returns no attention weights",
            'load it with AutoModel.from_pretrained(..., attn_implementation="eager")',
        )


def encoder_dtype(encoder: nn.Module) -> torch.dtype:
    """Return the floating type of the encoder's weights."""
    return next(p.dtype for p in encoder.parameters() if p.is_floating_point())


def force_eager(encoder: nn.Module) -> Callable[[], None]:
    """Make the encoder compute attention weights (only eager attention returns them); return what undoes it."""
    config: Any = encoder.config
    before = getattr(config, "_attn_implementation", "eager")
    # transformers 4 chose classes at construction; those fall back to eager by themselves when weights are asked for.
    chosen = any("Sdpa" in type(module).__name__ for module in encoder.modules())
    switchable = hasattr(encoder, "set_attn_implementation") and not chosen
    if before == "eager" or not switchable:
        return lambda: None
    switch: Callable[[str], None] = encoder.set_attn_implementation  # type: ignore[assignment]
    switch("eager")
    return partial(switch, before)


def _first_line(error: Exception) -> str:
    """Describe an exception in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"


@torch.no_grad()
def probe(encoder: nn.Module, mask: Tensor) -> Any:
    """Return the encoder's output in eval mode for one document of four tokens, attention included; leave no trace."""
    device = next(encoder.parameters()).device
    training = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        return encoder(
            input_ids=torch.arange(4, device=device).unsqueeze(0),
            attention_mask=mask.to(device),
            position_ids=torch.arange(4, device=device).unsqueeze(0),
            token_type_ids=torch.zeros(1, 4, dtype=torch.long, device=device),
            output_attentions=True,
        )
    finally:
        for module, flag in training.items():
            module.training = flag


def position_range(encoder: nn.Module, transformer_type: str) -> tuple[int, int]:
    """Return an encoder's number of positions, and the first: 0 for bert, after the padding index for roberta."""
    config: Any = encoder.config
    offset = int(config.pad_token_id) + 1 if transformer_type == "roberta" else 0
    return int(config.max_position_embeddings) - offset, offset

"""The encoder's attention, its mask and its weights, for every supported transformers version.

The visible matrix (eq. 10) has to reach the encoder in the one form that its version of transformers reads correctly:
up to 4.x a 3-D mask of 0 and 1, from 5.0 on a 4-D additive float mask. Other forms raise, or let hidden pairs leak
without a word. :func:`check_encoder` therefore tries the forms on the encoder itself and compares what it computes.
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
BRANCH = 64  # tokens of the branch with which an encoder is checked
MOST = {8: 0.01, 4: 0.01, 2: 0.1}  # bytes of a number -> the most by which what should be the same may differ
_CHECKED: dict[tuple[Any, ...], MaskForm] = {}


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


def check_encoder(encoder: nn.Module, transformer_type: str, window: int) -> MaskForm:
    """Return the form of pairwise mask that an encoder with eager attention reads correctly.

    It reads ``window`` tokens, the longest window of the backbone, twice: as the backbone passes them, and as the
    sparse stage does, with position ids and a pairwise mask. The second time the tokens stand in another physical
    order, each at its own position, and a branch that they do not see follows them (eq. 9-10). They have to get the
    same attention and hidden states, and the branch none of their attention.

    Raises:
        SegDREError: if the encoder does not fit the backbones, or not the sparse stage.
    """
    # a run builds the same encoder once a stage; it is checked with the weights that come first
    how = getattr(encoder.config, "_attn_implementation", None)
    key = (type(encoder), str(encoder.config), how, encoder_dtype(encoder), transformer_type, window)
    if key not in _CHECKED:
        _CHECKED[key] = _find_form(encoder, transformer_type, window)
    return _CHECKED[key]


def _find_form(encoder: nn.Module, transformer_type: str, window: int) -> MaskForm:
    name = f"{type(encoder).__name__} as --transformer_type {transformer_type}"
    hint = "use an encoder of the BERT or RoBERTa family, and its --transformer_type"
    try:
        positions, first = position_range(encoder, transformer_type)
    except (AttributeError, TypeError) as error:
        raise SegDREError(f"{name}: its configuration has no range of positions: {error}", hint) from None
    if positions < window:
        raise SegDREError(
            f"{name}: expected {window} positions or more, got {positions}: windows have up to {window} tokens", hint
        )
    ids = _probe_ids(encoder, window)
    try:
        plain = probe(encoder, torch.ones(1, window), ids)
    except Exception as error:  # whatever a foreign encoder raises
        raise SegDREError(f"{name}: the encoder cannot be run: {_first_line(error)}", hint) from error
    if not plain.attentions:
        raise SegDREError(
            f"{name}: the encoder returns no attention weights",
            'load it with AutoModel.from_pretrained(..., attn_implementation="eager")',
        )
    shapes = sorted({tuple(layer.shape[-2:]) for layer in plain.attentions})
    if shapes != [(window, window)]:
        raise SegDREError(f"{name}: expected attention weights {[window] * 2}, got {list(map(list, shapes))}", hint)

    order = torch.arange(window).roll(window // 2)
    places = torch.cat([order, order[-BRANCH:]])  # a branch of the same tokens at the same positions
    visible = torch.ones(1, len(places), len(places), dtype=torch.bool)
    visible[:, :window, window:] = visible[:, window:, :window] = False
    problems = []
    for form in MASK_FORMS:
        try:
            found = probe(encoder, form(visible, encoder_dtype(encoder)), ids[places], first + places)
            problem = _difference(plain, found, order)
        except Exception as error:  # each transformers version has its own way of refusing a mask
            problem = _first_line(error)
        if not problem:
            return form
        problems.append(f"{form.__name__}: {problem}")
    raise SegDREError(f"{name}: no form of pairwise mask works with this encoder ({'; '.join(problems)})", hint)


def _difference(plain: Any, found: Any, order: Tensor) -> str:
    """Return how a window was read differently with its tokens in another order and a branch; empty if it was not."""
    n, order = len(order), order.to(found.last_hidden_state.device)
    most = MOST[found.last_hidden_state.element_size()]
    for k, (before, after) in enumerate(zip(plain.attentions, found.attentions, strict=True)):
        if (after[..., :n, n:] != 0).any() or (after[..., n:, :n] != 0).any():
            return f"hidden pairs got attention in layer {k}"
        moved = (after[..., :n, :n] - before[..., order[:, None], order]).abs().sum(-1).mean().item() / 2
        if not moved <= most:  # nor is NaN
            return f"{moved:.1%} of the attention in layer {k} moves if all tokens of a window see each other"
    states = plain.last_hidden_state[:, order]
    change = ((found.last_hidden_state[:, :n] - states).norm() / states.norm()).item()
    return "" if change <= most else f"hidden states change by {change:.1%} if positions are passed as ids"


def _probe_ids(encoder: nn.Module, n: int) -> Tensor:
    """Return ``n`` token ids, long [n], none of which is padding."""
    config: Any = encoder.config
    ids = torch.arange(n) % getattr(config, "vocab_size", n)
    padding = getattr(config, "pad_token_id", None)
    return ids if padding is None else ids.masked_fill(ids == padding, int(padding == 0))


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
def probe(encoder: nn.Module, mask: Tensor, ids: Tensor, positions: Tensor | None = None) -> Any:
    """Return the encoder's output in eval mode for one document, attention included; leave no trace.

    ``ids`` are long [tokens]; so are ``positions``, without which the encoder takes its own.
    """
    device = next(encoder.parameters()).device
    given = {"input_ids": ids} | ({} if positions is None else {"position_ids": positions, "token_type_ids": 0 * ids})
    training = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        return encoder(
            attention_mask=mask.to(device),
            output_attentions=True,
            **{name: part.to(device).unsqueeze(0) for name, part in given.items()},
        )
    finally:
        for module, flag in training.items():
            module.training = flag


def position_range(encoder: nn.Module, transformer_type: str) -> tuple[int, int]:
    """Return an encoder's number of positions, and the first: 0 for bert, after the padding index for roberta."""
    config: Any = encoder.config
    offset = int(config.pad_token_id) + 1 if transformer_type == "roberta" else 0
    return int(config.max_position_embeddings) - offset, offset

"""Documents longer than the encoder's window: cut into overlapping windows, and their states and attention merged.

A document of up to two windows' tokens is cut as the backbones do: its first tokens, closed by the end token(s), and
its last tokens after the start token. A longer one gets windows in between, with both, evenly spread. Tokens in several
windows get the average of their states; their attention rows are added and normalised, and are zero outside their
windows. Special tokens that were only put in to close or open a window are dropped.

ATLOP and its descendants cut no more than two windows in ``encode``. :class:`SlidingEncode` gives such an ``encode``
single windows, which it reads like short documents, and merges what it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.errors import SegDREError
from segdre_plugin.vocabulary import Span

OVERLAP = 4  # of more than two windows, neighbours share this part of a window's tokens, or more: a quarter

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Window:
    """One window of a document: its tokens and their places in it.

    Attributes:
        document: (start, end), the document's tokens that are read from this window.
        before: number of start tokens that were put before them.
        after: number of end tokens that were put behind them.
    """

    document: Span
    before: int = 0
    after: int = 0

    @property
    def shift(self) -> int:
        """A token's place in the document minus its place in the window."""
        return self.document[0] - self.before

    def locate(self, span: Span) -> Span | None:
        """Move a span of the document into the window; None where its first token is not in it."""
        start, end = self.document
        if not start <= span[0] < end:
            return None
        return span[0] - self.shift, min(span[1], end) - self.shift


def cut(n: int, size: int, start: int, end: int, most: int | None = 2) -> list[Window]:
    """Return the windows of a document of ``n`` tokens, special tokens included, in its order.

    Args:
        n: number of the document's tokens.
        size: of a window.
        start: number of tokens that open a window.
        end: number of tokens that close one.
        most: number of windows; None: as many as it takes. A document that needs more has gaps between them.
    """
    if n <= size:
        return [Window((0, n))]
    last = n - (size - start)  # where the last window begins
    count = 2
    if n > 2 * size and most != 2:
        step = max(1, size - start - end - size // OVERLAP)
        count = 1 - (-last // step)  # rounded up
        count = count if most is None else min(count, most)
    inner = [k * last // (count - 1) for k in range(1, count - 1)]
    between = [Window((first, first + size - start - end), start, end) for first in inner]
    return [Window((0, size - end), 0, end), *between, Window((last, n), start, 0)]


def capacity(size: int, start: int, end: int, most: int) -> int:
    """Return the most tokens of a document that so many windows (:func:`cut`) hold without a gap between them."""
    return (most - 1) * (size - start - end) + size - start


def split(
    input_ids: Tensor, attention_mask: Tensor, start: list[int], end: list[int], size: int, most: int | None = 2
) -> tuple[Tensor, Tensor, list[list[Window]]]:
    """Return window ids [rows, size], their mask [rows, size], and the windows of each document, in the rows' order.

    The ids that are cut are [n, c], padded on the right, c > size; their mask is of 0 and 1. ``start`` and ``end`` are
    the token ids that open and close a sequence.
    """
    rows: list[Tensor] = []
    masks: list[Tensor] = []
    documents: list[list[Window]] = []
    opening, closing = input_ids.new_tensor(start), input_ids.new_tensor(end)
    for ids, mask, length in zip(input_ids, attention_mask, attention_mask.sum(dim=1).tolist(), strict=True):
        if length <= size:  # with its padding
            documents.append([Window((0, size))])
            rows.append(ids[:size])
            masks.append(mask[:size])
            continue
        documents.append(cut(int(length), size, len(start), len(end), most))
        for window in documents[-1]:
            own = ids[slice(*window.document)]
            rows.append(torch.cat([opening[: window.before], own, closing[: window.after]]))
            masks.append(torch.ones_like(mask[:size]))
    return torch.stack(rows), torch.stack(masks), documents


def merge(
    states: Tensor, attention: Tensor, documents: Sequence[Sequence[Window]], length: int
) -> tuple[Tensor, Tensor]:
    """Return states [n, c, d] and attention [n, heads, c, c]: the windows', back at their documents' positions.

    The windows' are [rows, size, d] and [rows, heads, size, size]; :func:`split` returned ``documents``, and c is
    ``length``. Positions that no window read are zero.
    """
    merged = states.new_zeros(len(documents), length, states.shape[-1])
    total = attention.new_zeros(len(documents), attention.shape[1], length, length)
    reads = states.new_zeros(len(documents), length, 1)
    row = 0
    for d, windows in enumerate(documents):
        for window in windows:
            place = slice(*window.document)
            kept = slice(window.before, window.before + place.stop - place.start)
            merged[d, place] += states[row, kept]
            total[d, :, place, place] += attention[row, :, kept, kept]
            reads[d, place] += 1
            row += 1
    # a token of several windows has as many rows, and dropped special tokens leave a gap; a short document has neither
    several = torch.tensor([len(windows) > 1 for windows in documents], device=total.device)[:, None, None, None]
    sums = torch.where(several, total.sum(dim=-1, keepdim=True).clamp_min(1e-10), 1.0)
    return merged / reads.clamp_min(1), total / sums


class SlidingEncode:
    """A backbone's ``encode``, for documents of any length.

    A batch that two windows hold goes to the backbone's own as it is.

    Args:
        encode: the model's own, bound.
        config: the model's, with the ids of its special tokens.
        backbone: the model's description.
    """

    def __init__(self, encode: Encode, config: Any, backbone: Backbone) -> None:
        self.encode, self.config, self.backbone = encode, config, backbone

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return states [n, c, d] and attention [n, heads, c, c] of documents, ids and mask [n, c]."""
        size, length = self.backbone.window, input_ids.shape[1]
        if length <= 2 * size:
            return self.encode(input_ids, attention_mask)
        end = [self.config.sep_token_id] * self.backbone.end_tokens[self.config.transformer_type]
        start = [self.config.cls_token_id]
        rows, masks, documents = split(input_ids, attention_mask, start, end, size, self.backbone.windows)
        found = self.encode(rows, masks)
        if len(found) != 2 or found[1].shape[-2:] != rows.shape[1:] * 2:
            raise SegDREError(
                f"{self.backbone.name}: encode of {list(rows.shape)} tokens: expected states and attention "
                f"[windows, heads, {size}, {size}], got {[list(getattr(part, 'shape', ())) for part in found]}",
                "leave Backbone.slides out of its description",
            )
        return merge(*found, documents, length)


def sliding(backbone: Backbone, most: int | None = None) -> Backbone:
    """Return a backbone's description for documents of up to ``most`` windows; None: of any length.

    Raises:
        SegDREError: if its ``encode`` cannot be given windows, or ``most`` is below 2.
    """
    if most is not None and most < 2:
        raise SegDREError(f"at most {most} windows of a document", "pass 2 or more")
    if most != 2 and not backbone.slides:
        raise SegDREError(
            f"{backbone.name} reads documents in two windows, and its encode cannot be given more",
            f"leave documents of more than {2 * backbone.window:,} tokens out, or cut them (segdre backbones lists "
            "backbones for long documents); where encode(input_ids, attention_mask) gives states and attention alone, "
            "describe the backbone with slides=True",
        )
    return backbone if most == backbone.windows else replace(backbone, windows=most)

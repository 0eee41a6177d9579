"""Documents longer than the encoder's window: cut into two overlapping windows and put together again.

A document of more than ``window`` tokens is read twice: once its first tokens, ended by the end token(s), once its last
tokens after the start token. Tokens in both windows get the average of their two states; their attention rows are added
and normalised. Special tokens that were only put in to close or open a window are dropped.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """Which part of a window row belongs where in its document.

    Attributes:
        row: index of the window among all windows of the batch.
        keep: [start, stop) of the columns of the window that are tokens of the document.
        offset: the document position of the first of them.
    """

    row: int
    keep: tuple[int, int]
    offset: int


def split(
    input_ids: Tensor, attention_mask: Tensor, start: list[int], end: list[int], window: int
) -> tuple[Tensor, Tensor, list[list[Piece]]]:
    """Return window ids [rows, window], their mask [rows, window], and for each document its one or two pieces.

    Windows are in document order. The ids that are cut are [n, c], padded on the right, c > window; their mask is of 0
    and 1. ``start`` and ``end`` are the token ids that open and close a sequence.
    """
    lengths = [int(length) for length in attention_mask.sum(dim=1).tolist()]
    rows: list[Tensor] = []
    masks: list[Tensor] = []
    pieces: list[list[Piece]] = []
    for ids, mask, length in zip(input_ids, attention_mask, lengths, strict=True):
        first = Piece(len(rows), (0, window), 0)
        rows.append(ids[:window])
        masks.append(mask[:window])
        if length <= window:
            pieces.append([first])
            continue
        # a second window, for the document's last tokens
        body = window - len(end)
        rows[-1] = torch.cat([ids[:body], ids.new_tensor(end)])
        tail = length - (window - len(start))  # document position of the second window's first own token
        rows.append(torch.cat([ids.new_tensor(start), ids[tail:length]]))
        masks.append(torch.ones_like(mask[:window]))
        pieces.append([Piece(first.row, (0, body), 0), Piece(first.row + 1, (len(start), window), tail)])
    return torch.stack(rows), torch.stack(masks), pieces


def merge(states: Tensor, attention: Tensor, pieces: list[list[Piece]], length: int) -> tuple[Tensor, Tensor]:
    """Return states [n, c, d] and attention [n, heads, c, c]: the windows', back at their documents' positions.

    The windows' are [rows, window, d] and [rows, heads, window, window]; :func:`split` returned their pieces, and c is
    ``length``. Positions that no window read are zero.
    """
    merged_states, merged_attention = [], []
    for document in pieces:
        state_sum, attention_sum, reads = [], [], []
        for piece in document:
            low, high = piece.keep
            around = (piece.offset, length - piece.offset - (high - low))
            state_sum.append(F.pad(states[piece.row, low:high], (0, 0, *around)))
            attention_sum.append(F.pad(attention[piece.row, :, low:high, low:high], (*around, *around)))
            reads.append(F.pad(states.new_ones(high - low), around))
        merged_states.append(sum(state_sum) / torch.stack(reads).sum(dim=0).clamp_min(1).unsqueeze(1))
        total = torch.stack(attention_sum).sum(dim=0)
        if len(document) > 1:  # a token of both windows has two rows, and dropped special tokens leave a gap
            total = total / total.sum(dim=-1, keepdim=True).clamp_min(1e-10)
        merged_attention.append(total)
    return torch.stack(merged_states), torch.stack(merged_attention)

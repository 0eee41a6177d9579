"""Attention with dropout on a CPU, where torch has no fused kernel for it.

torch draws dropout's random numbers one by one there, and keeps the weights before and after dropout for the gradients.
Here four weights share one number, and of the weights only those before dropout are kept, with one byte for what was
dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BITS = 16  # of a random number that decide on one weight


def draw_kept(shape: torch.Size, dropout: float) -> tuple[Tensor, float]:
    """Return which weights are kept, a bool of ``shape``, and the share that is kept on average.

    The seed comes from torch's generator. ``dropout``, the probability that one is dropped, is rounded to 2^-16.
    """
    seed = int(torch.randint(2**62, ()))
    n = shape.numel()
    drawn = np.random.Generator(np.random.PCG64(seed)).integers(2**64, size=-(-n // 4), dtype=np.uint64)
    bits = torch.from_numpy(drawn.view(np.int16)[:n])  # -2^15 to 2^15 - 1
    cut = round(dropout * 2**BITS)
    return (bits >= cut - 2 ** (BITS - 1)).view(shape), 1 - cut / 2**BITS


def attend(scores: Tensor, value: Tensor, kept: Tensor, share: float) -> Tensor:
    """Return values [batch, heads, L, d] mixed by softmax of scores [batch, heads, L, L], of which some are dropped.

    ``kept`` is bool, of the scores' shape; ``share`` of the weights are kept on average.
    """
    mixed: Tensor = _Attend.apply(scores, value, kept, share)
    return mixed


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, value: Tensor, kept: Tensor, share: float) -> Tensor:
        weights = torch.softmax(scores, dim=-1).to(value.dtype)  # 32 bits under autocast, also for 16
        ctx.save_for_backward(weights, value, kept)
        ctx.share = share
        return (weights * kept.to(weights.dtype)) @ (value / share)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weights, value, kept = ctx.saved_tensors
        mask = kept.to(weights.dtype)
        grad = grad / ctx.share
        grad_value = (weights * mask).transpose(2, 3) @ grad
        grad_weights = (grad @ value.transpose(2, 3)).mul_(mask)
        inner = (grad_weights * weights).sum(dim=-1, keepdim=True)
        return grad_weights.sub_(inner).mul_(weights), grad_value, None, None

"""The grouped bilinear classifier without its products (Zheng et al. 2019; equation 2 of the paper, footnote 2).

The backbones multiply the head and the tail embedding of every pair block by block, write all products to memory
(49,152 numbers a pair) and hand them to a linear layer. The same logits and the same gradients come from products that
are made for a few pairs and one block at a time, used, and forgotten; the backward pass makes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = {"cpu": 1 << 21, "cuda": 1 << 25}  # numbers in a chunk of products: what a CPU's cache holds; few launches


def grouped_linear(left: Tensor, right: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer to the products of two embeddings, block by block.

    The logit of class c is the sum over blocks k of left[p, k] W[c, k] right[p, k]^T, plus the bias.

    Args:
        left: [pairs, blocks, size].
        right: [pairs, blocks, size].
        weight: [classes, blocks * size * size].
        bias: [classes].

    Returns:
        [pairs, classes], in 32 bits at least: under autocast products are made in its type and added up in 32 bits.
    """
    device = left.device.type
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        left, right, weight = left.to(dtype), right.to(dtype), weight.to(dtype)
    apply = _few_classes if 2 * len(weight) <= left.shape[2] else _GroupedLinear.apply
    logits: Tensor = apply(left, right, weight)
    return logits if bias is None else logits + bias


def _few_classes(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    """Contract the left embedding first: less than the products where there are fewer classes than rows of a block."""
    pairs, blocks, size = left.shape
    kernel = weight.view(-1, blocks, size, size).permute(1, 2, 0, 3).reshape(blocks, size, -1)  # [k, i, c j]
    half = torch.bmm(left.transpose(0, 1), kernel).view(blocks, pairs, len(weight), size)
    wide = _wide(left)
    return (half.to(wide) * right.transpose(0, 1).unsqueeze(2).to(wide)).sum(dim=(0, 3))


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(left, right, weight)
        pairs, blocks, size = left.shape
        left, right = left.transpose(0, 1).contiguous(), right.transpose(0, 1).contiguous()  # rows of a block in a row
        wide = _wide(left)
        logits = left.new_zeros(pairs, len(weight), dtype=wide)
        for rows, k, columns in _parts(pairs, blocks, size, left.device.type):
            products = _products(left[k, rows], right[k, rows])
            if wide == left.dtype:
                logits[rows].addmm_(products, weight[:, columns].t())
            else:
                logits[rows] += products @ weight[:, columns].t()
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left, right, weight = ctx.saved_tensors
        pairs, blocks, size = left.shape
        left, right = left.transpose(0, 1).contiguous(), right.transpose(0, 1).contiguous()
        grad_left, grad_right = torch.empty_like(left), torch.empty_like(right)
        wide, grad = _wide(left), grad.to(left.dtype)
        grad_weight = weight.new_zeros(weight.shape[1], len(weight), dtype=wide)  # transposed: the faster product
        for rows, k, columns in _parts(pairs, blocks, size, left.device.type):
            a, b, g = left[k, rows], right[k, rows], grad[rows]
            if ctx.needs_input_grad[2]:
                if wide == left.dtype:
                    grad_weight[columns].addmm_(_products(a, b).t(), g)
                else:
                    grad_weight[columns] += _products(a, b).t() @ g
            # the gradient of the products, one chunk of one block at a time
            of_products = (g @ weight[:, columns]).view(-1, size, size)
            grad_left[k, rows] = (of_products * b.unsqueeze(1)).sum(2)
            grad_right[k, rows] = torch.bmm(a.unsqueeze(1), of_products).squeeze(1)
        return grad_left.transpose(0, 1), grad_right.transpose(0, 1), grad_weight.t().to(weight.dtype)


def _wide(part: Tensor) -> torch.dtype:
    """Return the type in which blocks are added up: 32 bits at least."""
    return torch.promote_types(part.dtype, torch.float32)


def _parts(pairs: int, blocks: int, size: int, device: str) -> Iterator[tuple[slice, int, slice]]:
    """Cut the work: (rows of pairs, block, the block's columns of the weight)."""
    step = max(1, CHUNK.get(device, CHUNK["cuda"]) // size**2)
    for first in range(0, pairs, step):
        for k in range(blocks):
            yield slice(first, first + step), k, slice(k * size**2, (k + 1) * size**2)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """All products of two embeddings' blocks, [pairs, size * size]."""
    return (a.unsqueeze(2) * b.unsqueeze(1)).flatten(1)

"""The grouped bilinear classifier without its products (Zheng et al. 2019; equation 2 of the paper, footnote 2).

The backbones multiply the head and the tail embedding of every pair block by block, write all products to memory
(49,152 numbers a pair) and hand them to a linear layer. The same logits and the same gradients come from products that
are made for some pairs and some blocks at a time, used, and forgotten; the backward pass makes them again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segdre_plugin.backbones.precision import mixed_dtype, wide

# most numbers in a chunk of products, and its blocks: what a CPU's cache holds; few launches, as many for any batch
CHUNK = {"cpu": (1 << 21, 1), "cuda": (1 << 27, 4)}


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
    dtype = mixed_dtype(left.device.type) or left.dtype
    apply = _few_classes if 2 * len(weight) <= left.shape[2] else _GroupedLinear.apply
    logits: Tensor = apply(left, right, weight, dtype)
    return logits if bias is None else logits + bias


def _few_classes(left: Tensor, right: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Contract the left embedding first: less than the products where there are fewer classes than rows of a block."""
    left, right, weight = left.to(dtype), right.to(dtype), weight.to(dtype)
    pairs, blocks, size = left.shape
    kernel = weight.view(-1, blocks, size, size).permute(1, 2, 0, 3).reshape(blocks, size, -1)  # [k, i, c j]
    half = torch.bmm(left.transpose(0, 1), kernel).view(blocks, pairs, len(weight), size)
    total = wide(left)
    return (half.to(total) * right.transpose(0, 1).unsqueeze(2).to(total)).sum(dim=(0, 3))


class _GroupedLinear(torch.autograd.Function):
    """Products are made in ``dtype``; casts are in here, so that logits and gradients leave in 32 bits as added up."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        pairs, blocks, size = left.shape
        ctx.types = left.dtype, right.dtype, weight.dtype
        left, right = _by_block(left, dtype), _by_block(right, dtype)
        weight = weight.to(dtype)
        ctx.save_for_backward(left, right, weight)
        group, parts = _parts(pairs, size, left.device.type)
        kernels = _kernels(weight, blocks).split(group)
        logits = left.new_zeros(pairs, len(weight), dtype=wide(left))
        for rows in parts:
            of_rows = logits[rows]
            for a, b, kernel in zip(left[:, rows].split(group), right[:, rows].split(group), kernels, strict=True):
                of_rows += torch.bmm(_products(a, b), kernel).sum(0, dtype=logits.dtype)
        return logits

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        left, right, weight = ctx.saved_tensors
        blocks, pairs, size = left.shape
        grad_left, grad_right = torch.empty_like(left), torch.empty_like(right)
        total, grad = wide(left), grad.to(left.dtype)
        grad_weight = weight.new_zeros(blocks, size**2, len(weight), dtype=total)  # transposed: the faster product
        group, parts = _parts(pairs, size, left.device.type)
        kernels, of_kernels = _kernels(weight, blocks).split(group), grad_weight.split(group)
        for rows in parts:
            split = (part[:, rows].split(group) for part in (left, right, grad_left, grad_right))
            for a, b, of_a, of_b, kernel, of_kernel in zip(*split, kernels, of_kernels, strict=True):
                g = grad[rows].expand(len(a), -1, -1)
                if ctx.needs_input_grad[2] and total == left.dtype:
                    of_kernel.baddbmm_(_products(a, b).mT, g)
                elif ctx.needs_input_grad[2]:
                    of_kernel += torch.bmm(_products(a, b).mT, g)
                # the gradient of the products; it is overwritten, so that there is one of its size at a time
                of_products = torch.bmm(g, kernel.mT).view(-1, size, size)
                of_b.copy_(torch.bmm(a.reshape(-1, 1, size), of_products).view_as(b))
                of_a.copy_(of_products.mul_(b.reshape(-1, 1, size)).sum(2).view_as(a))
        one, other, own = ctx.types
        of_weight = grad_weight.flatten(0, 1).t()
        return grad_left.transpose(0, 1).to(one), grad_right.transpose(0, 1).to(other), of_weight.to(own), None


def _by_block(part: Tensor, dtype: torch.dtype) -> Tensor:
    """Lay an embedding [pairs, blocks, size] out as [blocks, pairs, size], rows of a block in a row."""
    return part.transpose(0, 1).to(dtype, memory_format=torch.contiguous_format).contiguous()


def _kernels(weight: Tensor, blocks: int) -> Tensor:
    """Return the weight of each block's products, [blocks, size * size, classes], without a copy."""
    return weight.view(len(weight), blocks, -1).permute(1, 2, 0)


def _parts(pairs: int, size: int, device: str) -> tuple[int, list[slice]]:
    """Cut the work: number of blocks at a time, and which pairs."""
    numbers, group = CHUNK.get(device, CHUNK["cuda"])
    step = max(1, numbers // (group * size**2))
    return group, [slice(first, first + step) for first in range(0, pairs, step)]


def _products(a: Tensor, b: Tensor) -> Tensor:
    """All products of two embeddings' blocks, from [blocks, pairs, size] to [blocks, pairs, size * size]."""
    return (a.unsqueeze(3) * b.unsqueeze(2)).flatten(2)

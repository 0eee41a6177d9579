"""Operators that a call dispatches: what a GPU's processor has to launch, counted on a CPU.

torch's dispatch mode sees every operator of forward and backward; views among them launch nothing on a GPU.
``as_on_cuda`` takes the branches of the fast path that a GPU takes.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from segdre_plugin.backbones.fast import encoder, grouped

PRODUCTS = frozenset({"mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"})


class Operators(TorchDispatchMode):
    """Counts what is dispatched while it is active.

    Attributes:
        count: of each operator, how often.
        views: how many of all are views.
        widths: of each product of matrices in 16 bits, its name and how far apart its operands' and its result's rows
            (or columns) begin.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.views = 0
        self.widths: list[tuple[str, list[int]]] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operator."""
        self.count[str(operator)] += 1
        self.views += operator.is_view
        out = operator(*args, **(kwargs or {}))
        name = operator.overloadpacket.__name__
        if name in PRODUCTS and out.dtype.itemsize == 2:
            self.widths.append((name, [_width(part) for part in (*args, out) if part.ndim > 1]))
        return out


def _width(part: torch.Tensor) -> int:
    """Return a matrix's leading dimension, in numbers; 0 for a single row or column."""
    rows, columns = (stride if n > 1 else 0 for stride, n in zip(part.stride()[-2:], part.shape[-2:], strict=True))
    return rows if columns in (0, 1) else columns


def count(run: Callable[[], Any]) -> tuple[int, int]:
    """Return how many operators a call dispatches, and how many of them are not views."""
    with Operators() as found:
        run()
    return found.count.total(), found.count.total() - found.views


@contextlib.contextmanager
def as_on_cuda() -> Iterator[None]:
    """Take a GPU's branches of the fast path on a CPU: its chunks of products, and fused attention in training.

    A CPU has no fused attention with dropout, so that dropout of attention is left out.
    """
    fused = encoder.F.scaled_dot_product_attention

    def without_dropout(*args: Any, dropout_p: float = 0.0, **how: Any) -> Any:
        return fused(*args, **how)

    with (
        mock.patch.dict(grouped.CHUNK, cpu=grouped.CHUNK["cuda"]),
        mock.patch.object(encoder, "fuses", return_value=True),
        mock.patch.object(encoder.F, "scaled_dot_product_attention", without_dropout),
    ):
        yield

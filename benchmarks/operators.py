"""Operators that a call dispatches: what a GPU's processor has to launch, counted on a CPU.

    python benchmarks/operators.py --stages base dense

counts a step of ATLOP (forward, backward) and a prediction. Views among the operators launch nothing on a GPU:
``launches`` leaves them out. ``largest_mb`` is the largest tensor that is made. ``as_on_cuda`` takes the branches of
the fast path that a GPU takes.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from timing import Row, report
from torch.utils._python_dispatch import TorchDispatchMode
from workload import BF16, FAST, UPSTREAM, Workload, add_places

from segdre_plugin.backbones.fast import encoder, grouped
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.config import STAGES

PRODUCTS = frozenset({"mm", "addmm", "addmm_", "bmm", "baddbmm", "baddbmm_"})


class Operators(TorchDispatchMode):
    """Counts what is dispatched while it is active.

    Attributes:
        count: of each operator, how often.
        views: how many of all are views.
        largest: bytes of the largest tensor that an operator made.
        widths: of each product of matrices in 16 bits, its name and how far apart its operands' and its result's rows
            (or columns) begin.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.views = self.largest = 0
        self.widths: list[tuple[str, list[int]]] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count an operator."""
        self.count[str(operator)] += 1
        self.views += operator.is_view
        out = operator(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not operator.is_view:
            self.largest = max(self.largest, out.numel() * out.element_size())
        name = operator.overloadpacket.__name__
        if name in PRODUCTS and out.dtype.itemsize == 2:
            self.widths.append((name, [_width(part) for part in (*args, out) if part.ndim > 1]))
        return out


def _width(part: torch.Tensor) -> int:
    """Return a matrix's leading dimension, in numbers; 0 for a single row or column."""
    rows, columns = (stride if n > 1 else 0 for stride, n in zip(part.stride()[-2:], part.shape[-2:], strict=True))
    return rows if columns in (0, 1) else columns


def count(run: Callable[[], Any]) -> tuple[int, int, int]:
    """Return how many operators a call dispatches, how many of them are not views, and the largest tensor's bytes."""
    with Operators() as found:
        run()
    return found.count.total(), found.count.total() - found.views, found.largest


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


def main() -> None:
    """Count what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_places(parser)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=STAGES)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--json", type=Path, default=Path("operators.json"))
    arguments = parser.parse_args()
    work = Workload.load(arguments.data, arguments.clone, arguments.encoder, arguments.batch_size, "cpu")
    rows: list[Row] = []
    for stage, side in itertools.product(arguments.stages, (UPSTREAM, FAST, BF16)):
        model = work.side(side, stage).train()
        ids, mask, labels, positions, pairs = next(work.batches(side, stage, arguments.batch_size, model))
        losses: list[torch.Tensor] = []
        with as_on_cuda():
            steps = {
                "forward": lambda: losses.append(model(ids, mask, labels, positions, pairs)[0]),  # noqa: B023
                "backward": lambda: losses[0].backward(),  # noqa: B023
                "prediction": torch.no_grad()(lambda: model.eval()(ids, mask, None, positions, pairs)),  # noqa: B023
            }
            for kind, run in steps.items():
                operators, launches, largest = count(run)
                row = {"case": f"{stage}: {kind}", "side": side, "operators": operators, "launches": launches}
                rows.append(row | {"largest_mb": largest / (1 << 20)})
    report("Operators of a step of ATLOP", rows, arguments.json, batch=arguments.batch_size)


if __name__ == "__main__":
    try:
        main()
    except SegDREError as error:
        sys.exit(f"error: {error}")

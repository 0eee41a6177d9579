"""The processes that train one model together: which one this is, and what it exchanges with the others.

Each has the whole model and a part of every batch, and all take the same steps. The main process draws the batches,
decides and writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


class PlainSteps:
    """Training steps of one process: what :func:`segdre_plugin.backbones.trainer.train` asks of an ``Accelerator``.

    Args:
        accumulation: batches a step.
    """

    optimizer_step_was_skipped = False
    scaler = None

    def __init__(self, accumulation: int) -> None:
        self.accumulation = accumulation

    def prepare(self, *parts: Any) -> Any:
        """Return the model and the optimiser as they are."""
        return parts

    def no_sync(self, model: nn.Module) -> AbstractContextManager[Any]:
        """Return a context in which gradients stay in this process."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a batch's share of a step."""
        (loss / self.accumulation).backward()

    def clip_grad_norm_(self, parameters: Iterable[nn.Parameter], norm: float) -> None:
        """Scale gradients down to a norm."""
        nn.utils.clip_grad_norm_(parameters, norm)


class Workers:
    """A process that trains alone; :class:`segdre_plugin.backbones.launched.Launched` is one of several.

    Attributes:
        rank: its number; 0 is the main process.
        size: how many there are.
        mixed_precision: in what training computes besides 32 bits, as Accelerate names it.
        accumulation: batches a step, if Accelerate's settings say it.
    """

    rank = 0
    size = 1
    mixed_precision: str = "no"
    accumulation: int | None = None

    @property
    def is_main(self) -> bool:
        """Return whether this is the process that decides and writes."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        return [value]

    def share(self, value: T) -> T:
        """Return the value of the main process."""
        return value

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum over all processes of each number."""
        return list(numbers)

    def synchronise(self, model: nn.Module) -> None:
        """Copy the weights of a model from the main process to all others."""

    def steps(self, accumulation: int) -> Any:
        """Return what takes the steps of a training: an ``Accelerator``, or the part of it that one process needs."""
        return PlainSteps(accumulation)

    def part(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's share of items that all have: every ``size``-th one."""
        return items if self.size == 1 else items[self.rank :: self.size]

    def merge(self, part: Sequence[T]) -> list[T]:
        """Return what the processes made of their parts, one of each item, in the items' order."""
        parts = self.gather(part)
        return [parts[k % self.size][k // self.size] for k in range(sum(map(len, parts)))]


ALONE = Workers()


class SharedBatches:
    """The batch sampler of one of several processes: its part of every batch of another sampler.

    The main process draws, from its own random numbers; so the batches are those of a process that trains alone.
    """

    def __init__(self, batches: Any, workers: Workers) -> None:
        self.batches, self.workers = batches, workers

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Sequence[int]]:
        drawn = [list(batch) for batch in self.batches] if self.workers.is_main else []
        yield from map(self.workers.part, self.workers.share(drawn))

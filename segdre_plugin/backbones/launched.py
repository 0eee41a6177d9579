"""One of several processes that ``accelerate launch`` or ``torchrun`` has started for one training.

Accelerate averages the gradients, on GPUs by NCCL. What is exchanged besides them is small, and goes by gloo.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib.util import find_spec
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from segdre_plugin.backbones.end_together import EndTogether
from segdre_plugin.backbones.workers import ALONE, Workers
from segdre_plugin.errors import SegDREError

T = TypeVar("T")
JOINING = timedelta(minutes=5)  # between the first process and the last one
WAITING = timedelta(days=7)  # for a process that is at work: one that has died is noticed otherwise
PRECISIONS = ("no", "bf16", "fp16")
GPUS = "CUDA_VISIBLE_DEVICES"
PRECISION, ACCUMULATION = "ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
KINDS = {"NO", "MULTI_CPU", "MULTI_GPU"}  # of Accelerate's, with the whole model in each process


class Launched(Workers):
    """A process that shares its training with others, or a single one with Accelerate's settings."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.mixed_precision, self.accumulation = _settings()

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        values: list[Any] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def share(self, value: T) -> T:
        """Return the value of the main process."""
        values = [value if self.is_main else None]
        if self.size > 1:
            dist.broadcast_object_list(values)
        return values[0]  # type: ignore[return-value]

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Return the sum over all processes of each number."""
        sums = torch.tensor(numbers, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(sums)
        return sums.tolist()

    def synchronise(self, model: nn.Module) -> None:
        """Copy the weights of a model from the main process to all others."""
        if self.size > 1:
            for weights in model.state_dict().values():
                dist.broadcast(weights, src=0)

    def steps(self, accumulation: int) -> Any:
        """Return Accelerate's ``Accelerator``, with the settings that its launcher has passed on.

        Raises:
            SegDREError: if they do not go with this trainer.
        """
        from accelerate import Accelerator, DistributedDataParallelKwargs

        # a pooler, as in BERT, has no gradient
        how = [DistributedDataParallelKwargs(find_unused_parameters=True)]
        try:
            made = Accelerator(
                cpu=not torch.cuda.is_available(), gradient_accumulation_steps=accumulation, kwargs_handlers=how
            )
        except (ValueError, ImportError, NotImplementedError) as error:
            raise SegDREError(f"Accelerate: {error}", "change its settings: accelerate config") from None
        kind = made.distributed_type.name
        if kind not in KINDS or made.num_processes != self.size:
            raise SegDREError(
                f"Accelerate trains as {kind}, in {made.num_processes} processes; expected {self.size} that each have "
                "the whole model",
                "leave out DeepSpeed, FSDP and others: accelerate config",
            )
        if self.mixed_precision != "no" and not made.native_amp:
            raise SegDREError(
                f"Accelerate leaves mixed precision {self.mixed_precision} out on a {made.device.type.upper()}",
                "leave it out, too: accelerate launch --mixed_precision no",
            )
        return made


def launched() -> bool:
    """Return whether a launcher has started this process, be it alone."""
    return size() > 1 or PRECISION in os.environ


def size() -> int:
    """Return how many processes were started together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def visible_gpus() -> list[str]:
    """Return the GPUs of this process, as CUDA_VISIBLE_DEVICES names them; none where it computes on the CPU."""
    given, n = os.environ.get(GPUS), torch.cuda.device_count()
    return given.split(",")[:n] if given else [str(i) for i in range(n)]


def choose_gpu() -> None:
    """Leave one GPU to a process of several, its own: scripts take the first one. It has to come before CUDA starts.

    Raises:
        SegDREError: if there are fewer GPUs than processes.
    """
    if size() == 1:
        return
    os.environ["ACCELERATE_BYPASS_DEVICE_MAP"] = "true"  # its GPU has number 0 here, whatever the rank
    rank, visible = int(os.environ.get("LOCAL_RANK", "0")), visible_gpus()
    if len(visible) < 2:  # none, or the launcher has left one to each
        return
    if rank >= len(visible):
        raise SegDREError(
            f"process {rank} of this machine: only {len(visible)} GPUs are visible",
            "start as many processes as there are GPUs",
        )
    os.environ[GPUS] = visible[rank]


@contextmanager
def joined() -> Iterator[Workers]:
    """Join the processes that were started with this one; when one of them ends before its work is done, all do.

    Yields:
        This process, alone where no launcher has started it.

    Raises:
        SegDREError: if Accelerate is missing, its settings cannot be used, or a process does not come.
    """
    if not launched():
        yield ALONE
        return
    if find_spec("accelerate") is None:
        raise SegDREError(
            f"started as one of {size()} processes, or by accelerate launch, and Accelerate is not installed",
            'pip install "segdre-plugin[scale]"',
        )
    if size() == 1:
        if "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
            raise SegDREError(
                "accelerate launch was asked for several processes, and starts only one on CPUs, or leaves them to MPI",
                "torchrun --nproc_per_node N, with the same script and arguments",
            )
        yield Launched(0, 1)
        return
    _meet()
    workers = Launched(dist.get_rank(), dist.get_world_size())
    with EndTogether(workers.rank, workers.size, dist.new_group(backend="gloo", timeout=WAITING)):
        yield workers
    dist.destroy_process_group()


def _settings() -> tuple[str, int | None]:
    """Return the mixed precision and the batches a step that the launcher has passed on; None: it has not.

    Raises:
        SegDREError: if they cannot be used.
    """
    precision, given = os.environ.get(PRECISION, "no"), os.environ.get(ACCUMULATION, "")
    if precision not in PRECISIONS:
        raise SegDREError(f"Accelerate's mixed precision is {precision!r}", f"choose from {', '.join(PRECISIONS)}")
    if given and not (given.isdecimal() and int(given)):
        raise SegDREError(f"{ACCUMULATION} is {given!r}", "set the number of batches a step, 1 or more")
    return precision, int(given) if given else None


def _meet() -> None:
    """Connect all processes.

    Raises:
        SegDREError: if one does not come in time, or they compute on unlike devices.
    """
    from torch.distributed.rendezvous import rendezvous  # some builds of torch have none

    gpu = torch.cuda.is_available()
    device = f"a GPU {getattr(torch.cuda.get_device_properties(0), 'uuid', '')}" if gpu else "a CPU"
    try:
        store, rank, n = next(iter(rendezvous("env://", timeout=JOINING)))
        store.set(f"segdre-{rank}", device)
        names = [f"segdre-{k}" for k in range(n)]
        store.wait(names, JOINING)
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SegDREError(
            f"process {os.environ.get('RANK')} of {size()} did not meet the others in {JOINING.seconds} seconds: "
            f"{reason:.200}",
            "see what the others printed; check MASTER_ADDR and MASTER_PORT",
        ) from None
    devices = [store.get(name).decode() for name in names]
    if len({device[:5] for device in devices}) > 1 or (device[6:] and len(set(devices)) < n):
        raise SegDREError(
            f"the processes compute on {', '.join(devices)}", "give each of them a GPU of its own, or none"
        )
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpu else "gloo", store=store, rank=rank, world_size=n, timeout=WAITING
    )

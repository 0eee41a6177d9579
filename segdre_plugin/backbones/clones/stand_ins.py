"""Stand-ins for names that a train script looks up when its ``main()`` runs."""

from __future__ import annotations

import argparse
import io
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from segdre_plugin.backbones.batching import LengthBuckets
from segdre_plugin.backbones.workers import ALONE, SharedBatches, Workers
from segdre_plugin.data.progress import progress
from segdre_plugin.errors import SegDREError, did_you_mean


@contextmanager
def swapped(names: MutableMapping[str, Any], new: dict[str, Any]) -> Iterator[None]:
    """Swap some of a module's names while the context lasts."""
    absent = object()
    before = {name: names.get(name, absent) for name in new}
    names.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is absent:
                del names[name]
            else:
                names[name] = value


class ParsedArguments(Exception):  # noqa: N818 - no error
    """A script's arguments on their way out of its ``main()``, and the names of those on the command line."""

    def __init__(self, arguments: Namespace, given: frozenset[str]) -> None:
        self.arguments, self.given = arguments, given


class ArgparseProxy:
    """``argparse`` for a script whose arguments are wanted, or are to be changed; ``more`` options may be meant."""

    def __init__(
        self, overrides: Mapping[str, Any] | None = None, stop: bool = False, more: Iterable[str] = ()
    ) -> None:
        class Parser(argparse.ArgumentParser):
            def parse_args(self, *args: Any, **kwargs: Any) -> Any:
                found: Any
                found, unknown = super().parse_known_args(*args, **kwargs)
                if unknown:
                    known = [option for action in self._actions for option in action.option_strings]
                    word = unknown[0].split("=")[0]
                    raise SegDREError(f"unknown argument {word}", did_you_mean(word, [*known, *more]))
                if stop:
                    for action in self._actions:
                        value = getattr(found, action.dest, None)
                        if action.type is float and type(value) is int:  # a default, which argparse leaves as it is
                            setattr(found, action.dest, float(value))
                        action.default = argparse.SUPPRESS
                    raise ParsedArguments(found, frozenset(vars(super().parse_args(*args, **kwargs))))
                vars(found).update(overrides or {})
                return found

        self.ArgumentParser = Parser

    def __getattr__(self, name: str) -> Any:
        return getattr(argparse, name)


def progress_loader(label: str, buckets: bool = False, workers: Workers = ALONE) -> type[DataLoader[Any]]:
    """Return a class of data loaders that show a progress bar, with ``label``, whenever they are iterated.

    With ``buckets``, features of like length come into a batch where the script asks for shuffled ones. Each of several
    ``workers`` gets its part of such a batch.
    """

    class Loader(DataLoader[Any]):
        def __init__(self, dataset: Any, batch_size: int = 1, shuffle: bool = False, **how: Any) -> None:
            if (buckets or workers.size > 1) and shuffle and how.pop("drop_last", False):
                sampler: Any = BatchSampler(RandomSampler(dataset), batch_size, drop_last=True)
                if buckets:
                    sampler = LengthBuckets([len(feature["input_ids"]) for feature in dataset], batch_size)
                if workers.size > 1:
                    sampler = SharedBatches(sampler, workers)
                super().__init__(dataset, batch_sampler=sampler, **how)
            else:
                super().__init__(dataset, batch_size=batch_size, shuffle=shuffle, **how)

        def __iter__(self) -> Any:
            yield from progress(super().__iter__(), label=label, total=len(self))

    return Loader


def open_outside(folder: Path) -> Callable[..., Any]:
    """Make an ``open`` that keeps the script from writing a stage's ``result.json`` or log beside itself."""

    def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wax+") and not Path(path).is_absolute() and folder not in Path(path).parents:
            return io.StringIO()
        return open(path, mode, *args, **kwargs)

    return opened


def with_new_layer_lr(
    optimizer: Callable[..., Any], rate: float, encoder: Callable[[], Iterable[Any]]
) -> Callable[..., Any]:
    """Wrap an optimiser so that groups with none of the ``encoder``'s parameters (new layers) get ``rate``."""

    def build(groups: Any, *args: Any, **kwargs: Any) -> Any:
        pretrained = {id(parameter) for parameter in encoder()}
        changed = [
            group if any(id(parameter) in pretrained for parameter in group["params"]) else group | {"lr": rate}
            for group in groups
        ]
        return optimizer(changed, *args, **kwargs)

    return build


def with_fused_step(optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """Return an optimiser like the given one; on a GPU, torch's AdamW takes its step in one kernel.

    On a CPU it stays as it is: the fused step has other last bits there, and the same seed gives the same files.
    """

    def build(*args: Any, **kwargs: Any) -> Any:
        made = optimizer(*args, **kwargs)
        if isinstance(made, AdamW) and fuses(p.device for group in made.param_groups for p in group["params"]):
            for group in made.param_groups:
                group["fused"], group["foreach"] = True, None
        return made

    return build


def fuses(devices: Iterable[torch.device]) -> bool:
    """Return whether all parameters are where a fused step is used."""
    return {device.type for device in devices} == {"cuda"}


def no_report(reported: Any = (), draws: bool = True) -> Callable[..., Any]:
    """Return a function that predicts nothing, and returns ``reported``.

    The test split is predicted once, at the end of a stage, with the best checkpoint. The script's own report goes
    through a data loader, which draws a seed from torch's generator. That is done here, too, so that later epochs
    shuffle as they do in the script without ``--seg``; not so where nothing ``draws``. Scripts report whenever dev is
    better than ever, so what dense and sparse learn would depend on that, and they could not be trained before dev can
    be judged.
    """

    def report(*_: Any, **__: Any) -> Any:
        if draws:
            draw_seed()
        return reported

    return report


def draw_seed() -> None:
    """Draw what a data loader draws from torch's generator when it is iterated."""
    iter(DataLoader([0]))  # type: ignore[arg-type]

"""Forward hooks around a whole model: guards where stages differ from what a backbone was written for, and bfloat16.

In a stage a batch's tensors are used more than once, and a batch may lack positive pairs. The hooks of the encoder are
in :mod:`segdre_plugin.backbones.hooks`. All are classes and no closures, so that they go with a deep copy of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from segdre_plugin.backbones.hooks import WrapState
from segdre_plugin.errors import SegDREError


class ArgumentChanger:
    """Change some of ``forward``'s arguments, by name: ``change`` returns what one is to be."""

    def __init__(self, names: tuple[str, ...], signature: inspect.Signature, change: Callable[[Any], Any]) -> None:
        self.names, self.signature, self.change = names, signature, change

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Change ``forward``'s arguments."""
        bound = self.signature.bind(*args, **kwargs)
        for name in self.names:
            if name in bound.arguments:
                bound.arguments[name] = self.change(bound.arguments[name])
        return bound.args, bound.kwargs


def copied(value: Any) -> Any:
    """Return a copy of a tensor that ``forward`` writes into; anything else is returned as it is."""
    return value.clone() if isinstance(value, Tensor) else value


def positive(parts: Any) -> Any:
    """Return an argument with an entry for each pair with a relation; None if the batch has no such pair.

    What ``forward`` computes from it is a mean over nothing there, NaN, or fails. There is a part for each document,
    None where it has no gold.
    """
    found = parts is not None and any(part is not None and len(part) for part in parts)
    return parts if found else None


class EmptyMeanGuard:
    """Make the mean over no pair 0: a batch of dense or sparse pairs may have no positive one, and NaN spreads."""

    def __call__(self, loss: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Change the loss's output; the sum over nothing is 0 and keeps the gradient's path."""
        return output if len(args[0]) else args[0].sum()


class AutocastEntry:
    """Begin mixed precision in bfloat16 before ``forward``.

    bfloat16 has float32's range, so no loss needs scaling. The classifier adds its products up in 32 bits and returns
    logits in 32 bits (:mod:`segdre_plugin.backbones.fast.grouped`): thresholds are searched in steps of 0.1, and
    bfloat16 has steps of 0.125 from 16 on.
    """

    def __init__(self) -> None:
        self.contexts: list[torch.autocast] = []

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin it on the model's device."""
        context = torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16)
        context.__enter__()
        self.contexts.append(context)


class AutocastExit:
    """End mixed precision after ``forward``, also when it failed."""

    def __init__(self, entry: AutocastEntry) -> None:
        self.entry = entry

    def __call__(self, *_: Any) -> None:
        """End what was begun."""
        while self.entry.contexts:
            self.entry.contexts.pop().__exit__(None, None, None)


def guard(model: nn.Module, state: WrapState) -> None:
    """Register the guards that the model's backbone needs, each with its undo step."""
    backbone = state.backbone
    for names, change in ((backbone.copied, copied), (backbone.positive_fields, positive)):
        if names:
            changer = ArgumentChanger(names, inspect.signature(model.forward), change)
            state.undo.append(model.register_forward_pre_hook(changer, with_kwargs=True).remove)
    if backbone.evidence_loss:
        state.undo.append(getattr(model, backbone.evidence_loss).register_forward_hook(EmptyMeanGuard()).remove)


def check_bf16(device: torch.device) -> None:
    """Refuse a GPU that does not compute in bfloat16 itself: torch would emulate it there, many times slower.

    Raises:
        SegDREError: with the GPU's name.
    """
    if device.type != "cuda":
        return
    with torch.cuda.device(device):
        if not torch.cuda.is_bf16_supported(including_emulation=False):
            raise SegDREError(
                f"bfloat16: {torch.cuda.get_device_name()} does not compute in it (expected compute capability 8.0 or "
                f"more, got {'.'.join(map(str, torch.cuda.get_device_capability()))})",
                "leave --seg-bf16 (bf16=True) out, or take another GPU",
            )


def use_bf16(model: nn.Module, state: WrapState) -> None:
    """Make ``forward`` compute in bfloat16 where that is safe (``torch.autocast``), each hook with its undo step.

    Raises:
        SegDREError: if the model is on a GPU without bfloat16.
    """
    check_bf16(next(model.parameters()).device)
    entry = AutocastEntry()
    state.undo.append(model.register_forward_pre_hook(entry, with_kwargs=True).remove)
    state.undo.append(model.register_forward_hook(AutocastExit(entry), always_call=True).remove)

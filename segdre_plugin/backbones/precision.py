"""Mixed precision in bfloat16 for a wrapped model's forward, by means of ``torch.autocast``.

bfloat16 has float32's range, so no loss needs scaling. The classifier adds its products up in 32 bits and gives logits
in 32 bits (:mod:`segdre_plugin.backbones.fast.grouped`): thresholds are searched in steps of 0.1, and bfloat16 has
steps of 0.125 from 16 on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from segdre_plugin.backbones.hooks import Wrapped


class EnterAutocast:
    """Begin mixed precision before ``forward``; a class, so that it goes with a deep copy of the model."""

    def __init__(self) -> None:
        self.contexts: list[torch.autocast] = []

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Begin it on the model's device."""
        context = torch.autocast(next(model.parameters()).device.type, dtype=torch.bfloat16)
        context.__enter__()
        self.contexts.append(context)


class LeaveAutocast:
    """End mixed precision after ``forward``, also when it failed."""

    def __init__(self, enter: EnterAutocast) -> None:
        self.enter = enter

    def __call__(self, *_: Any) -> None:
        """End what was begun."""
        while self.enter.contexts:
            self.enter.contexts.pop().__exit__(None, None, None)


def use_bf16(model: nn.Module, wrapped: Wrapped) -> None:
    """Let a model's forward compute in bfloat16 where that is safe, each hook with its undo step."""
    enter = EnterAutocast()
    wrapped.undo.append(model.register_forward_pre_hook(enter, with_kwargs=True).remove)
    wrapped.undo.append(model.register_forward_hook(LeaveAutocast(enter), always_call=True).remove)

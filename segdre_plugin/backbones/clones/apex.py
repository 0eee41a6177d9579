"""``apex.amp`` by means of ``torch.amp``, as far as the backbones' train scripts use it.

apex's level O1 is mixed precision with dynamic loss scaling, which torch has had since 1.6 (`torch.autocast`,
`GradScaler`). On a CPU O1 means nothing: everything stays float32, as under apex without a GPU kernel to call.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch

from segdre_plugin.errors import SegDREError

_SCALER = "_segdre_scaler"


def initialize(
    models: torch.nn.Module,
    optimizers: torch.optim.Optimizer | None = None,
    opt_level: str = "O1",
    *,
    dtype: torch.dtype = torch.float16,
    devices: tuple[str, ...] = ("cuda",),
    **_: Any,
) -> Any:
    """Return a model that computes in mixed precision and, if given, its optimiser, which undoes the loss's scaling.

    It is one model, on its device. ``opt_level`` is O0 (float32) or O1 (mixed precision, in the low-precision type
    ``dtype``). On other devices than ``devices`` nothing changes.

    Raises:
        SegDREError: for the levels O2 and O3.
    """
    if opt_level not in ("O0", "O1"):
        raise SegDREError(f"apex opt_level {opt_level!r} has no stand-in", "use O1, or install apex")
    device = next(models.parameters()).device.type
    if opt_level == "O1" and device in devices:
        models.forward = torch.autocast(device, dtype=dtype)(models.forward)
        if optimizers is not None:
            _scale_steps(optimizers, torch.amp.GradScaler(device))
    return models if optimizers is None else (models, optimizers)


@contextmanager
def scale_loss(loss: torch.Tensor, optimizers: torch.optim.Optimizer, **_: Any) -> Iterator[torch.Tensor]:
    """Return the loss to call ``backward`` on."""
    scaler = getattr(optimizers, _SCALER, None)
    yield loss if scaler is None else scaler.scale(loss)


def master_params(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Return the parameters whose gradients are clipped, with unscaled gradients."""
    scaler = getattr(optimizer, _SCALER, None)
    if scaler is not None:
        scaler.unscale_(optimizer)
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _scale_steps(optimizer: torch.optim.Optimizer, scaler: Any) -> None:
    """Let ``optimizer.step()`` go through the scaler, which leaves a step with infinite gradients out."""
    original = optimizer.step
    inside = False

    def step(self: torch.optim.Optimizer, closure: Any = None) -> None:
        nonlocal inside
        if inside:  # called back by the scaler
            original()
            return
        inside = True
        try:
            scaler.step(self)
        finally:
            inside = False
        scaler.update()

    setattr(optimizer, _SCALER, scaler)
    optimizer.step = MethodType(step, optimizer)  # type: ignore[method-assign]

"""What torch's mixed precision computes in, asked of any device: torch knows autocast on some kinds only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def mixed_dtype(device: str) -> torch.dtype | None:
    """Return the type of products on a kind of device, under autocast; None outside it."""
    mixed = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if mixed else None


@contextmanager
def without_autocast(device: str) -> Iterator[None]:
    """Compute in the types of the operands inside the context."""
    if mixed_dtype(device) is None:
        yield
        return
    with torch.autocast(device, enabled=False):
        yield


def wide(part: Tensor) -> torch.dtype:
    """Return the type in which a tensor's numbers are added up: 32 bits at least."""
    return torch.promote_types(part.dtype, torch.float32)

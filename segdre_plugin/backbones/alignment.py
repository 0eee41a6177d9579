"""Rows that begin at multiples of 16 bytes, without which a GPU's 16-bit kernels are slower than its 32-bit ones.

97 classes and 305 tokens are odd widths. Under autocast the classifier gets classes whose logits nobody reads, and the
encoder's windows get padding that nobody sees, up to the next multiple of 8 numbers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segdre_plugin.backbones.hooks import WrapState
from segdre_plugin.backbones.precision import mixed_dtype

NUMBERS = 8  # of 16 bits in 16 bytes


def missing(width: int, device: torch.device) -> int:
    """Return how many numbers a row lacks; 0 outside autocast."""
    return -width % NUMBERS if mixed_dtype(device.type) else 0


class AlignedLinear:
    """The ``forward`` of a linear layer that has more outputs inside, and puts out as many as it has."""

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer

    def __call__(self, inputs: Any) -> Any:
        """Apply the layer."""
        weight, bias, outputs = self.layer.weight, self.layer.bias, self.layer.out_features
        more = missing(outputs, weight.device)
        if not more:
            return F.linear(inputs, weight, bias)
        return F.linear(inputs, F.pad(weight, (0, 0, 0, more)), None if bias is None else F.pad(bias, (0, more)))[
            ..., :outputs
        ]


class WindowPadder:
    """Pad the windows that the backbone passes to its encoder; their outputs are cut again where branches are."""

    def __init__(self, state: WrapState, longest: int) -> None:
        self.state, self.longest = state, longest

    def __call__(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Change the encoder's arguments, those of a number for each token."""
        self.state.width = 0
        if args or "input_ids" not in kwargs:
            return args, kwargs
        ids = kwargs["input_ids"]
        more = missing(ids.shape[1], ids.device)
        if not more or ids.shape[1] + more > self.longest:
            return args, kwargs
        self.state.width = ids.shape[1]
        own = {k: part for k, part in kwargs.items() if isinstance(part, Tensor) and part.shape == ids.shape}
        padding = {"input_ids": getattr(encoder.config, "pad_token_id", None) or 0}
        return args, kwargs | {k: F.pad(part, (0, more), value=padding.get(k, 0)) for k, part in own.items()}


def align(model: nn.Module, state: WrapState, longest: int) -> None:
    """Align a model that computes in 16 bits, each change with its undo step; its encoder reads ``longest`` tokens."""
    classifier = getattr(model, state.backbone.classifier)
    if type(classifier) is nn.Linear:
        classifier.forward = AlignedLinear(classifier)  # type: ignore[method-assign, assignment]
        state.undo.append(partial(delattr, classifier, "forward"))
    if state.mask_form is None:  # else branches fill the windows up
        padder = WindowPadder(state, longest)
        encoder = getattr(model, state.backbone.encoder)
        state.undo.append(encoder.register_forward_pre_hook(padder, with_kwargs=True).remove)

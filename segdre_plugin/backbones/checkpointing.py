"""Gradient checkpointing of an encoder: a layer's activations are computed again for its gradients, and not kept.

The numbers are the same, dropout included: torch goes back to the states of its generators for the second time. What a
layer returns stays, so the hooks on the encoder's inputs and outputs see each of its calls once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from segdre_plugin.errors import SegDREError

HOW = {"use_reentrant": False}  # the other way of torch loses gradients of what is not a layer's first input


def checkpoint_layers(encoder: nn.Module) -> Callable[[], None]:
    """Make an encoder of transformers compute its layers again in backward.

    Returns:
        A function that undoes it.

    Raises:
        SegDREError: if the encoder cannot do it.
    """
    # what transformers calls it, by its version
    word = "activation" if hasattr(encoder, "activation_checkpointing_enable") else "gradient"
    if getattr(encoder, f"is_{word}_checkpointing", False):  # its owner has done so
        return lambda: None
    enable: Any = getattr(encoder, f"{word}_checkpointing_enable", None)
    if enable is None or not getattr(encoder, "supports_gradient_checkpointing", False):
        raise SegDREError(
            f"checkpointing: {type(encoder).__name__} cannot compute its layers again for the gradients",
            "leave --seg-checkpointing (checkpointing=True) out, and lower the batch size instead",
        )
    enable(**{f"{word}_checkpointing_kwargs": HOW})
    disable: Callable[[], None] = getattr(encoder, f"{word}_checkpointing_disable")
    return disable

"""Where the numbers of pairs are read in a wrapped model: the logits that decide, or what a count head puts out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segdre_plugin.backbones.hooks import wrap_state

Take = Callable[[Any], Tensor]  # (output of forward) -> logits of the batch's pairs, [pairs, outputs]


@contextmanager
def readout(model: nn.Module) -> Iterator[Take]:
    """Read the logits of each ``forward`` inside the context, with what is yielded, after it."""
    state = wrap_state(model)
    backbone, seen = state.backbone, list[Tensor]()

    def taken(output: Any) -> Tensor:
        found = torch.cat(seen)
        seen.clear()
        return found

    if state.head or backbone.logits == "classifier":
        module = getattr(model, state.head or backbone.classifier)
        handle = module.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
        try:
            yield taken
        finally:
            handle.remove()
    elif backbone.logits == "loss":
        loss = getattr(model, backbone.loss or "")
        label = loss.get_label

        def get_label(logits: Tensor, *args: Any, **how: Any) -> Any:
            seen.append(logits.detach())
            return label(logits, *args, **how)

        loss.get_label = get_label
        try:
            yield taken
        finally:
            del loss.get_label
    else:
        yield _first


def _first(output: Any) -> Tensor:
    logits: Tensor = output if isinstance(output, Tensor) else next(iter(output))
    return logits.detach()

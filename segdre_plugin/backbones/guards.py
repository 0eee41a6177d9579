"""Forward hooks that keep a backbone's forward from doing harm where stages differ from what it was written for."""

from __future__ import annotations

import inspect
from typing import Any

from torch import Tensor, nn

from segdre_plugin.backbones.hooks import Wrapped


class CopyArguments:
    """Hand ``forward`` copies of those tensors that it writes into.

    Args:
        names: the arguments.
        signature: of ``forward``.
    """

    def __init__(self, names: tuple[str, ...], signature: inspect.Signature) -> None:
        self.names = names
        self.signature = signature

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Change ``forward``'s arguments."""
        bound = self.signature.bind(*args, **kwargs)
        for name in self.names:
            if isinstance(bound.arguments.get(name), Tensor):
                bound.arguments[name] = bound.arguments[name].clone()
        return bound.args, bound.kwargs


class ZeroOverNothing:
    """Return a mean over no pair as 0: a batch of dense or sparse pairs may have no positive one, and NaN spreads."""

    def __call__(self, loss: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """Change the loss's output."""
        return output if len(args[0]) else args[0].sum()


def guard(model: nn.Module, wrapped: Wrapped) -> None:
    """Hang the guards that the backbone needs into a model, each with its undo step."""
    backbone = wrapped.backbone
    if backbone.copied:
        copy = CopyArguments(backbone.copied, inspect.signature(model.forward))
        wrapped.undo.append(model.register_forward_pre_hook(copy, with_kwargs=True).remove)
    if backbone.evidence_loss:
        wrapped.undo.append(getattr(model, backbone.evidence_loss).register_forward_hook(ZeroOverNothing()).remove)

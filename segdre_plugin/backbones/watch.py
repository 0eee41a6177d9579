"""Training ends at the first loss or gradient that is not finite.

One such step makes every weight NaN, and a train loop goes on to its end as if nothing had happened. Losses are seen
where they come out of the wrapped ``forward``, gradients where an optimiser is about to apply them, so that this holds
in any loop. Both are looked at together, once a step: one read of all gradients, and one number to wait for.

A step that a gradient scaler leaves out, because gradients overflowed in float16, never reaches the optimiser: it is
part of mixed precision, and only its loss has to be finite.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from segdre_plugin.errors import SegDREError

SHOWN = 3  # names of parameters in a message


class FiniteWatch:
    """What :func:`watch_finite` hooks in."""

    def __init__(self, model: nn.Module, stage: str, titles: Callable[[], Sequence[str]]) -> None:
        self.model, self.stage, self.titles = model, stage, titles
        self.step = 0
        self.batch: Sequence[str] = ()
        self.losses: list[Tensor] = []  # of the last batch, until they are checked
        self.rates: list[str] = []

    def after_forward(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """Note a training batch and its losses."""
        if model.training and torch.is_grad_enabled():
            self.check()  # of a batch that reached no optimiser: it was left out, or its gradients are added up
            self.step += 1
            self.batch, self.losses = self.titles(), list(_losses(output))

    def before_update(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check the batch's losses, and the gradients that are about to be applied."""
        groups = optimizer.param_groups
        self.rates = list(dict.fromkeys(f"{float(group['lr']):g}" for group in groups))
        self.check([p.grad for group in groups for p in group["params"] if p.grad is not None])

    def check(self, gradients: Sequence[Tensor] = ()) -> None:
        """Refuse losses and gradients that are not finite.

        Raises:
            SegDREError: with the stage, the step, the titles of its documents and the learning rates.
        """
        losses, self.losses = self.losses, []
        # as torch's clipping does it; squares that overflow would do so in the optimiser, too
        norms = torch._foreach_norm(list(gradients)) if gradients else []
        numbers = [*losses, *norms]
        if numbers and not torch.stack([x.float().to(numbers[0].device) for x in numbers]).isfinite().all():
            raise self._problem(losses)

    def _problem(self, losses: Sequence[Tensor]) -> SegDREError:
        parameters = list(self.model.named_parameters())
        weights = [name for name, p in parameters if not p.isfinite().all()]
        gradients = [name for name, p in parameters if p.grad is not None and not p.grad.norm().isfinite()]
        found = [f"a loss of {' and '.join(f'{float(loss):g}' for loss in losses)}"] if losses else []
        if all(loss.isfinite() for loss in losses):
            found.append(f"gradients that are not, of {_some(gradients)}")
        if weights:
            found.append(f"weights that are not, {_some(weights)}")
        hint = "lower the learning rate"
        if weights and self.step == 1:
            hint = "training starts from broken weights: check the encoder's"
        elif not weights and any(p.is_cuda for _, p in parameters):
            hint += "; if it computes in float16, whose numbers end at 65504, use bfloat16: --seg-bf16"
        rate = f", learning rate {' and '.join(self.rates)}" if self.rates else ""
        titles = ", ".join(repr(title) for title in self.batch)
        where = f"stage {self.stage}, step {self.step}{rate}, documents {titles}"
        return SegDREError(f"{where}: expected finite numbers, got {'; '.join(found)}", hint)


@contextmanager
def watch_finite(model: nn.Module, stage: str, titles: Callable[[], Sequence[str]]) -> Iterator[FiniteWatch]:
    """Watch a model's losses and gradients while it is trained inside the context.

    Args:
        model: the model, wrapped.
        stage: its name, for the message.
        titles: gives the titles of the documents that were collated last.

    Yields:
        What was hooked in.

    Raises:
        SegDREError: at the first one that is not finite.
    """
    watch = FiniteWatch(model, stage, titles)
    hooks = [
        model.register_forward_hook(watch.after_forward),
        register_optimizer_step_pre_hook(watch.before_update),
    ]
    try:
        yield watch
        watch.check()
    finally:
        for hook in hooks:
            hook.remove()


def _losses(output: Any) -> Iterator[Tensor]:
    """Yield what can be minimised in a model's output: the numbers with a gradient, however they are nested."""
    if isinstance(output, Tensor):
        if output.dim() == 0 and output.requires_grad:
            yield output.detach()
    elif isinstance(output, (Mapping, tuple, list)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _losses(part)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more

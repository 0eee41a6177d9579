"""One small training loop with the recipe of the backbones' own ``train()``, which can go on where it was killed.

Two learning-rate groups, linear warm-up and decay, clipped gradients, the checkpoint with the best dev score. The
reference model trains with it, and an upstream model on request (``--seg-trainer own``). In one process, with one
batch a step, it computes what the published loops compute, to the last bit on a CPU. Several processes
(:mod:`segdre_plugin.backbones.workers`) share the documents of each batch, and take the same steps.
"""

from __future__ import annotations

import random
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from segdre_plugin.backbones.workers import ALONE, Workers
from segdre_plugin.data.files import read_state, write
from segdre_plugin.errors import SegDREError

# of what is kept; the random states at_start (of the epoch) and now are those of each process
STATE = {"model", "optimizer", "schedule", "scaler", "at_start", "now", "best", "steps", "epoch", "batch"}
Terms = Sequence[tuple[Tensor, int]]  # of a loss: each is a mean over so many rows


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: a fraction of one counts for the decay of the learning rate, and is not trained.
        learning_rate: of the encoder.
        new_layer_lr: of the parameters with one of ``new_layers`` in their name.
        warmup_ratio: share of all steps.
        max_grad_norm: 0 leaves gradients as they are.
        seed: of everything random in training, set again before it.
        epsilon: of Adam.
        accumulation: batches a step, whose mean loss is minimised; what is left over at the end of an epoch is a step.
        evaluation_steps: steps between two looks at dev, besides one at the end of an epoch; -1: no others.
        before_last_step: the look at the end of an epoch comes before its last step (ATLOP).
        new_layers: parts of names.
    """

    epochs: float
    learning_rate: float
    new_layer_lr: float
    warmup_ratio: float
    max_grad_norm: float
    seed: int
    epsilon: float = 1e-6
    accumulation: int = 1
    evaluation_steps: int = -1
    before_last_step: bool = False
    new_layers: tuple[str, ...] = ("extractor", "bilinear")

    @classmethod
    def of(cls, args: Namespace, **more: Any) -> Recipe:
        """Return the recipe of a script's arguments, where they have the names that ATLOP gave them; ``more`` is given.

        Raises:
            SegDREError: if there is nothing to train.
        """
        optional = {"epsilon": "adam_epsilon", "accumulation": "gradient_accumulation_steps"}
        optional |= {"evaluation_steps": "evaluation_steps", "learning_rate": "learning_rate"}
        found = {field: getattr(args, name) for field, name in optional.items() if hasattr(args, name)}
        found |= {name: getattr(args, name) for name in ("warmup_ratio", "max_grad_norm", "seed")}
        if args.num_train_epochs < 1 or args.train_batch_size < 1 or found.get("accumulation", 1) < 1:
            raise SegDREError(
                f"--num_train_epochs is {args.num_train_epochs}, --train_batch_size {args.train_batch_size}, "
                f"{found.get('accumulation', 1)} batches a step",
                "pass 1 or more for each",
            )
        return cls(epochs=args.num_train_epochs, **(found | more))


@dataclass(frozen=True)
class Resume:
    """Where an unfinished training is kept.

    Attributes:
        path: the file; it is removed when training ends.
        every: seconds between two writes.
    """

    path: Path
    every: float


class BatchLoss(nn.Module):
    """The loss of a batch as a module, whose parameters are those of the model that is trained.

    What several processes average is gradients, but the loss of a batch is a mean over its rows, of which each process
    has another number. So each weighs its own means by its share of the rows.
    """

    def __init__(self, model: nn.Module, loss: Callable[[Any], Terms], workers: Workers) -> None:
        super().__init__()
        self.model, self.loss, self.workers = model, loss, workers

    def forward(self, batch: Held) -> Tensor:
        """Return the loss, a scalar."""
        terms = self.loss(batch.content)
        rows = [float(n) for _, n in terms]
        size, whole = self.workers.size, self.workers.total(rows)
        means = [mean for mean, _ in terms]
        if size > 1:
            means = [mean * (size * n / max(n_all, 1)) for mean, n, n_all in zip(means, rows, whole, strict=True)]
        return sum(means[1:], start=means[0])


@dataclass(frozen=True)
class Held:
    """A batch on its way through DDP, which takes lists apart: what one of a class of its own carries would be lost."""

    content: Any


def train(
    model: nn.Module,
    loader: Any,
    recipe: Recipe,
    *,
    loss: Callable[[Any], Terms],
    evaluate: Callable[[int], float],
    keep: Callable[[], None],
    resume: Resume | None = None,
    adamw: Callable[..., Optimizer] = AdamW,
    workers: Workers = ALONE,
) -> None:
    """Train a model, and keep the best checkpoint.

    Args:
        model: on its device.
        loader: gives batches, or this process's part of them, shuffled by torch's generator; iterated once an epoch.
        recipe: how.
        loss: (batch) -> the terms of the loss, whose sum is minimised, each with the number of rows of the batch (such
            as pairs) of which it is the mean.
        evaluate: (steps so far) -> the score of dev; every process calls it.
        keep: called in the main process whenever dev is better than ever before.
        resume: where to go on from, if training was cut off, and what to write meanwhile; None: neither.
        adamw: makes the optimiser.
        workers: the processes that train.

    Raises:
        SegDREError: if the documents do not fill one batch, or the unfinished training is not one of this loop.
    """
    if len(loader) == 0:
        raise SegDREError(
            f"{len(loader.dataset)} documents make no batch", "pass a smaller --train_batch_size, or more documents"
        )
    epochs, batches, device = int(recipe.epochs), len(loader), next(model.parameters()).device
    # the recipe
    optimizer = adamw(_groups(model, recipe), lr=recipe.learning_rate, eps=recipe.epsilon, weight_decay=0.0)
    total = int(-(-batches // recipe.accumulation) * recipe.epochs)
    warmup = int(total * recipe.warmup_ratio)
    schedule = LambdaLR(optimizer, lambda step: warmup_linear(step, warmup, total))
    look = batches - 2 if recipe.before_last_step and batches > 1 else batches - 1

    engine = workers.steps(recipe.accumulation)
    step, stepper = engine.prepare(BatchLoss(model, loss, workers), optimizer)

    set_seed(recipe.seed + workers.rank)  # again, after the model's weights were drawn
    # where it begins, or was cut off
    best, steps, begun = -1.0, 0, 0
    done = -1  # the last finished batch of the epoch
    saved = workers.share(_read(resume) if workers.is_main else None)
    if saved:
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        if engine.scaler and saved["scaler"]:
            engine.scaler.load_state_dict(saved["scaler"])
        best, steps, begun, done = saved["best"], saved["steps"], saved["epoch"], saved["batch"]
        print(f"segdre: going on in epoch {begun + 1}, after batch {done + 1} of {batches}", flush=True)
    written = time.monotonic()

    def go_back(moment: str) -> None:
        """Draw on as at a moment of the training that was cut off; it may have had fewer processes."""
        states = saved[moment] if saved else []
        if workers.rank < len(states):
            set_random_states(states[workers.rank], device)

    model.zero_grad(set_to_none=True)
    for epoch in range(begun, epochs):
        go_back("at_start")  # the same order of documents again, up to where it was cut off
        at_start = random_states(device)
        for k, batch in enumerate(loader):
            if k <= done:
                continue
            go_back("now")
            saved = None
            # a batch, and a step if it ends with it
            model.train()
            stepped = (k + 1) % recipe.accumulation == 0 or k + 1 == batches
            with nullcontext() if stepped else engine.no_sync(step):
                engine.backward(step(Held(batch)))
            if stepped:
                if recipe.max_grad_norm > 0:
                    engine.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
                stepper.step()
                if not engine.optimizer_step_was_skipped:  # gradients have overflowed in float16
                    schedule.step()
                model.zero_grad(set_to_none=True)
                steps += 1
            # a look at dev
            due = recipe.evaluation_steps > 0 and stepped and steps % recipe.evaluation_steps == 0
            if k == look or due:
                score = evaluate(steps)
                if score > best:
                    best = score
                    if workers.is_main:
                        keep()
            # what goes on where it is cut off
            if resume and stepped and workers.share(time.monotonic() - written >= resume.every):
                random_now = workers.gather({"at_start": at_start, "now": random_states(device)})
                if workers.is_main:
                    parts = {"model": model, "optimizer": optimizer, "schedule": schedule, "scaler": engine.scaler}
                    state: dict[str, Any] = {name: part and part.state_dict() for name, part in parts.items()}
                    state |= {moment: [own[moment] for own in random_now] for moment in ("at_start", "now")}
                    _write(resume.path, state | {"best": best, "steps": steps, "epoch": epoch, "batch": k})
                written = time.monotonic()
        go_back("now")  # it was cut off after the last batch of an epoch
        saved, done = None, -1
    if resume and workers.is_main:
        resume.path.unlink(missing_ok=True)


def _groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    named = list(model.named_parameters())
    new = [parameter for name, parameter in named if any(layer in name for layer in recipe.new_layers)]
    old = [parameter for name, parameter in named if not any(layer in name for layer in recipe.new_layers)]
    return [{"params": old}, {"params": new, "lr": recipe.new_layer_lr}]


def warmup_linear(step: int, warmup: int, total: int) -> float:
    """Return the share of the learning rate: up from 0 to 1 in ``warmup`` steps, then down to 0 at ``total``."""
    if step < warmup:
        return step / max(1, warmup)
    return max(0.0, (total - step) / max(1, total - warmup))


def set_seed(seed: int) -> None:
    """Seed every generator that training uses."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of these generators, as tensors and plain values; of GPUs that of the model's ``device``."""
    name, keys, *rest = cast(Any, np.random.get_state())
    states = {"python": random.getstate(), "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest]}
    return states | {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Go back to states that :func:`random_states` gave, also where the model's GPU has another number now."""
    random.setstate(states["python"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)


def _read(resume: Resume | None) -> dict[str, Any] | None:
    """Return where training was cut off; None where it was not."""
    if resume is None or not resume.path.is_file():
        return None
    found = read_state(resume.path, "unfinished training")
    if not isinstance(found, dict) or found.keys() != STATE:
        raise SegDREError(f"{resume.path}: expected {', '.join(sorted(STATE))}", "remove it; the stage starts again")
    return found


def _write(path: Path, state: dict[str, Any]) -> None:
    write(path, lambda file: torch.save(state, file))

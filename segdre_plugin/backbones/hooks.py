"""The state of a wrapped model, and its encoder's forward hooks: branches in, branch tokens out (eq. 9-10).

The backbone's own ``encode`` cuts a document into windows and merges them again; the hooks work on the windows. A
batch's injections travel as integers, linear in the number of tokens; the visible matrix is built on the device.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from segdre_plugin.backbones.attention import MaskForm, encoder_dtype, visible_tokens
from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.precision import mixed_dtype
from segdre_plugin.errors import SegDREError
from segdre_plugin.injection import Injection

STATE = "_segdre"  # the attribute that holds a wrapped model's WrapState; not in its state_dict


class InjectedPositions(list[Any]):
    """A batch's ``entity_pos`` that carries the injections of its documents, one for each window.

    The backbones' training loops pass ``entity_pos`` on to ``forward`` as it is, so it can carry what they do not know.

    Attributes:
        injections: those of the batch; None in stages without.
        pairs: which pairs of the batch are the stage's, bool [pairs]; None where all are.
    """

    injections: list[Injection] | None = None
    pairs: Tensor | None = None


@dataclass
class WrapState:
    """The state of a wrapped model; :func:`wrap_state` returns it.

    Attributes:
        stage: base, identify, dense or sparse.
        backbone: the model's description.
        undo: steps that undo the wrapping, in the order in which they were taken.
        head: attribute of the model with the count head; None where there is none.
        count_loss: the count head's loss.
        pairs: which pairs of the current batch are the stage's, bool [pairs]; None where all are.
        shared: stage -> attribute of the model with its head, where identify and dense share the base's encoder.
        found: stage -> what that head put out for the pairs of the last batch that was read, [pairs, outputs].
        mask_form: builds the encoder's pairwise mask; None where nothing is injected.
        injections: those of the current batch, one for each window; None outside ``forward``.
        width: tokens of a window in the current call, before branches were appended; 0 outside such a call.
        covered: bool [windows, width], where a branch stands in the padding of the window; None where none does.
    """

    stage: str
    backbone: Backbone
    undo: list[Callable[[], None]] = field(default_factory=list)
    head: str | None = None
    count_loss: Any = None
    pairs: Tensor | None = None
    shared: dict[str, str] = field(default_factory=dict)
    found: dict[str, Tensor] = field(default_factory=dict)
    mask_form: MaskForm | None = None
    injections: list[Injection] | None = None
    width: int = 0
    covered: Tensor | None = None


def wrap_state(model: nn.Module) -> WrapState:
    """Return the state that ``wrap_model`` gave a model; raise SegDREError if it is not wrapped."""
    state: WrapState | None = getattr(model, STATE, None)
    if state is None:
        raise SegDREError(f"this {type(model).__name__} is not wrapped", "call wrap_model(model, stage=...) first")
    return state


class BatchReceiver:
    """Keep what a batch carries, its injections and its pairs, while ``forward`` runs.

    The hooks are classes and no closures, so that they go with a deep copy of the model.

    Args:
        state: the model's.
        signature: that of ``forward``.
        needed: what a batch may not lack -> its name in the message.
    """

    def __init__(self, state: WrapState, signature: inspect.Signature, needed: Mapping[str, str]) -> None:
        self.state, self.signature, self.needed = state, signature, needed

    def __call__(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take it from ``forward``'s arguments."""
        positions = self.signature.bind(*args, **kwargs).arguments.get("entity_pos")
        carried = positions if isinstance(positions, InjectedPositions) else InjectedPositions()
        for name, what in self.needed.items():
            if getattr(carried, name) is None:
                raise SegDREError(
                    f"stage {self.state.stage} got a batch without {what}",
                    "prepare features with prepare_features and collate them with wrap_collate(collate_fn)",
                )
        self.state.injections, self.state.pairs = carried.injections, carried.pairs


class BatchReset:
    """Forget a batch after its ``forward``, also when that failed."""

    def __init__(self, state: WrapState) -> None:
        self.state = state

    def __call__(self, *_: Any) -> None:
        """Forget it."""
        self.state.injections, self.state.pairs, self.state.width, self.state.covered = None, None, 0, None


class PairSelector:
    """Compute a loss on the stage's pairs alone."""

    def __init__(self, state: WrapState) -> None:
        self.state = state

    def __call__(self, loss: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Change the loss's arguments: logits and labels, [pairs, classes] each."""
        if self.state.pairs is None:  # the loss was called on its own
            return args
        chosen = self.state.pairs.to(args[0].device)
        return (args[0][chosen], args[1][chosen.to(args[1].device)], *args[2:])


class BranchAppender:
    """Append the branches to the windows that the backbone passes to its encoder."""

    def __init__(self, state: WrapState) -> None:
        self.state = state

    def __call__(self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Change the encoder's arguments."""
        injections = self.state.injections
        if injections is None:  # the encoder was called on its own
            return args, kwargs
        ids, mask = kwargs["input_ids"], kwargs["attention_mask"]
        _check_windows(injections, ids)
        width = self.state.width = ids.shape[1]
        host = assemble(injections, width, multiple=8 if mixed_dtype(ids.device.type) else 1)
        covered = host[2][:, :width] >= 0  # on the host: no waiting for the device
        self.state.covered = covered.to(ids.device) if covered.any() else None
        # L x L only from here on
        node_ids, position_ids, branch_ids, visibility = (part.to(ids.device) for part in host)
        visible = visible_tokens(node_ids, visibility, present_tokens(mask, branch_ids))
        assert self.state.mask_form is not None
        changed = {
            "input_ids": torch.where(branch_ids < 0, _padded(ids, branch_ids), branch_ids),
            "attention_mask": self.state.mask_form(visible, encoder_dtype(encoder)),
            "position_ids": position_ids,
            "token_type_ids": torch.zeros_like(position_ids),
        }
        return args, kwargs | changed


class BranchCutter:
    """Cut the branch tokens off and put the outputs where the backbones look for them."""

    def __init__(self, state: WrapState) -> None:
        self.state = state

    def __call__(self, encoder: nn.Module, args: tuple[Any, ...], output: Any) -> BaseModelOutput:
        """Change the encoder's output."""
        width = self.state.width or output.last_hidden_state.shape[1]

        def uncovered(attention: Tensor | None) -> Tensor | None:
            """Padding that holds a branch gets no attention, like all padding."""
            covered = self.state.covered
            if attention is None:  # the fast path has none of the layers that are not pooled
                return None
            own = attention[..., :width, :width]
            return own if covered is None else own.masked_fill(covered[:, None, None, :], 0.0)

        return BaseModelOutput(
            last_hidden_state=output.last_hidden_state[:, :width],
            hidden_states=tuple(layer[:, :width] for layer in output.get("hidden_states") or ()) or None,
            attentions=tuple(uncovered(layer) for layer in output.get("attentions") or ()) or None,
        )


def assemble(injections: Sequence[Injection], width: int, multiple: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Lay the injections of a batch's windows out for the device; integers only, linear in the number of tokens.

    Branches follow their own window at once, also where others are longer: what would be padding holds them. ``width``
    is the number of tokens of a window, padding included.

    Returns:
        node_ids and position_ids, long [windows, L]; branch_ids, long [windows, L], -1 where no branch is; visibility,
        bool [windows, nodes, nodes]. L is the largest number of tokens with branches, or ``width`` if that is more,
        rounded up to a ``multiple``.
    """
    total = max(width, *(len(injection.input_ids) for injection in injections))
    total += -total % multiple
    n_nodes = max(len(injection.visibility) for injection in injections)
    node_ids = np.zeros((len(injections), total), dtype=np.int64)
    position_ids = np.zeros_like(node_ids)
    branch_ids = np.full_like(node_ids, -1)
    visibility = np.zeros((len(injections), n_nodes, n_nodes), dtype=bool)
    for b, injection in enumerate(injections):
        n, last = injection.n_document, len(injection.input_ids)
        node_ids[b, :last], position_ids[b, :last] = injection.node_ids, injection.position_ids
        branch_ids[b, n:last] = injection.input_ids[n:]
        visibility[b, : len(injection.visibility), : len(injection.visibility)] = injection.visibility
    return tuple(torch.from_numpy(part) for part in (node_ids, position_ids, branch_ids, visibility))  # type: ignore[return-value]


def present_tokens(mask: Tensor, branch_ids: Tensor) -> Tensor:
    """Return where tokens are, bool [windows, L]: where ``mask`` [windows, width] is above 0, or a branch is."""
    return _padded(mask > 0, branch_ids) | (branch_ids >= 0)


def _padded(part: Tensor, branch_ids: Tensor) -> Tensor:
    return F.pad(part, (0, branch_ids.shape[1] - part.shape[1]))


def _check_windows(injections: Sequence[Injection], ids: Tensor) -> None:
    """Make sure that each injection meets its own window."""
    expected = np.full(ids.shape, -1, dtype=np.int64)
    fits = len(injections) == len(ids) and all(injection.n_document <= ids.shape[1] for injection in injections)
    if fits:
        for row, injection in zip(expected, injections, strict=True):
            row[: injection.n_document] = injection.input_ids[: injection.n_document]
        device_side = torch.from_numpy(expected).to(ids.device)
        fits = not bool(((device_side != ids) & (device_side >= 0)).any())
    if not fits:
        raise SegDREError(
            f"the encoder got {len(ids)} windows of {ids.shape[1]} tokens that are not the {len(injections)} windows "
            "for which injections were prepared",
            "collate with wrap_collate, and prepare features with the adapter of this model",
        )

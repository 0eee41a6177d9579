"""Descriptions of backbones, as data: attribute names, the layout of a batch, the windows of a long document.

An adapter is one :class:`Backbone` (and, for ``--seg``, one :class:`~segdre_plugin.backbones.script.Script`). Nothing
here imports a backbone: models are recognised by their attributes and by the arguments of their ``forward``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

METHODS = ("encode", "get_hrt")  # what every descendant of ATLOP has


@dataclass(frozen=True)
class Pooling:
    """The pooling of a backbone's ``get_hrt``, as far as the fast path has to know it.

    Attributes:
        epsilon: added to the sum of a pair's attention before it is divided by it.
        layers: number of the encoder's last layers whose attention is averaged.
        with_attention: ``get_hrt`` also returns the attention of each pair and the number of pairs of each document.
    """

    epsilon: float
    layers: int = 1
    with_attention: bool = False


def loss_first(loss: Tensor, output: Any) -> tuple[Any, ...]:
    """Return a loss before what ``forward`` predicts, as ATLOP does."""
    return (loss, output) if isinstance(output, Tensor) else (loss, *output)


@dataclass(frozen=True)
class Backbone:
    """An ATLOP-descended backbone.

    Attributes:
        name: the one that users pass (``adapter="atlop"``).
        repository: address of its code, for messages.
        batch: the ``forward`` arguments that a collated batch holds, in the batch's order.
        optional: those of them that some batches lack, the last ones.
        ignored: parts of ``batch`` that are not arguments of ``forward``.
        constants: further arguments of ``forward`` when predicting.
        optional_constants: the same for batches with all ``optional`` parts alone.
        not_for_prediction: arguments of ``batch`` that are left out when predicting.
        pair_fields: fields of a feature that have one entry for each entity pair, besides ``hts``.
        square_fields: fields of a feature that have a row and a column for each entity pair.
        label_arrays: a document's ``labels`` become one tensor by ``torch.tensor(labels)``, so that an array of bytes,
            which takes a hundredth of the time, does as well as lists.
        positive_fields: fields of a feature that have one entry for each pair with a relation; ``forward`` gets None
            for them where a batch has no such pair.
        token_fields: those of ``pair_fields`` whose entries are distributions over the document's tokens.
        copied: arguments of ``forward`` that the model writes into; it gets copies of them.
        evidence: key or index of predicted evidence in ``forward``'s output, bool [pairs, sentences]; None if there is
            none.
        evidence_labels: field of a feature that holds gold evidence; None in it means training without.
        evidence_loss: attribute with the evidence loss, a mean over positive pairs (NaN where there is none).
        encoder: attribute that holds the transformers encoder.
        classifier: attribute that maps the features of pairs to relation logits; a linear layer.
        loss: attribute with ``forward(logits, labels)`` and ``get_label(logits, num_labels)``; None: ``forward``
            computes the loss itself, and without labels gives logits.
        logits: where the logits are that decide: what the ``classifier`` puts out, what the ``loss``'s ``get_label``
            gets, or ``forward``'s ``output`` without labels (the first part of a tuple).
        all_pairs: the model needs all pairs of a document, (h, h) too if its reader gives them. It gets them in every
            stage; the stage's own are chosen where the loss is computed and where logits are read.
        trained: (a loss, ``forward``'s output without labels) -> what it returns in training, where a count head stands
            beside the classifier.
        threshold: class whose logit a relation's has to exceed; None: zero is the threshold.
        predictions: key of the predictions in ``forward``'s output, where it is a mapping.
        window: most tokens that the backbone passes to its encoder at once.
        slides: ``encode(input_ids, attention_mask)`` returns states and attention and nothing else, so that it can be
            given single windows of a longer document (:mod:`segdre_plugin.backbones.windows`).
        windows: most windows into which a document is cut: two, by the backbone itself, or more where it ``slides``;
            None: as many as it takes.
        end_tokens: number of tokens that end a window, by ``config.transformer_type``.
        pooling: the pooling of ``get_hrt``; None: there is no fast path.
    """

    name: str
    repository: str
    batch: tuple[str, ...]
    optional: frozenset[str] = frozenset()
    ignored: frozenset[str] = frozenset()
    constants: Mapping[str, Any] = field(default_factory=dict)
    optional_constants: Mapping[str, Any] = field(default_factory=dict)
    not_for_prediction: frozenset[str] = frozenset()
    pair_fields: tuple[str, ...] = ("labels",)
    square_fields: tuple[str, ...] = ()
    label_arrays: bool = False
    positive_fields: tuple[str, ...] = ()
    token_fields: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    evidence: str | int | None = None
    evidence_labels: str | None = None
    evidence_loss: str | None = None
    encoder: str = "model"
    classifier: str = "bilinear"
    loss: str | None = "loss_fnt"
    logits: Literal["classifier", "loss", "output"] = "classifier"
    all_pairs: bool = False
    trained: Callable[[Tensor, Any], Any] = loss_first
    threshold: int | None = 0
    predictions: str | None = None
    window: int = 512
    slides: bool = False
    windows: int | None = 2
    end_tokens: Mapping[str, int] = field(default_factory=lambda: {"bert": 1, "roberta": 2})
    pooling: Pooling | None = None

    def __repr__(self) -> str:
        return f"Backbone({self.name!r}, {self.repository!r})"

    def problems(self, model: Any) -> list[str]:
        """List the differences between ``model`` and this description, one line each; empty if it fits."""
        cls = type(model).__name__
        if not isinstance(model, nn.Module):
            return [f"{cls} is not a torch.nn.Module"]
        attributes = [self.encoder, self.classifier, self.loss, self.evidence_loss, *METHODS, "config"]
        attributes += ["num_labels"] if self.loss else []
        found = [f"{cls}.{name}: missing" for name in attributes if name is not None and not hasattr(model, name)]
        classifier = getattr(model, self.classifier, None)
        if classifier is not None and not isinstance(classifier, nn.Linear):
            found.append(f"{cls}.{self.classifier}: expected torch.nn.Linear, got {type(classifier).__name__}")
        encoder = getattr(model, self.encoder, None)
        if encoder is not None and not hasattr(encoder, "config"):
            found.append(f"{cls}.{self.encoder}: expected a transformers encoder, got {type(encoder).__name__}")
        if self.all_pairs and self.loss is None:
            found.append(f"{self.name}: all_pairs needs a loss module, where a stage's pairs are chosen")
        loss = getattr(model, self.loss, None) if self.loss else None
        if loss is not None and not hasattr(loss, "get_label"):
            found.append(f"{cls}.{self.loss}: {type(loss).__name__} has no get_label(logits, num_labels)")
        kind = getattr(getattr(model, "config", None), "transformer_type", None)
        if hasattr(model, "config") and kind not in self.end_tokens:
            found.append(f"{cls}.config.transformer_type: expected one of {sorted(self.end_tokens)}, got {kind!r}")
        known = inspect.signature(model.forward).parameters
        if self.loss is None:
            losses = [name for name, part in model.named_children() if hasattr(part, "get_label")]
            found += [f"{cls}.{name}: a loss module, and forward computes the loss itself" for name in losses]
        needed = [name for name in (*self.batch, *self.constants) if name not in self.ignored]
        needed += ["labels"] if self.counts_beside else []  # from which a count head beside the classifier learns
        missing = [name for name in dict.fromkeys(needed) if name not in known]
        return found + [f"{cls}.forward: no argument {name!r}" for name in missing]

    def arguments(self, batch: Sequence[Any], device: Any) -> dict[str, Any]:
        """Return the parts of a collated batch as arguments of ``forward``, on ``device``."""
        named = zip(self.batch, batch, strict=not self.optional)
        return {
            name: part.to(device) if hasattr(part, "to") else part for name, part in named if name not in self.ignored
        }

    @property
    def demands(self) -> int:
        """Return how much of a model the description asks: what distinguishes those that fit the same model."""
        arguments = len({*self.batch, *self.constants} - self.ignored - self.optional)
        return arguments + (self.loss is not None) + (self.evidence_loss is not None)

    @property
    def counts_beside(self) -> bool:
        """Return whether a count head has to stand beside the classifier: in its place, ``forward`` would fail."""
        return self.loss is None or self.logits != "classifier"

    def classes(self, model: Any) -> int:
        """Return the number of a model's classes, class 0 included."""
        own = self.logits == "classifier"
        return int(getattr(model, self.classifier).out_features if own else model.config.num_labels)

    def most_labels(self, model: Any) -> int:
        """Return how many classes of a pair a model predicts at most, class 0 included; not positive: all."""
        return int(getattr(model, "num_labels", -1))

    def inputs(self, batch: Sequence[Any], device: Any) -> dict[str, Any]:
        """Return ``forward``'s arguments for predicting a collated batch, on ``device``; labels only where needed."""
        moved = self.arguments(batch, device)
        constants = dict(self.constants) | dict(self.optional_constants if self.optional <= moved.keys() else {})
        return {k: v for k, v in moved.items() if k not in self.not_for_prediction} | constants

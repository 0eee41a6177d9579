"""Run a model of any stage over features and collect what it says of each pair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from segdre_plugin.backbones.batching import batches
from segdre_plugin.backbones.features import Feature, chosen_pairs
from segdre_plugin.backbones.hooks import WrapState, wrap_state
from segdre_plugin.backbones.memory import READING_HINT, describe_batch, enough_memory
from segdre_plugin.backbones.workers import ALONE, Workers
from segdre_plugin.data.progress import progress as shown
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.decisions import check_predictions
from segdre_plugin.stages.margins import Margins, concatenate, top_margins
from segdre_plugin.stages.readout import readout

Counts = list[tuple[int, np.ndarray]]  # of a batch
PAIR_MEMORY = 512 << 20  # bytes that the bilinear features of a batch's pairs would take


@torch.no_grad()
def outputs(
    model: nn.Module,
    features: Sequence[Feature],
    collate_fn: Any,
    *,
    batch_size: int,
    device: Any,
    label: str,
    progress: Callable[[int], Any] | None = None,
    workers: Workers = ALONE,
) -> Iterator[tuple[list[Feature], list[int], Tensor, Any]]:
    """Predict features in batches of like length, with a progress bar.

    Args:
        model: a wrapped model; in eval mode meanwhile.
        features: features with one pair or more.
        collate_fn: a wrapped collate function.
        batch_size: most documents of a batch.
        device: where the model is.
        label: of the progress bar; empty for none.
        progress: called after each batch with its number of documents.
        workers: the processes that share the batches; each gets its part of them.

    Yields:
        The features of a batch, the index of each in ``features`` (one with very many pairs comes in parts, in order),
        the logits of all their pairs, [pairs, outputs], and the model's output.

    Raises:
        SegDREError: at the first batch with an output that is not finite, or for which there is not enough memory.
    """
    backbone = wrap_state(model).backbone
    training = model.training
    model.eval()
    width = getattr(model, backbone.classifier).in_features
    most = max(1, PAIR_MEMORY // (4 * width))
    weight = next(model.parameters())
    loader: DataLoader[Any] = DataLoader(
        workers.part(list(batches(features, backbone, batch_size, most))),  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=lambda batch: (*batch, collate_fn(batch[0])),
    )
    try:
        with readout(model) as logits_of:
            for batch, places, collated in shown(loader, label=label, leave=False):
                # a clone's own .cuda() means the GPU of the model, whichever that is
                with enough_memory(partial(_reading, model, batch), READING_HINT), torch.cuda.device_of(weight):
                    output = model(**backbone.inputs(collated, device))
                logits = logits_of(output)
                _check_finite(logits, batch, wrap_state(model).stage)
                yield batch, places, logits, output
                if progress:
                    progress(len(batch))
    finally:
        model.train(training)


def _reading(model: nn.Module, batch: Sequence[Feature]) -> str:
    return f"stage {wrap_state(model).stage}, reading {describe_batch(batch)}"


def _check_finite(logits: Tensor, batch: Sequence[Feature], stage: str) -> None:
    """Refuse logits [pairs of the batch, outputs] that are not finite: margins and counts of them mean nothing."""
    finite = logits.isfinite().all(dim=1)
    if not finite.all():
        parts = finite.split([len(feature["hts"]) for feature in batch])
        titles = [repr(feature.get("title")) for feature, part in zip(batch, parts, strict=True) if not part.all()]
        raise SegDREError(
            f"stage {stage}: logits that are not finite, of {int((~finite).sum())} of {len(finite)} pairs in documents "
            f"{', '.join(titles)}",
            "train with a lower learning rate, or compute in 32 bits",
        )


def score_relations(
    model: nn.Module,
    features: Sequence[Feature],
    documents: Sequence[int],
    collate_fn: Any,
    workers: Workers = ALONE,
    **how: Any,
) -> Margins:
    """Return the margins of the top ``model.num_labels`` classes of each pair, with its evidence if there is any.

    Args:
        model: a wrapped model of stage base, dense or sparse.
        features: the stage's features; those with an ``entity_map`` number only some of their document's entities.
        documents: for each feature, the index of its document.
        collate_fn: a wrapped collate function.
        workers: the processes that share the work; each returns the margins of all documents.
        how: batch_size, device, label and progress of :func:`outputs`.

    Raises:
        SegDREError: if the model itself predicts something else in the first batch than the margins say.
    """
    parts: list[Margins] = []
    for batch, places, logits, output in outputs(model, features, collate_fn, workers=workers, **how):
        if not parts:
            check_predictions(output, logits, model, wrap_state(model).backbone)
        parts.append(_margins(model, batch, [documents[i] for i in places], logits, output))
    return _by_document(workers.merge(parts))


def score_heads(
    model: nn.Module,
    features: Sequence[Feature],
    documents: Sequence[int],
    collate_fn: Any,
    workers: Workers = ALONE,
    **how: Any,
) -> tuple[Margins, list[np.ndarray] | None, Margins]:
    """Return what the heads of a base that shares its encoder find in one pass; arguments and errors as above.

    Returns:
        The margins of the base; each feature's expected counts (eq. 7), float [pairs], or None without a count head;
        the margins of the dense head, of all pairs.
    """
    state, base, dense = wrap_state(model), list[Margins](), list[Margins]()
    counts: list[Counts] = []
    for batch, places, logits, output in outputs(model, features, collate_fn, workers=workers, **how):
        if not base:
            check_predictions(output, logits, model, state.backbone)
        for stage, found in state.found.items():
            _check_finite(found, batch, stage)
        owners = [documents[i] for i in places]
        base.append(_margins(model, batch, owners, logits, output))
        dense.append(_margins(model, batch, owners, state.found["dense"], output))
        if "identify" in state.found:
            counts.append(_counts(state, batch, places, state.found["identify"]))
    counted = _by_feature(workers.merge(counts), len(features)) if "identify" in state.shared else None
    return _by_document(workers.merge(base)), counted, _by_document(workers.merge(dense))


def _margins(model: nn.Module, batch: Sequence[Feature], owners: Sequence[int], logits: Tensor, output: Any) -> Margins:
    """Return the margins of a batch by its logits; ``owners`` are the documents of its features."""
    backbone = wrap_state(model).backbone
    chosen = np.concatenate([chosen_pairs(feature) for feature in batch])
    pairs = np.concatenate([_document_pairs(feature) for feature in batch])[chosen]
    owner = np.repeat(owners, [len(feature["hts"]) for feature in batch])[chosen]
    logits = logits if chosen.all() else logits[torch.from_numpy(chosen).to(logits.device)]
    rows, relations, margins = top_margins(logits, backbone.most_labels(model), backbone.threshold)
    evidence = np.zeros((len(pairs), 0), dtype=bool)
    if _has(output, backbone.evidence):
        evidence = output[backbone.evidence].bool().cpu().numpy()[chosen]
    return Margins(owner[rows], pairs[rows, 0], pairs[rows, 1], relations, margins, evidence[rows])


def _by_document(parts: Sequence[Margins]) -> Margins:
    scored = concatenate(parts)
    return scored.take(np.argsort(scored.document, kind="stable"))


def _has(output: Any, part: str | int | None) -> bool:
    return part in output if isinstance(part, str) else part is not None and len(output) > part


def _document_pairs(feature: Feature) -> np.ndarray:
    """Return a feature's pairs by the document's entities, [pairs, 2]."""
    pairs = np.asarray(feature["hts"], dtype=np.int64)
    if "entity_map" not in feature:
        return pairs
    entities = feature["entity_map"]
    return np.asarray([entities[i] for i in range(len(entities))], dtype=np.int64)[pairs]


def score_counts(
    model: nn.Module, features: Sequence[Feature], collate_fn: Any, workers: Workers = ALONE, **how: Any
) -> list[np.ndarray]:
    """Return each feature's expected counts (eq. 7) of the stage's pairs, float [pairs].

    ``workers`` and ``how`` are those of :func:`score_relations`.
    """
    found: list[Counts] = []
    for batch, places, logits, _ in outputs(model, features, collate_fn, workers=workers, **how):
        found.append(_counts(wrap_state(model), batch, places, logits))
    return _by_feature(workers.merge(found), len(features))


def _counts(state: WrapState, batch: Sequence[Feature], places: Sequence[int], logits: Tensor) -> Counts:
    """Return the place of each feature of a batch and its expected counts, by the count head's logits."""
    expected = state.count_loss.get_label(logits).float().cpu().numpy()
    ends = np.cumsum([len(feature["hts"]) for feature in batch])[:-1]
    parts = zip(places, batch, np.split(expected, ends), strict=True)
    return [(i, part[chosen_pairs(feature)]) for i, feature, part in parts]


def _by_feature(found: Sequence[Counts], n: int) -> list[np.ndarray]:
    """Return the counts of each of ``n`` features, whose parts come in order."""
    counts: list[list[np.ndarray]] = [[] for _ in range(n)]
    for i, part in chain.from_iterable(found):
        counts[i].append(part)
    return [np.concatenate(parts) for parts in counts]

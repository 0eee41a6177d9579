"""Features restricted to pairs of entities (sections 3.4, 3.5) and extended with branches (eq. 9).

A feature is the dictionary that the backbone's reader makes of a document: ``input_ids``, ``entity_pos``, ``hts`` and
fields with one entry for each pair. Features are never changed; a stage gets new dictionaries that share the rest.
A ``transformer_type`` is "bert" or "roberta"; the backbone's description says how long a window is.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.windows import Window, cut
from segdre_plugin.errors import SegDREError
from segdre_plugin.injection import BoolArray, Group, Injection, Span, inject_groups
from segdre_plugin.salient import Salient, as_chain

Feature = dict[str, Any]
EntityPositions = Sequence[Sequence[Sequence[tuple[int, int]]]]  # [document][entity][mention] -> (start, end)
Pairs = Sequence[Sequence[Sequence[int]]]  # [document][pair] -> head, tail

FEATURE = "segdre"  # the field that holds a feature's injections, one for each window
STAGE_PAIRS = "segdre_pairs"  # the field that says which pairs are the stage's, where a model needs all of them
DENSE_PAIRS = "segdre_dense"  # the field that says which pairs the dense head learns, where base and dense share theirs
START_TOKENS = 1  # [CLS] or <s>: entity positions do not count it
LAST_TOKENS = 1  # [SEP] or </s>: a document ends in one, also where the backbone ends a window with two


def keep_pairs(feature: Feature, keep: BoolArray, backbone: Backbone) -> Feature:
    """Return a new feature, restricted to the entity pairs where ``keep``, bool [pairs], is true.

    Raises:
        SegDREError: if a field does not have the entries that the backbone's description says.
    """
    positive = np.zeros(0, dtype=bool)
    if backbone.positive_fields:
        positive = np.asarray([any(row[1:]) for row in feature["labels"]], dtype=bool)
    fields = dict.fromkeys(("hts", *backbone.pair_fields, *backbone.square_fields), keep)
    fields |= dict.fromkeys(backbone.positive_fields, keep[: len(positive)][positive])
    restricted = dict(feature)
    for name, kept in fields.items():
        values = feature.get(name)
        if values is None:
            continue
        square = name in backbone.square_fields
        if len(values) != len(kept) or (square and any(len(row) != len(kept) for row in values)):
            expected = f"{len(kept)} x {len(kept)}" if square else f"{len(kept)}"
            raise SegDREError(
                f"document {feature.get('title')!r}: {name}: expected {expected} entries, one for each pair"
                f"{' with a relation' if name in backbone.positive_fields else ''}, got {len(values)}",
                f"is this a feature of {backbone.name}?",
            )
        chosen = np.flatnonzero(kept).tolist()
        restricted[name] = _rows(values, chosen)
        if square:
            restricted[name] = _columns(restricted[name], chosen)
    return restricted


def _rows(values: Any, chosen: list[int]) -> Any:
    return [values[k] for k in chosen] if isinstance(values, (list, tuple)) else values[chosen]


def _columns(rows: Any, chosen: list[int]) -> Any:
    return [_rows(row, chosen) for row in rows] if isinstance(rows, (list, tuple)) else rows[:, chosen]


def choose_pairs(feature: Feature, keep: BoolArray, backbone: Backbone) -> Feature:
    """Return a new feature of a stage's entity pairs, those where ``keep``, bool [pairs], is true.

    A model that needs all pairs gets all of them, and with them which ones are meant, pairs (h, h) never.

    Raises:
        SegDREError: as :func:`keep_pairs`.
    """
    if not backbone.all_pairs:
        return keep_pairs(feature, keep, backbone)
    return feature | {STAGE_PAIRS: keep}


def pack_labels(feature: Feature, backbone: Backbone) -> Feature:
    """Return a feature whose multi-hot labels are bytes, uint8 [pairs, classes], where the backbone takes arrays."""
    if not backbone.label_arrays or feature.get("labels") is None:
        return feature
    labels = np.asarray(feature["labels"])
    packed = labels.astype(np.uint8)
    return feature | {"labels": packed} if labels.ndim == 2 and (packed == labels).all() else feature


def chosen_pairs(feature: Feature) -> BoolArray:
    """Return which pairs of a feature that :func:`choose_pairs` made are the stage's, bool [pairs]."""
    return np.asarray(feature.get(STAGE_PAIRS, np.ones(len(feature["hts"]), dtype=bool)))


def visible_entities(feature: Feature, backbone: Backbone, transformer_type: str) -> list[bool]:
    """Return for each entity whether it has a mention that the encoder sees.

    The backbones read a mention at its start marker; where truncation or the gap between two windows swallows all
    markers of an entity, they go on with zeros.
    """
    n = len(feature["input_ids"])
    covered = [window.document for window in windows(n, backbone, transformer_type)]
    last = n - LAST_TOKENS
    return [
        any(a <= start + START_TOKENS < min(b, last) for start, _ in mentions for a, b in covered)
        for mentions in feature["entity_pos"]
    ]


def unread_tokens(feature: Feature, backbone: Backbone, transformer_type: str) -> int:
    """Return how many tokens of a document lie in gaps between its windows, where the encoder reads nothing."""
    cuts = [window.document for window in windows(len(feature["input_ids"]), backbone, transformer_type)]
    return sum(max(0, after - before) for (_, before), (after, _) in pairwise(cuts))


def windows(n: int, backbone: Backbone, transformer_type: str) -> list[Window]:
    """Return the windows into which a document of ``n`` tokens is cut.

    Special tokens count. The windows are in the order in which they are passed to the encoder.
    """
    return cut(n, backbone.window, START_TOKENS, backbone.end_tokens[transformer_type], backbone.windows)


def add_branches(
    feature: Feature,
    salient: Salient,
    branches: Sequence[tuple[list[int], int]],
    owners: Sequence[int] | None = None,
    *,
    backbone: Backbone,
    transformer_type: str,
    max_positions: int = 512,
    position_offset: int = 0,
    link: bool = False,
) -> Feature:
    """Return a new feature whose field ``segdre`` holds one injection of branches for each window (eq. 9-10).

    A branch, given by its token ids and the entity that it names, goes with every window that holds a mention of the
    salient entity on which it hangs: its owner, or the first one where there are no ``owners``. There may be several
    salient entities; without any, nothing is injected. ``link`` lets the mentions of the entity that a branch names see
    it too. Positions start at ``position_offset``, and the encoder has ``max_positions``.

    Raises:
        SegDREError: if a branch hangs on no salient entity.
    """
    ids, chain = feature["input_ids"], as_chain(salient)
    known = chain[:1] * len(branches) if owners is None else owners
    hung = {entity: [b for b, owner in zip(branches, known, strict=False) if owner == entity] for entity in chain}
    if chain and sum(map(len, hung.values())) < len(branches):
        raise SegDREError(
            f"document {feature.get('title')!r}: {len(branches)} branches hang on {list(known)}, salient are {chain}",
            "pass owners: a salient entity for each branch",
        )
    # a branch hangs on the mentions of its own salient entity, and on those alone
    parts: list[Injection] = []
    for window in windows(len(ids), backbone, transformer_type):
        groups = []
        for entity, own in hung.items():
            anchors = _spans(feature, entity, window)
            named = [_spans(feature, other, window) for _, other in own] if link else None
            if anchors:
                groups.append(Group(anchors, [tokens for tokens, _ in own], named))
        window_ids = _window_ids(ids, window)
        parts.append(inject_groups(window_ids, groups, max_positions=max_positions, position_offset=position_offset))
    return feature | {FEATURE: parts}


def _spans(feature: Feature, entity: int, window: Window) -> list[Span]:
    """Return an entity's mention spans in a window, markers included, in the document's order."""
    last = len(feature["input_ids"]) - LAST_TOKENS  # a mention may be cut off, or be beyond the last token
    mentions = sorted((start + START_TOKENS, end + START_TOKENS) for start, end in feature["entity_pos"][entity])
    located = (window.locate((start, min(end, last))) for start, end in mentions if start < last)
    return [span for span in located if span is not None]


def _window_ids(ids: Sequence[int], window: Window) -> list[int]:
    """Return a window's token ids, as the encoder gets them: each window has its own special tokens."""
    return [*ids[:START_TOKENS][: window.before], *ids[slice(*window.document)], *[ids[-1]] * window.after]

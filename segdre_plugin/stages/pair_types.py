"""Candidate pairs by entity type (``--seg-pairs Chemical:Disease``): no stage trains on other pairs or predicts them.

An entity has the types of all its mentions. Gold triples on other pairs still count in every score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.salient import gold_triples
from segdre_plugin.stages.margins import Margins
from segdre_plugin.vocabulary import BoolArray, Document, entities, labels


def pair_mask(document: Document, pairs: Sequence[str]) -> BoolArray:
    """Return which pairs (h, t) of a document are candidates, bool [entities, entities]; (h, h) never is.

    ``pairs`` are those of :class:`segdre_plugin.stages.config.SegConfig`, HEAD:TAIL each; without any, all pairs are.
    """
    types = _types(document)
    allowed = np.full((len(types), len(types)), not pairs)
    for pair in pairs:
        heads, tails = (np.array([name in own for own in types], dtype=bool) for name in pair.split(":"))
        allowed |= heads[:, None] & tails
    np.fill_diagonal(allowed, False)
    return allowed


def candidate_gold(document: Document, pairs: Sequence[str]) -> Document:
    """Return a document with the labels of candidate pairs alone; all but ``labels`` is shared."""
    if not (pairs and labels(document)):
        return document
    allowed = pair_mask(document, pairs)
    return {**document, "labels": [label for label in labels(document) if allowed[label["h"], label["t"]]]}


def candidate_cells(cells: Margins, documents: Sequence[Document], pairs: Sequence[str]) -> Margins:
    """Return the cells of candidate pairs; ``documents`` are all those of the split."""
    if not pairs:
        return cells
    allowed = [pair_mask(document, pairs) for document in documents]
    columns = zip(cells.document, cells.head, cells.tail, strict=True)
    return cells.take(np.array([allowed[d][h, t] for d, h, t in columns], dtype=bool))


def untyped(document: Document) -> list[str]:
    """Return a line for each entity without a type."""
    return [
        f"vertexSet[{e}]: expected a type: candidates are pairs of types"
        for e, own in enumerate(_types(document))
        if not any(isinstance(name, str) and name.strip() for name in own)
    ]


def check_types(splits: Mapping[str, Split], pairs: Sequence[str]) -> list[str]:
    """Return a line on each split: what ``pairs`` (if there are any) leave out.

    Raises:
        SegDREError: if an entity has no type, or no train document has an entity of a type that ``pairs`` name.
    """
    if not pairs:
        return []
    without = [
        f"{split.path}: document {i} {document['title']!r}: {line}"
        for split in splits.values()
        for i, document in enumerate(split.documents)
        for line in untyped(document)
    ]
    raise_all(without, "--seg-pairs: entities without a type", "add it to one of their mentions", limit=5)
    known = {str(name) for document in splits["train"].documents for own in _types(document) for name in own}
    strange = sorted({name for pair in pairs for name in pair.split(":")} - known)
    if strange:
        found = f"no entity of type {' or '.join(strange)} in {splits['train'].path}"
        raise SegDREError(f"--seg-pairs: {found}", f"types there: {', '.join(sorted(known)) or 'none'}")
    return [_describe(split, pairs) for split in splits.values()]


def _describe(split: Split, pairs: Sequence[str]) -> str:
    gold = sum(len(gold_triples(document)) for document in split.documents)
    kept = sum(len(gold_triples(candidate_gold(document, pairs))) for document in split.documents)
    lone = sum(not pair_mask(document, pairs).any() for document in split.documents)
    count = f"{gold - kept} of {gold} gold triples of {split.name} are on other pairs"
    return f"{count}; {lone} of {len(split.documents)} documents have no candidate pair" if lone else count


def _types(document: Document) -> list[list[object]]:
    """Return the types of each entity's mentions."""
    return [[mention.get("type") for mention in mentions] for mentions in entities(document)]

"""What every room uses: a document, its entities and labels, a triple, a token span, arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from segdre_plugin.errors import SegDREError

BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

Document = Mapping[str, Any]  # DocRED's JSON: title, sents, vertexSet, labels (may be missing)
Span = tuple[int, int]  # first token, one after the last


class Triple(NamedTuple):
    """A relation between two entities of a document.

    Attributes:
        head: index of the head entity in ``vertexSet``.
        relation: relation id, as in ``rel2id.json``.
        tail: index of the tail entity.
    """

    head: int
    relation: str
    tail: int


def entities(document: Document) -> Sequence[Sequence[Mapping[str, Any]]]:
    """Return the entities of a document, each a list of mentions; raise SegDREError where ``vertexSet`` is missing."""
    if "vertexSet" not in document:
        raise SegDREError(f"{named(document)}: no 'vertexSet', found keys {sorted(document)}", "pass DocRED documents")
    found: Sequence[Sequence[Mapping[str, Any]]] = document["vertexSet"]
    return found


def labels(document: Document) -> Sequence[Mapping[str, Any]]:
    """Return the gold labels of a document (``h``, ``t``, ``r``, ``evidence``); empty where it has none."""
    found: Sequence[Mapping[str, Any]] = document.get("labels") or ()
    return found


def label_triples(document: Document) -> list[tuple[Triple, Sequence[int]]]:
    """Return the triple of each label and its evidence, sentence indices; empty where there is none.

    Raises:
        SegDREError: if a label lacks a field or names an entity that does not exist.
    """
    found = []
    for i, label in enumerate(labels(document)):
        missing = {"h", "t", "r"} - label.keys()
        if missing:
            raise SegDREError(f"{named(document)}, label {i}: lacks {sorted(missing)}, found {dict(label)}")
        h, t, n = label["h"], label["t"], len(entities(document))
        if not (is_index(h, n) and is_index(t, n)):
            raise SegDREError(f"{named(document)}, label {i}: no pair ({h}, {t}), it has {n} entities")
        found.append((Triple(h, label["r"], t), label.get("evidence") or ()))
    return found


def is_na(relation: str) -> bool:
    """Return whether a relation id is DocRED's for "no relation"."""
    return relation.lower() in ("na", "n/a")


def is_index(value: object, n: int | None = None) -> bool:
    """Return whether this is a whole number >= 0, and below ``n`` unless that is None."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        return False
    return int(value) >= 0 and (n is None or int(value) < n)


def named(document: Document) -> str:
    """Return how messages name a document."""
    return f"document {document.get('title', '(no title)')!r}"

"""The words that every room uses: a document, its entities and labels, a triple, a token span, arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    """Return the entities of a document, each a list of mentions."""
    found: Sequence[Sequence[Mapping[str, Any]]] = document["vertexSet"]
    return found


def labels(document: Document) -> Sequence[Mapping[str, Any]]:
    """Return the gold labels of a document (``h``, ``t``, ``r``, ``evidence``); empty where it has none."""
    found: Sequence[Mapping[str, Any]] = document.get("labels") or ()
    return found

"""The visible matrix of a document as rectangles (section 3.5, eq. 10), over words in place of word pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from segdre_plugin.injection import BoolArray, Group, Span, inject_groups, visible_matrix

TEXT, LINK, BRANCH = "text", "link", "branch"


@dataclass(frozen=True)
class Rectangle:
    """A block of the matrix in which everyone sees everyone; units are words.

    Attributes:
        x: first column.
        y: first row.
        width: columns.
        height: rows.
        kind: ``text`` (document sees document), ``link`` (document and branch), ``branch`` (a branch sees itself).
    """

    x: int
    y: int
    width: int
    height: int
    kind: str


@dataclass(frozen=True)
class MatrixPicture:
    """The visible matrix of a document.

    Attributes:
        size: words of document and branches.
        n_document: words of the document.
        anchors: word spans of the salient entities.
        rectangles: where words see each other.
    """

    size: int
    n_document: int
    anchors: list[Span]
    rectangles: list[Rectangle]


def draw_matrix(n_words: int, groups: Sequence[Group]) -> MatrixPicture:
    """Return the visible matrix that injection gives a document, as rectangles.

    Args:
        n_words: words of the document.
        groups: for each salient entity the word spans of its mentions, and branches of as many tokens as they have
            words.
    """
    injected = inject_groups(range(n_words), groups)  # of positions nothing is drawn
    matrix = visible_matrix(injected.node_ids, injected.visibility)
    n = injected.n_document
    lengths = [len(branch) for group in groups for branch in group.branches]
    bounds = [0, n, *(n + int(end) for end in np.cumsum(lengths, dtype=int))]
    anchors = [span for group in groups for span in group.anchors]
    return MatrixPicture(len(matrix), n, anchors, _rectangles(matrix, bounds))


def _rectangles(matrix: BoolArray, bounds: Sequence[int]) -> list[Rectangle]:
    """Cover the matrix with blocks: runs of equal rows, cut at ``bounds`` (document, branches), times runs of True."""
    n, found = bounds[1], []
    changes = (matrix[1:] != matrix[:-1]).any(axis=1).nonzero()[0] + 1
    edges = sorted({*bounds, *changes.tolist()})
    for top, bottom in pairwise(edges):
        for first, last in ((0, n), (n, len(matrix))):
            row = np.concatenate([[False], matrix[top, first:last], [False]])
            starts = np.flatnonzero(row[1:] & ~row[:-1]) + first
            ends = np.flatnonzero(~row[1:] & row[:-1]) + first
            for left, right in zip(starts.tolist(), ends.tolist(), strict=True):
                kind = TEXT if bottom <= n and right <= n else BRANCH if top >= n and left >= n else LINK
                found.append(Rectangle(left, top, right - left, bottom - top, kind))
    return found

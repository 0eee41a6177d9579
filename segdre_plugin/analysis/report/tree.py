"""The sentence tree of a document as a picture: branches under the text, in columns of soft positions (section 3.5).

Positions are counted in words of the document in place of word pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segdre_plugin.injection import Group, inject_groups

BEFORE, AFTER = 3, 9  # columns before the anchor, and after it


@dataclass(frozen=True)
class Line:
    """A line of the picture.

    Attributes:
        start: the column of its first word.
        words: one a column.
        cut: whether it goes on to the right.
    """

    start: int
    words: Sequence[str]
    cut: bool


@dataclass(frozen=True)
class TreePicture:
    """The branches of a salient entity, under the words around the mention on which they hang.

    Attributes:
        positions: the soft position of each column.
        anchor: columns of the mention.
        text: the line of the document.
        branches: a line each.
    """

    positions: Sequence[int]
    anchor: range
    text: Line
    branches: Sequence[Line]


def draw_trees(words: Sequence[str], groups: Sequence[Group], texts: Sequence[Sequence[str]]) -> list[TreePicture]:
    """Return the sentence trees of a document, one for each salient entity that has branches.

    Args:
        words: the document.
        groups: for each salient entity its mentions as spans of words, and branches of as many tokens as they have
            words.
        texts: the words of all branches, in the order of the groups.
    """
    injected = inject_groups(range(len(words)), groups, max_positions=len(words) + sum(map(len, texts)) + 1)
    position, found = injected.n_document, []
    left = iter(texts)
    for group in groups:
        if not group.branches:
            continue
        start, end = group.anchors[0]
        first, last = max(0, start - BEFORE), end + AFTER
        lines = []
        for _, text in zip(group.branches, left, strict=False):  # in this order: it takes no text too many
            column = int(injected.position_ids[position]) - first
            room = last - first - column
            lines.append(Line(column, text[:room], len(text) > room))
            position += len(text)
        above = Line(0, words[first:last], last < len(words))
        widest = max(line.start + len(line.words) for line in (above, *lines))
        found.append(TreePicture(range(first, first + widest), range(start - first, end - first), above, lines))
    return found

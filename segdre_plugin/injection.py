"""Knowledge injection: the sentence tree, its soft positions and its visible matrix (section 3.5, eq. 9-10; K-BERT).

A dense triple becomes a *branch* of a few tokens that hangs on the salient entity. Attention knows tokens only by
their position ids and by the mask, not by their place in memory, so branches are appended after the document with the
soft positions that K-BERT's insertion would give them: everything that points into the document stays valid.

Visibility is kept by *nodes* of the tree: every token has a node, a small boolean matrix says which nodes see each
other, and only on the device does that become a mask over pairs of tokens (:mod:`segdre_plugin.backbones.attention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import ArrayLike

from segdre_plugin.errors import SegDREError
from segdre_plugin.vocabulary import BoolArray, IntArray, Span

TEXT_NODE = 0  # document tokens that see no branch


@dataclass(frozen=True)
class Injection:
    """A document with branches appended; ``L`` tokens in all.

    Attributes:
        input_ids: [L], the document's tokens, then those of the branches.
        position_ids: [L], soft positions.
        node_ids: [L], each token's node of the sentence tree.
        visibility: [nodes, nodes], True where tokens of the two nodes see each other (eq. 10).
        n_document: number of document tokens, the first of the ``L``.
    """

    input_ids: IntArray
    position_ids: IntArray
    node_ids: IntArray
    visibility: BoolArray
    n_document: int

    def __repr__(self) -> str:
        added = len(self.input_ids) - self.n_document
        return f"Injection({self.n_document} document tokens, {added} branch tokens)"


@dataclass(frozen=True)
class Group:
    """Branches that hang on one salient entity; fields as the arguments of :func:`inject`."""

    anchors: Sequence[Span]
    branches: Sequence[Sequence[int]]
    branch_anchors: Sequence[Sequence[Span]] | None = None


def inject(
    input_ids: Sequence[int],
    anchors: Sequence[Span],
    branches: Sequence[Sequence[int]],
    *,
    branch_anchors: Sequence[Sequence[Span]] | None = None,
    max_positions: int = 512,
    position_offset: int = 0,
) -> Injection:
    """Append branches to a document (eq. 9) and compute which nodes see each other (eq. 10).

    A branch sees itself and all tokens in ``anchors``; those see the branch; branches do not see each other; document
    tokens see document tokens. A branch's soft position starts one after the last token of the first anchor.

    Args:
        input_ids: the document's token ids, special tokens included.
        anchors: (start, end) token spans of the salient entity's mentions, end exclusive, markers included; the first
            one is where the branches hang.
        branches: the branches' token ids, appended in this order.
        branch_anchors: for each branch, further spans that see it (option ``link``: the mentions of the entity that
            the branch names).
        max_positions: number of positions of the encoder; positions saturate at the last one.
        position_offset: the first position id (0 for BERT, padding_idx + 1 for RoBERTa).

    Returns:
        The injected document; linear in the number of tokens but for the small matrix over nodes.

    Raises:
        SegDREError: if a span lies outside the document, a branch is empty, branches have no anchor, or the numbers
            of branches and of ``branch_anchors`` differ.
    """
    group = Group(anchors, branches, branch_anchors)
    return inject_groups(input_ids, [group], max_positions=max_positions, position_offset=position_offset)


def inject_groups(
    input_ids: Sequence[int], groups: Sequence[Group], *, max_positions: int = 512, position_offset: int = 0
) -> Injection:
    """Return a document with the branches of several salient entities, as :func:`inject` does with those of one.

    There is one group for each salient entity; branches are appended group by group. A token that belongs to mentions
    of two of them sees the branches of both.
    """
    n = len(input_ids)
    for group in groups:
        _check(n, group, max_positions)
    branches = [branch for group in groups for branch in group.branches]
    lengths = np.array([len(branch) for branch in branches], dtype=np.int64)
    hang = np.array([group.anchors[0][1] for group in groups for _ in group.branches], dtype=np.int64)
    text_nodes, sees = _text_nodes(n, groups, len(branches))
    n_text = len(sees)

    # eq. 10: text sees text, anchors and their branches see each other, a branch sees itself
    visibility = np.zeros((n_text + len(branches),) * 2, dtype=bool)
    visibility[:n_text, :n_text] = True
    visibility[:n_text, n_text:], visibility[n_text:, :n_text] = sees, sees.T
    visibility.flat[:: len(visibility) + 1] = True

    # soft positions: a branch starts right after the anchor on which it hangs
    n_branch = int(lengths.sum())
    positions = np.arange(n + n_branch)
    positions[n:] += np.repeat(hang - n - (lengths.cumsum() - lengths), lengths)
    return Injection(
        input_ids=np.fromiter(chain(input_ids, *branches), dtype=np.int64, count=n + n_branch),
        position_ids=position_offset + np.minimum(positions, max_positions - 1),
        node_ids=np.concatenate([text_nodes, np.repeat(np.arange(n_text, len(visibility)), lengths)]),
        visibility=visibility,
        n_document=n,
    )


def visible_matrix(node_ids: ArrayLike, visibility: ArrayLike) -> BoolArray:
    """Return whether token i sees token j, bool [L, L] (eq. 10, True where the paper has 0, False where it has -inf).

    The arguments are fields of :class:`Injection`.
    """
    nodes = np.asarray(node_ids, dtype=np.int64)
    return np.asarray(visibility, dtype=bool)[nodes[:, None], nodes[None, :]]


def _text_nodes(n: int, groups: Sequence[Group], n_branches: int) -> tuple[IntArray, BoolArray]:
    """Assign nodes to the ``n`` document tokens: tokens that see the same branches share one.

    Returns:
        Each token's node, [n], numbered as they first occur after TEXT_NODE; and which branches a node sees, bool
        [nodes, branches].
    """
    spans: list[tuple[Span, slice]] = []  # with the branches that their tokens see
    first = 0
    for group in groups:
        last = first + len(group.branches)
        spans += [(span, slice(first, last)) for span in group.anchors]
        for k, linked in enumerate(group.branch_anchors or (), start=first):
            spans += [(span, slice(k, k + 1)) for span in linked]
        first = last

    # between two edges all tokens lie in the same spans; row 0 stands for text that sees no branch
    edges = sorted({0, n, *chain.from_iterable(span for span, _ in spans)})
    place = {edge: row for row, edge in enumerate(edges, start=1)}
    sees = np.zeros((len(edges), n_branches), dtype=bool)
    for (start, end), branches in spans:
        sees[place[start] : place[end], branches] = True

    nodes: dict[bytes, int] = {}
    node_of = np.array([nodes.setdefault(row.tobytes(), len(nodes)) for row in sees], dtype=np.int64)
    first_row = np.unique(node_of, return_index=True)[1]
    return np.repeat(node_of[1:], np.diff(edges)), sees[first_row]


def _check(n: int, group: Group, max_positions: int) -> None:
    """Refuse what :func:`inject` cannot do, before it does anything."""
    if max_positions < 1:
        raise SegDREError(f"inject: max_positions is {max_positions}", "pass the encoder's number of positions")
    if group.branches and not group.anchors:
        raise SegDREError(
            f"inject: {len(group.branches)} branches but no anchor",
            "pass the spans of the salient entity's mentions, or no branches where it has no mention",
        )
    linked = group.branch_anchors
    if linked is not None and len(linked) != len(group.branches):
        raise SegDREError(
            f"inject: branch_anchors has {len(linked)} entries for {len(group.branches)} branches",
            "pass one list of spans for each branch",
        )
    for start, end in chain(group.anchors, *(linked or ())):
        if not 0 <= start < end <= n:
            raise SegDREError(
                f"inject: the span ({start}, {end}) is empty or outside the document of {n} tokens",
                "pass spans (start, end) in tokens of input_ids, end exclusive",
            )
    for k, branch in enumerate(group.branches):
        if len(branch) == 0:
            raise SegDREError(f"inject: branch {k} has no tokens", "leave a triple without text out")

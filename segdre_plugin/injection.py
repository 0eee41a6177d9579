"""Knowledge injection: the sentence tree, its soft positions and its visible matrix (section 3.5, eq. 9-10; K-BERT).

A dense triple becomes a *branch* of a few tokens that hangs on the salient entity. Attention knows tokens only by
their position ids and by the mask, not by their place in memory, so branches are appended after the document with the
soft positions that K-BERT's insertion would give them: everything that points into the document stays valid.

Who sees whom is kept by *nodes* of the tree: every token has a node, a small boolean matrix says which nodes see each
other, and only on the device does that become a mask over pairs of tokens (:mod:`segdre_plugin.attention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segdre_plugin.errors import SegDREError

Span = tuple[int, int]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

TEXT_NODE = 0  # document tokens that see no branch


@dataclass(frozen=True)
class Injection:
    """A document with branches appended; ``L`` tokens in all.

    Attributes:
        input_ids: [L], the document's tokens, then those of the branches.
        position_ids: [L], soft positions.
        node_ids: [L], each token's node of the sentence tree.
        visibility: [nodes, nodes], True where tokens of the two nodes see each other (eq. 10).
        n_document: how many of the ``L`` tokens are the document's.
    """

    input_ids: IntArray
    position_ids: IntArray
    node_ids: IntArray
    visibility: BoolArray
    n_document: int


def inject(
    input_ids: Sequence[int],
    anchors: Sequence[Span],
    branches: Sequence[Sequence[int]],
    *,
    branch_anchors: Sequence[Sequence[Span]] | None = None,
    max_positions: int = 512,
    position_offset: int = 0,
) -> Injection:
    """Append branches to a document (eq. 9) and say who sees whom (eq. 10).

    A branch sees itself and all tokens in ``anchors``; those see the branch; branches do not see each other; document
    tokens see document tokens. A branch's soft position starts one after the last token of the first anchor.

    Args:
        input_ids: the document's token ids, special tokens included.
        anchors: (start, end) token spans of the salient entity's mentions, end exclusive, markers included; the first
            one is where the branches hang.
        branches: the branches' token ids, appended in this order.
        branch_anchors: for each branch, further spans that see it (option ``link``: the mentions of the entity that
            the branch names).
        max_positions: how many positions the encoder has; positions saturate at the last one.
        position_offset: the first position id (0 for BERT, padding_idx + 1 for RoBERTa).

    Returns:
        The injected document; linear in the number of tokens but for the small matrix over nodes.

    Raises:
        SegDREError: if a span lies outside the document, a branch is empty, branches have no anchor, or the numbers
            of branches and of ``branch_anchors`` differ.
    """
    n = len(input_ids)
    linked = [()] * len(branches) if branch_anchors is None else branch_anchors
    _check(n, anchors, branches, linked, max_positions)

    seen_by = _branches_seen(n, anchors, linked)
    kinds: dict[frozenset[int], int] = {frozenset(): TEXT_NODE}
    text_nodes = [kinds.setdefault(seen, len(kinds)) for seen in seen_by]
    n_text = len(kinds)

    visibility = np.zeros((n_text + len(branches),) * 2, dtype=bool)
    visibility[:n_text, :n_text] = True
    for seen, node in kinds.items():
        for k in seen:
            visibility[node, n_text + k] = visibility[n_text + k, node] = True
    np.fill_diagonal(visibility, True)

    lengths = [len(branch) for branch in branches]
    first = anchors[0][1] if branches else 0
    positions = np.concatenate([np.arange(n), *(np.arange(first, first + length) for length in lengths)])
    return Injection(
        input_ids=np.fromiter((i for part in (input_ids, *branches) for i in part), dtype=np.int64),
        position_ids=position_offset + np.minimum(positions.astype(np.int64), max_positions - 1),
        node_ids=np.concatenate([text_nodes, np.repeat(np.arange(n_text, n_text + len(branches)), lengths)]).astype(
            np.int64
        ),
        visibility=visibility,
        n_document=n,
    )


def visible_matrix(node_ids: npt.ArrayLike, visibility: npt.ArrayLike) -> BoolArray:
    """Spell out the visible matrix over tokens (eq. 10, True where the paper has 0, False where it has -inf).

    Args:
        node_ids: [L], each token's node.
        visibility: bool [nodes, nodes].

    Returns:
        bool [L, L]; element (i, j) says whether token i sees token j.
    """
    nodes = np.asarray(node_ids, dtype=np.int64)
    return np.asarray(visibility, dtype=bool)[nodes[:, None], nodes[None, :]]


def _branches_seen(n: int, anchors: Sequence[Span], linked: Sequence[Sequence[Span]]) -> list[frozenset[int]]:
    """Say for each of the ``n`` document tokens which branches it sees."""
    everything = frozenset(range(len(linked)))
    seen = [frozenset[int]()] * n
    for k, spans in enumerate(linked):
        for start, end in spans:
            for i in range(start, end):
                seen[i] = seen[i] | {k}
    for start, end in anchors:
        seen[start:end] = [everything] * (end - start)
    return seen


def _check(
    n: int,
    anchors: Sequence[Span],
    branches: Sequence[Sequence[int]],
    linked: Sequence[Sequence[Span]],
    max_positions: int,
) -> None:
    """Refuse what :func:`inject` cannot do, before it does anything."""
    if max_positions < 1:
        raise SegDREError(f"inject: max_positions is {max_positions}", "give the number of positions the encoder has")
    if branches and not anchors:
        raise SegDREError(
            f"inject: {len(branches)} branches but no anchor",
            "pass the spans of the salient entity's mentions, or no branches where it has no mention",
        )
    if len(linked) != len(branches):
        raise SegDREError(
            f"inject: branch_anchors has {len(linked)} entries for {len(branches)} branches",
            "give one list of spans for each branch",
        )
    for start, end in [*anchors, *(span for spans in linked for span in spans)]:
        if not 0 <= start < end <= n:
            raise SegDREError(
                f"inject: the span ({start}, {end}) is empty or outside the document of {n} tokens",
                "spans are (start, end) in tokens of input_ids, end exclusive",
            )
    for k, branch in enumerate(branches):
        if len(branch) == 0:
            raise SegDREError(f"inject: branch {k} has no tokens", "leave a triple without text out")

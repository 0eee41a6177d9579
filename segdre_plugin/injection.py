"""Knowledge injection: the sentence tree, its soft positions and its visible matrix (section 3.5, eq. 9-10; K-BERT).

A dense triple becomes a *branch* of a few tokens that hangs on the salient entity. Attention knows tokens only by
their position ids and by the mask, not by their place in memory, so branches are appended after the document with the
soft positions that K-BERT's insertion would give them: everything that points into the document stays valid.

Who sees whom is kept by *nodes* of the tree: every token has a node, a small boolean matrix says which nodes see each
other, and only on the device does that become a mask over pairs of tokens (:mod:`segdre_plugin.backbones.attention`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain, pairwise
from operator import or_

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


@dataclass(frozen=True)
class Group:
    """Branches that hang on one salient entity.

    Attributes:
        anchors: (start, end) token spans of its mentions, end exclusive, markers included; the first one is where the
            branches hang.
        branches: the branches' token ids.
        branch_anchors: for each branch, further spans that see it (option ``link``: the mentions of the entity that
            the branch names); None for none.
    """

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
    group = Group(anchors, branches, branch_anchors)
    return inject_groups(input_ids, [group], max_positions=max_positions, position_offset=position_offset)


def inject_groups(
    input_ids: Sequence[int], groups: Sequence[Group], *, max_positions: int = 512, position_offset: int = 0
) -> Injection:
    """Append the branches of several salient entities, as :func:`inject` those of one.

    A token that belongs to mentions of two of them sees the branches of both.

    Args:
        input_ids: the document's token ids, special tokens included.
        groups: a salient entity's anchors and branches each; branches are appended group by group.
        max_positions: how many positions the encoder has; positions saturate at the last one.
        position_offset: the first position id.

    Returns:
        The injected document.

    Raises:
        SegDREError: as :func:`inject`.
    """
    n = len(input_ids)
    for group in groups:
        _check(n, group, max_positions)
    branches = [branch for group in groups for branch in group.branches]
    lengths = np.array([len(branch) for branch in branches], dtype=np.int64)
    hang = np.array([group.anchors[0][1] for group in groups for _ in group.branches], dtype=np.int64)
    text_nodes, sees = _text_nodes(n, groups, len(branches))
    n_text = len(sees)

    visibility = np.zeros((n_text + len(branches),) * 2, dtype=bool)
    visibility[:n_text, :n_text] = True
    visibility[:n_text, n_text:], visibility[n_text:, :n_text] = sees, sees.T
    visibility.flat[:: len(visibility) + 1] = True

    n_branch = int(lengths.sum())
    positions = np.arange(n + n_branch)
    positions[n:] += np.repeat(hang - n - (lengths.cumsum() - lengths), lengths)  # a branch starts where it hangs
    return Injection(
        input_ids=np.fromiter(chain(input_ids, *branches), dtype=np.int64, count=n + n_branch),
        position_ids=position_offset + np.minimum(positions, max_positions - 1),
        node_ids=np.concatenate([text_nodes, np.repeat(np.arange(n_text, len(visibility)), lengths)]),
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


def _text_nodes(n: int, groups: Sequence[Group], n_branches: int) -> tuple[IntArray, BoolArray]:
    """Return the ``n`` document tokens nodes: tokens that see the same branches have the same one.

    Returns:
        Each token's node, [n], numbered as they first occur after TEXT_NODE; and which branches a node sees, bool
        [nodes, branches].
    """
    changes: dict[int, list[tuple[int, int]]] = {0: [], n: []}  # where spans start (1) and end (-1), and of which bits
    first = 0
    for group in groups:
        everything = ((1 << len(group.branches)) - 1) << first  # a bit for each branch that the group's anchors see
        spans = [(span, everything) for span in group.anchors]
        for k, linked in enumerate(group.branch_anchors or (), start=first):
            spans += [(span, 1 << k) for span in linked]
        for (start, end), bits in spans:
            changes.setdefault(start, []).append((bits, 1))
            changes.setdefault(end, []).append((bits, -1))
        first += len(group.branches)

    kinds = {0: TEXT_NODE}
    edges = sorted(changes)
    nodes: list[int] = []  # of the stretches between edges: there all tokens lie in the same spans
    inside: dict[int, int] = {}
    for edge in edges[:-1]:
        for bits, step in changes[edge]:
            inside[bits] = inside.get(bits, 0) + step
            if not inside[bits]:
                del inside[bits]
        nodes.append(kinds.setdefault(reduce(or_, inside, 0), len(kinds)))
    n_bytes = n_branches // 8 + 1
    packed = np.frombuffer(b"".join(bits.to_bytes(n_bytes, "little") for bits in kinds), dtype=np.uint8)
    sees = np.unpackbits(packed.reshape(len(kinds), n_bytes), axis=1, count=n_branches, bitorder="little")
    lengths = [end - start for start, end in pairwise(edges)]
    return np.repeat(np.array(nodes, dtype=np.int64), lengths), sees.view(bool)


def _check(n: int, group: Group, max_positions: int) -> None:
    """Refuse what :func:`inject` cannot do, before it does anything."""
    if max_positions < 1:
        raise SegDREError(f"inject: max_positions is {max_positions}", "give the number of positions the encoder has")
    if group.branches and not group.anchors:
        raise SegDREError(
            f"inject: {len(group.branches)} branches but no anchor",
            "pass the spans of the salient entity's mentions, or no branches where it has no mention",
        )
    linked = group.branch_anchors
    if linked is not None and len(linked) != len(group.branches):
        raise SegDREError(
            f"inject: branch_anchors has {len(linked)} entries for {len(group.branches)} branches",
            "give one list of spans for each branch",
        )
    for start, end in chain(group.anchors, *(linked or ())):
        if not 0 <= start < end <= n:
            raise SegDREError(
                f"inject: the span ({start}, {end}) is empty or outside the document of {n} tokens",
                "spans are (start, end) in tokens of input_ids, end exclusive",
            )
    for k, branch in enumerate(group.branches):
        if len(branch) == 0:
            raise SegDREError(f"inject: branch {k} has no tokens", "leave a triple without text out")

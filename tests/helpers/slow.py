"""The sentence tree, K-BERT's insertion and ATLOP's windows, token by token: slow and obvious (eq. 9-10)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Token:
    """A token of the sentence tree: the document's where ``branch`` is None."""

    id: int
    branch: int | None
    place: int  # in the document, or in its branch
    position: int  # soft position


def tree(input_ids, anchors, branches, max_positions=512, offset=0):
    """Return the document's tokens and those of each branch."""

    def soft(position):
        return offset + min(position, max_positions - 1)

    document = [Token(token, None, i, soft(i)) for i, token in enumerate(input_ids)]
    leaves = []
    for k, branch in enumerate(branches):
        after = anchors[0][1]  # end exclusive: one after the anchor's last token
        leaves.append([Token(token, k, i, soft(after + i)) for i, token in enumerate(branch)])
    return document, leaves


def appended(document, leaves, anchors):
    return [*document, *(token for leaf in leaves for token in leaf)]


def inserted(document, leaves, anchors):
    """Put the branches where K-BERT puts them: right behind the mention that they hang on."""
    after = anchors[0][1] if leaves else 0
    return [*document[:after], *(token for leaf in leaves for token in leaf), *document[after:]]


def sees(a, b, anchors, branch_anchors=()):
    """Return whether one token sees another (eq. 10)."""
    if a.branch is None and b.branch is None:
        return True
    if a.branch is not None and b.branch is not None:
        return a.branch == b.branch
    text, leaf = (a, b) if a.branch is None else (b, a)
    spans = [*anchors, *(branch_anchors[leaf.branch] if branch_anchors else ())]
    return any(start <= text.place < end for start, end in spans)


def matrix(tokens, anchors, branch_anchors=(), rule=sees):
    return [[rule(a, b, anchors, branch_anchors) for b in tokens] for a in tokens]


def nodes(n, groups):
    """Return each document token's node and the visibility of all nodes, token by token.

    Args:
        n: tokens of the document.
        groups: for each salient entity its anchors, its branches and (or None) further spans that see each of them.
    """
    seen = [frozenset()] * n
    n_branches = 0
    for anchors, branches, branch_anchors in groups:
        for k in range(len(branches)):
            for start, end in [*anchors, *(branch_anchors[k] if branch_anchors else ())]:
                for i in range(start, end):
                    seen[i] = seen[i] | {n_branches + k}
        n_branches += len(branches)
    kinds = {frozenset(): 0}
    text = [kinds.setdefault(branches, len(kinds)) for branches in seen]
    size = len(kinds) + n_branches
    visibility = [[i == j or max(i, j) < len(kinds) for j in range(size)] for i in range(size)]
    for branches, node in kinds.items():
        for k in branches:
            visibility[node][len(kinds) + k] = visibility[len(kinds) + k][node] = True
    lengths = [len(branch) for _, branches, _ in groups for branch in branches]
    return [*text, *(len(kinds) + k for k, length in enumerate(lengths) for _ in range(length))], visibility


def encode(encoder, form, tokens, visible):
    """Run tokens with soft positions and a visible matrix; give the last layer's states and attention."""
    ids = torch.tensor([[token.id for token in tokens]])
    output = encoder(
        input_ids=ids,
        position_ids=torch.tensor([[token.position for token in tokens]]),
        token_type_ids=torch.zeros_like(ids),
        attention_mask=form(torch.as_tensor(visible)[None], next(encoder.parameters()).dtype),
        output_attentions=True,
    )
    return output.last_hidden_state[0], output.attentions[-1][0]


def windows(input_ids, cls, sep, n_end, window=512):
    """Cut as ATLOP does: for each window its ids, which of its tokens are kept, and the place of the first of those."""
    n = len(input_ids)
    if n <= window:
        return [(list(input_ids), (0, n), 0)]
    first = [*input_ids[: window - n_end], *[sep] * n_end]
    second = [cls, *input_ids[n - window + 1 :]]
    return [(first, (0, window - n_end), 0), (second, (1, window), n - window + 1)]


def sliding(firsts, window):
    """Cut as :func:`windows`, into windows whose first tokens of the document are given."""

    def cut(input_ids, cls, sep, n_end):
        parts = []
        for first in firsts:
            before, after = [cls] * (first > 0), []
            own = list(input_ids[first : first + window - len(before)])
            if first + len(own) < len(input_ids):
                own, after = own[:-n_end], [sep] * n_end
            parts.append(([*before, *own, *after], (len(before), len(before) + len(own)), first))
        return parts

    return cut


def merge(parts, n):
    """Put windows together as ATLOP does: mean of the states, sum of the attentions with rows of sum one."""
    states, attention, reads = 0, 0, 0
    for hidden, weights, (low, high), offset in parts:
        around = (offset, n - offset - (high - low))
        states = states + F.pad(hidden[low:high], (0, 0, *around))
        attention = attention + F.pad(weights[:, low:high, low:high], (*around, *around))
        reads = reads + F.pad(torch.ones(high - low), around)
    if len(parts) == 1:
        return states, attention
    return states / (reads + 1e-10)[:, None], attention / (attention.sum(-1, keepdim=True) + 1e-10)

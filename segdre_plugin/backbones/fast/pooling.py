"""Entity and context pooling of a batch at once (Zhou et al. 2021, sections 3 and 4.2), in place of ``get_hrt``.

An entity is the logsumexp of the states at its mentions' start markers, its attention the mean over them; a pair's
context weighs the tokens that both entities attend to. Upstream goes through mentions and pairs one by one; here the
mentions of a batch are read together, and the context, which is the same for (head, tail) and (tail, head), is
computed once for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segdre_plugin.backbones.fast.pairs import PairRows
from segdre_plugin.backbones.features import EntityPositions, Pairs


@dataclass(frozen=True)
class PairPooler:
    """The fast stand-in for a backbone's ``get_hrt``; a class and no closure, as deep copies of the model need.

    Attributes:
        offset: tokens before the document's first one.
        epsilon: keeps the context of a pair without common attention at zero.
        with_attention: also return the pairs' attention and each document's number of pairs, as DREEAM expects.
    """

    offset: int
    epsilon: float
    with_attention: bool

    def __call__(self, states: Tensor, attention: Tensor, entity_pos: EntityPositions, hts: Pairs, *_: Any) -> Any:
        """Pool a batch's states [documents, c, d] and attention [documents, heads, c, c].

        ``entity_pos`` has for each document and entity the (start, end) of its mentions, without ``offset``; ``hts``
        has for each document its pairs (head, tail).

        Returns:
            Heads, contexts and tails as :class:`PairRows` [pairs, d], the documents' pairs one after the other; with
            ``with_attention`` also the pairs' attention [pairs, c] and the number of pairs of each document.
        """
        layout = lay_out(entity_pos, hts, states.shape[1], self.offset)
        on = layout.to(states.device)
        entities, focus = pool_entities(states, attention, on)
        shared = shared_attention(focus, on, self.epsilon)  # [distinct pairs, c]
        parts = shared.split(layout.distinct_of)
        contexts = torch.cat([part @ document for part, document in zip(parts, states, strict=True)])
        heads, tails = PairRows((entities, on.head)), PairRows((entities, on.tail))
        rows = heads, PairRows((contexts, on.distinct)), tails
        if not self.with_attention:
            return rows
        return (*rows, shared.index_select(0, on.distinct), layout.pairs_of)


@dataclass(frozen=True)
class Layout:
    """The places of a batch's mentions, entities and pairs; arrays of integers.

    Attributes:
        document: of each mention.
        token: of each mention, its start marker.
        entity: of each mention, counted through the batch.
        place: of each entity, document and index, [entities, 2].
        head: of each pair, the entity counted through the batch.
        tail: likewise.
        distinct: of each pair, the unordered pair that it is, counted through the batch.
        distinct_pairs: of each unordered pair, document and both entities, [distinct, 3].
        distinct_of: number of unordered pairs of each document.
        pairs_of: number of pairs of each document.
        most: largest number of entities of a document.
    """

    document: Any
    token: Any
    entity: Any
    place: Any
    head: Any
    tail: Any
    distinct: Any
    distinct_pairs: Any
    distinct_of: list[int]
    pairs_of: list[int]
    most: int

    def to(self, device: torch.device) -> Layout:
        """Put the arrays on a device, in one transfer."""
        names = ("document", "token", "entity", "place", "head", "tail", "distinct", "distinct_pairs")
        arrays = [np.asarray(getattr(self, name), dtype=np.int64) for name in names]
        flat = torch.from_numpy(np.concatenate([a.ravel() for a in arrays])).to(device, non_blocking=True)
        parts = flat.split([a.size for a in arrays])
        moved = {name: part.view(a.shape) for name, part, a in zip(names, parts, arrays, strict=True)}
        return Layout(**moved, distinct_of=self.distinct_of, pairs_of=self.pairs_of, most=self.most)


def lay_out(entity_pos: EntityPositions, hts: Pairs, length: int, offset: int) -> Layout:
    """Number the mentions, entities and pairs of a batch through; mentions beyond ``length`` tokens are left out."""
    mentions: list[tuple[int, int, int]] = []
    place: list[tuple[int, int]] = []
    heads, tails, distinct, unordered = [], [], [], []
    distinct_of: list[int] = []
    for d, (entities, pairs) in enumerate(zip(entity_pos, hts, strict=True)):
        first, seen = len(place), sum(distinct_of)
        for e, positions in enumerate(entities):
            mentions += [(d, start + offset, first + e) for start, _ in positions if start + offset < length]
            place.append((d, e))
        # pairs, with entities counted through the batch
        table = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        heads.append(first + table[:, 0])
        tails.append(first + table[:, 1])
        # (head, tail) and (tail, head) are one unordered pair: a number smaller * n + larger names it
        n = max(1, len(entities))
        keys, index = np.unique(table.min(axis=1) * n + table.max(axis=1), return_inverse=True)
        distinct.append(seen + index.reshape(-1))
        unordered.append(np.stack([np.full(len(keys), d), keys // n, keys % n], axis=1))
        distinct_of.append(len(keys))
    where = np.asarray(mentions, dtype=np.int64).reshape(-1, 3)
    return Layout(
        document=where[:, 0],
        token=where[:, 1],
        entity=where[:, 2],
        place=np.asarray(place, dtype=np.int64).reshape(-1, 2),
        head=np.concatenate(heads),
        tail=np.concatenate(tails),
        distinct=np.concatenate(distinct),
        distinct_pairs=np.concatenate(unordered),
        distinct_of=distinct_of,
        pairs_of=[len(pairs) for pairs in hts],
        most=max((len(entities) for entities in entity_pos), default=0),
    )


def pool_entities(states: Tensor, attention: Tensor, on: Layout) -> tuple[Tensor, Tensor]:
    """Return the pooled mentions of each entity, of states [documents, c, d] and attention [documents, heads, c, c].

    The embeddings are [entities, d], zero where an entity has no mention; the attention is laid out by document,
    [documents, most entities, heads, c].
    """
    n = len(on.place)
    read = states[on.document, on.token]  # [mentions, d]
    # the logsumexp of each entity's mentions; the maximum only keeps exp in range, its gradient cancels out
    index = on.entity.unsqueeze(1).expand_as(read)
    highest = read.new_full((n, read.shape[1]), -torch.inf).scatter_reduce(0, index, read.detach(), "amax")
    highest = highest.masked_fill(highest == -torch.inf, 0)
    total = torch.zeros_like(highest).index_add(0, on.entity, (read - highest.index_select(0, on.entity)).exp())
    missing = total == 0
    embeddings = (highest + total.masked_fill(missing, 1).log()).masked_fill(missing, 0)

    documents, heads, _, c = attention.shape
    slot = on.place[:, 0] * on.most + on.place[:, 1]  # of each entity in the padded table
    mentions = torch.bincount(on.entity, minlength=n).clamp(min=1).to(attention.dtype)
    seen = attention[on.document, :, on.token] / mentions.index_select(0, on.entity)[:, None, None]
    focus = attention.new_zeros(documents * on.most, heads, c).index_add(0, slot.index_select(0, on.entity), seen)
    return embeddings, focus.view(documents, on.most, heads, c)


def shared_attention(focus: Tensor, on: Layout, epsilon: float) -> Tensor:
    """Return the weights, [distinct, c], of the tokens to which both entities of an unordered pair attend.

    This is localised context pooling, of ``focus`` [documents, entities, heads, c].
    """
    documents, entities, heads, c = focus.shape
    by_token = focus.permute(0, 3, 1, 2).reshape(documents * c, entities, heads)
    together = torch.bmm(by_token, by_token.transpose(1, 2)).view(documents, c, entities, entities)
    document, one, other = on.distinct_pairs.unbind(dim=1)
    shared = together[document, :, one, other] / heads
    return shared / (shared.sum(dim=1, keepdim=True) + epsilon)

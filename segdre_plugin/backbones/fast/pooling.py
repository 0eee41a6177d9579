"""Entity and context pooling of a batch at once (Zhou et al. 2021, sections 3 and 4.2), in place of ``get_hrt``.

An entity is the logsumexp of the states at its mentions' start markers, its attention the mean over them; a pair's
context weighs the tokens that both entities attend to. Upstream goes through mentions and pairs one by one; here the
mentions of a batch are read together, and the context, which is the same for (head, tail) and (tail, head), is
computed once for both. Nothing on the device loops over documents, entities, mentions or pairs, and gradients are
added up in a fixed order: by products of matrices, and as those of an embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segdre_plugin.backbones.fast.pairs import PairRows
from segdre_plugin.backbones.features import EntityPositions, Pairs
from segdre_plugin.backbones.precision import mixed_dtype, wide, without_autocast


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
        if mixed_dtype(states.device.type):  # small, and rows of any width, with which 16-bit kernels are slow
            states, attention = states.to(wide(states)), attention.to(wide(attention))
        with without_autocast(states.device.type):
            entities, focus = pool_entities(states, attention, on)
            shared = shared_attention(focus, on, self.epsilon)  # [documents, most unordered pairs, c]
            contexts = F.embedding(on.slot, torch.bmm(shared, states).flatten(0, 1))
        heads, tails = PairRows((entities, on.head)), PairRows((entities, on.tail))
        rows = heads, PairRows((contexts, on.distinct)), tails
        if not self.with_attention:
            return rows
        of_pairs = F.embedding(on.distinct, F.embedding(on.slot, shared.flatten(0, 1)))
        return (*rows, of_pairs, layout.pairs_of)


@dataclass(frozen=True)
class Layout:
    """The places of a batch's mentions, entities and pairs; arrays of integers.

    A token is counted through the padded batch, an entity and an unordered pair through the batch.

    Attributes:
        mention: of each entity the tokens of its start markers, filled up with -1, [entities, most mentions]; the first
            is 0 where there is none.
        missing: of each entity 1 if it has no mention in the input, else 0.
        cell: each token of each entity, [documents, most entities, c] flattened.
        times: how often it starts a mention of the entity there.
        mentions: how many mentions the entity has in the input.
        head: of each pair, the entity.
        tail: likewise.
        distinct: of each pair, the unordered pair that it is.
        slot: of each unordered pair, its place in ``both`` flattened.
        both: of each document its unordered pairs, filled up with others, [documents, most]: places in
            [documents, entities, entities] flattened.
        pairs_of: number of pairs of each document.
        most: largest number of entities of a document.
    """

    mention: Any
    missing: Any
    cell: Any
    times: Any
    mentions: Any
    head: Any
    tail: Any
    distinct: Any
    slot: Any
    both: Any
    pairs_of: list[int]
    most: int

    def to(self, device: torch.device) -> Layout:
        """Put the arrays on a device, in one transfer."""
        arrays = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        flat = torch.from_numpy(np.concatenate([a.ravel() for a in arrays.values()])).to(device, non_blocking=True)
        parts = flat.split([a.size for a in arrays.values()])
        moved = {
            name: part if a.ndim == 1 else part.view(a.shape)
            for (name, a), part in zip(arrays.items(), parts, strict=True)
        }
        return Layout(**moved, pairs_of=self.pairs_of, most=self.most)


def lay_out(entity_pos: EntityPositions, hts: Pairs, length: int, offset: int) -> Layout:
    """Number the mentions, entities and pairs of a batch through; mentions beyond ``length`` tokens are left out."""
    most = max((len(entities) for entities in entity_pos), default=0)
    mentions: list[list[int]] = []  # of each entity
    cells: list[int] = []  # of each mention
    heads, tails, distinct, both = [], [], [], []
    seen = 0
    for d, (entities, pairs) in enumerate(zip(entity_pos, hts, strict=True)):
        first = len(mentions)
        for e, positions in enumerate(entities):
            tokens = [start + offset for start, _ in positions if start + offset < length]
            mentions.append([d * length + token for token in tokens])
            cells += [(d * most + e) * length + token for token in tokens]
        # pairs, with entities counted through the batch
        table = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        heads.append(first + table[:, 0])
        tails.append(first + table[:, 1])
        # (head, tail) and (tail, head) are one unordered pair: a number names it
        keys, index = np.unique(table.min(axis=1) * most + table.max(axis=1), return_inverse=True)
        distinct.append(seen + index.reshape(-1))
        both.append(d * most**2 + keys)
        seen += len(keys)
    n_mentions = np.array([len(tokens) for tokens in mentions], dtype=np.int64)
    padded = np.full((len(mentions), n_mentions.max(initial=1)), -1, dtype=np.int64)
    padded[:, 0] = 0
    for row, tokens in zip(padded, mentions, strict=True):
        row[: len(tokens)] = tokens
    cell, times = np.unique(np.asarray(cells, dtype=np.int64), return_counts=True)
    of_entity = np.bincount(cell // length, times, len(entity_pos) * most).astype(np.int64)
    n_distinct = np.array([len(keys) for keys in both])
    return Layout(
        mention=padded,
        missing=(n_mentions == 0).astype(np.int64),
        cell=cell,
        times=times,
        mentions=of_entity[cell // length],
        head=np.concatenate(heads),
        tail=np.concatenate(tails),
        distinct=np.concatenate(distinct),
        slot=np.flatnonzero(np.arange(n_distinct.max()) < n_distinct[:, None]),
        both=np.stack([np.resize(keys if len(keys) else [0], n_distinct.max()) for keys in both]),
        pairs_of=[len(pairs) for pairs in hts],
        most=most,
    )


def pool_entities(states: Tensor, attention: Tensor, on: Layout) -> tuple[Tensor, Tensor]:
    """Return the pooled mentions of each entity, of states [documents, c, d] and attention [documents, heads, c, c].

    The embeddings are [entities, d], zero where an entity has no mention; the attention is laid out by document,
    [documents, heads, most entities, c].
    """
    read = F.embedding(on.mention.clamp(min=0), states.flatten(0, 1))  # [entities, most mentions, d]
    embeddings = read.masked_fill((on.mention < 0).unsqueeze(2), -torch.inf).logsumexp(dim=1)
    embeddings = embeddings.masked_fill((on.missing > 0).unsqueeze(1), 0)

    documents, _, c, _ = attention.shape
    shares = attention.new_zeros(documents * on.most * c).scatter_(0, on.cell, on.times.to(attention) / on.mentions)
    return embeddings, shares.view(documents, 1, on.most, c) @ attention


def shared_attention(focus: Tensor, on: Layout, epsilon: float) -> Tensor:
    """Return the weights of the tokens to which both entities of an unordered pair attend.

    This is localised context pooling, from ``focus`` [documents, heads, entities, c] to
    [documents, most unordered pairs, c].
    """
    documents, heads, entities, c = focus.shape
    by_token = focus.permute(0, 3, 2, 1).reshape(documents * c, entities, heads)
    together = torch.bmm(by_token, by_token.mT).view(documents, c, entities**2)
    shared = F.embedding(on.both, together.mT.reshape(documents * entities**2, c)) / heads
    return shared / (shared.sum(dim=2, keepdim=True) + epsilon)

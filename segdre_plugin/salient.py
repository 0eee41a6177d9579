"""The salient entity of a document: gold, predicted, and how good the prediction is (paper section 3.3, equation 8).

The salient entity is the one involved in the most relations (section 1; "Max Relation" of appendix A.1). Documents are
DocRED dicts: ``vertexSet`` is a list of entities, each a list of mentions; ``labels`` is a list of ``{h, t, r}``.
Section 3.4's dense pairs are those that involve the salient entity. Several salient entities are a greedy chain of them
(appendix A.1, figure 6), the first of which is the salient entity.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from segdre_plugin.errors import SegDREError
from segdre_plugin.vocabulary import BoolArray, Document, FloatArray, IntArray, Triple, entities, label_triples, named

Chain = tuple[int, ...]  # the salient entities of a document, the most salient one first; may be empty
Salient = int | None | Sequence[int]  # accepted in place of a chain


def gold_triples(doc: Document) -> set[Triple]:
    """Return the distinct gold triples; none without ``labels``.

    Raises:
        SegDREError: if ``vertexSet`` is missing, or a label lacks a field or names an entity that does not exist.
    """
    entities(doc)  # also where nothing is labelled
    return {triple for triple, _ in label_triples(doc)}


def relation_counts(doc: Document) -> IntArray:
    """Count the ``gold_triples`` in which each entity is head or tail, [n_entities]; errors as there."""
    return _involved(gold_triples(doc), len(entities(doc)))


def gold_salient(doc: Document) -> int | None:
    """Return the gold salient entity: the largest relation count; ties go to more mentions, then to the lower index.

    Returns None for a document without a triple. Errors are those of ``gold_triples``.
    """
    counts = relation_counts(doc)
    return largest(doc, counts) if counts.any() else None


def gold_chain(doc: Document, k: int | None = None) -> list[int]:
    """Return the greedy chain of at most ``k`` salient entities (appendix A.1); None goes on until no triple is left.

    Each entity covers the most triples that involve none before it; there are fewer than k where no triple is left.
    Ties are broken as for ``gold_salient``, which is the chain's first entity; errors are those of ``gold_triples``.
    """
    remaining = gold_triples(doc)
    chain: list[int] = []
    while remaining and (k is None or len(chain) < k):
        chain.append(largest(doc, _involved(remaining, len(entities(doc)))))
        remaining -= _covered(remaining, chain[-1:])
    return chain


def largest(doc: Document, counts: Sequence[int] | IntArray) -> int:
    """Return the entity of the largest of ``counts``, [n_entities]; ties: more mentions, then the lower index."""
    mentions = entities(doc)
    return max(range(len(mentions)), key=lambda e: (counts[e], len(mentions[e]), -e))


def entity_counts(counts: ArrayLike, pairs: ArrayLike, n_entities: int) -> FloatArray:
    """Aggregate the counts c of pairs by entity (paper section 3.3, after equation 7).

    Args:
        counts: count of each pair, expected or observed, [n_pairs]; ``counts[k]`` belongs to ``pairs[k]``.
        pairs: entity indices (h, t), [n_pairs, 2].
        n_entities: number of entities in the document.

    Returns:
        Sum over all pairs in which an entity is head or tail, [n_entities].

    Raises:
        SegDREError: if there is no entity, lengths differ, an index is out of range, or a count is not finite.
    """
    if n_entities < 1:
        raise SegDREError(f"a document needs an entity, got n_entities={n_entities}", "leave such documents out")
    index = _pair_array(pairs)
    values = np.asarray(counts, dtype=np.float64)
    if values.shape != (len(index),):
        raise SegDREError(f"expected one count for each pair, got counts {values.shape}, pairs {index.shape}")
    if not np.isfinite(values).all():
        where = int(np.flatnonzero(~np.isfinite(values))[0])
        raise SegDREError(f"counts must be finite, got {values[where]} for pair {index[where].tolist()}")
    if len(index) and (index.min() < 0 or index.max() >= n_entities):
        found = f"found indices {index.min()} to {index.max()} for {n_entities} entities"
        raise SegDREError(f"pairs name an entity that does not exist: {found}", "pass the pairs of this document")
    h, t = index.T
    totals = np.zeros(n_entities)
    np.add.at(totals, h, values)
    np.add.at(totals, t, np.where(h == t, 0.0, values))  # a pair (h, h) involves its entity once, not twice
    return totals


def select_salient(counts: ArrayLike, pairs: ArrayLike, n_entities: int) -> int:
    """Return the salient entity: the highest aggregated relation count; ties go to the lower index (section 3.3).

    Counts are expected ones (equation 7); arguments and errors are those of ``entity_counts``. It is 0 without pairs.
    """
    return select_chain(counts, pairs, n_entities, 1)[0]


def select_chain(counts: ArrayLike, pairs: ArrayLike, n_entities: int, k: int) -> list[int]:
    """Return a chain of salient entities: greedy, as ``gold_chain``, on the counts of the pairs that are left.

    Its first entity is that of ``select_salient``, with the same arguments; its length is ``k``, or less where no other
    entity has a count above 0. Ties go to the lower index.

    Raises:
        SegDREError: as ``entity_counts``, or if k is less than 1.
    """
    if k < 1:
        raise SegDREError(f"a chain needs one salient entity or more, got k={k}", "pass k >= 1")
    totals = entity_counts(counts, pairs, n_entities)
    index, left = _pair_array(pairs), np.array(counts, dtype=np.float64)
    chain = [int(totals.argmax())]
    while len(chain) < k:
        left[dense_mask(index, chain[-1])] = 0
        totals = entity_counts(left, index, n_entities)
        if totals.max() <= 0:
            break
        chain.append(int(totals.argmax()))
    return chain


def as_chain(salient: Salient) -> Chain:
    """Return salient entities as a tuple, the most salient one first; an empty one for None."""
    chain = () if salient is None else (salient,) if isinstance(salient, (int, np.integer)) else tuple(salient)
    if not all(isinstance(entity, (int, np.integer)) for entity in chain):
        raise SegDREError(f"salient entities are indices, got {list(chain)}")
    return tuple(int(entity) for entity in chain)


def saliency(documents: Sequence[Document], salient: Sequence[Salient], k: int = 1) -> dict[str, float]:
    """Score predicted salient entities: accuracy and Saliency (paper equation 8).

    Accuracy is that of the first entity. Count is the number of triples that the chain covers, compared with those that
    a gold chain of k entities covers; as that one is greedy too, a predicted chain of several can cover more. Documents
    without a triple are left out.

    Args:
        documents: DocRED documents with gold labels.
        salient: the predicted entities of each document; no prediction covers no relation.
        k: the largest allowed number of salient entities a document.

    Returns:
        ``accuracy``; ``saliency``, the mean over documents of Count(e_sal) / Count(e_gold); ``saliency_micro``, the
        ratio of the two sums; ``documents``, the number of documents counted.

    Raises:
        SegDREError: if lengths differ, an entity does not exist, a chain is longer than k, or no document has a triple.
    """
    if len(documents) != len(salient):
        raise SegDREError(f"expected one salient entity for each document, got {len(salient)} for {len(documents)}")
    hits, found, expected = [], [], []
    for doc, chosen in zip(documents, salient, strict=True):
        chain, triples, n = as_chain(chosen), gold_triples(doc), len(entities(doc))
        for entity in chain:
            if not 0 <= entity < n:
                raise SegDREError(f"{named(doc)}: salient entity {entity} does not exist, it has {n} entities")
        if len(chain) > k:
            raise SegDREError(f"{named(doc)}: {len(chain)} salient entities where k is {k}", f"pass k={len(chain)}")
        gold = tuple(gold_chain(doc, k))
        if gold:
            hits.append(chain[:1] == gold[:1])
            found.append(len(_covered(triples, chain)))
            expected.append(len(_covered(triples, gold)))
    if not expected:
        raise SegDREError("no gold: no document has a triple", "score a labelled split")
    return {
        "accuracy": float(np.mean(hits)),
        "saliency": float(np.mean(np.divide(found, expected))),
        "saliency_micro": float(np.sum(found) / np.sum(expected)),
        "documents": len(expected),
    }


def dense_mask(pairs: ArrayLike, salient: Salient) -> BoolArray:
    """Return which pairs are dense, i.e. involve a salient entity (paper section 3.4); the others are sparse.

    Args:
        pairs: entity indices (h, t), [n_pairs, 2].
        salient: the salient entity's index, or several; without one no pair is dense.

    Raises:
        SegDREError: if ``pairs`` is not [n_pairs, 2] of integers.
    """
    involved: BoolArray = np.isin(_pair_array(pairs), as_chain(salient))  # [n_pairs, 2]
    return involved[:, 0] | involved[:, 1]


def _pair_array(pairs: ArrayLike) -> IntArray:
    index = np.asarray(pairs)
    if index.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if index.ndim != 2 or index.shape[1] != 2 or index.dtype.kind not in "iu":
        raise SegDREError(f"pairs must be integers [n_pairs, 2], got {index.dtype} {list(index.shape)}")
    return index.astype(np.int64)


def _involved(triples: Iterable[Triple], n_entities: int) -> IntArray:
    """Count the triples in which each entity is head or tail, [n_entities]."""
    counts = np.zeros(n_entities, dtype=np.int64)
    for triple in triples:
        counts[list({triple.head, triple.tail})] += 1
    return counts


def _covered(triples: Iterable[Triple], chain: Sequence[int]) -> set[Triple]:
    return {triple for triple in triples if triple.head in chain or triple.tail in chain}

"""Statistics of labelled documents: sizes (Table 1), salient entities (Figure 1), coverage (Table 6), chain (Figure 6).

Triples are distinct ones. Documents without a triple have no salient entity: they count in the averages of Table 1 and
nowhere else.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from segdre_plugin.analysis.statistics.coverage import CRITERIA, Coverage, chain_coverage, coverage
from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import gold_salient, gold_triples
from segdre_plugin.vocabulary import Document, entities


@dataclass(frozen=True)
class RelationClass:
    """A relation's triples (Figure 1b).

    Attributes:
        relation: its id.
        dense: triples that involve their document's salient entity.
        sparse: the others.
    """

    relation: str
    dense: int
    sparse: int


@dataclass(frozen=True)
class LabelStatistics:
    """Statistics of gold labels.

    Attributes:
        without_triple: documents without a triple.
        triples: a document, on average.
        relations: distinct relations a document, on average.
        salient_share: share of all triples that involve their document's salient entity (Figure 1a).
        coverage: criterion of Table 6 -> mean over documents.
        chain: triples that the first, second, ... entity of the greedy chains covers, summed over documents (Figure 6).
        classes: the relations that occur, the most frequent first (Figure 1b).
    """

    without_triple: int
    triples: float
    relations: float
    salient_share: float
    coverage: Mapping[str, Coverage]
    chain: tuple[int, ...]
    classes: tuple[RelationClass, ...]

    @property
    def chain_log_ratios(self) -> tuple[float, ...]:
        """Natural logarithm of each number of the chain relative to the first (Figure 6)."""
        return tuple(math.log(count / self.chain[0]) for count in self.chain)


@dataclass(frozen=True)
class Statistics:
    """Statistics of some documents; averages are per document (Table 1).

    Attributes:
        documents: number of documents.
        entities: average number.
        pairs: average number of ordered pairs of different entities.
        sentences: average number.
        labels: statistics of the labels; None if no document has a triple.
    """

    documents: int
    entities: float
    pairs: float
    sentences: float
    labels: LabelStatistics | None


def describe(documents: Iterable[Document], what: str = "documents") -> Statistics:
    """Return the statistics of well-formed documents, their ``labels`` perhaps missing, computed in one pass.

    Raises:
        SegDREError: if ``documents`` is empty.
    """
    sizes = []
    dense, sparse, chain = Counter[str](), Counter[str](), Counter[int]()
    covered: dict[str, list[tuple[float, float]]] = {name: [] for name in CRITERIA}
    for doc in documents:
        triples, n = gold_triples(doc), len(entities(doc))
        sizes.append((n, n * (n - 1), len(doc["sents"]), len(triples), len({triple.relation for triple in triples})))
        if not triples:
            continue
        salient = gold_salient(doc)
        for h, r, t in triples:
            (dense if salient in (h, t) else sparse)[r] += 1
        for name, choose in CRITERIA.items():
            found = coverage(doc, choose(doc))
            covered[name].append((found.hop_1, found.hop_2))
        chain.update(dict(enumerate(chain_coverage(doc))))
    if not sizes:
        raise SegDREError(f"{what}: expected documents, got none", "pass one document or more")
    # averages over documents; those without a triple count in sizes only
    n_entities, pairs, sentences, n_triples, n_relations = np.mean(sizes, axis=0).tolist()
    labels = None
    if chain:
        total = dense + sparse
        labels = LabelStatistics(
            without_triple=len(sizes) - len(covered["Max Relation"]),
            triples=n_triples,
            relations=n_relations,
            salient_share=dense.total() / total.total(),
            coverage={name: Coverage(*np.mean(shares, axis=0).tolist()) for name, shares in covered.items()},
            chain=tuple(chain[order] for order in range(len(chain))),
            classes=tuple(RelationClass(r, dense[r], sparse[r]) for r in sorted(total, key=lambda r: (-total[r], r))),
        )
    return Statistics(len(sizes), n_entities, pairs, sentences, labels)


def sort_relations(found: Iterable[LabelStatistics]) -> list[str]:
    """List the ids of relations in any file, the most frequent in all together first; ties in alphabetical order."""
    total: Counter[str] = Counter()
    for labels in found:
        total.update({c.relation: c.dense + c.sparse for c in labels.classes})
    return sorted(total, key=lambda relation: (-total[relation], relation))

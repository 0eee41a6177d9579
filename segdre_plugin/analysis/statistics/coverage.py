"""How much of a document one entity covers, or a few: the paper's Table 6 and Figure 6 (appendix A.1).

Triples are the edges of a graph whose nodes are the entities; directions do not matter. Within one hop of an entity are
the triples that involve it, within two hops also those that involve one of its neighbours: triples on a path of at
most two edges that starts at the entity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from segdre_plugin.metrics import is_intra
from segdre_plugin.salient import gold_chain, gold_triples, largest, relation_counts
from segdre_plugin.vocabulary import Document, entities


@dataclass(frozen=True)
class Coverage:
    """Shares of triples within one hop and within two hops, in [0, 1]."""

    hop_1: float
    hop_2: float


def max_relation(doc: Document) -> int:
    """Return the entity in the most triples: the gold salient one if there is a triple (section 3.3)."""
    return largest(doc, relation_counts(doc))


def max_intra_relation(doc: Document) -> int:
    """Return the entity in the most intra triples, whose head and tail some sentence mentions (appendix A.1)."""
    counts = np.zeros(len(entities(doc)), dtype=np.int64)
    for h, _, t in gold_triples(doc):
        if is_intra(doc, h, t):
            counts[list({h, t})] += 1
    return largest(doc, counts)


def max_mention(doc: Document) -> int:
    """Return the entity with the most mentions (appendix A.1)."""
    return largest(doc, [0] * len(entities(doc)))


# each takes a document with one entity or more and gives an index; ties, and a document without such triples, go to the
# entity with more mentions, then to the lower index, as in gold_salient
CRITERIA: dict[str, Callable[[Document], int]] = {
    "Max Relation": max_relation,
    "Max Intra-relation": max_intra_relation,
    "Max Mention": max_mention,
}


def coverage(doc: Document, entity: int) -> Coverage:
    """Return the shares of a document's triples (one or more) within one and two hops of an entity (Table 6)."""
    triples = gold_triples(doc)
    near = {entity}.union(*({h, t} for h, _, t in triples if entity in (h, t)))
    hop_1 = sum(entity in (h, t) for h, _, t in triples)
    hop_2 = sum(h in near or t in near for h, _, t in triples)
    return Coverage(hop_1 / len(triples), hop_2 / len(triples))


def chain_coverage(doc: Document) -> list[int]:
    """Count the triples that each entity of the greedy chain covers (Figure 6).

    Returns:
        For each entity of ``gold_chain`` the triples that involve it and none before it, in the chain's order. They
        never grow, and sum to the document's triples.
    """
    place = {entity: order for order, entity in enumerate(gold_chain(doc))}
    first = [min(place.get(h, len(place)), place.get(t, len(place))) for h, _, t in gold_triples(doc)]
    return np.bincount(first, minlength=len(place)).tolist() if first else []

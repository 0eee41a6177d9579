"""The method's first two steps on one document: the salient entity by its counts, and the dense triples around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segdre_plugin.data.documents import Document
from segdre_plugin.salient import Chain, gold_triples, relation_counts
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.branches import entity_name, owner
from segdre_plugin.stages.margins import Margins
from segdre_plugin.vocabulary import FloatArray, Triple


@dataclass(frozen=True)
class EntityBar:
    """An entity and its relation counts.

    Attributes:
        entity: its index.
        name: its name.
        expected: what stage identify expects; None without a count head.
        gold: what the labels have; None without them.
        salient: whether it is chosen as salient.
        share: ``expected`` (without it: ``gold``) in percent of the largest of the document's.
    """

    entity: int
    name: str
    expected: float | None
    gold: int | None
    salient: bool
    share: float


@dataclass(frozen=True)
class Edge:
    """A dense triple, seen from its salient entity.

    Attributes:
        relation: its relation's name.
        other: the other entity's name.
        gold: whether it is gold; None without labels.
        margin: the dense model's.
        injected: whether it became a branch.
    """

    relation: str
    other: str
    gold: bool | None
    margin: float
    injected: bool


@dataclass(frozen=True)
class Hub:
    """A salient entity with the dense triples that the dense model found around it, the highest margins first.

    Attributes:
        name: the entity's.
        incoming: those of which it is the tail.
        outgoing: those of which it is the head.
        n_gold: gold triples of its pairs; None without labels.
    """

    name: str
    incoming: Sequence[Edge]
    outgoing: Sequence[Edge]
    n_gold: int | None


def entity_bars(document: Document, chain: Chain, expected: FloatArray | None, labelled: bool) -> list[EntityBar]:
    """Return a document's entities by falling counts, ``expected`` [entities] or else gold ones."""
    n = len(document["vertexSet"])
    gold = relation_counts(document) if labelled else None
    counts = expected if expected is not None else gold if gold is not None else [0.0] * n
    top = max([float(count) for count in counts] or [0.0]) or 1.0
    bars = [
        EntityBar(
            entity,
            entity_name(document, entity),
            None if expected is None else float(expected[entity]),
            None if gold is None else int(gold[entity]),
            entity in chain,
            100 * max(0.0, float(counts[entity])) / top,
        )
        for entity in range(n)
    ]
    return sorted(bars, key=lambda bar: (expected is None and not bar.salient, -bar.share, not bar.salient, bar.entity))


def dense_hubs(
    run: RunFolder, document: Document, chain: Chain, dense: Margins, injected: Sequence[Triple], labelled: bool
) -> list[Hub]:
    """Return the triples that the dense model predicts (``dense``: its cells of the document), by salient entity."""
    names = {i: relation for relation, i in run.rel2id.items()}
    gold = gold_triples(document)
    ends: dict[int, tuple[list[Edge], list[Edge]]] = {entity: ([], []) for entity in chain}
    columns = (column.tolist() for column in (dense.head, dense.relation, dense.tail, dense.margin))
    for head, relation, tail, margin in sorted(zip(*columns, strict=True), key=lambda cell: -cell[-1]):
        if margin <= 0:
            continue
        triple = Triple(head, names[relation], tail)
        hub = owner(chain, triple)
        other = tail if hub == head else head
        is_gold = triple in gold if labelled else None
        text = run.relation_names.get(triple.relation, triple.relation)
        ends[hub][hub == head].append(Edge(text, entity_name(document, other), is_gold, margin, triple in injected))
    own = {entity: {t for t in gold if entity in (t.head, t.tail) and owner(chain, t) == entity} for entity in chain}
    return [
        Hub(entity_name(document, entity), incoming, outgoing, len(own[entity]) if labelled else None)
        for entity, (incoming, outgoing) in ends.items()
    ]

"""The candidates of a split: the margins of base, dense and sparse side by side, and the gold beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from segdre_plugin.data.splits import Split
from segdre_plugin.metrics import in_train, train_facts
from segdre_plugin.salient import Salient, as_chain
from segdre_plugin.stages.margins import CELL, Margins, concatenate
from segdre_plugin.vocabulary import BoolArray, Document, FloatArray, Triple, labels


@dataclass(frozen=True)
class Candidates:
    """All candidates of a split with the margins that base and stage gave them.

    Attributes:
        cells: the candidates; their ``margin`` is the base model's, -inf where it has none.
        stage: the dense or sparse model's margin, or its mean with the base's; -inf where there is none.
        is_dense: whether the pair involves a salient entity.
    """

    cells: Margins
    stage: FloatArray
    is_dense: BoolArray


def align(tables: Sequence[Margins], n_entities: int, missing: float) -> tuple[Margins, list[FloatArray]]:
    """Put tables side by side; ``missing`` is the margin of a cell in a table that does not have it.

    Returns:
        The union of their cells, ordered, and each table's margins of them. A cell's evidence is what the first table
        that has the cell's pair says (evidence belongs to a pair, and all cells of it), its margin is of no meaning.
    """
    n_classes = 1 + max((int(t.relation.max()) for t in tables if len(t)), default=0)
    keys = [t.keys(n_entities, n_classes) for t in tables]
    everything = concatenate(tables)
    union, first = np.unique(np.concatenate(keys), return_index=True)
    columns = []
    for table, key in zip(tables, keys, strict=True):
        column = np.full(len(union), missing)
        column[np.searchsorted(union, key)] = table.margin
        columns.append(column)
    cells = everything.take(first)
    _, source, pair = np.unique(everything.pairs(n_entities), return_index=True, return_inverse=True)
    return replace(cells, evidence=everything.evidence[source[pair[first]]]), columns


def average(first: Margins, second: Margins, n_entities: int) -> Margins:
    """Return the cells of two models with the mean of their margins; -inf where a model has no cell of the pair.

    A model's table holds the top classes of a pair only. A cell that it lacks gets its lowest margin of the pair, which
    is the most that it can be.
    """
    cells, columns = align((first, second), n_entities, np.nan)
    pairs, place = np.unique(cells.pairs(n_entities), return_inverse=True)
    filled = []
    for column in columns:
        lowest = np.full(len(pairs), np.inf)
        np.fmin.at(lowest, place, column)
        lowest[np.isinf(lowest)] = -np.inf
        filled.append(np.where(np.isnan(column), lowest[place], column))
    return replace(cells, margin=(filled[0] + filled[1]) / 2)


def fusible(tables: Mapping[str, Margins], n_entities: int, fusion: str) -> dict[str, Margins]:
    """Return the margins of base, dense and sparse that thresholds are to cut.

    Fusion ``union`` takes them as they are, ``average`` the mean of base and stage margins in the place of the stage's.
    """
    if fusion == "union":
        return dict(tables)
    means = {stage: average(tables["base"], tables[stage], n_entities) for stage in ("dense", "sparse")}
    own = {stage: mean.take(np.flatnonzero(np.isfinite(mean.margin))) for stage, mean in means.items()}
    return {"base": tables["base"]} | own


def join(base: Margins, dense: Margins, sparse: Margins, salient: Sequence[Salient], n_entities: int) -> Candidates:
    """Return the cells of three models; evidence is the base's where it scored the pair, else the stage's."""
    cells, columns = align((base, dense, sparse), n_entities, -np.inf)
    return Candidates(
        replace(cells, margin=columns[0]),
        np.maximum(columns[1], columns[2]),  # no pair is both dense and sparse
        dense_flags(cells, salient, n_entities),
    )


def dense_flags(cells: Margins, salient: Sequence[Salient], n_entities: int) -> BoolArray:
    """Return of each cell whether its pair involves a salient entity of its document."""
    is_salient = np.zeros((len(salient), n_entities), dtype=bool)
    for row, chosen in zip(is_salient, salient, strict=True):
        row[list(as_chain(chosen))] = True
    flags: BoolArray = is_salient[cells.document, cells.head] | is_salient[cells.document, cells.tail]
    return flags


def count_entities(split: Split) -> int:
    """Return a number that exceeds the index of any entity of a split."""
    return 1 + max((len(document["vertexSet"]) for document in split.documents), default=0)


def gold_flags(
    cells: Margins, split: Split, rel2id: Mapping[str, int], train: Sequence[Document]
) -> tuple[BoolArray, BoolArray, int]:
    """Return which cells are gold, which of them facts of ``train`` (for Ign-F1), and the number of gold triples."""
    facts = train_facts(train)
    gold: dict[tuple[int, int, int, int], bool] = {}
    for d, document in enumerate(split.documents):
        for label in labels(document):
            head, relation, tail = triple = Triple(label["h"], label["r"], label["t"])
            gold[d, head, tail, rel2id[relation]] = in_train(document, triple, facts)
    columns = (getattr(cells, name).tolist() for name in CELL)
    known = [gold.get(cell) for cell in zip(*columns, strict=True)]
    is_gold = np.array([flag is not None for flag in known], dtype=bool)
    return is_gold, np.array([bool(flag) for flag in known], dtype=bool), len(gold)

"""Statistics as a table on the terminal, one column a file, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from segdre_plugin.analysis.statistics.coverage import CRITERIA
from segdre_plugin.analysis.statistics.measure import LabelStatistics, Statistics, sort_relations

SHOWN = 10  # relation classes, and entities of the chain, in the table; JSON and figures have all
GAP = 3  # spaces between columns
NOTHING = "-"

Row = tuple[str, list[str]]  # what it says, and a cell for each file


def log_frequency(count: int) -> float | None:
    """Return the decimal logarithm of a number of triples; None if there is none."""
    return math.log10(count) if count else None


def as_json(statistics: Statistics, names: Mapping[str, str]) -> dict[str, Any]:
    """Return a file's statistics as JSON writes them, shares as fractions; without ``names`` (id -> name), ids only.

    Returns:
        The attributes of :class:`Statistics`, with the logarithms of Figures 1b and 6; ``labels`` is None without gold.
    """
    found = asdict(statistics)
    labels = statistics.labels
    if labels is not None:
        found["labels"]["classes"] = [
            asdict(c)
            | {"log_dense": log_frequency(c.dense), "log_sparse": log_frequency(c.sparse)}
            | ({"name": names[c.relation]} if names else {})
            for c in labels.classes
        ]
        found["labels"]["chain"] = [
            {"covered": count, "log_ratio": ratio}
            for count, ratio in zip(labels.chain, labels.chain_log_ratios, strict=True)
        ]
    return found


def format_table(found: Mapping[str, Statistics], names: Mapping[str, str]) -> str:
    """Lay statistics out, one column a file; relations go by their ids where ``names`` (id -> name) is empty."""
    rows = [("", list(found)), *_rows(list(found.values()), names)]
    first = max(len(title) for title, cells in rows if cells)
    widths = [max(len(cells[k]) for _, cells in rows if cells) + GAP for k in range(len(found))]
    lines = [
        f"{title:<{first}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        if cells
        else f"\n{title}"
        for title, cells in rows
    ]
    return "\n".join(lines)


def _rows(columns: Sequence[Statistics], names: Mapping[str, str]) -> Iterator[Row]:
    """Return the rows; those without cells are headings."""
    labels = [s.labels for s in columns]
    labelled = [s for s in labels if s is not None]

    def cells(show: Callable[[LabelStatistics], str]) -> list[str]:
        return [NOTHING if s is None else show(s) for s in labels]

    yield "documents", [f"{s.documents:,}" for s in columns]
    if labelled:
        yield "without a triple", cells(lambda s: f"{s.without_triple:,}")
    yield "a document on average", []
    yield "entities", [f"{s.entities:.1f}" for s in columns]
    yield "ordered pairs", [f"{s.pairs:.1f}" for s in columns]
    if labelled:
        yield "triples", cells(lambda s: f"{s.triples:.1f}")
    yield "sentences", [f"{s.sentences:.1f}" for s in columns]
    if not labelled:
        return
    yield "relations", cells(lambda s: f"{s.relations:.1f}")
    yield "share of all triples (%)", []
    yield "with the salient entity", cells(lambda s: f"{100 * s.salient_share:.2f}")
    yield "share of triples within 1 and 2 hops of one entity (%), mean over documents", []
    for name in CRITERIA:
        near = [None if s is None else s.coverage[name] for s in labels]
        yield name, [NOTHING if c is None else f"{100 * c.hop_1:.2f}{100 * c.hop_2:8.2f}" for c in near]
    yield "triples covered by the greedy chain's first, second, ... entity, and ln of their ratio to the first", []
    longest = max(len(s.chain) for s in labelled)
    for order in range(min(SHOWN, longest)):
        reached = [s if s and order < len(s.chain) else None for s in labels]
        texts = [NOTHING if s is None else f"{s.chain[order]:,}{s.chain_log_ratios[order]:8.2f}" for s in reached]
        yield str(order + 1), texts
    relations = sort_relations(labelled)
    yield f"dense and sparse triples of the most frequent of {len(relations)} relations", []
    for relation in relations[:SHOWN]:
        yield names.get(relation, relation), [NOTHING if s is None else _counts(s, relation) for s in labels]


def _counts(s: LabelStatistics, relation: str) -> str:
    dense, sparse = next(((c.dense, c.sparse) for c in s.classes if c.relation == relation), (0, 0))
    return f"{dense:,}{sparse:8,}"

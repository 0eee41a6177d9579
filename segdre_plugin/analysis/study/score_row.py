"""Fuse the margins that a row takes, and score them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np

from segdre_plugin.analysis.comparison import count, mistakes
from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.rows import SOURCES, Row
from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import FusionResult, apply_thresholds
from segdre_plugin.metrics import evaluate, has_gold
from segdre_plugin.salient import gold_chain, saliency
from segdre_plugin.seg.run_folder import TAUS
from segdre_plugin.stages.candidates import Candidates, average, count_entities
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.scored import ScoredSplit, own_gold


@dataclass(frozen=True)
class Scores:
    """The scores of a row with one seed.

    Attributes:
        thresholds: those of base, dense and sparse, and their scores on dev.
        metrics: split -> metrics, in fractions; splits without gold are missing. ``gold_pairs_f1`` of rows on dense
            or sparse pairs: the same predictions against the triples on the pairs of the gold salient entity.
        counts: split -> title -> correct, predicted and gold triples.
    """

    thresholds: dict[str, float]
    metrics: dict[str, dict[str, float]]
    counts: dict[str, dict[str, list[int]]]


def score(row: Row, found: FinishedRun, partner: Callable[[str], Margins], splits: tuple[str, ...]) -> Scores:
    """Return a row's scores on dev, and perhaps test; ``partner`` gives a split's margins of the second base model.

    Raises:
        SegDREError: if there is no gold on the pairs that the row is about.
    """
    # which thresholds are tried: a grid around the anchors, or just one point
    grid: str | tuple[float, float] = found.search["grid"]
    anchors = (0.0, 0.0, 0.0)
    if row.thresholds != "search":
        grid = (0.0, 0.0)  # offsets: a grid of one point
    if row.thresholds == "run":
        anchors = tuple(getattr(found.thresholds, tau) for tau in TAUS)
    taus: FusionResult | None = None
    metrics, counts = {}, {}
    for name in splits:
        if name not in found.documents or not has_gold(found.documents[name]):
            continue
        # what the row predicts with, and the pairs it is about
        scored = _take(row, found.scored(name, row.reading), partner, name)
        cells = scored.cells()
        if row.pairs != "base":
            scored, cells = _restrict(scored, cells, row.pairs)
            if not has_gold(scored.split.documents):
                raise SegDREError(f"{name}: no gold triple on {row.pairs} pairs", "take more documents")
        if taus is None:  # dev comes first
            taus = scored.search(cells, grid, found.search["objective"], anchors)
        # predictions, and how good they are
        keep = apply_thresholds(cells.cells.margin, cells.stage, cells.is_dense, taus)
        predictions = scored.official(cells.cells.take(keep))
        documents = scored.split.documents
        metrics[name] = evaluate(predictions, documents, scored.train) | mistakes(predictions, documents)
        if row.pairs != "base":
            chains = [tuple(gold_chain(document, found.config.salient_k)) for document in found.documents[name]]
            gold = own_gold(found.documents[name], chains, row.pairs)
            if has_gold(gold):
                metrics[name]["gold_pairs_f1"] = evaluate(predictions, gold)["f1"]
        if "dense" in row.sources:
            metrics[name] |= saliency(scored.split.documents, scored.salient, found.config.salient_k)
        if row.reading:
            metrics[name]["n_injected"] = found.n_injected(name, row.reading)
        counts[name] = count(predictions, documents)
    assert taus is not None
    return Scores(asdict(taus), metrics, counts)


def _restrict(scored: ScoredSplit, cells: Candidates, pairs: str) -> tuple[ScoredSplit, Candidates]:
    """Leave only dense or only sparse pairs, in what is scored and in the gold."""
    own = np.flatnonzero(cells.is_dense == (pairs == "dense"))
    documents = own_gold(scored.split.documents, scored.salient, pairs)
    left = Candidates(cells.cells.take(own), cells.stage[own], cells.is_dense[own])
    return replace(scored, split=replace(scored.split, documents=documents)), left


def _take(row: Row, scored: ScoredSplit, partner: Callable[[str], Margins], name: str) -> ScoredSplit:
    """Leave only the margins that a row takes, those of a second base model among them."""
    tables = dict(scored.tables)
    if row.ensemble:
        tables = tables | ensemble(row.ensemble, tables["base"], partner(name), count_entities(scored.split))
    empty = tables["base"].take(np.empty(0, dtype=np.int64))
    taken = {stage: tables[stage] if stage in row.sources else empty for stage in SOURCES}
    fusion = (row.fusion or scored.fusion) if "base" in row.sources else "union"  # a stage alone has nothing to average
    return replace(scored, tables=taken, fusion=fusion)


def ensemble(how: str, first: Margins, second: Margins, n_entities: int) -> dict[str, Margins]:
    """Return the tables that two base models make; refuse one and the same."""
    if len(first) == len(second) and (first.margin == second.margin).all():
        raise SegDREError("both base models are the same", "leave --load_path out, or do without the naive ensemble")
    if how == "second":
        return {"base": second}
    nothing = first.take(np.empty(0, dtype=np.int64))
    if how == "average":
        return {"base": average(first, second, n_entities), "dense": nothing, "sparse": nothing}
    return {"base": first, "dense": second, "sparse": nothing}  # a cell's stage is dense or sparse by its pair alone

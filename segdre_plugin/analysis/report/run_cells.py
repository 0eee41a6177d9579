"""The candidate cells of a finished run, with the gold and the fused result beside their margins."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import GRIDS, Grid, count_grid
from segdre_plugin.salient import entity_counts
from segdre_plugin.seg.run_folder import TAUS, RunFolder
from segdre_plugin.stages.artifacts import AGAIN
from segdre_plugin.stages.candidates import Candidates, gold_flags
from segdre_plugin.stages.margins import CELL, Margins
from segdre_plugin.stages.scored import ScoredSplit
from segdre_plugin.vocabulary import BoolArray, FloatArray, entities


@dataclass(frozen=True)
class JudgedCandidates(Candidates):
    """The candidates of a split with the fused result and the gold, as parallel arrays.

    Attributes:
        fused: whether the fused result holds the cell.
        gold: whether the cell is a gold triple.
        known: whether it is a gold triple that training states too; filled for the objective ``ign_f1`` only.
        n_gold: number of all gold triples.
    """

    fused: BoolArray
    gold: BoolArray
    known: BoolArray
    n_gold: int


def load_candidates(run: RunFolder, name: str) -> JudgedCandidates:
    """Return the candidates of dev or test: the margins of a finished run beside the gold and the fused result.

    Raises:
        SegDREError: if a file is missing or broken, or does not belong to the split.
    """
    split = run.split(name)
    run.injected(name, split.documents)  # shown later, refused here
    n_classes = len(run.rel2id)
    tables = {stage: run.margins(stage, name, split.documents, n_classes) for stage in ("base", "dense", "sparse")}
    salient = run.salient(name, split.documents)
    joined = ScoredSplit(split, tables, salient, run.rel2id, [], run.thresholds.fusion).cells()
    train = run.train if run.search["objective"] == "ign_f1" else []
    gold, known, n_gold = gold_flags(joined.cells, split, run.rel2id, train)
    fused = _fused(run, name, joined.cells)
    return JudgedCandidates(**vars(joined), fused=fused, gold=gold, known=known, n_gold=n_gold)


def dev_grid(run: RunFolder, found: JudgedCandidates) -> tuple[Grid, tuple[int, int, int]]:
    """Count a finished run's threshold grid on dev again, with the code of the search.

    Returns:
        The grid, and the indices of the run's thresholds (base, dense, sparse) in it.

    Raises:
        SegDREError: if the thresholds are not on the grid, or yield another score than the run noted.
    """
    grid = _grid(run, found, found.stage)
    wanted = np.array([getattr(run.thresholds, tau) for tau in TAUS])
    b, d, s = np.abs(grid.taus - wanted[:, None]).argmin(axis=1).tolist()
    off = np.abs(grid.taus[range(3), (b, d, s)] - wanted).max()
    score = grid.scores(b)[d, s]
    if off > 1e-6 or abs(score - run.thresholds.score) > 1e-9:
        raise SegDREError(
            f"{run.metrics_file} and the margins are of different runs: expected a score of "
            f"{run.thresholds.score:.6f} at its thresholds, got {score:.6f}",
            AGAIN,
        )
    return grid, (b, d, s)


def best_without(run: RunFolder, found: JudgedCandidates, stage: str) -> float:
    """Return dev's best objective, a fraction, if a stage's model says nothing and the others are searched again."""
    silent = found.is_dense == (stage == "dense")
    grid = _grid(run, found, np.where(silent, -np.inf, found.stage))
    return max(float(grid.scores(i).max()) for i in range(len(grid.offsets)))


def _grid(run: RunFolder, found: JudgedCandidates, stage: FloatArray) -> Grid:
    low, high = GRIDS[run.search["grid"]]
    return count_grid(
        found.cells.margin,
        stage,
        found.gold,
        found.is_dense,
        found.n_gold,
        low=low,
        high=high,
        objective=run.search["objective"],
        in_train=found.known,
    )


def expected_counts(run: RunFolder, name: str) -> list[FloatArray] | None:
    """Return the relation count that stage identify expects of each entity of a split.

    Returns:
        For each document the sum of the expected counts of an entity's pairs, [entities]. None if the run's strategy
        has no count head.

    Raises:
        SegDREError: if the file is missing or broken.
    """
    if run.config.strategy.head is None:
        return None
    documents = run.documents[name]
    arrays = run.counts(name, documents)
    order = np.argsort(arrays["document"], kind="stable")
    ends = np.searchsorted(arrays["document"][order], np.arange(len(documents) + 1))
    parts = [order[first:last] for first, last in pairwise(ends.tolist())]
    try:
        return [
            entity_counts(arrays["count"][part], arrays["pair"][part], max(1, len(entities(document))))
            for part, document in zip(parts, documents, strict=True)
        ]
    except SegDREError as error:
        raise error.at(f"{run.stage('identify')}, counts of {name}") from None


def _fused(run: RunFolder, name: str, cells: Margins) -> BoolArray:
    """Return which cells the written result holds."""
    path = run.result_file(name)
    index = {document["title"]: d for d, document in enumerate(run.documents[name])}
    try:
        triples = {(index[p["title"]], p["h_idx"], p["t_idx"], run.rel2id[p["r"]]) for p in run.result(name)}
    except KeyError as error:
        raise SegDREError(f"{path}: holds predictions that {name} does not have: {error}", AGAIN) from None
    columns = (getattr(cells, column).tolist() for column in CELL)
    keep = np.array([cell in triples for cell in zip(*columns, strict=True)], dtype=bool)
    if keep.sum() != len(triples):
        raise SegDREError(f"{path}: holds predictions that the stages' margins do not", AGAIN)
    return keep

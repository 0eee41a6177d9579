"""Extended inference stage fusion: three thresholds by exact grid search (paper section 3.6).

A cell is a candidate (pair, relation) with a margin from the base model and one from its stage: the dense model for
pairs that involve the salient entity, the sparse model for the others. Its relation is predicted when

    base > tau_base  or  stage > tau_dense    (dense cells)
    base > tau_base  or  stage > tau_sparse   (sparse cells)

``stage`` is the stage's own margin (``union``), or its mean with the base's (``average``,
:func:`segdre_plugin.stages.candidates.fusible`); the search is the same.

All cells with the same number of grid thresholds below their base margin and below their stage margin behave alike, so
two 2-D cumulative histograms hold everything that the 3-D grid needs: one pass over the cells, then one over the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from segdre_plugin.errors import SegDREError
from segdre_plugin.metrics import ign_f1
from segdre_plugin.vocabulary import BoolArray, FloatArray, IntArray

# Offsets (low, high) from the anchors in section 3.6; the step is 0.1.
GRIDS = {"docred": (-1.0, 4.0), "redocred": (-2.0, 5.0)}
FUSIONS = ("union", "average")

_MAX_POINTS = 1001  # a threshold; more would be 10^9 grid points and minutes of search
_DECIMALS = 10  # so that the grid's 0.3 is the number 0.3 and not 0.30000000000000004


@dataclass(frozen=True)
class FusionResult:
    """Chosen thresholds and their scores on the cells they were chosen on.

    Attributes:
        tau_base: threshold of the base margins.
        tau_dense: threshold of the dense model's margins.
        tau_sparse: threshold of the sparse model's margins.
        f1: 2 correct / (predicted + gold), a fraction.
        precision: correct / predicted, 0 where nothing is predicted.
        recall: correct / gold.
        score: value of the objective that was maximised.
        fusion: meaning of ``stage``: ``union`` or ``average``.
    """

    tau_base: float
    tau_dense: float
    tau_sparse: float
    f1: float
    precision: float
    recall: float
    score: float
    fusion: str = "union"

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> FusionResult:
        """Read a result from a mapping that may hold other keys too."""
        return cls(**{f.name: found[f.name] for f in fields(cls)})


@dataclass(frozen=True)
class Grid:
    """Counts of predictions at every point (tau_base, tau_dense, tau_sparse) of a grid.

    Attributes:
        offsets: distances from the anchors, [n], the same for the three thresholds.
        taus: thresholds of base, dense and sparse, [3, n].
        dense: predicted, correct and known dense cells at every (tau_base, tau_dense), [3, n, n].
        sparse: the same for sparse cells at every (tau_base, tau_sparse), [3, n, n].
        n_gold: number of gold triples.
        objective: ``"f1"`` or ``"ign_f1"``.
    """

    offsets: FloatArray
    taus: FloatArray
    dense: IntArray
    sparse: IntArray
    n_gold: int
    objective: str

    def scores(self, i: int) -> FloatArray:
        """Return the objective, a fraction, at every (tau_dense, tau_sparse) with tau_base = ``taus[0, i]``, [n, n]."""
        # P[i, j, k] = P_dense[i, j] + P_sparse[i, k]
        predicted, correct, known = self.dense[:, i, :, None] + self.sparse[:, i, None, :]
        if self.objective == "ign_f1":
            return ign_f1(predicted, correct, known, self.n_gold)
        return 2 * correct / (predicted + self.n_gold)


def count_grid(
    base: ArrayLike,
    stage: ArrayLike,
    gold: ArrayLike,
    is_dense: ArrayLike,
    n_gold: int,
    *,
    low: float = -1.0,
    high: float = 4.0,
    step: float = 0.1,
    anchor: float | Sequence[float] = 0.0,
    objective: str = "f1",
    in_train: ArrayLike | None = None,
) -> Grid:
    """Count predicted, correct and known cells at every grid point; arguments and errors of ``search_thresholds``."""
    base, stage, dense = _cells(base, stage, is_dense)
    correct = _flags("gold", gold, len(base))
    n_gold = int(n_gold)  # a NumPy integer would make the results NumPy scalars
    if n_gold < 1:
        raise SegDREError(f"there is no gold to tune thresholds on: n_gold={n_gold}", "tune on a labelled split")
    n_correct = int(np.count_nonzero(correct))
    if n_correct > n_gold:
        raise SegDREError(f"{n_correct} cells are gold but n_gold={n_gold}", "count all gold triples of the split")
    if objective not in ("f1", "ign_f1"):
        raise SegDREError(f"unknown objective {objective!r}", "use 'f1' or 'ign_f1'")
    if objective == "ign_f1" and in_train is None:
        raise SegDREError("objective 'ign_f1' needs in_train", "pass in_train: which cells' facts occur in training")
    # without in_train no fact is known; the plain objective does not use it
    known = correct & _flags("in_train", np.zeros(len(base), dtype=bool) if in_train is None else in_train, len(base))
    offsets = _offsets(low, high, step)
    taus = np.round(_anchors(anchor)[:, None] + offsets, _DECIMALS) + 0.0  # [3, n]: base, dense, sparse; no -0.0
    if (np.diff(taus) <= 0).any():
        raise SegDREError(f"neighbouring thresholds coincide: step={step}, anchor={anchor!r}", "use a larger step")
    # only cells above some threshold matter; the others, most of them, are predicted nowhere on the grid
    reached = (base > taus[0, 0]) | (stage > taus[1:, 0].min())
    tables = []
    for side, tau_stage in ((dense, taus[1]), (~dense, taus[2])):
        cells = np.flatnonzero(reached & side)
        kind = 2 - correct[cells].astype(np.int64) - known[cells]  # 0: correct and known, 1: correct, 2: wrong
        counts = _count_reached(base[cells], stage[cells], kind, taus[0], tau_stage)  # known, correct, predicted
        tables.append(counts[::-1])
    return Grid(offsets, taus, tables[0], tables[1], n_gold, objective)


def search_thresholds(
    base: ArrayLike,
    stage: ArrayLike,
    gold: ArrayLike,
    is_dense: ArrayLike,
    n_gold: int,
    *,
    low: float = -1.0,
    high: float = 4.0,
    step: float = 0.1,
    anchor: float | Sequence[float] = 0.0,
    objective: str = "f1",
    in_train: ArrayLike | None = None,
) -> FusionResult:
    """Return the best of all (tau_base, tau_dense, tau_sparse) on a grid, exactly, and its scores (paper section 3.6).

    Each threshold runs over its anchor + low, anchor + low + step, ..., anchor + high, independently of the others.
    Ties go to the point nearest to the anchors, then to the smallest (tau_base, tau_dense, tau_sparse).

    Args:
        base: margins (in logits) of the base model, [N]; -inf where it has none.
        stage: margins of the dense model in dense cells and of the sparse model in sparse cells, [N]; -inf for none.
        gold: whether the cell is a gold triple, [N] bool.
        is_dense: whether the cell's pair involves the salient entity, [N] bool.
        n_gold: number of gold triples, those without a cell included.
        low: smallest offset from the anchor.
        high: largest offset from the anchor.
        step: distance of neighbouring offsets.
        anchor: a number, or one for each of base, dense and sparse.
        objective: ``"f1"``, or ``"ign_f1"``, which leaves correct predictions of known facts out of the precision.
        in_train: whether the cell's fact occurs in training, [N] bool; needed by ``"ign_f1"``.

    Raises:
        SegDREError: if there is no gold, lengths differ, a margin is NaN or +inf, or an argument is out of range.
    """
    cells = (base, stage, gold, is_dense, n_gold)
    grid = count_grid(*cells, low=low, high=high, step=step, anchor=anchor, objective=objective, in_train=in_train)
    offsets, n_gold = grid.offsets, grid.n_gold
    best = (-np.inf, np.inf, 0, 0, 0)
    for i in range(len(offsets)):
        scores = grid.scores(i)
        top = float(scores.max())
        if top < best[0]:
            continue
        j, k = np.nonzero(scores == top)  # in the order of (tau_dense, tau_sparse)
        # rounded, because the sum of three squares depends on their order in the last bit
        distance = np.round(offsets[i] ** 2 + offsets[j] ** 2 + offsets[k] ** 2, 8)
        nearest = int(distance.argmin())
        if top > best[0] or distance[nearest] < best[1]:
            best = (top, float(distance[nearest]), i, int(j[nearest]), int(k[nearest]))

    score, _, b, d, s = best
    predicted, hits, _ = (grid.dense[:, b, d] + grid.sparse[:, b, s]).tolist()
    return FusionResult(
        tau_base=float(grid.taus[0, b]),
        tau_dense=float(grid.taus[1, d]),
        tau_sparse=float(grid.taus[2, s]),
        f1=2 * hits / (predicted + n_gold),
        precision=hits / predicted if predicted else 0.0,
        recall=hits / n_gold,
        score=score,
    )


def apply_thresholds(base: ArrayLike, stage: ArrayLike, is_dense: ArrayLike, result: FusionResult) -> BoolArray:
    """Return whether each cell's relation is predicted with chosen thresholds, [N] (paper section 3.6).

    Cells are those of ``search_thresholds``. Raises SegDREError if lengths differ or a margin is NaN or +inf.
    """
    return fused_scores(base, stage, is_dense, result) > 0


def fused_scores(base: ArrayLike, stage: ArrayLike, is_dense: ArrayLike, result: FusionResult) -> FloatArray:
    """Return the most by which a cell's base or stage margin exceeds its threshold, in logits, [N].

    It ranks cells of different models: 0 is where each model's prediction begins. Arguments and errors are those of
    :func:`apply_thresholds`.
    """
    base, stage, dense = _cells(base, stage, is_dense)
    return np.maximum(base - result.tau_base, stage - np.where(dense, result.tau_dense, result.tau_sparse))


def _count_reached(
    first: FloatArray, second: FloatArray, kind: IntArray, tau_first: FloatArray, tau_second: FloatArray
) -> IntArray:
    """Count the cells that exceed one of two thresholds, for all pairs of thresholds.

    Args:
        first: margins of one model, [cells], finite or -inf.
        second: margins of another model, [cells].
        kind: 0, 1 or 2 for each cell, [cells].
        tau_first: rising thresholds of the first model, [n].
        tau_second: rising thresholds of the second model, [n].

    Returns:
        For k = 0, 1, 2 the cells of kind <= k with first > tau_first[i] or second > tau_second[j], [3, n, n].
    """
    n = len(tau_first)
    shape = (3, n + 1, n + 1)
    row = np.searchsorted(tau_first, first, side="left")  # thresholds strictly below the margin, 0 to n
    column = np.searchsorted(tau_second, second, side="left")
    bins = np.ravel_multi_index((kind, row, column), shape)
    histogram = np.bincount(bins, minlength=math.prod(shape)).reshape(shape)
    # not reached at (i, j): row <= i and column <= j, so that neither threshold is exceeded
    missed = histogram.cumsum(axis=0).cumsum(axis=1).cumsum(axis=2)
    return missed[:, -1:, -1:] - missed[:, :n, :n]


def _cells(base: ArrayLike, stage: ArrayLike, is_dense: ArrayLike) -> tuple[FloatArray, FloatArray, BoolArray]:
    margins = []
    for name, values in (("base", base), ("stage", stage)):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim != 1:
            raise SegDREError(f"{name} must be [N], got {list(array.shape)}", "flatten the cells")
        if len(array) and not array.max() < np.inf:  # the maximum of anything and NaN is NaN
            where = int(np.flatnonzero(np.isnan(array) | np.isposinf(array))[0])
            raise SegDREError(f"{name}[{where}] is {array[where]}", "pass finite margins, and -inf where there is none")
        margins.append(array)
    if len(margins[0]) != len(margins[1]):
        raise SegDREError(f"lengths differ: base has {len(margins[0])} cells, stage {len(margins[1])}")
    return margins[0], margins[1], _flags("is_dense", is_dense, len(margins[0]))


def _flags(name: str, values: ArrayLike, length: int) -> BoolArray:
    array = np.asarray(values)
    if array.shape != (length,):
        raise SegDREError(f"lengths differ: {name} is {list(array.shape)}, the margins [{length}]")
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        raise SegDREError(f"{name} must be bool, got {array.dtype} with other values than 0 and 1")
    return array.astype(bool, copy=False)


def _anchors(anchor: float | Sequence[float]) -> FloatArray:
    array = np.asarray(anchor, dtype=np.float64)
    if array.shape not in ((), (3,)) or not np.isfinite(array).all():
        raise SegDREError(f"anchor must be a finite number, or three: base, dense, sparse; got {anchor!r}")
    return np.broadcast_to(array, (3,))


def _offsets(low: float, high: float, step: float) -> FloatArray:
    if not (np.isfinite([low, high, step]).all() and low <= high and step > 0):
        raise SegDREError(f"the grid needs low <= high and step > 0, got low={low}, high={high}, step={step}")
    n = int(np.floor((high - low) / step + 1e-6)) + 1  # the end belongs to it even if 0.1 * 50 falls short of it
    if n > _MAX_POINTS:
        raise SegDREError(
            f"the grid has {n} points a threshold, at most {_MAX_POINTS} are searched", "use a larger step"
        )
    return np.round(low + step * np.arange(n), _DECIMALS)

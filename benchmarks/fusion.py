"""The threshold search (section 3.6) against a search point by point and against one sort of the base scores.

python benchmarks/fusion.py                       # synthetic margins, 1.6 million cells, 71^3 points
python benchmarks/fusion.py --run SEG_DIR         # and the margins of a finished run on dev
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from timing import CLOCKS, Row, compare, growth, interleaved, report

from segdre_plugin.analysis.report.run_cells import load_candidates
from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import GRIDS, FusionResult, count_grid, search_thresholds
from segdre_plugin.seg.run_folder import RunFolder

Clock = Callable[[], float]
SEARCH, POINTS, SORT = "search_thresholds", "point by point", "np.sort of base"


@dataclass(frozen=True)
class FusionCase:
    """Cells and the gold beside them: the arguments of ``search_thresholds``."""

    name: str
    base: np.ndarray
    stage: np.ndarray
    gold: np.ndarray
    is_dense: np.ndarray
    n_gold: int

    def search(self, low: float, high: float) -> FusionResult:
        """Search as the plugin does."""
        return search_thresholds(self.base, self.stage, self.gold, self.is_dense, self.n_gold, low=low, high=high)

    def take(self, keep: np.ndarray, name: str) -> FusionCase:
        """Return some of the cells."""
        columns = {column: getattr(self, column)[keep] for column in ("base", "stage", "gold", "is_dense")}
        return replace(self, name=name, **columns, n_gold=int(columns["gold"].sum() * 1.1) + 1)


class PointByPoint:
    """Evaluates one point of the grid after the other over all cells, with vectorised comparisons."""

    def __init__(self, case: FusionCase) -> None:
        sides = (case.is_dense, ~case.is_dense)
        self.sides = [(case.base[side], case.stage[side], case.gold[side]) for side in sides]
        self.n_gold = case.n_gold

    def f1(self, tau_base: float, *tau_stages: float) -> float:
        """Return F1 at one point."""
        predicted = correct = 0
        for (base, stage, gold), tau in zip(self.sides, tau_stages, strict=True):
            chosen = (base > tau_base) | (stage > tau)
            predicted += np.count_nonzero(chosen)
            correct += np.count_nonzero(chosen & gold)
        return 2 * correct / (predicted + self.n_gold)

    def search(self, offsets: Sequence[float]) -> tuple[float, tuple[float, ...]]:
        """Return the best F1 of all points and the point: the nearest to the anchors (0), then the smallest."""
        points = itertools.product(offsets, repeat=3)
        best = min((-self.f1(*point), round(sum(t * t for t in point), 8), point) for point in points)
        return -best[0], best[2]


def trained(n: int, seed: int) -> FusionCase:
    """Make margins as trained models give them: 2 % of the cells gold, most of the others far below the threshold."""
    rng = np.random.default_rng(seed)
    gold = rng.random(n) < 0.02
    base, stage = (np.where(gold, rng.normal(1, 3, n), rng.normal(-7, 3.5, n)) for _ in range(2))
    return FusionCase("trained", base, stage, gold, rng.random(n) < 0.12, int(gold.sum() * 1.1) + 1)


def within_reach(n: int, seed: int) -> FusionCase:
    """Make margins that all lie on the grid's range: the most work that the search can have."""
    rng = np.random.default_rng(seed)
    gold = rng.random(n) < 0.02
    base, stage = rng.uniform(-2, 5, (2, n))
    return FusionCase("all within the grid", base, stage, gold, rng.random(n) < 0.12, int(gold.sum() * 1.1) + 1)


def of_run(folder: Path) -> FusionCase:
    """Take the margins of a finished run on dev."""
    found = load_candidates(RunFolder(folder), "dev")
    return FusionCase("run", found.cells.margin, found.stage, found.gold, found.is_dense, found.n_gold)


def repeated(case: FusionCase, n: int) -> FusionCase:
    """Repeat a case's cells up to ``n``."""
    return case.take(np.resize(np.arange(len(case.base)), n), f"{case.name}, repeated")


def check(case: FusionCase, low: float, high: float, points: Sequence[tuple[int, int, int]]) -> None:
    """Check that both sides agree.

    Args:
        case: the cells.
        low: of the grid.
        high: of the grid.
        points: indices into the grid at which F1 is compared on all cells.

    Raises:
        SegDREError: if they do not: the same F1 at these points, the same optimum on a small grid and few cells.
    """
    grid = count_grid(case.base, case.stage, case.gold, case.is_dense, case.n_gold, low=low, high=high)
    slow = PointByPoint(case)
    for i, j, k in points:
        expected = slow.f1(grid.taus[0, i], grid.taus[1, j], grid.taus[2, k])
        if grid.scores(i)[j, k] != expected:
            raise SegDREError(f"{case.name}: F1 at {(i, j, k)} is {grid.scores(i)[j, k]}, point by point {expected}")
    few = case.take(np.arange(min(len(case.base), 20_000)), case.name)
    found = few.search(-0.4, 0.4)
    ours = (found.score, (found.tau_base, found.tau_dense, found.tau_sparse))
    theirs = PointByPoint(few).search(np.round(np.arange(-0.4, 0.45, 0.1), 10).tolist())
    if ours != theirs:
        raise SegDREError(f"{case.name}: the optimum is {ours}, point by point {theirs}")


def measure(case: FusionCase, grid: str, n_points: int, repeats: int, clock: Clock) -> list[Row]:
    """Compare the three sides on one case; the search point by point is extrapolated from some points."""
    low, high = GRIDS[grid]
    offsets = np.round(np.arange(low, high + 0.05, 0.1), 10)
    rng = np.random.default_rng(0)
    points = [tuple(point) for point in rng.integers(0, len(offsets), (n_points, 3)).tolist()]
    check(case, low, high, points)
    slow = PointByPoint(case)
    sides = {
        SEARCH: lambda: case.search(low, high),
        POINTS: lambda: [slow.f1(*offsets[list(point)]) for point in points],
        SORT: lambda: np.sort(case.base),
    }
    seconds = interleaved(sides, repeats=repeats, clock=clock)
    scale = len(offsets) ** 3 / n_points
    seconds[POINTS] = [scale * s for s in seconds[POINTS]]
    rows = compare(f"{case.name}, {len(case.base)} cells, {len(offsets)}^3 points", seconds, against=POINTS)
    sort = next(row["median_s"] for row in rows if row["side"] == SORT)
    return [row | {"sorts": row["median_s"] / sort} for row in rows]


def grow(n: int, seed: int, repeats: int, clock: Clock) -> list[Row]:
    """Time the search for more and more cells, and for finer and finer grids."""
    rows: list[Row] = []
    sizes = [n // 16, n // 8, n // 4, n // 2, n]
    cases = [trained(size, seed) for size in sizes]
    low, high = GRIDS["redocred"]
    more = {str(case.base.size): lambda case=case: case.search(low, high) for case in cases}
    seconds = interleaved(more, repeats=repeats, clock=clock)
    rows += compare("cells (71^3 points)", seconds, against=str(n))
    exponents = {"cells (71^3 points)": growth(sizes, [float(np.median(s)) for s in seconds.values()])}
    last = cases[-1]
    arrays = (last.base, last.stage, last.gold, last.is_dense, last.n_gold)
    counts = [18, 36, 71, 141]
    finer = {
        f"{count}^3": lambda step=7.0 / (count - 1): search_thresholds(*arrays, low=low, high=high, step=step)
        for count in counts
    }
    seconds = interleaved(finer, repeats=repeats, clock=clock)
    rows += compare(f"points ({n} cells)", seconds, against="71^3")
    exponents[f"points ({n} cells)"] = growth(counts, [float(np.median(s)) for s in seconds.values()])
    return [row | {"exponent": exponents[row["case"]]} for row in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=1_600_000, help="synthetic cells (%(default)s)")
    parser.add_argument("--grid", choices=sorted(GRIDS), default="redocred", help="51^3 or 71^3 points (%(default)s)")
    parser.add_argument("--run", type=Path, metavar="SEG_DIR", help="a finished run, for real margins")
    parser.add_argument("--points", type=int, default=40, help="points that are evaluated one by one (%(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="timed rounds (%(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: without other processes (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the synthetic margins (%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("fusion.json"), help="where numbers go (%(default)s)")
    options = parser.parse_args(arguments)
    cases = [trained(options.cells, options.seed), within_reach(options.cells, options.seed)]
    if options.run:
        real = of_run(options.run)
        cases += [real, repeated(real, options.cells)]
    clock = CLOCKS[options.clock]
    rows = [row for case in cases for row in measure(case, options.grid, options.points, options.repeats, clock)]
    about = {"repeats": options.repeats, "clock": options.clock}
    note = f"{POINTS}: measured on {options.points} points, extrapolated to all"
    report("Threshold search", rows, options.json, **about, note=note)
    target = options.json.with_stem(f"{options.json.stem}-growth")
    report("Threshold search: growth", grow(options.cells, options.seed, options.repeats, clock), target, **about)


if __name__ == "__main__":
    main()

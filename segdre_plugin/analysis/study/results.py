"""The results of a study, over seeds: values of a table's cells, comparisons, shifts of thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segdre_plugin.analysis.comparison import compare
from segdre_plugin.analysis.study.rows import Column, Line, Study
from segdre_plugin.analysis.study.score_row import Scores
from segdre_plugin.seg.run_folder import TAUS

ANCHOR = 0.0  # of the run's own thresholds


@dataclass(frozen=True)
class Results:
    """The results of a study: row -> seed -> its scores, or why it failed; seeds that failed have no scores."""

    study: Study
    seeds: tuple[int, ...]
    scores: Mapping[str, Mapping[int, Scores]]
    errors: Mapping[str, Mapping[int, str]]

    def values(self, line: Line, column: Column) -> list[float]:
        """Return a cell's values, in percent, one a seed that did not fail and has gold."""
        found = self.scores.get(line.rows[column.row].name, {})
        before = self.scores.get(column.over, {})
        values = []
        for seed, scores in found.items():
            value = scores.metrics.get(column.split, {}).get(column.metric)
            if column.over:
                start = before[seed].metrics.get(column.split, {}).get(column.metric) if seed in before else None
                value = None if value is None or start is None else value - start
            if value is not None:
                values.append(100 * value)
        return values

    def shifts(self) -> dict[str, list[float]]:
        """Return how far the search moved each threshold from its anchor: stage -> one number a seed (Figure 5)."""
        found = self.scores.get(self.study.shifts, {}).values()
        return {tau.removeprefix("tau_"): [scores.thresholds[tau] - ANCHOR for scores in found] for tau in TAUS}

    def comparisons(self) -> list[dict[str, Any]]:
        """Compare pairs of rows on each split, documents resampled with their counts of all seeds.

        The same document under several seeds is not an independent sample, so the unit is the document; how much
        the difference owes to seeds shows in its values seed by seed.

        Returns:
            For each comparison its rows, the split, the differences by seed, and the fields of
            :class:`segdre_plugin.analysis.comparison.Comparison`.
        """
        found = []
        for split in self.study.splits:
            for first, second in self.study.comparisons:
                pairs = self._pairs(first, second, split)
                pooled = [_pool([pair[k] for pair in pairs.values()]) for k in (0, 1) if pairs]
                if pooled and len(pooled[0]) > 1:  # one document cannot be resampled
                    by_seed = {seed: _f1(a) - _f1(b) for seed, (a, b) in pairs.items()}
                    what = {"first": first, "second": second, "split": split, "by_seed": by_seed}
                    found.append(what | vars(compare(*pooled)))
        return found

    def _pairs(self, first: str, second: str, split: str) -> dict[int, tuple[Any, Any]]:
        """Return the counts of both rows for the seeds that have both."""
        both = (self.scores.get(first, {}), self.scores.get(second, {}))
        return {
            seed: (both[0][seed].counts[split], both[1][seed].counts[split])
            for seed in both[0]
            if seed in both[1] and split in both[0][seed].counts
        }


def _pool(counts: list[Mapping[str, list[int]]]) -> dict[str, list[int]]:
    """Sum the counts of each document over seeds."""
    return {title: [sum(part[title][k] for part in counts) for k in range(3)] for title in counts[0]}


def _f1(counts: Mapping[str, list[int]]) -> float:
    """Micro F1."""
    correct, predicted, gold = (sum(numbers[k] for numbers in counts.values()) for k in range(3))
    return 2 * correct / (predicted + gold) if predicted + gold else 0.0

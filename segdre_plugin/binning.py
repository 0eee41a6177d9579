"""Cells counted in bins of two thresholds: what the threshold search knows of the cells (section 3.6)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_BLOCK = 32_768  # cells that are binned at once: what is made of them on the way stays in the processor's cache


def thresholds_below(taus: Floats, margins: Floats, step: float) -> Ints:
    """Count the thresholds that lie strictly below each margin.

    Args:
        taus: rising thresholds, [n], evenly spaced but for rounding.
        margins: finite or -inf, [cells].
        step: their distance.

    Returns:
        int [cells], from 0 to n.
    """
    edges = np.concatenate([[np.nan], taus, [np.inf]])  # i thresholds below: edges[i] < margin <= edges[i + 1]
    found = np.clip(np.ceil((margins - taus[0]) / step), 0, len(taus)).astype(np.int64)  # a guess, one off at most
    found += edges[found + 1] < margins
    found -= edges[found] >= margins
    return found


def count_reached(
    first: Floats, second: Floats, kind: Ints, tau_first: Floats, tau_second: Floats, step: float
) -> Ints:
    """Count the cells that exceed one of two thresholds, for all pairs of thresholds.

    Args:
        first: margins of one model, [cells], finite or -inf.
        second: margins of another one, [cells].
        kind: 0, 1 or 2 for each cell, [cells].
        tau_first: rising thresholds of the first, [n].
        tau_second: rising thresholds of the second, [n].
        step: their distance.

    Returns:
        For k = 0, 1, 2 the cells of kind <= k with first > tau_first[i] or second > tau_second[j], [3, n, n].
    """
    n = len(tau_first)
    histogram = np.zeros(3 * (n + 1) ** 2, dtype=np.int64)
    for start in range(0, len(first), _BLOCK):
        block = slice(start, start + _BLOCK)
        row = thresholds_below(tau_first, first[block], step)
        column = thresholds_below(tau_second, second[block], step)
        histogram += np.bincount((kind[block] * (n + 1) + row) * (n + 1) + column, minlength=len(histogram))
    cells = histogram.reshape(3, n + 1, n + 1).cumsum(axis=0)  # by kind, those of lower kinds with them
    missed = cells.cumsum(axis=1).cumsum(axis=2)  # row <= i and column <= j: neither is exceeded
    return missed[:, -1:, -1:] - missed[:, :n, :n]

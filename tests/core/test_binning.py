"""Bins by division against a binary search, and counts against the cells one by one, on and beside thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdre_plugin import binning
from segdre_plugin.binning import count_reached, thresholds_below
from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import search_thresholds


def grid(anchor, low, step, n):
    return np.round(anchor + np.round(low + step * np.arange(n), 10), 10)


grids = st.tuples(
    st.sampled_from([0.0, 0.05, -12.82, 1 / 3, 1e6]),
    st.floats(-5, 5),
    st.sampled_from([0.1, 0.25, 1 / 3, 1e-3, 1e-7, 7.0]),
    st.integers(1, 80),
)


@settings(max_examples=150, deadline=None)
@given(grids, st.lists(st.integers(-2, 81), min_size=1, max_size=30), st.integers(0, 2**31))
def test_equals_a_binary_search(shape, places, seed):
    _, _, step, n = shape
    taus = grid(*shape)
    exact = taus[np.clip(places, 0, n - 1)] + step * (np.array(places) - np.clip(places, 0, n - 1))
    noise = np.random.default_rng(seed).normal(0, step, len(exact))
    near = [exact, np.nextafter(exact, np.inf), np.nextafter(exact, -np.inf), exact + noise, [-np.inf, -1e300, 1e300]]
    margins = np.concatenate(near)
    np.testing.assert_array_equal(thresholds_below(taus, margins, step), np.searchsorted(taus, margins, side="left"))


def test_counts_one_by_one(monkeypatch):
    rng = np.random.default_rng(0)
    taus = grid(0.0, -0.5, 0.1, 11), grid(0.3, -0.5, 0.1, 11)
    first, second = np.round(rng.normal(0, 0.5, (2, 300)), 1)
    kind = rng.integers(0, 3, 300)
    due = [
        [[int((((first > a) | (second > b)) & (kind <= k)).sum()) for b in taus[1]] for a in taus[0]] for k in range(3)
    ]
    for block in (1000, 300, 7):
        monkeypatch.setattr(binning, "_BLOCK", block)
        np.testing.assert_array_equal(count_reached(first, second, kind, *taus, 0.1), due)
    assert (count_reached(first, second, np.full(300, 2), *taus, 0.1)[:2] == 0).all()
    assert (count_reached(first[:0], second[:0], kind[:0], *taus, 0.1) == np.zeros((3, 11, 11))).all()


@pytest.mark.parametrize("change", [{"step": 1e-11, "high": -1 + 1e-10}, {"anchor": 1e16}])
def test_thresholds_that_coincide_are_refused(change):
    with pytest.raises(SegDREError, match="neighbouring thresholds coincide"):
        search_thresholds([0.0], [0.0], [True], [True], 1, **change)

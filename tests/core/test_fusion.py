"""The threshold search against brute force over the grid."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import GRIDS, FusionResult, apply_thresholds, count_grid, search_thresholds

SMALL = {"low": -0.2, "high": 0.3, "step": 0.1}


def score(predicted, gold, n_gold, in_train):
    """F1, or Ign-F1 if in_train is given, from the cells one by one."""
    p = c = t = 0
    for i in range(len(predicted)):
        p += bool(predicted[i])
        c += bool(predicted[i] and gold[i])
        t += bool(predicted[i] and gold[i] and in_train is not None and in_train[i])
    if in_train is None:
        return 2 * c / (p + n_gold)
    precision, recall = (c - t) / (p - t + 1e-5), c / n_gold
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def brute_force(base, stage, gold, dense, n_gold, low, high, step, anchor=0.0, in_train=None):
    """Every grid point in turn; returns (score, taus) of the best, nearest, smallest."""
    anchors = [anchor] * 3 if np.isscalar(anchor) else anchor
    offsets = [round(low + step * k, 10) for k in range(round((high - low) / step) + 1)]
    best = None
    for point in itertools.product(offsets, repeat=3):
        tau = [round(a + o, 10) for a, o in zip(anchors, point, strict=True)]
        predicted = [b > tau[0] or s > tau[1 if d else 2] for b, s, d in zip(base, stage, dense, strict=True)]
        key = (-score(predicted, gold, n_gold, in_train), round(sum(o * o for o in point), 8), tau)
        best = key if best is None else min(best, key)
    return -best[0], best[2]


# few distinct values, most of them on thresholds or just beside, so that ties and edges are common
margin = st.sampled_from([-np.inf, -3.0, -0.2, -0.1, 0.0, 0.1, 0.30000000000000004, 0.2, 0.3, 0.25, 2.0])


@st.composite
def cells(draw):
    rows = draw(st.lists(st.tuples(margin, margin, st.booleans(), st.booleans(), st.booleans()), max_size=7))
    base, stage, gold, dense, in_train = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 5
    return base, stage, gold, dense, in_train, max(1, sum(gold) + draw(st.integers(0, 2)))


@given(cells(), st.sampled_from([0.0, (0.1, -0.1, 0.0)]), st.booleans())
def test_equals_brute_force(case, anchor, ignore):
    base, stage, gold, dense, in_train, n_gold = case
    known = in_train if ignore else None
    result = search_thresholds(
        base, stage, gold, dense, n_gold, **SMALL, anchor=anchor, objective="ign_f1" if ignore else "f1", in_train=known
    )
    due, taus = brute_force(base, stage, gold, dense, n_gold, **SMALL, anchor=anchor, in_train=known)
    assert result.score == due
    assert [result.tau_base, result.tau_dense, result.tau_sparse] == taus
    predicted = apply_thresholds(base, stage, dense, result)
    assert predicted.dtype == bool
    assert result.f1 == score(predicted, gold, n_gold, None)
    correct = int((predicted & np.array(gold, dtype=bool)).sum())
    assert result.recall == correct / n_gold
    assert result.precision == (correct / predicted.sum() if predicted.any() else 0)


def random_cells(n, seed=0):
    rng = np.random.default_rng(seed)
    gold = rng.random(n) < 0.3
    base = rng.normal(0, 1.5, n) + 2 * gold
    stage = rng.normal(0, 1.5, n) + 2 * gold
    base[rng.random(n) < 0.1] = -np.inf
    return base, stage, gold, rng.random(n) < 0.5, int(gold.sum()) + 5


class TestPaperGrid:
    @pytest.mark.parametrize(("name", "points"), [("docred", 51), ("redocred", 71)])
    def test_points(self, name, points):
        low, high = GRIDS[name]
        # one gold cell of which only the last threshold leaves a false cell out: the last threshold is on the grid
        result = search_thresholds([high + 0.05, high], [-np.inf] * 2, [True, False], [True] * 2, 1, low=low, high=high)
        assert result.tau_base == high
        assert round((high - low) / 0.1) + 1 == points

    def test_local_optimum_and_counts(self):
        base, stage, gold, dense, n_gold = random_cells(4000)
        low, high = GRIDS["redocred"]
        result = search_thresholds(base, stage, gold, dense, n_gold, low=low, high=high)
        predicted = apply_thresholds(base, stage, dense, result)
        assert result.f1 == 2 * (predicted & gold).sum() / (predicted.sum() + n_gold) == result.score
        for name, offset in itertools.product(("tau_base", "tau_dense", "tau_sparse"), (-0.1, 0.1, -1, 1)):
            other = replace(result, **{name: round(getattr(result, name) + offset, 10)})
            there = apply_thresholds(base, stage, dense, other)
            assert 2 * (there & gold).sum() / (there.sum() + n_gold) <= result.f1

    def test_independent_sources_differ(self):
        # negative control: the best threshold of each source alone is not the best of their union
        base, stage, gold, dense, n_gold = random_cells(4000)
        none = np.full(len(base), -np.inf)
        alone = search_thresholds(base, none, gold, dense, n_gold)
        stages = search_thresholds(none, stage, gold, dense, n_gold)
        together = search_thresholds(base, stage, gold, dense, n_gold)
        mixed = apply_thresholds(base, stage, dense, replace(stages, tau_base=alone.tau_base))
        assert 2 * (mixed & gold).sum() / (mixed.sum() + n_gold) < together.f1 - 0.01


def test_counts_equal_those_of_the_cells_one_by_one():
    base, stage, gold, dense, n_gold = random_cells(300)
    base, stage = np.round(base, 1), np.round(stage, 1)  # many lie on a threshold
    known = gold & (np.arange(300) % 3 > 0)
    grid = count_grid(base, stage, gold, dense, n_gold, **SMALL, anchor=(0.0, 0.1, 0.3), in_train=known)
    for counts, side, tau in ((grid.dense, dense, grid.taus[1]), (grid.sparse, ~dense, grid.taus[2])):
        for (i, a), (j, b) in itertools.product(enumerate(grid.taus[0]), enumerate(tau)):
            predicted = side & ((base > a) | (stage > b))
            assert counts[:, i, j].tolist() == [(predicted & kind).sum() for kind in (predicted, gold, known)]
            # negative control: cells on a threshold make a difference
            on = side & ((base >= a) | (stage >= b))
            assert i or on.sum() > counts[0, i, j]


def test_margin_on_threshold_is_not_predicted():
    result = FusionResult(0.3, 0.3, 0.3, 0, 0, 0, 0)
    assert apply_thresholds([0.3, 0.1 + 0.2], [-np.inf] * 2, [True, False], result).tolist() == [False, True]
    found = search_thresholds([0.3, 0.1 + 0.2], [-np.inf] * 2, [False, True], [True, False], 1)
    assert (found.tau_base, found.f1) == (0.3, 1.0)


def test_nothing_predicted():
    for n in (0, 3):
        none = np.full(n, -np.inf)
        result = search_thresholds(none, none, np.ones(n, bool), np.ones(n, bool), 3, anchor=(0.0, 0.5, 1.0))
        assert result == FusionResult(0.0, 0.5, 1.0, 0.0, 0.0, 0.0, 0.0)


def test_one_point_and_float32():
    result = search_thresholds(
        np.float32([0.6]), np.float32([0.1]), [True], [False], 2, low=0.5, high=0.5, anchor=(0, 1, 2)
    )
    assert result == FusionResult(0.5, 1.5, 2.5, 2 / 3, 1.0, 0.5, 2 / 3)


GOOD = {"base": [0.0, 1.0], "stage": [0.0, 1.0], "gold": [True, False], "is_dense": [True, False], "n_gold": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_gold": 0}, "no gold"),
        ({"gold": [True, True]}, "n_gold=1"),
        ({"base": [0.0, float("nan")]}, r"base\[1\] is nan"),
        ({"stage": [float("inf"), 0.0]}, r"stage\[0\] is inf"),
        ({"stage": [0.0]}, "lengths differ"),
        ({"gold": [True]}, "gold is"),
        ({"is_dense": [True] * 3}, "is_dense is"),
        ({"is_dense": [0.5, 1.0]}, "must be bool"),
        ({"base": [[0.0, 1.0]]}, r"base must be \[N\]"),
        ({"low": 1.0, "high": 0.0}, "low <= high"),
        ({"step": 0.0}, "step > 0"),
        ({"high": float("inf")}, "low <= high"),
        ({"step": 1e-4}, "larger step"),
        ({"step": 1e-11, "high": -1 + 1e-10}, "neighbouring thresholds coincide"),
        ({"anchor": 1e16}, "neighbouring thresholds coincide"),
        ({"anchor": (0.0, 1.0)}, "anchor"),
        ({"anchor": float("nan")}, "anchor"),
        ({"objective": "recall"}, "'recall'"),
        ({"objective": "ign_f1"}, "in_train"),
        ({"objective": "ign_f1", "in_train": [True]}, "in_train is"),
    ],
)
def test_errors(change, message):
    search_thresholds(**GOOD)
    with pytest.raises(SegDREError, match=message):
        search_thresholds(**{**GOOD, **change})

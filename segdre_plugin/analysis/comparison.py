"""Is one set of predictions better than another (paired tests over documents), and which mistakes does it make?

F1 is not a mean over documents, so documents are resampled, and F1 is computed again from the sums of their counts:

- Confidence interval: paired bootstrap (percentiles). Documents are drawn with replacement, and both systems are scored
  on the same draw.
- p-value: paired permutation test, two-sided. Under the null hypothesis the two systems are exchangeable document by
  document, so the predictions of each document are swapped or not, with probability 1/2 each.

Both measure how much the difference owes to the choice of test documents, neither how much to training seeds.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segdre_plugin.errors import SegDREError
from segdre_plugin.metrics import Located
from segdre_plugin.vocabulary import Document, FloatArray, IntArray, Triple, labels


@dataclass(frozen=True)
class Comparison:
    """Result of the tests on F1(first) - F1(second), in fractions.

    Attributes:
        f1: F1 of both.
        difference: their difference.
        low: lower end of its confidence interval.
        high: upper end.
        confidence: of the interval.
        p_value: two-sided.
        documents: how many units were resampled: the gold documents, and each unknown title that a system predicts.
        resamples: number of resamples.
        seed: of the generator.
    """

    f1: tuple[float, float]
    difference: float
    low: float
    high: float
    confidence: float
    p_value: float
    documents: int
    resamples: int
    seed: int

    @property
    def points(self) -> tuple[float, float, float]:
        """The difference and the ends of its interval, in points."""
        return 100 * self.difference, 100 * self.low, 100 * self.high


def distinct(
    predictions: Sequence[Mapping[str, Any]], documents: Sequence[Document]
) -> tuple[set[Located], set[Located]]:
    """Return the gold and the predicted triples, each once; the arguments of :func:`count`."""
    gold = {(d["title"], Triple(k["h"], k["r"], k["t"])) for d in documents for k in labels(d)}
    return gold, {(p["title"], Triple(p["h_idx"], p["r"], p["t_idx"])) for p in predictions}


def count(predictions: Sequence[Mapping[str, Any]], documents: Sequence[Document]) -> dict[str, list[int]]:
    """Count each document's correct, predicted and gold triples, each distinct.

    Args:
        predictions: in the official format, well-formed.
        documents: with gold.

    Returns:
        Title -> [correct, predicted, gold]; titles that only the predictions know have no gold.
    """
    gold, predicted = distinct(predictions, documents)
    sums = [Counter(title for title, _ in found) for found in (gold & predicted, predicted, gold)]
    titles = dict.fromkeys([*(d["title"] for d in documents), *(p["title"] for p in predictions)])
    return {title: [counts[title] for counts in sums] for title in titles}


def mistakes(predictions: Sequence[Mapping[str, Any]], documents: Sequence[Document]) -> dict[str, float]:
    """Sort wrong predictions and missed triples by kind; the arguments are those of :func:`count`.

    A wrong prediction (h, r, t) has gold in the other direction: (t, r, h); or else on its pair, with another relation;
    or none on its pair. A triple is missed although another relation is predicted on its pair, or with no prediction
    on its pair.

    Returns:
        Shares of all distinct predictions: ``wrong_direction``, ``wrong_relation`` and ``wrong_pair``, which add up
        with the precision to 1; and shares of all gold triples: ``missed_relation`` and ``missed_pair``, which add up
        with the recall to 1. 0 where there is nothing to divide by.
    """
    gold, found = distinct(predictions, documents)
    gold_pairs, found_pairs = ({_pair(triple) for triple in triples} for triples in (gold, found))
    wrong, missed = found - gold, gold - found
    turned = {(title, Triple(h, r, t)) for title, (h, r, t) in wrong if (title, Triple(t, r, h)) in gold}
    elsewhere = {triple for triple in wrong - turned if _pair(triple) in gold_pairs}
    noticed = {triple for triple in missed if _pair(triple) in found_pairs}
    n_found, n_gold = max(1, len(found)), max(1, len(gold))
    return {
        "wrong_direction": len(turned) / n_found,
        "wrong_relation": len(elsewhere) / n_found,
        "wrong_pair": len(wrong - turned - elsewhere) / n_found,
        "missed_relation": len(noticed) / n_gold,
        "missed_pair": len(missed - noticed) / n_gold,
    }


def _pair(located: Located) -> tuple[str, int, int]:
    title, triple = located
    return title, triple.head, triple.tail


def compare(
    first: Mapping[str, Sequence[int]],
    second: Mapping[str, Sequence[int]],
    *,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compare two systems on the same documents; see the module's docstring for the tests.

    Args:
        first: counts of one system, from :func:`count`.
        second: those of the other.
        resamples: of the bootstrap, and of the permutation test.
        confidence: of the interval.
        seed: of the generator.

    Returns:
        The comparison; where the systems do the same everywhere, an interval of 0 and a p-value of 1.

    Raises:
        SegDREError: if there are fewer than two documents, or an argument is out of its range.
    """
    from scipy import stats  # takes a second to load, which scoring without a comparison need not wait for

    titles = list(dict.fromkeys([*first, *second]))
    if len(titles) < 2:
        raise SegDREError(f"paired bootstrap over {len(titles)} documents", "compare on two documents or more")
    if resamples < 1 or not 0 < confidence < 1:
        raise SegDREError(f"resamples {resamples}, confidence {confidence}", "pass 1 or more, and a share in (0, 1)")
    counts = np.array([_row(system, other, t) for system, other in ((first, second), (second, first)) for t in titles])
    n = len(titles)
    # resampled are places in ``counts``, so that one draw takes both systems' counts of a document
    numbers = np.arange(2 * n)  # 0 to n - 1: a document's counts by the first system, n to 2n - 1: by the second

    def difference(a: IntArray, b: IntArray, axis: int = -1) -> FloatArray:
        return _f1(counts[a], axis) - _f1(counts[b], axis)

    observed = float(difference(numbers[:n], numbers[n:]))
    systems = (numbers[:n], numbers[n:])
    how: dict[str, Any] = {"n_resamples": resamples, "vectorized": True, "batch": max(1, 2_000_000 // n)}
    if (counts[:n] == counts[n:]).all():
        low = high = 0.0
        p_value = 1.0
    else:
        drawn = stats.bootstrap(
            systems,
            difference,
            paired=True,
            confidence_level=confidence,
            method="percentile",
            **_seeded(stats.bootstrap, seed),
            **how,
        )
        low, high = (float(end) for end in drawn.confidence_interval)
        seeded = _seeded(stats.permutation_test, seed)
        swapped = stats.permutation_test(systems, difference, permutation_type="samples", **seeded, **how)
        p_value = float(swapped.pvalue)
    f1 = tuple(float(_f1(counts[system], -1)) for system in systems)
    return Comparison((f1[0], f1[1]), observed, low, high, confidence, p_value, n, resamples, seed)


def _row(system: Mapping[str, Sequence[int]], other: Mapping[str, Sequence[int]], title: str) -> list[int]:
    """Return a document's counts; one that the system does not know has the gold that the other says."""
    return list(system.get(title) or (0, 0, other[title][2]))


def _seeded(test: Callable[..., Any], seed: int) -> dict[str, Any]:
    """Return a generator under the name that this version of scipy has for it."""
    name = "rng" if "rng" in inspect.signature(test).parameters else "random_state"
    return {name: np.random.default_rng(seed)}


def _f1(counts: IntArray, axis: int) -> FloatArray:
    """Micro F1 of documents along ``axis``, [..., 3] of correct, predicted and gold; 0 where there is nothing."""
    correct, predicted, gold = (counts[..., k].sum(axis=axis) for k in range(3))
    total = predicted + gold
    return np.divide(2.0 * correct, total, out=np.zeros(np.shape(total)), where=total > 0)

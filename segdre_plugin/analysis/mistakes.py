"""What kinds of mistakes predictions make, beside how many (:func:`segdre_plugin.metrics.evaluate`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segdre_plugin.analysis.comparison import distinct
from segdre_plugin.metrics import Located
from segdre_plugin.vocabulary import Document, Triple


def mistakes(predictions: Sequence[Mapping[str, Any]], documents: Sequence[Document]) -> dict[str, float]:
    """Sort wrong predictions and missed triples by kind.

    A wrong prediction (h, r, t) has gold in the other direction: (t, r, h); or else on its pair, with another relation;
    or none on its pair. A triple is missed although another relation is predicted on its pair, or with no prediction
    on its pair.

    Args:
        predictions: in the official format, well-formed.
        documents: with gold.

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

"""The report's first sentences: what the run gains over its base with a tuned threshold, and how sure that is."""

from __future__ import annotations

import numpy as np

from segdre_plugin.analysis.comparison import Comparison, compare
from segdre_plugin.analysis.report.run_cells import JudgedCandidates
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.vocabulary import BoolArray, labels


def against_tuned_base(run: RunFolder, name: str, found: JudgedCandidates) -> Comparison | None:
    """Compare the fused result of dev or test with the base whose own threshold was tuned on dev.

    Returns:
        Paired tests over documents; None if the split has no gold or fewer than two documents.
    """
    documents = run.documents[name]
    if not run.metrics[name]["gold"] or len(documents) < 2:
        return None
    gold = [len({(label["h"], label["r"], label["t"]) for label in labels(document)}) for document in documents]

    def counts(predicted: BoolArray) -> dict[str, list[int]]:
        sums = [
            np.bincount(found.cells.document[chosen], minlength=len(documents)).tolist()
            for chosen in (predicted & found.gold, predicted)
        ]
        return {str(d): list(numbers) for d, numbers in enumerate(zip(*sums, gold, strict=True))}

    return compare(counts(found.fused), counts(found.cells.margin > run.tau_base_alone))


def sentence(name: str, found: Comparison) -> str:
    """Say it in points of F1."""
    difference, low, high = (100 * value for value in (found.difference, found.low, found.high))
    text = (
        f"{difference:+.2f} points of {name} F1 over the tuned base; {found.confidence:.0%} of the resamples of its "
        f"{found.documents} documents lie from {low:+.2f} to {high:+.2f}"
    )
    if low <= 0 <= high:
        return f"{text}: that may be chance."
    return f"{text}."

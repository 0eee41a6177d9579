"""The report's first sentences: what the run gains over its base with a tuned threshold, and how sure that is."""

from __future__ import annotations

from segdre_plugin.analysis.comparison import Comparison, compare, count
from segdre_plugin.analysis.report.run_cells import JudgedCandidates
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.margins import official


def against_tuned_base(run: RunFolder, name: str, found: JudgedCandidates) -> Comparison | None:
    """Compare the fused result of dev or test with the base whose own threshold was tuned on dev.

    Returns:
        Paired tests over documents; None if the split has no gold or fewer than two documents.
    """
    documents = run.documents[name]
    if not run.metrics[name]["gold"] or len(documents) < 2:
        return None
    names = {i: relation for relation, i in run.rel2id.items()}
    systems = (found.fused, found.cells.margin > run.tau_base_alone)
    return compare(*(count(official(found.cells.take(chosen), documents, names), documents) for chosen in systems))


def sentence(name: str, found: Comparison) -> str:
    """Return the comparison as a sentence, in points of F1."""
    difference, low, high = (100 * value for value in (found.difference, found.low, found.high))
    text = (
        f"{difference:+.2f} points of {name} F1 over the tuned base; {found.confidence:.0%} of the resamples of its "
        f"{found.documents} documents lie from {low:+.2f} to {high:+.2f}"
    )
    if low <= 0 <= high:
        return f"{text}: that may be chance."
    return f"{text}."

"""The report's first sentences: what the run gains over its base with a tuned threshold, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segdre_plugin.analysis.comparison import Comparison, compare, count
from segdre_plugin.analysis.report.run_cells import JudgedCandidates
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.margins import official

WITH_ISF = "With inference-stage fusion: "


def verdicts(run: RunFolder, candidates: Mapping[str, JudgedCandidates]) -> list[str]:
    """Return a sentence for each of the ``candidates``' splits that has gold, and one with inference-stage fusion."""
    found = []
    for name, cells in candidates.items():
        comparison = against_tuned_base(run, name, cells)
        if comparison is None:
            continue
        found.append(sentence(name, comparison))
        for evaluation, metrics in run.evaluations.items():
            if _is_of(run, name, metrics):
                predictions = run.evaluation_result(evaluation)
                with_isf = against_tuned_base(run, name, cells, predictions)
                assert with_isf is not None
                scores = metrics[name]
                left = 100 * (scores["fused_isf"]["f1"] - scores["base_isf"]["f1"])
                beside = f" That is {left:+.2f} points over the base with inference-stage fusion."
                found.append(WITH_ISF + sentence(name, with_isf) + beside)
    return found


def against_tuned_base(
    run: RunFolder, name: str, found: JudgedCandidates, predictions: Sequence[Mapping[str, Any]] | None = None
) -> Comparison | None:
    """Compare the fused result of dev or test with the base whose own threshold was tuned on dev.

    Args:
        run: the run.
        name: the split.
        found: its candidates.
        predictions: in the place of the fused result, in the official format.

    Returns:
        Paired tests over documents; None if the split has no gold or fewer than two documents.
    """
    documents = run.documents[name]
    if not run.metrics[name]["gold"] or len(documents) < 2:
        return None
    names = {i: relation for relation, i in run.rel2id.items()}
    fused, base = (
        official(found.cells.take(chosen), documents, names)
        for chosen in (found.fused, found.cells.margin > run.tau_base_alone)
    )
    return compare(count(fused if predictions is None else predictions, documents), count(base, documents))


def sentence(name: str, found: Comparison) -> str:
    """Return the comparison as a sentence, in points of F1."""
    difference, low, high = found.points
    text = (
        f"{difference:+.2f} points of {name} F1 over the tuned base, {100 * found.confidence:g} % from {low:+.2f} to "
        f"{high:+.2f} (paired bootstrap over {found.documents} documents)"
    )
    if low <= 0 <= high:
        return f"{text}: that may be chance."
    return f"{text}."


def _is_of(run: RunFolder, name: str, metrics: Mapping[str, Any]) -> bool:
    """Return whether an evaluation with inference-stage fusion read the same documents as the run did."""
    if "isf" not in metrics or name not in metrics or not metrics[name]["gold"]:
        return False
    same = all(metrics[name]["fused"].get(n) == run.metrics[name]["fused"].get(n) for n in ("n_gold", "n_predicted"))
    return same and metrics.get("file") == run.files[name].name

"""Which part of a run helped: its fused result on test beside the tuned base, and beside itself without a stage."""

from __future__ import annotations

from pathlib import Path

from segdre_plugin.analysis.comparison import Comparison, compare
from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.rows import Row
from segdre_plugin.analysis.study.score_row import score
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.margins import Margins

WITHOUT = {"dense": ("base", "sparse"), "sparse": ("base", "dense")}  # a stage, and what is fused without it


def part_verdict(folder: Path) -> list[str]:
    """Return two sentences on a finished run's test split, each with paired 95 % intervals over its documents.

    The first compares the fused result with the base whose own threshold was tuned on dev. The second compares it with
    the fusion of the base and one stage alone, whose thresholds are searched again, as in the paper's Table 4.

    Raises:
        SegDREError: if the run is not finished, its test split is missing or has no gold, or it has one document.
    """
    run = FinishedRun(folder)
    run.require_finished()
    rows = {"tuned": Row("tuned", sources=("base",)), "fused": Row("fused")}
    rows |= {stage: Row(f"without_{stage}", sources=sources) for stage, sources in WITHOUT.items()}
    counts = {name: score(row, run, _no_partner, ("dev", "test")).counts for name, row in rows.items()}
    if "test" not in counts["fused"]:
        raise SegDREError(f"{folder}: no test split with gold", "there is nothing to judge the parts by")
    found = {name: compare(counts["fused"]["test"], own["test"]) for name, own in counts.items() if name != "fused"}
    words = {1: "helped", 0: "made no clear difference", -1: "hurt"}
    parts = [f"{stage} {words[_sign(found[stage])]} ({_points(found[stage])})" for stage in WITHOUT]
    n = found["tuned"].documents
    return [
        f"SegDRE {words[_sign(found['tuned'])]} on test: {_points(found['tuned'])} points of F1 over the tuned base "
        f"(paired 95 % intervals, {n} documents, one seed)",
        f"against the same fusion without it: {'; '.join(parts)}",
    ]


def _sign(found: Comparison) -> int:
    """Return 1 or -1 where the interval lies on one side of 0."""
    return int(found.low > 0) - int(found.high < 0)


def _points(found: Comparison) -> str:
    difference, low, high = found.points
    return f"{difference:+.2f}, from {low:+.2f} to {high:+.2f}"


def _no_partner(name: str) -> Margins:
    raise AssertionError(f"no row of these is an ensemble, and takes a second base model on {name}")

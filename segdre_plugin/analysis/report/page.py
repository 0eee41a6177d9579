"""The sections of the report, as plain data for the template: tables of texts, figures with captions, sentences.

A new section is a function here, a line of :func:`segdre_plugin.analysis.report.render.build` that calls it, and a
section of the template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segdre_plugin.analysis.report import charts
from segdre_plugin.analysis.report.run_cells import JudgedCandidates, best_without
from segdre_plugin.fusion import GRIDS, Grid
from segdre_plugin.metrics import has_gold
from segdre_plugin.salient import gold_salient, relation_counts, saliency
from segdre_plugin.seg.run_folder import TAUS, RunFolder
from segdre_plugin.seg.score_table import COLUMNS, EVIDENCE_COLUMNS, ROWS
from segdre_plugin.stages.scored import own_scores
from segdre_plugin.vocabulary import FloatArray

OBJECTIVES = {"f1": "F1", "ign_f1": "Ign-F1"}
NOTHING = 0.005  # points of a score that round to 0
CHARTED = {"F1": "f1", "intra": "intra_f1", "inter": "inter_f1"}


@dataclass(frozen=True)
class Figure:
    """A picture (SVG) and its caption, one sentence."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        caption: what it holds.
        columns: heads of the columns, the first that of the rows' names.
        rows: a name and its texts.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


def percent(value: float) -> str:
    """Write a fraction in percent, as the table on the terminal does."""
    return f"{100 * value:.2f}"


def logits(margin: float) -> str:
    """Write a margin; -inf is a missing one."""
    return f"{margin:.2f}" if np.isfinite(margin) else "-"


def headlines(metrics: Mapping[str, Any]) -> list[str]:
    """Return for each split one sentence that compares fused result and base."""
    found = []
    for name in ("dev", "test"):
        scores = metrics.get(name)
        if scores is None:
            continue
        if not scores["gold"]:
            found.append(f"{name} has no gold triples: there are predictions, and no scores.")
            continue
        base, fused = percent(scores["base"]["f1"]), percent(scores["fused"]["f1"])
        tuned = percent(scores["base_tuned"]["f1"])
        gain, left = (100 * (scores["fused"]["f1"] - scores[row]["f1"]) for row in ("base", "base_tuned"))
        chosen = "; the thresholds were chosen on it" if name == "dev" else ""
        found.append(
            f"On {name}, base has an F1 of {base}, {tuned} with its threshold tuned, and the fused result of {fused} "
            f"({gain:+.2f} against base, {left:+.2f} against the tuned one){chosen}."
        )
    return found


def score_tables(metrics: Mapping[str, Any]) -> list[Table]:
    """Write the scores of all splits that have gold, as on the terminal."""
    columns = COLUMNS | (EVIDENCE_COLUMNS if metrics.get("evidence") else {})
    tables = []
    for name in ("dev", "test"):
        scores = metrics.get(name)
        if scores is None or not scores["gold"]:
            continue
        rows = []
        for row, title in ROWS.items():
            if row in scores:
                texts = [percent(scores[row][key]) if key in scores[row] else "-" for key in columns.values()]
                counts = [str(scores[row].get(key, "-")) for key in ("n_correct", "n_predicted", "n_gold")]
                rows.append((title, [*texts, *counts]))
        tables.append(Table(f"{name}, in %", [name, *columns, "correct", "predicted", "gold"], rows))
    return tables


def score_figures(run: RunFolder, candidates: Mapping[str, JudgedCandidates]) -> list[Figure]:
    """Draw the fused F1 beside that of the tuned base, on all, dense and sparse pairs of each split that has gold."""
    figures = []
    for name in ("dev", "test"):
        if name not in candidates or not run.metrics[name]["gold"]:
            continue
        found = candidates[name]
        split, salient = run.split(name), run.salient(name)
        tuned, groups = found.cells.margin > run.tau_base_alone, []
        for pairs, own in (("all", True), ("dense", found.is_dense), ("sparse", ~found.is_dense)):
            base, fused = (
                own_scores(found.cells.take(chosen & own), pairs, split, salient, run.rel2id, [])
                for chosen in (tuned, found.fused)
            )
            if base:  # no scores where a kind of pair has no gold
                rows = [(title, 100 * base[key], 100 * fused[key]) for title, key in CHARTED.items()]
                groups.append((pairs, rows))
        caption = (
            f"F1, Intra-F1 and Inter-F1 on {name}, in %: the fused result (diamond) beside the tuned base "
            "(ring), on all pairs, on dense and on sparse ones."
        )
        figures.append(Figure(charts.scores(groups, name), caption))
    return figures


def threshold_section(metrics: Mapping[str, Any]) -> tuple[Table, list[Figure], str]:
    """Return where the search moved the thresholds, and whether one of them stopped at the end of the grid."""
    found = metrics["thresholds"]
    low, high = GRIDS[found["grid"]]
    rows, marks, at_end = [], [], []
    for stage, tau in zip(("base", "dense", "sparse"), TAUS, strict=True):
        rows.append((stage, ["0.0", f"{found[tau]:.1f}", f"{found[tau]:+.1f}"]))
        marks.append((stage, 0.0, found[tau]))
        if min(abs(found[tau] - low), abs(found[tau] - high)) < 1e-6:
            at_end.append(stage)
    table = Table("thresholds in logits", ["threshold of", "anchor", "found", "shift"], rows)
    caption = (
        f"Anchor (ring) and found threshold (diamond) of each stage, in logits; the bar is the searched range, "
        f"{low:g} to {high:g} in steps of 0.1."
    )
    note = f"At the end of the searched range: {', '.join(at_end)}." if at_end else ""
    return table, [Figure(charts.thresholds(low, high, marks), caption)], note


def grid_figures(grid: Grid, best: tuple[int, int, int]) -> list[Figure]:
    """Draw dev's objective along each threshold, and over both stages'; ``best``: indices of base, dense, sparse."""
    objective = OBJECTIVES[grid.objective]
    b, d, s = best
    plane = 100 * grid.scores(b)
    curves = (np.array([100 * grid.scores(i)[d, s] for i in range(len(grid.offsets))]), plane[:, s], plane[d])
    figures = []
    for k, (stage, values) in enumerate(zip(("base", "dense", "sparse"), curves, strict=True)):
        caption = (
            f"Dev {objective} along the threshold of {stage} (logits), the other two at their found values; from "
            f"{values.min():.2f} to {values.max():.2f} %, {values[best[k]]:.2f} at the diamond, dashed at the anchor."
        )
        figures.append(Figure(charts.grid_slice(stage, grid.taus[k], values, best[k], objective), caption))
    caption = (
        f"Dev {objective} (%) over the thresholds of dense and sparse (logits) at τ base = {grid.taus[0, b]:.1f}; "
        "diamond: found, ring: anchors."
    )
    figures.append(Figure(charts.heat_map(grid.taus[1], grid.taus[2], plane, (d, s), objective), caption))
    return figures


def gain_notes(run: RunFolder, found: JudgedCandidates, grid: Grid, best: tuple[int, int, int]) -> list[str]:
    """Return what the dense and the sparse model add to the best score on dev, searched again without each."""
    plane, (b, d, s) = 100 * grid.scores(best[0]), best
    curves = {"dense": plane[:, s], "sparse": plane[d]}
    notes = []
    for stage, curve in curves.items():
        gain = 100 * (grid.scores(b)[d, s] - best_without(run, found, stage))
        if gain >= NOTHING:
            points = f"{gain:.2f} points of dev {OBJECTIVES[grid.objective]}"
            notes.append(f"The {stage} stage adds {points}: the same search without its model ends that much lower.")
            continue
        flat = curve.max() - curve.min() < NOTHING
        why = "the whole grid of its threshold is flat" if flat else "the same search without its model ends no lower"
        notes.append(f"The {stage} stage adds nothing on dev: {why}.")
    return notes


def saliency_section(run: RunFolder, expected: Sequence[FloatArray] | None) -> tuple[Table, list[Figure]]:
    """Return how good the predicted salient entities are, beside those of other strategies.

    Args:
        run: the run.
        expected: the relation count that stage identify expects of each entity of dev, [documents] of [entities].
    """
    rows = []
    for name, documents in run.documents.items():
        if not has_gold(documents):
            continue
        own = saliency(documents, run.salient(name, documents), run.config.salient_k)
        for strategy, found in ({run.config.salient: own} | run.metrics[name]["strategies"]).items():
            texts = [percent(found[key]) for key in ("accuracy", "saliency", "saliency_micro")]
            rows.append((f"{name}, {strategy}", [*texts, str(found["documents"])]))
    columns = ["salient entity", "accuracy (%)", "saliency (%)", "micro (%)", "documents"]
    table = Table("salient entities", columns, rows)

    documents = run.documents["dev"]
    if expected is None:
        return table, []
    points = [
        (int(relation_counts(document)[chain[0]]), expected[i][chain[0]], chain[0] == gold)
        for i, (document, chain) in enumerate(zip(documents, run.salient("dev"), strict=True))
        if chain and (gold := gold_salient(document)) is not None
    ]
    gold_counts, model_counts, right = (np.array(column) for column in zip(*points, strict=True))
    which = "entity" if run.config.salient_k == 1 else "first entity"
    caption = (
        f"The relation count that stage identify expects of the {which} it chose, against that entity's gold count, "
        f"for {len(points)} dev documents; on the line the two are equal."
    )
    svg = charts.counts(gold_counts.astype(float), model_counts.astype(float), right.astype(bool))
    return table, [Figure(svg, caption)]


def margin_figures(found: JudgedCandidates, thresholds: Mapping[str, Any]) -> list[Figure]:
    """Draw the margins of gold and other cells of dev, one figure a stage."""
    sources = {
        "base": (found.cells.margin, np.isfinite(found.cells.margin)),
        "dense": (found.stage, found.is_dense & np.isfinite(found.stage)),
        "sparse": (found.stage, ~found.is_dense & np.isfinite(found.stage)),
    }
    figures = []
    for stage, (margin, keep) in sources.items():
        gold, tau = found.gold[keep], thresholds[f"tau_{stage}"]
        over = int((margin[keep] > tau).sum())
        caption = (
            f"Margins of {stage} on dev (logits): {gold.sum():,} gold cells (filled) and {(~gold).sum():,} others "
            f"(outline); {over:,} lie above the threshold {tau:.1f} (solid line; dashed: 0)."
        )
        figures.append(Figure(charts.margins(stage, margin[keep], gold, tau), caption))
    return figures

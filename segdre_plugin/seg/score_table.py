"""Results as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segdre_plugin.fusion import GRIDS, on_edge

COLUMNS = {
    "P": "precision",
    "R": "recall",
    "F1": "f1",
    "Ign-F1": "ign_f1",
    "Intra-F1": "intra_f1",
    "Inter-F1": "inter_f1",
}
EVIDENCE_COLUMNS = {"Evi-F1": "evidence_f1"}  # only of backbones that predict evidence
ROWS = {
    "base": "base",
    "base_tuned": "  threshold tuned",
    "base_isf": "base w. ISF",
    "dense": "dense (its pairs)",
    "base_on_dense": "  base on these",
    "sparse": "sparse (its pairs)",
    "base_on_sparse": "  base on these",
    "fused": "fused",
    "fused_isf": "fused w. ISF",
}


def print_scores(report: Mapping[str, Any], folder: Path) -> None:
    """Print what ``metrics.json`` of a ``--seg`` run, or of an evaluation of one, holds; ``folder`` is where it is."""
    columns = COLUMNS | (EVIDENCE_COLUMNS if report.get("evidence") else {})
    for name in ("dev", "test"):
        if name not in report:
            continue
        print(f"\n{report.get('file', name) + ' (%)':<20}" + "".join(f"{column:>10}" for column in columns))
        if not report[name]["gold"]:
            print("no gold: predictions only")
            continue
        for row, title in ROWS.items():
            if row not in report[name]:
                continue
            scores = report[name][row]
            values = [f"{100 * scores[key]:10.2f}" if key in scores else f"{'-':>10}" for key in columns.values()]
            print(f"{title:<20}" + "".join(values))
        k = report["salient_k"]
        print(f"{'salient entity' if k == 1 else f'{k} salient entities':<20}{'accuracy':>10}{'saliency':>10}")
        for strategy, scores in report[name]["strategies"].items():
            print(f"{strategy:<20}{100 * scores['accuracy']:10.2f}{100 * scores['saliency']:10.2f}")
    print()
    _print_thresholds(report["thresholds"])
    if "isf" in report:
        _print_thresholds(report["isf"]["thresholds"], report["isf"]["tau"])
    left_out = sum(report["branches_left_out"].values())
    if left_out:
        print(f"injection: {left_out} triples exceeded the token budget and were left out")
    print(f"written: {folder / 'result.json'}, {folder / 'metrics.json'}")


def _print_thresholds(found: Mapping[str, Any], tau: float | None = None) -> None:
    """Print thresholds, and which of them are on the edge of their grid; ``tau``: of inference-stage fusion."""
    low, high = GRIDS[found["grid"]]
    base = f"{found['tau_base']:.1f}"
    if tau is not None:  # the grid of base lies around tau
        offset = found["tau_base"] - tau
        base = f"tau {tau:.2f} {'-' if offset < -0.05 else '+'} {abs(offset):.1f}"
    print(
        f"thresholds{'' if tau is None else ' w. ISF'} ({found['grid']} grid, {found['objective']} on dev): "
        f"base {base}, dense {found['tau_dense']:.1f}, sparse {found['tau_sparse']:.1f}"
    )
    anchors = {"tau_base": tau or 0.0, "tau_dense": 0.0, "tau_sparse": 0.0, "tau_base_alone": 0.0}
    edge = [
        name.removeprefix("tau_").replace("_", " ")
        for name, anchor in anchors.items()
        if name in found and on_edge(found[name], low, high, anchor)
    ]
    if edge:
        print(f"  on the edge of the grid ({low:g} to {high:g}), a better one may lie beyond: {', '.join(edge)}")

"""Results as a table on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

COLUMNS = {
    "P": "precision",
    "R": "recall",
    "F1": "f1",
    "Ign-F1": "ign_f1",
    "Intra-F1": "intra_f1",
    "Inter-F1": "inter_f1",
}
ROWS = {
    "base": "base",
    "dense": "dense (its pairs)",
    "base_on_dense": "  base on these",
    "sparse": "sparse (its pairs)",
    "base_on_sparse": "  base on these",
    "fused": "fused",
}


def print_scores(report: Mapping[str, Any], folder: Path) -> None:
    """Print what ``metrics.json`` holds.

    Args:
        report: the metrics of a ``--seg`` run.
        folder: where they and the results are.
    """
    for name in ("dev", "test"):
        if name not in report:
            continue
        print(f"\n{name + ' (%)':<20}" + "".join(f"{column:>10}" for column in COLUMNS))
        if not report[name]["gold"]:
            print("no gold: predictions only")
            continue
        for row, title in ROWS.items():
            scores = report[name][row]
            values = [f"{100 * scores[key]:10.2f}" if key in scores else f"{'-':>10}" for key in COLUMNS.values()]
            print(f"{title:<20}" + "".join(values))
        salient = report[name]["salient"]
        print(f"salient entity: accuracy {100 * salient['accuracy']:.1f}, saliency {100 * salient['saliency']:.1f}")
    t = report["thresholds"]
    print(
        f"\nthresholds ({t['grid']} grid, {t['objective']} on dev): "
        f"base {t['tau_base']:.1f}, dense {t['tau_dense']:.1f}, sparse {t['tau_sparse']:.1f}"
    )
    left_out = sum(report["branches_left_out"].values())
    if left_out:
        print(f"injection: {left_out} triples exceeded the token budget and were left out")
    print(f"written: {folder / 'result.json'}, {folder / 'metrics.json'}")

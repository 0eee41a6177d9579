"""The report's curves: precision over recall, and F1 by frequency of relation, of base and fused result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from segdre_plugin.analysis.figure_style import STAGE_COLOURS, draw_pairs
from segdre_plugin.analysis.report.charts import legend_above, picture
from segdre_plugin.analysis.report.page import Figure

LINES = {"base": (0, (4, 2)), "fused": "solid"}  # told apart without colours, too
CHOSEN = {"base": "base_tuned", "fused": "fused"}  # the row of the metrics that a threshold makes of a curve


def curve_figures(scores: Mapping[str, Any], name: str) -> list[Figure]:
    """Draw a split's curve and its F1 by frequency of relation.

    Args:
        scores: the split's part of ``metrics.json``.
        name: the split's.

    Returns:
        Two figures; none where the split has no gold.
    """
    return [_over_recall(scores, name), _by_frequency(scores["frequencies"], name)] if scores["gold"] else []


def _over_recall(scores: Mapping[str, Any], name: str) -> Figure:
    with picture(name, height=2.7) as (ax, out):
        for source, own in scores["curves"].items():
            base = source.split("_")[0]  # base or fused, or one of these with inference-stage fusion
            width = 1.4 if source == base else 0.8
            label = f"{source.replace('_isf', ' w. ISF')}, area {100 * own['area']:.1f} %"
            recall, precision = ([100 * value for value in own[key]] for key in ("recall", "precision"))
            ax.plot(recall, precision, color=STAGE_COLOURS[base], linestyle=LINES[base], linewidth=width, label=label)
        for source, row in CHOSEN.items():
            point = 100 * scores[row]["recall"], 100 * scores[row]["precision"]
            shape, colour = ("o", "white") if source == "base" else ("D", STAGE_COLOURS[source])
            ax.plot(*point, shape, color=STAGE_COLOURS[source], markerfacecolor=colour, markersize=6)
        ax.set_xlim(0, 100)
        ax.set_ylim(0, 105)
        legend_above(ax)
        ax.set_xlabel("recall (%)")
        ax.set_ylabel("precision (%)")
    caption = (
        f"Precision over recall on {name}, in %: base by margin, fused by the most by which a margin exceeds its "
        "model's threshold; ring: tuned base, diamond: fused result. Curves end with their last candidate."
    )
    return Figure(out[0], caption)


def _by_frequency(found: Mapping[str, Mapping[str, Mapping[str, float]]], name: str) -> Figure:
    before, after = (found[row] for row in CHOSEN.values())
    buckets = [bucket for bucket in after if bucket in before]
    groups = [
        (title, STAGE_COLOURS["fused"], [(b, 100 * before[b][key], 100 * after[b][key]) for b in buckets])
        for title, key in (("F1 of the triples", "f1"), ("mean F1 of the relations", "macro_f1"))
    ]
    with picture(f"{name}, by train triples of the relation", height=0.7 + 0.46 * (len(buckets) + 1)) as (ax, out):
        draw_pairs(ax, groups)
        ax.margins(x=0.05)
        ax.set_xlabel("F1 (%)")
    caption = f"F1 on {name} by the number of train triples of the relation, in %: tuned base (ring), fused (diamond)."
    return Figure(out[0], caption)

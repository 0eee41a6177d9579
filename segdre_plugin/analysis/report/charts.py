"""Charts as inline SVG, drawn by matplotlib: the same picture, byte for byte, for the same numbers."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from segdre_plugin.analysis.figure_style import (
    BLUE,
    INK,
    LINE,
    ORANGE,
    QUIET,
    STAGE_COLOURS,
    SVG_METADATA,
    draw_pairs,
    figure_style,
    new_figure,
)
from segdre_plugin.vocabulary import BoolArray, FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ON_MAP = "#fefefe"  # white in both themes
THEME = {
    INK: "ink",
    QUIET: "quiet",
    LINE: "line",
    "#e4e7eb": "grid",
    "#ffffff": "card",
    BLUE: "blue",
    ORANGE: "orange",
    STAGE_COLOURS["sparse"]: "violet",
}  # colour of a figure -> variable of the page's style, which has two themes


def scores(groups: Sequence[tuple[str, Sequence[tuple[str, float, float]]]], title: str) -> str:
    """Return an SVG of pairs of scores: the tuned base's and the fused result's.

    Args:
        groups: the pairs (all, dense or sparse) and their rows (score's name, base, fused; in percent).
        title: of the picture.
    """
    n_rows = sum(len(rows) + 1.2 for _, rows in groups)
    with picture(title, height=0.6 + 0.23 * n_rows) as (ax, out):
        draw_pairs(ax, [(f"{pairs} pairs", STAGE_COLOURS.get(pairs, INK), rows) for pairs, rows in groups])
        ax.margins(x=0.05)
        low, high = ax.get_xlim()
        ax.set_xlim(low, max(high, low + 5))  # scores that hardly differ stand close together
        ax.set_xlabel("score (%)")
    return out[0]


def thresholds(low: float, high: float, found: Sequence[tuple[str, float, float]]) -> str:
    """Return an SVG of the grid's ends (offsets), and each stage's anchor and found threshold in it (logits)."""
    with picture("", height=1.6) as (ax, out):
        for y, (stage, anchor, tau) in enumerate(found):
            colour = STAGE_COLOURS[stage]
            ax.plot([anchor + low, anchor + high], [y, y], color="#e4e7eb", linewidth=7, solid_capstyle="butt")
            ax.plot([anchor, tau], [y, y], color=colour, linewidth=2)
            ax.plot([anchor], [y], "o", markerfacecolor="white", markeredgecolor=QUIET, markersize=6)
            ax.plot([tau], [y], "D", color=colour, markersize=5)
            ax.annotate(f"{tau:.1f}", (tau, y), (0, 6), textcoords="offset points", ha="center", size=8)
        ax.set_yticks(range(len(found)), [stage for stage, _, _ in found])
        ax.set_ylim(len(found) - 0.4, -0.7)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("threshold (logits of margin)")
    return out[0]


def grid_slice(stage: str, taus: FloatArray, values: FloatArray, best: int, objective: str) -> str:
    """Return an SVG of the objective, percent, [n], at a stage's thresholds, [n]; ``best``: the found one's index."""
    colour = STAGE_COLOURS[stage]
    with picture(f"threshold of {stage}") as (ax, out):
        ax.plot(taus, values, color=colour, linewidth=1.6)
        ax.plot(taus[best], values[best], "D", color=colour, markersize=5)
        ax.axvline(0, color=QUIET, linewidth=0.8, linestyle=(0, (3, 3)))
        low, high = float(values.min()), float(values.max())
        if high - low < 1:  # keep a flat curve from looking like noise
            ax.set_ylim(max(low - 0.5, -0.1), high + 0.5)
        ax.set_xlabel(f"τ {stage} (logits)")
        ax.set_ylabel(f"dev {objective} (%)")
    return out[0]


def heat_map(dense: FloatArray, sparse: FloatArray, values: FloatArray, best: tuple[int, int], objective: str) -> str:
    """Return an SVG of the objective, percent, [dense, sparse], over both thresholds; ``best``: found ones' indices."""
    with picture("both stage thresholds", height=3.0) as (ax, out):
        half = (dense[1] - dense[0]) / 2
        extent = (sparse[0] - half, sparse[-1] + half, dense[0] - half, dense[-1] + half)
        shown = ax.imshow(values, cmap="cividis", origin="lower", extent=extent, interpolation="nearest")
        ax.plot(sparse[best[1]], dense[best[0]], "D", color=ON_MAP, markeredgecolor="black", markersize=6)
        ax.plot(0, 0, "o", markerfacecolor="none", markeredgecolor=ON_MAP, markersize=7)
        ax.grid(visible=False)
        ax.set_xlabel("τ sparse (logits)")
        ax.set_ylabel("τ dense (logits)")
        bar = ax.figure.colorbar(shown, ax=ax, shrink=0.85)
        bar.outline.set_visible(False)
        bar.set_label(f"dev {objective} (%)")
    return out[0]


def counts(gold: FloatArray, expected: FloatArray, right: BoolArray) -> str:
    """Return an SVG of gold against expected counts of the predicted entities, the gold ones ``right``, [documents]."""
    with picture("count of the predicted salient entity", height=3.0) as (ax, out):
        top = float(max([1.0, *gold, *expected]))
        ax.plot([0, top], [0, top], color=LINE, linewidth=1)
        ax.plot(
            gold[~right],
            expected[~right],
            "^",
            color=ORANGE,
            markersize=5,
            markerfacecolor="none",
            label="another entity",
        )
        ax.plot(gold[right], expected[right], "o", color=BLUE, markersize=4, alpha=0.7, label="gold salient entity")
        legend_above(ax)
        ax.set_xlabel("gold relations of the entity")
        ax.set_ylabel("expected relations")
    return out[0]


def margins(stage: str, margin: FloatArray, gold: BoolArray, tau: float) -> str:
    """Return an SVG of a stage's finite margins, [cells]: how those of gold and other cells lie about its threshold."""
    with picture(f"{stage}: {len(margin):,} cells") as (ax, out):
        if len(margin):
            edges = np.linspace(margin.min(), max(margin.max(), margin.min() + 1e-6), 50).tolist()
            ax.hist(margin[~gold], edges, histtype="step", color=ORANGE, linewidth=1.2, label="other")
            ax.hist(margin[gold], edges, color=BLUE, alpha=0.65, label="gold")
            ax.set_yscale("log")
            ax.set_ylim(bottom=0.7)
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
            ax.yaxis.minorticks_off()
            legend_above(ax)
        ax.axvline(0, color=QUIET, linewidth=0.8, linestyle=(0, (3, 3)))
        ax.axvline(tau, color=INK, linewidth=1.2)
        ax.set_xlabel("margin (logits)")
        ax.set_ylabel("cells (log scale)")
    return out[0]


def legend_above(ax: Axes) -> None:
    """Put the legend above the axes, where it covers nothing."""
    figure = ax.get_figure()
    assert figure is not None
    figure.legend(*ax.get_legend_handles_labels(), loc="outside upper left", ncols=2, columnspacing=1)


@contextmanager
def picture(title: str, *, height: float = 2.2) -> Iterator[tuple[Axes, list[str]]]:
    """Return axes to draw on, and a list that holds their SVG afterwards."""
    with figure_style():
        figure = new_figure(3.6, height)
        ax = figure.add_subplot()
        ax.set_title(title)
        out: list[str] = []
        yield ax, out
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=SVG_METADATA)
    out.append(_inline(buffer.getvalue()))


def _inline(svg: str) -> str:
    """Reduce a file to what a page can embed: no prolog, no page-wide style, no ids that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^<svg [^>]*?viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg)
    named = set(re.findall(r"#([\w-]+)", svg))
    for colour, name in THEME.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r' id="([\w-]+)"', lambda m: m[0] if m[1] in named else "", svg)
    return re.sub(r"\n\s*", "\n", svg).replace("xlink:href", "href")

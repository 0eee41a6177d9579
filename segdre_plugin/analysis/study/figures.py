"""The figures of studies, as PNG and SVG: gains over alpha (Figures 4 and 7), shifts of thresholds (Figure 5)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segdre_plugin.analysis.figure_style import INK, QUIET, STAGE_COLOURS, figure_style, new_figure, write_figure
from segdre_plugin.analysis.study.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAST = 0.5  # points of F1 that the axis of gains reaches up and down: a flat curve should not look like noise
SPREAD = 0.16  # half the height over which the seeds of one threshold are spread


def draw(folder: Path, name: str, results: Results) -> list[str]:
    """Write a study's figure and return its files' names: none if the table says it all, or without numbers to draw."""
    if name not in FIGURES:
        return []
    with figure_style():
        figure = FIGURES[name](results)
        return [] if figure is None else write_figure(folder, name, figure)


def draw_alpha(results: Results) -> Figure | None:
    """Draw the gains of fused dev F1 over alpha = 0 (Figures 4 and 7)."""
    study = results.study
    gains = {column.title.split(":")[0]: column for column in study.columns if column.over}
    figure = new_figure(6.4, 2.5)
    axes = figure.subplots(1, len(gains), sharey=True)
    drawn = False
    for ax, (source, column) in zip(axes, gains.items(), strict=True):
        points = [(float(line.title), results.values(line, column)) for line in study.lines]
        alphas = [alpha for alpha, values in points for _ in values]
        colour = STAGE_COLOURS[source] if source != "base" else INK
        ax.axhline(0, color=QUIET, linewidth=0.8, linestyle=(0, (3, 3)))
        if len(results.seeds) > 1:
            ax.plot(alphas, [value for _, values in points for value in values], "o", color=colour, ms=3, alpha=0.3)
        means = [(alpha, float(np.mean(values))) for alpha, values in points if values]
        if means:
            drawn = True
            ax.plot(*zip(*means, strict=True), "D-", color=colour, ms=4.5, linewidth=1.6)
        ax.set_title(f"{source} predictions injected")
        ax.set_xlabel("share of injected triples (alpha)")
        ax.set_xticks([0, 0.2, 0.4, 0.6, 0.8, 1])
    axes[0].set_ylabel("gain of dev F1 (points)")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(min(low, -LEAST), max(high, LEAST))
    return figure if drawn else None


def draw_shifts(results: Results) -> Figure | None:
    """Draw how far each seed's search moved each threshold from its anchor (Figure 5)."""
    shifts = results.shifts()
    if not all(shifts.values()):
        return None
    figure = new_figure(4.2, 2.1)
    ax = figure.add_subplot()
    ax.axvline(0, color=QUIET, linewidth=0.8, linestyle=(0, (3, 3)))
    for y, (stage, values) in enumerate(shifts.items()):
        colour = STAGE_COLOURS[stage]
        heights = y + np.linspace(-SPREAD, SPREAD, len(values)) if len(values) > 1 else [y]
        ax.plot(values, heights, "o", mfc="white", mec=colour, ms=5)
        ax.plot([np.mean(values)], [y], "|", color=colour, ms=22, mew=2.2)
    ax.set_yticks(range(len(shifts)), list(shifts))
    ax.set_ylim(len(shifts) - 0.5, -0.5)
    ax.margins(x=0.1)
    ax.grid(axis="y", visible=False)
    ax.set_title("where the search moved the thresholds")
    ax.set_xlabel("threshold minus anchor (logits); circle: a seed, bar: mean")
    return figure


FIGURES: dict[str, Callable[[Results], Figure | None]] = {"alpha": draw_alpha, "seeds": draw_shifts}

"""Statistics as figures, PNG and SVG: the paper's Figure 1a, Figure 1b, Table 6 and Figure 6."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

from segdre_plugin.analysis.figure_style import (
    BLUE,
    LINE,
    ORANGE,
    STAGE_COLOURS,
    draw_pairs,
    figure_style,
    new_figure,
    write_figure,
)
from segdre_plugin.analysis.statistics.coverage import CRITERIA
from segdre_plugin.analysis.statistics.measure import LabelStatistics, sort_relations
from segdre_plugin.errors import explained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = 3  # side by side
TITLE = 20  # characters in a line above a panel

Found = Mapping[str, LabelStatistics]  # file -> statistics of its labels


def write_figures(folder: Path, found: Found, names: Mapping[str, str]) -> None:
    """Write all figures of one file or more to a folder, made if missing; without ``names``, relations go by ids."""
    with figure_style():
        pictures = {
            "salient_share": draw_salient_share(found),
            "relation_classes": draw_classes(found, names),
            "coverage": draw_coverage(found),
            "chain": draw_chain(found),
        }
        with explained(f"cannot write {folder}"):
            folder.mkdir(exist_ok=True)
        for name, figure in pictures.items():
            write_figure(folder, name, figure)


def draw_salient_share(found: Found) -> Figure:
    """Draw the share of triples that involve the salient entity (Figure 1a)."""
    figure = new_figure(_beside(found), 0.75 + 0.3 * len(found))
    ax = figure.add_subplot()
    ax.set_title("triples that involve the salient entity")
    for y, labels in enumerate(found.values()):
        share = 100 * labels.salient_share
        ax.barh(y, 100, height=0.6, color="#e4e7eb")
        ax.barh(y, share, height=0.6, color=BLUE)
        beside: dict[str, Any] = {"ha": "left"} if share < 50 else {"ha": "right", "color": "white"}
        shift = (4, 0) if share < 50 else (-4, 0)
        ax.annotate(f"{share:.1f}", (share, y), shift, textcoords="offset points", va="center", **beside)
    ax.set_yticks(range(len(found)), list(found))
    ax.set_ylim(len(found) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    ax.grid(visible=False)
    ax.set_xlabel("share of all triples (%)")
    return figure


def draw_classes(found: Found, names: Mapping[str, str]) -> Figure:
    """Draw how many dense and sparse triples each relation has, on a log scale (Figure 1b)."""
    relations = sort_relations(found.values())
    place = {relation: y for y, relation in enumerate(relations)}
    figure = new_figure(2.2 + 1.8 * len(found), 1.1 + 0.135 * len(relations))
    axes = figure.subplots(1, len(found), sharey=True, sharex=True, squeeze=False)[0]
    for ax, (title, labels) in zip(axes, found.items(), strict=True):
        rows = [place[c.relation] for c in labels.classes]
        dense, sparse = ([c.dense or math.nan for c in labels.classes], [c.sparse or math.nan for c in labels.classes])
        ax.hlines(rows, dense, sparse, color=LINE, linewidth=1.5, zorder=2)
        ax.plot(dense, rows, "D", color=STAGE_COLOURS["dense"], markersize=3.5, label="dense", zorder=3)
        ax.plot(sparse, rows, "o", mfc="white", mec=STAGE_COLOURS["sparse"], markersize=4, label="sparse", zorder=4)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(_format_number)
        ax.xaxis.minorticks_off()
        ax.set_title(fill(title, TITLE))
        ax.set_xlabel("triples (log scale)")
        ax.grid(axis="y", linewidth=0.3)
        ax.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(relations)), [names.get(relation, relation) for relation in relations], size=6.5)
    axes[0].set_ylim(len(relations) - 0.4, -0.6)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def draw_coverage(found: Found) -> Figure:
    """Draw how many triples lie within one and two hops of one entity (Table 6)."""
    figure = new_figure(_beside(found), 1.1 + 0.23 * len(CRITERIA) * (len(found) + 1.2))
    ax = figure.add_subplot()
    ax.set_title("triples near one entity")
    groups = []
    for name in CRITERIA:
        near = {title: labels.coverage[name] for title, labels in found.items()}
        groups.append((name, BLUE, [(title, 100 * c.hop_1, 100 * c.hop_2) for title, c in near.items()]))
    marks = draw_pairs(ax, groups)
    ax.set_xlim(0, 100)
    ax.set_xlabel("mean share of a document's triples (%)")
    figure.legend(marks, ["within 1 hop", "within 2 hops"], loc="outside lower right", ncols=2)
    return figure


def draw_chain(found: Found) -> Figure:
    """Draw how many triples each entity of the greedy chain covers, and the log ratio to the first (Figure 6)."""
    from matplotlib.ticker import MaxNLocator

    columns = min(PANELS, len(found))
    rows = -(-len(found) // columns)
    figure = new_figure(3.6 * columns, 2.4 * rows)
    for place, (title, labels) in enumerate(found.items(), start=1):
        ax = figure.add_subplot(rows, columns, place)
        order = range(1, len(labels.chain) + 1)
        ax.bar(order, labels.chain, color=BLUE, alpha=0.65)
        ax.set_title(fill(title, TITLE))
        ax.set_xlabel("place in the greedy chain")
        ax.set_ylabel("triples covered", color=BLUE)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.yaxis.set_major_formatter(_format_number)
        ax.grid(axis="x", visible=False)
        right = ax.twinx()
        right.plot(order, labels.chain_log_ratios, "D-", color=ORANGE, markersize=3.5, linewidth=1.2)
        right.set_ylabel("ln of ratio to first", color=ORANGE)
        right.grid(visible=False)
    return figure


def _beside(found: Found) -> float:
    """Return the width of a figure whose rows are called by the files, in inches."""
    return 2.9 + 0.07 * max(map(len, found))


def _format_number(value: float, _: object) -> str:
    return f"{value:,.0f}"

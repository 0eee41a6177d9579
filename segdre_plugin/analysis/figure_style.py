"""The style of all figures, and how they are written; matplotlib is imported only where one is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segdre_plugin.data.files import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

INK, QUIET, LINE = "#1f2933", "#616e7c", "#cbd2d9"
BLUE, ORANGE = "#0067a5", "#c2500a"  # told apart with every kind of colour vision; shapes differ as well
STAGE_COLOURS = {"base": QUIET, "dense": BLUE, "sparse": "#7b4a9e", "fused": INK}
SVG_METADATA: dict[str, Any] = {"Date": None, "Creator": None}  # nothing that differs from one run to the next
DPI = 200
FORMS = {"png": {"Software": None}, "svg": SVG_METADATA}  # with metadata

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, selectable, in the reader's own font
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.2,
}


@contextmanager
def figure_style() -> Iterator[None]:
    """Draw in one style, whatever the user's own configuration is: it holds for figures made and saved inside."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"svg.hashsalt": "segdre"})
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, its size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def draw_pairs(ax: Axes, groups: Sequence[tuple[str, str, Sequence[tuple[str, float, float]]]]) -> list[Line2D]:
    """Draw pairs of numbers by group (title, colour, rows of name, ring, diamond); return the last two marks."""
    y, ticks, marks = 0.0, {}, []
    for k, (title, colour, rows) in enumerate(groups):
        y += 1.2 if k else 0
        ax.text(0.01, y, title, transform=ax.get_yaxis_transform(), va="center", size=8)
        for name, ring, diamond in rows:
            y += 1
            ax.plot([ring, diamond], [y, y], color=colour, linewidth=2, alpha=0.5, zorder=2)
            marks = ax.plot([ring], [y], "o", mfc="white", mec=QUIET, markersize=6, zorder=3)
            marks += ax.plot([diamond], [y], "D", color=colour, markersize=5, zorder=4)
            ticks[y] = name
    ax.set_yticks(list(ticks), list(ticks.values()))
    ax.set_ylim(y + 0.6, -0.6)
    ax.grid(axis="y", visible=False)
    return marks


def write_figure(folder: Path, name: str, figure: Figure) -> list[str]:
    """Write a figure to an existing folder as PNG and SVG, inside :func:`figure_style`; return the files' names."""
    files = {f"{name}.{form}": form for form in FORMS}
    for file, form in files.items():
        write(folder / file, partial(figure.savefig, format=form, dpi=DPI, metadata=FORMS[form]))
    return list(files)

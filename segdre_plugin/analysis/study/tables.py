"""A table whose cells are numbers over seeds: on the terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Cell:
    """A number, or why there is none.

    Attributes:
        values: one a seed.
        otherwise: the text without values.
        decimals: how many are shown.
        signed: show a plus, too.
    """

    values: Sequence[float] = ()
    otherwise: str = "-"
    decimals: int = 2
    signed: bool = False

    @property
    def mean(self) -> float | None:
        """The mean; None without values."""
        return fmean(self.values) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation of the sample; None for less than two values."""
        return stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        if self.mean is None:
            return self.otherwise
        text = f"{self.mean:{'+' if self.signed else ''}.{self.decimals}f}"
        return text if self.deviation is None else f"{text} ± {self.deviation:.{self.decimals}f}"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: heading of its first column.
        columns: headings of the others.
        lines: a name and a cell for each column.
    """

    title: str
    columns: Sequence[str]
    lines: Sequence[tuple[str, Sequence[Cell]]]

    def text(self) -> str:
        """Return the table as aligned text."""
        rows = [[self.title, *self.columns], *([name, *map(str, cells)] for name, cells in self.lines)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows
        )

    def markdown(self) -> str:
        """Return the table as Markdown."""
        rows = [
            [self.title, *self.columns],
            ["---", *["---:"] * len(self.columns)],
            *([name, *map(str, cells)] for name, cells in self.lines),
        ]
        return "\n".join("| " + " | ".join(part.replace("|", "\\|") for part in row) + " |" for row in rows)

    def csv(self) -> str:
        """Return the table as CSV: mean, standard deviation and number of values of each cell."""
        out = io.StringIO()
        write = csv.writer(out, lineterminator="\n").writerow
        write([self.title, *(f"{column}{what}" for column in self.columns for what in ("", " sd", " n"))])
        for name, cells in self.lines:
            write([name, *(part for cell in cells for part in (cell.mean, cell.deviation, len(cell.values)))])
        return out.getvalue()

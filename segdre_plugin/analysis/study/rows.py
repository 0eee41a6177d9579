"""What a study is made of: which models a row takes, what they read, how their margins are fused, what is scored."""

from __future__ import annotations

from dataclasses import dataclass

OWN = "own"  # the salient entities that the run itself predicted
SOURCES = ("base", "dense", "sparse")
STUDIES = ("ablations", "selection", "alpha", "injection", "seeds", "diagnosis")  # names; studies.py has the studies


@dataclass(frozen=True)
class Training:
    """A ``--seg`` run of a study.

    Attributes:
        options: further options of ours.
        stage: the last stage that is needed; ``all`` fuses, too.
        shares: stages that are those of the run ``full`` of the same seed.
    """

    options: tuple[str, ...] = ()
    stage: str = "all"
    shares: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What the dense and the sparse model of a finished run read on dev, when it is not what they read in the run.

    Attributes:
        salient: where salient entities come from: the run, or a strategy by its name.
        triples: what is injected: ``dense`` predictions, ``base`` predictions on dense pairs, or ``gold`` triples.
        alpha: share of them; None takes the run's.
        head: the run (its name in ``TRAININGS``) whose stage identify counts relations for the strategy.
    """

    salient: str = OWN
    triples: str = "dense"
    alpha: float | None = None
    head: str = "full"

    @property
    def name(self) -> str:
        """Name the reading, for its folder."""
        return f"{self.salient}-{self.triples}" + ("" if self.alpha is None else f"-{self.alpha:g}")


@dataclass(frozen=True)
class Row:
    """One set of predictions, scored.

    Attributes:
        name: what it is called in JSON.
        run: the run (its name in ``TRAININGS``) whose models it takes.
        reading: what they read; None takes what they read in the run.
        sources: which models' margins are fused; the others have no say.
        ensemble: of two base models of different seeds: ``average`` takes the mean of their margins for the base's,
            ``union`` takes the second one for the dense and the sparse model, ``second`` takes it for the base
            and leaves them; empty for none.
        fusion: how margins are fused, where it is not as in the run (``segdre_plugin.fusion.FUSIONS``).
        thresholds: ``search`` on dev, ``anchor`` (0), or those that the ``run`` found.
        pairs: what is scored: ``base`` (all pairs), ``dense`` or ``sparse`` ones.
    """

    name: str
    run: str = "full"
    reading: Reading | None = None
    sources: tuple[str, ...] = SOURCES
    ensemble: str = ""
    fusion: str = ""
    thresholds: str = "search"
    pairs: str = "base"

    @property
    def trainings(self) -> list[str]:
        """List the runs that the row needs."""
        partner = ["partner"] if self.ensemble else []
        head = [self.reading.head] if self.reading else []
        return [self.run, *partner, *head]


@dataclass(frozen=True)
class Line:
    """A line of a study's table: the rows that its columns show, and a note on it below the table."""

    title: str
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a study's table.

    Attributes:
        title: its heading.
        metric: what it shows, a fraction.
        split: dev or test.
        row: which of a line's rows.
        over: name of a row whose value is subtracted, seed by seed; empty for none.
    """

    title: str
    metric: str = "f1"
    split: str = "dev"
    row: int = 0
    over: str = ""


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        title: what it shows.
        lines: the lines of its table.
        columns: the columns of its table.
        comparisons: pairs of rows that are compared by a paired bootstrap on dev, and on test where there is gold.
        shifts: name of the row whose thresholds are shown; empty for none.
        remarks: what holds for all rows, below the table.
    """

    title: str
    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    comparisons: tuple[tuple[str, str], ...] = ()
    shifts: str = ""
    remarks: tuple[str, ...] = ()

    @property
    def rows(self) -> dict[str, Row]:
        """Return all rows by name."""
        return {row.name: row for line in self.lines for row in line.rows}

    @property
    def splits(self) -> tuple[str, ...]:
        """List the splits that are scored."""
        return tuple(dict.fromkeys(column.split for column in self.columns))

"""Make the tables of docs/results.md from the raw results.

python experiments/tables.py            # writes docs/results.md
python experiments/tables.py --check    # tells whether it would change

In the page a table stands between ``<!-- table BACKBONE RECIPE STUDY [PART] -->`` and ``<!-- end -->``; PART is
``main`` (if none is given), ``comparisons`` or ``shifts``; STUDY is ``isf`` for inference-stage fusion,
``information``, ``answers`` and ``where`` for the scripts of these names, ``ensembles`` for gate.py's with naive
ensembles. ``<!-- table adapters -->`` is each_adapter.py's, ``<!-- table gate -->`` and ``<!-- table where -->`` are
those on its runs. Everything else on the page is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import answers
import each_adapter
import gate
import information
import where
from distilled import DISTILLED
from imitated import IMITATED
from longer import LONGER
from plan import RAW
from sparse import SPARSE

from segdre_plugin.analysis.study.results import Results
from segdre_plugin.analysis.study.score_row import Scores
from segdre_plugin.analysis.study.studies import STUDIES
from segdre_plugin.analysis.study.tables import Cell, Table
from segdre_plugin.analysis.study.write_results import comparison_table, main_table, shift_table

PAGE = Path(__file__).resolve().parent.parent / "docs" / "results.md"
BLOCK = re.compile(r"(<!-- table ([\w -]+) -->\n)((?:(?!<!-- ).)*)(<!-- end -->)", re.S)
SPLITS = ("dev", "test")
PARTS = ("main", "comparisons", "shifts")
PROBED = {"distilled": DISTILLED, "imitated": IMITATED, "longer": LONGER, "sparse": SPARSE}
ALONE: dict[str, dict[str, Callable[..., Table]]] = {
    "adapters": {"main": each_adapter.table},
    "gate": {"main": gate.table, "comparisons": gate.comparisons},
    "ensembles": {"main": gate.table, "comparisons": gate.comparisons},
    "where": {"main": where.table},
}
OTHERS: dict[str, Callable[..., Table]] = {"answers": answers.table, "information": information.table}


def read(folder: Path, study: str) -> tuple[Results, dict[str, Any]]:
    """Read a study's raw results.

    Args:
        folder: of the raw results of a backbone and recipe.
        study: its name in ``segdre study``, or in ``PROBED``.

    Returns:
        The results, and the raw JSON.
    """
    raw = json.loads((folder / f"{study}.json").read_text(encoding="utf-8"))
    studied = (STUDIES | PROBED)[study]
    lines = tuple(line for line in studied.lines if any(raw["rows"][row.name]["seeds"] for row in line.rows))
    scores = {
        name: {
            int(seed): Scores(found["thresholds"], {split: found[split] for split in SPLITS if split in found}, {})
            for seed, found in row["seeds"].items()
        }
        for name, row in raw["rows"].items()
    }
    errors = {
        name: {int(seed): text for seed, text in row["errors"].items()}
        for name, row in raw["rows"].items()
        if row["errors"]
    }
    return Results(replace(studied, lines=lines), tuple(raw["seeds"]), scores, errors), raw


def isf_table(backbone: str, recipe: str) -> str:
    """Make the table of inference-stage fusion."""
    raw = json.loads((RAW / backbone / recipe / "isf.json").read_text(encoding="utf-8"))
    rows = {
        "base": "base",
        "base_tuned": "base, threshold tuned",
        "base_isf": "base w. ISF",
        "fused": "SegDRE",
        "fused_isf": "SegDRE w. ISF",
    }
    columns = STUDIES["seeds"].columns
    lines = []
    for row, title in rows.items():
        values = ([100 * found[c.split][row][c.metric] for found in raw.values()] for c in columns)
        lines.append((title, [Cell(part) for part in values]))
    return with_seeds(Table("(%)", [column.title for column in columns], lines), list(raw))


def with_seeds(made: Table, seeds: Sequence[object]) -> str:
    """Return a table as Markdown, its seeds below."""
    return f"{made.markdown()}\n\n{'Seeds' if len(seeds) > 1 else 'One seed'}: {', '.join(map(str, seeds))}."


def table(place: str) -> str:
    """Make the table that a place of the page asks for."""
    words = place.split()
    part = words.pop() if words[-1] in PARTS else "main"
    *folder, study = words
    if study in ALONE:
        raw = json.loads(RAW.joinpath(*folder, f"{study}.json").read_text(encoding="utf-8"))
        return ALONE[study][part](raw).markdown()
    backbone, recipe = folder
    if study == "isf":
        return isf_table(backbone, recipe)
    if study in OTHERS:
        found = json.loads((RAW / backbone / recipe / f"{study}.json").read_text(encoding="utf-8"))
        return with_seeds(OTHERS[study](found), list(found))
    results, raw = read(RAW / backbone / recipe, study)
    tables = {
        "main": lambda: main_table(results),
        "comparisons": lambda: comparison_table(results, raw["comparisons"]),
        "shifts": lambda: shift_table(results),
    }
    made = tables[part]()
    if made is None:
        raise ValueError(f"{place}: there is no such table")
    return with_seeds(made, raw["seeds"])


def render(page: str) -> str:
    """Fill a page's tables in."""
    return BLOCK.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[4]}", page)


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    page = PAGE.read_text(encoding="utf-8")
    made = render(page)
    if options.check:
        print(f"{PAGE}: {'as the raw results say' if made == page else 'differs from the raw results'}")
        return int(made != page)
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The files of a study: ``NAME.md``, ``NAME.csv``, ``NAME.json``, and figures where the paper has one."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from segdre_plugin import __version__
from segdre_plugin.analysis.study.figures import draw
from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.results import Results
from segdre_plugin.analysis.study.tables import Cell, Table
from segdre_plugin.data.files import write, write_json

COMPARED = (
    "Differences of F1: documents are resampled (interval: paired bootstrap; p: paired permutation test), each with "
    "its counts of all seeds, because the same document under several seeds is not a new one. How much a difference "
    "owes to seeds shows in its lowest and its highest value."
)


@dataclass(frozen=True)
class Provenance:
    """Where a study's numbers come from.

    Attributes:
        command: the command line.
        seeds: the seeds.
        versions: package -> version.
        data: split -> its file's name, number of documents and SHA-256.
        encoder: its name or folder; empty for one from scratch.
        grid: of the threshold search.
        objective: of the threshold search.
    """

    command: str
    seeds: Sequence[int]
    versions: Mapping[str, str]
    data: Mapping[str, Mapping[str, Any]]
    encoder: str
    grid: str
    objective: str


def find_provenance(command: str, seeds: Sequence[int], run: FinishedRun | None) -> Provenance:
    """Return where numbers come from; without a finished run, nothing of data and search."""
    versions = {
        "segdre-plugin": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
    if run is None:
        return Provenance(command, seeds, versions, {}, "", "", "")
    documents = {"train": run.train} | run.documents
    data = {
        name: {"file": run.files[name].name, "documents": len(part), "sha256": run.sources["hashes"][name]}
        for name, part in documents.items()
    }
    encoder = str(run.settings("base")["arguments"].get("model_name_or_path", ""))
    return Provenance(command, seeds, versions, data, encoder, **run.search)


def main_table(results: Results) -> Table:
    """Make the study's table; a column without a value in any line is left out."""
    study = results.study
    columns = [c for c in study.columns if any(results.values(line, c) for line in study.lines)] or study.columns
    lines = []
    for line in study.lines:
        cells = []
        for column in columns:
            failed = results.errors.get(line.rows[column.row].name) or results.errors.get(column.over)
            values = results.values(line, column)
            cells.append(Cell(values, "failed" if failed else "-", signed=bool(column.over)))
        lines.append((line.title, cells))
    return Table("(%)", [column.title for column in columns], lines)


def shift_table(results: Results) -> Table | None:
    """Make a table of the shifts of thresholds; None where the study has none."""
    if not results.study.shifts:
        return None
    lines = [
        (stage, [Cell(values, "failed", signed=True), Cell(values and [sum(v > 0 for v in values)], decimals=0)])
        for stage, values in results.shifts().items()
    ]
    return Table("threshold", ["shift (logits)", "seeds with an upward shift"], lines)


def comparison_table(results: Results, comparisons: Sequence[Mapping[str, Any]]) -> Table | None:
    """Make a table of comparisons; None if there is none."""
    if not comparisons:
        return None
    titles = {line.rows[0].name: line.title for line in results.study.lines}
    lines = []
    for c in comparisons:
        by_seed = [100 * value for value in c["by_seed"].values()]
        numbers = [100 * c["difference"], 100 * c["low"], 100 * c["high"], min(by_seed), max(by_seed)]
        cells = [Cell([number], signed=True) for number in numbers]
        cells.insert(3, Cell([c["p_value"]], decimals=4))
        lines.append((f"{c['split']}: {titles[c['first']]} - {titles[c['second']]}", cells))
    low = f"{100 * comparisons[0]['confidence']:.0f} % from"
    return Table("F1 (points)", ["difference", low, "to", "p", "lowest seed", "highest seed"], lines)


def write_results(folder: Path, name: str, results: Results, provenance: Provenance) -> str:
    """Write tables, numbers and figures to an existing folder, named after the study; return the tables as text."""
    comparisons = results.comparisons()
    table = main_table(results)
    tables = [table, *filter(None, (shift_table(results), comparison_table(results, comparisons)))]
    figures = draw(folder, name, results)
    # the numbers as JSON: every row with every seed
    rows = {
        row: {
            "what": asdict(what),
            "seeds": {
                seed: {"thresholds": found.thresholds} | found.metrics
                for seed, found in results.scores.get(row, {}).items()
            },
            "errors": dict(results.errors.get(row, {})),
        }
        for row, what in results.study.rows.items()
    }
    content = {"study": name, "title": results.study.title} | asdict(provenance)
    if results.study.shifts:
        content["shifts"] = results.shifts()
    write_json(folder / f"{name}.json", content | {"rows": rows, "comparisons": comparisons})
    write_text(folder / f"{name}.csv", table.csv())
    write_text(folder / f"{name}.md", _page(results, provenance, tables, figures))
    return "\n\n".join(part.text() for part in tables)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    write(path, lambda file: file.write(text.encode()))


def _page(results: Results, provenance: Provenance, tables: Sequence[Table], figures: Sequence[str]) -> str:
    """Write a study's page of Markdown."""
    data = ", ".join(
        f"{part['file']} ({part['documents']} documents, SHA-256 {part['sha256'][:12]}...)"
        for part in provenance.data.values()
    )
    spread = ": mean ± standard deviation of the sample" if len(provenance.seeds) > 1 else ""
    facts = {
        "data": data,
        "encoder": provenance.encoder or "a tiny one from scratch" * bool(provenance.data),
        "seeds": ", ".join(map(str, provenance.seeds)) + spread,
        "threshold search": f"{provenance.grid} grid, {provenance.objective} on dev" * bool(provenance.grid),
        "versions": ", ".join(f"{name} {version}" for name, version in provenance.versions.items()),
    }
    notes = [f"- {line.title}: {line.note}" for line in results.study.lines if line.note]
    failed = [f"- {row}, seed {seed}: {error}" for row, part in results.errors.items() for seed, error in part.items()]
    parts = [
        f"# {results.study.title}",
        f"```sh\n{provenance.command}\n```",
        "\n".join(f"- {name}: {text}" for name, text in facts.items() if text),
        *(table.markdown() for table in tables),
        *(f"![{name}]({name})" for name in figures if name.endswith(".png")),
        "\n".join(notes),
        *results.study.remarks,
        COMPARED * bool(results.study.comparisons),
        "\n".join(["Failed:", "", *failed]) * bool(failed),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"

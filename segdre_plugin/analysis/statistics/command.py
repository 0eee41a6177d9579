"""``segdre stats``: statistics of files, side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from segdre_plugin.analysis.statistics.measure import Statistics, describe, sort_relations
from segdre_plugin.analysis.statistics.table import as_json, format_table
from segdre_plugin.data.documents import read_gold
from segdre_plugin.data.files import check_output, write_json
from segdre_plugin.data.progress import progress
from segdre_plugin.data.splits import read_relation_names
from segdre_plugin.errors import SegDREError


def run(
    paths: Sequence[Path],
    output: Path | None = None,
    figures: Path | None = None,
    rel_info: Path | None = None,
) -> dict[str, Statistics]:
    """Compute the statistics of files, print them as a table, and write them as JSON and figures.

    Args:
        paths: DocRED documents, JSON or JSONL; labels may be missing.
        output: where the numbers are written as JSON.
        figures: the folder for figures, PNG and SVG; made if missing.
        rel_info: names of relations, relation id -> name; without it relations go by their ids.

    Returns:
        Column (the file's name, or its path where two files have the same name) -> statistics.

    Raises:
        SegDREError: if a file cannot be read, is malformed or empty, or something cannot be written.
    """
    _check(paths, output, figures)
    alike = len({path.name for path in paths}) < len(paths)
    found = {}
    for path in paths:
        shown = progress(read_gold(path), label=path.name, unit=" documents", leave=False)
        found[str(path) if alike else path.name] = describe(shown, str(path))
    labelled = {column: s.labels for column, s in found.items() if s.labels is not None}
    names = {} if rel_info is None else read_relation_names(rel_info, sort_relations(labelled.values()))
    if figures is not None and not labelled:
        raise SegDREError("--figures: no document has a triple, so there is nothing to draw", "leave --figures out")
    if figures is not None:
        from segdre_plugin.analysis.statistics.figures import write_figures  # which loads matplotlib

        write_figures(figures, labelled, names)
    if output is not None:
        write_json(output, {column: as_json(s, names) for column, s in found.items()})
    notes = [
        f"{column}: no labels: no document has a triple, so there are no statistics of relations and salient entities"
        for column in found
        if column not in labelled
    ]
    notes += [f"written: {path}" for path in (output, figures) if path is not None]
    print("\n".join([format_table(found, names), *([""] if notes else []), *notes]))
    return found


def _check(paths: Sequence[Path], output: Path | None, figures: Path | None) -> None:
    """Refuse bad paths before any work."""
    real = [os.path.realpath(path) for path in paths]
    same = [path for i, path in enumerate(paths) if real[i] in real[:i]]
    if same:
        raise SegDREError(f"{same[0]} is listed twice", "list each file once")
    if output is not None:
        check_output("--json", output, paths)
    if figures is not None:
        check_output("--figures", figures, paths, folder=True)

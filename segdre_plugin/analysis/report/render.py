"""Write the report: read the run, fill the template, one file without anything outside it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from importlib import resources
from pathlib import Path
from typing import Any

from segdre_plugin import __version__
from segdre_plugin.analysis.report import page
from segdre_plugin.analysis.report.choose import choose_typical, find_titles
from segdre_plugin.analysis.report.curves import curve_figures
from segdre_plugin.analysis.report.decisions import OUTCOMES, SHOWN
from segdre_plugin.analysis.report.documents import view_document
from segdre_plugin.analysis.report.made import made_section
from segdre_plugin.analysis.report.run_cells import JudgedCandidates, dev_grid, expected_counts, load_candidates
from segdre_plugin.analysis.report.verdict import verdicts
from segdre_plugin.data.files import check_output, write
from segdre_plugin.seg.run_folder import RunFolder

PAGE = "report.html"


def write_report(
    folder: Path, output: Path | None = None, titles: Sequence[str] = (), data_dir: Path | None = None
) -> Path:
    """Write the report of a finished run.

    Args:
        folder: its ``--seg-dir``.
        output: the file to write; None writes ``report.html`` into the folder.
        titles: titles of the documents to show; none shows three typical ones of dev.
        data_dir: where the files of the data are now; None takes the paths that the run wrote down.

    Returns:
        The file.

    Raises:
        SegDREError: if the run is not finished, files are missing or changed, a title is unknown, or the file cannot be
            written or is one of the run or its data.
    """
    template = load_template("template.html.j2")
    run = RunFolder(folder, data_dir)
    run.require_finished()
    path = output or folder / PAGE
    check_output("--output", path, [*run.files.values(), *(own for own in folder.rglob("*") if own.name != PAGE)])
    text = template.render(**build(run, titles), style=resource("style.css"))
    write(path, lambda file: file.write(text.encode("utf-8", errors="xmlcharrefreplace")))
    return path


def build(run: RunFolder, titles: Sequence[str] = ()) -> dict[str, Any]:
    """Gather the template's variables; without titles, three typical documents of dev are shown."""
    load = cache(partial(load_candidates, run))
    dev = load("dev")
    candidates: dict[str, JudgedCandidates] = {name: load(name) for name in ("test", "dev") if name in run.documents}
    choices = find_titles(run, titles) if titles else choose_typical(run, dev)
    counts = cache(partial(expected_counts, run))
    documents = [view_document(run, load(choice.split), choice, counts(choice.split)) for choice in choices]
    grid, best = dev_grid(run, dev)
    threshold_table, threshold_figures, at_end = page.threshold_section(run.metrics)
    saliency_table, saliency_figures = page.saliency_section(run, counts("dev"))
    made_table, stage_table = made_section(run)
    return {
        "name": run.path.resolve().name,
        "adapter": run.sources["adapter"],
        "version": __version__,
        "sizes": {name: len(documents) for name, documents in run.documents.items()},
        "grid": run.search["grid"],
        "objective": page.OBJECTIVES[grid.objective],
        "n_points": len(grid.offsets),
        "verdicts": verdicts(run, candidates),
        "gains": page.gain_notes(run, dev, grid, best),
        "headlines": page.headlines(run.metrics),
        "scores": list(zip(page.score_tables(run.metrics), page.score_figures(run, candidates), strict=True)),
        "evaluations": [
            {"name": name, "tables": page.score_tables(metrics), "isf": metrics.get("isf")}
            for name, metrics in run.evaluations.items()
        ],
        "curve_figures": [figure for name in candidates for figure in curve_figures(run.metrics[name], name)],
        "threshold_table": threshold_table,
        "threshold_figures": threshold_figures,
        "at_end": at_end,
        "grid_figures": page.grid_figures(grid, best),
        "saliency_table": saliency_table,
        "saliency_figures": saliency_figures,
        "margin_figures": page.margin_figures(dev, run.metrics["thresholds"]),
        "candidates": (int(dev.gold.sum()), dev.n_gold),
        "documents": documents,
        "outcome_titles": OUTCOMES,
        "shown": SHOWN,
        "thresholds": run.metrics["thresholds"],
        "config": run.config,
        "made_table": made_table,
        "stage_table": stage_table,
        "left_out": run.metrics["branches_left_out"],
        "files": [(name, path.name, run.sources["hashes"][name]) for name, path in run.files.items()],
    }


def load_template(name: str) -> Any:
    """Return one of this folder's templates, which escapes whatever is filled in."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["logits"] = page.logits
    return environment.from_string(resource(name))


def resource(name: str) -> str:
    """Return the text of one of this folder's files."""
    return resources.files("segdre_plugin.analysis.report").joinpath(name).read_text(encoding="utf-8")

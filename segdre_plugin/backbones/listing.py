"""``segdre backbones``: the known backbones, and what of SegDRE each of them supports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segdre_plugin.backbones.clones.patching import has_patch
from segdre_plugin.backbones.registry import Adapter, known_adapters
from segdre_plugin.data.files import check_output, write_json

# Key of a row -> heading of the table.
COLUMNS = {
    "name": "name",
    "repository": "repository",
    "commit": "commit tried",
    "evidence": "evidence",
    "fast": "fast path",
    "slides": "long documents",
    "isf": "ISF",
    "trainer": "own trainer",
    "used_by": "used by",
}


def describe(adapter: Adapter) -> dict[str, Any]:
    """Return a row of the table: ``COLUMNS``, and where the adapter is from."""
    backbone, script = adapter.backbone, adapter.script
    used = ["wrap_model"] if script is None else ["run", "patch"] if has_patch(adapter) else ["run"]
    return {
        "name": adapter.name,
        "repository": backbone.repository,
        "commit": list(script.versions.values()) if script else [],
        "evidence": backbone.evidence is not None,
        "fast": backbone.pooling is not None,
        "slides": backbone.slides,
        "isf": script is not None and script.fuses is not None,
        "trainer": script is not None and script.recipe is not None,
        "used_by": used,
        "origin": adapter.origin,
    }


def list_backbones(target: Path | None = None) -> None:
    """Print the table, and write it as JSON where a file is given; raise SegDREError if an adapter is broken."""
    if target is not None:
        check_output("--json", target, [])
    rows = [describe(adapter) for adapter in known_adapters().values()]
    cells = [list(COLUMNS.values()), *([_text(row[key]) for key in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    if target is not None:
        write_json(target, rows)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return {True: "yes", False: "-"}[value] if isinstance(value, bool) else str(value)

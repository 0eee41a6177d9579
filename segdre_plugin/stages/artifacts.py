"""The files that stages leave in their folders, and what they hold."""

from __future__ import annotations

from pathlib import Path

from segdre_plugin.data.files import read_json, write_arrays, write_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import Chain, as_chain
from segdre_plugin.stages.stage import ChainResult, Stage

SALIENT = "salient.json"
INJECTED = "injected.json"


def margins_file(folder: Path, split: str) -> Path:
    """Return the file of a stage's margins on a split."""
    return folder / f"margins_{split}.npz"


def counts_file(folder: Path, split: str) -> Path:
    """Return the file of the relation counts that stage identify expects on a split."""
    return folder / f"counts_{split}.npz"


def read_salient(folder: Path) -> dict[str, list[Chain]]:
    """Read the salient entities that stage identify chose.

    Args:
        folder: the stage's folder.

    Returns:
        Split name -> the salient entities of each document.

    Raises:
        SegDREError: if the file is missing or holds something else.
    """
    path = folder / SALIENT
    found = read_json(path, "salient entities")
    try:
        return {name: [as_chain(chosen) for chosen in chains] for name, chains in found.items()}
    except (AttributeError, TypeError, SegDREError):
        raise SegDREError(
            f"{path}: expected split -> a list of salient entities for each document", "run stage identify again"
        ) from None


def save_result(folder: Path, stage: Stage, split: str, found: ChainResult) -> None:
    """Write what a stage found in a split: its margins, or salient entities and counts.

    Args:
        folder: the stage's folder.
        stage: the stage.
        split: the split's name.
        found: the result of the stage.
    """
    if not stage.finds_salient:
        found.tables[stage.name].save(margins_file(folder, split))
        return
    if found.counts is not None:
        write_arrays(counts_file(folder, split), dict(found.counts))
    path = folder / SALIENT
    before = read_json(path, "salient entities") if path.exists() else {}
    write_json(path, before | {split: found.salient})

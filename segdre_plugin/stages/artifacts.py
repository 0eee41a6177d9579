"""The files that a stage leaves in its folder: their names, and how they are written and read."""

from __future__ import annotations

from pathlib import Path

from segdre_plugin.data.files import read_json, write_arrays, write_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import Chain
from segdre_plugin.stages.stage import ChainResult, Stage

SETTINGS = "settings.json"  # all on which the stage depends; written last
METRICS = "metrics.json"  # split -> scores
SALIENT = "salient.json"  # split -> salient entities of each document (identify)
INJECTED = "injected.json"  # split -> triples injected into each document, and how many were left out (sparse)


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
    if not isinstance(found, dict):
        raise SegDREError(f"{path}: expected an object, got {type(found).__name__}", "train stage identify again")
    for split, chains in found.items():
        if not isinstance(chains, list):
            raise SegDREError(
                f"{path}: {split}: expected a list, got {type(chains).__name__}", "train stage identify again"
            )
        for i, chain in enumerate(chains):
            if not (isinstance(chain, list) and all(type(entity) is int and entity >= 0 for entity in chain)):
                raise SegDREError(
                    f"{path}: {split}[{i}]: expected a list of entities, got {chain!r}", "train stage identify again"
                )
    return {split: [tuple(chain) for chain in chains] for split, chains in found.items()}


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

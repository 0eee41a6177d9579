"""The files that a stage leaves in its folder: their names, and how they are written and read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from segdre_plugin.data.files import read_json, write_arrays, write_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import Chain
from segdre_plugin.stages.config import STAGES
from segdre_plugin.stages.stage import ChainResult, Stage

SETTINGS = "settings.json"  # all on which the stage depends; written last
METRICS = "metrics.json"  # split -> scores
SALIENT = "salient.json"  # split -> salient entities of each document (identify)
PROVENANCE = "provenance.json"  # how the stage was made; no result depends on it
UNCHOSEN = "dense"  # folder in the base's: margins of the dense head for all pairs, where the base shares its encoder
INJECTED = "injected.json"  # split -> triples injected into each document, and how many were left out (sparse)

AGAIN = "run its command again: finished stages are skipped"  # what completes an unfinished run
RETRAIN = "remove that stage's folder and run its command again"
EACH = "*"  # in a form: any field of an object


def margins_file(folder: Path, split: str) -> Path:
    """Return the file of a stage's margins on a split."""
    return folder / f"margins_{split}.npz"


def counts_file(folder: Path, split: str) -> Path:
    """Return the file of the relation counts that stage identify expects on a split."""
    return folder / f"counts_{split}.npz"


def read_salient(folder: Path) -> dict[str, list[Chain]]:
    """Return the salient entities that stage identify chose: split name -> those of each document.

    Raises:
        SegDREError: if the file is missing or holds something else.
    """
    path = folder / SALIENT
    found = read_json(path, "salient entities")
    check_form(path, found, {EACH: [[int]]})
    for split, chains in found.items():
        for i, chain in enumerate(chains):
            if min(chain, default=0) < 0:
                raise SegDREError(f"{path}: {split}[{i}]: expected entities from 0, got {chain!r}", RETRAIN)
    return {split: [tuple(chain) for chain in chains] for split, chains in found.items()}


def check_form(path: Path, value: Any, form: Any, where: str = "", hint: str = "") -> None:
    """Refuse what a file holds if it does not have a form.

    Args:
        path: the file, for the message.
        value: what it holds.
        form: a type; a tuple of types or of texts, one of which it has to be; a list with the form of each item; or a
            dict with the form of each field, under :data:`EACH` of any field.
        where: the place of the value in the file.
        hint: what to do; empty: as for a file of a run's folder.

    Raises:
        SegDREError: with the first place that is missing or has another form; true, false, NaN and infinities
            are not numbers.
    """
    hint = hint or (RETRAIN if path.parent.name in STAGES else AGAIN)
    choices = form if isinstance(form, tuple) else (type(form) if isinstance(form, (dict, list)) else form,)
    types = tuple(choice for choice in choices if isinstance(choice, type))
    fits = isinstance(value, types) and (bool in types or not isinstance(value, bool)) if types else value in choices
    fits = fits and not (isinstance(value, float) and not math.isfinite(value))
    if not fits:
        names = " or ".join(choice.__name__ if isinstance(choice, type) else choice for choice in choices)
        raise SegDREError(f"{path}: {where}{': ' * bool(where)}expected {names}, got {value!r:.80}", hint)
    if isinstance(form, list):
        for i, item in enumerate(value):
            check_form(path, item, form[0], f"{where}[{i}]", hint)
    for name, inner in form.items() if isinstance(form, dict) else ():
        for key in value if name == EACH else (name,):
            place = f"{where}.{key}" if where else key
            if key not in value:
                raise SegDREError(f"{path}: {place} missing", hint)
            check_form(path, value[key], inner, place, hint)


def save_result(folder: Path, stage: Stage, split: str, found: ChainResult) -> None:
    """Write what a stage found in a split: margins, or salient entities and counts, those of the base's other heads."""
    if found.counts is not None and (stage.finds_salient or stage.shares_encoder):
        write_arrays(counts_file(folder, split), dict(found.counts))
    if not stage.finds_salient:
        found.tables[stage.name].save(margins_file(folder, split))
        if stage.shares_encoder and found.unchosen is not None:
            (folder / UNCHOSEN).mkdir(exist_ok=True)
            found.unchosen.save(margins_file(folder / UNCHOSEN, split))
        return
    path = folder / SALIENT
    before = read_json(path, "salient entities") if path.exists() else {}
    write_json(path, before | {split: found.salient})

"""The folder of a ``--seg`` run: one finished subfolder a stage, or none."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.data.folders import (
    PARTIAL,
    copy_files,
    locked,
    remove_litter,
    remove_lock,
    replacing,
    saved_by_libraries,
)
from segdre_plugin.errors import SegDREError, explained, raise_all
from segdre_plugin.seg.provenance import Origin
from segdre_plugin.stages.artifacts import PROVENANCE, SETTINGS
from segdre_plugin.stages.config import STAGES

UNFINISHED = "unfinished-{}"  # how the names of what goes on with a cut-off stage begin, by the digest of its settings


class Store:
    """The folder ``--seg-dir``; it is made when a stage is first written."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder; the lock goes with the process, also when it is killed.

        Raises:
            SegDREError: if another run is in it, or it cannot be made.
        """
        with explained(f"cannot write --seg-dir {self.root}"):
            self.root.mkdir(parents=True, exist_ok=True)
        busy = f"--seg-dir {self.root}: another run is using it"
        with locked(self.root / ".lock", busy, "wait for it, or pass another folder"):
            self.tidy()
            for stage in STAGES:
                remove_lock(self.folder(stage))
            yield

    def tidy(self) -> None:
        """Remove what processes that were killed left half written, but not what goes on with a stage."""
        remove_litter(self.root, keep=UNFINISHED.format("*"))

    def folder(self, stage: str) -> Path:
        """Return the folder of a stage."""
        return self.root / stage

    def is_done(self, stage: str) -> bool:
        """Return whether a stage is finished."""
        return (self.folder(stage) / SETTINGS).is_file()

    def check(self, stage: str, settings: Mapping[str, Any]) -> None:
        """Refuse a finished stage that was made with other settings.

        Raises:
            SegDREError: with all the settings that differ.
        """
        path = self.folder(stage) / SETTINGS
        before, now = flat(read_json(path, f"stage {stage}")), flat(json.loads(json.dumps(settings)))
        raise_all(
            differences(before, now),
            f"{self.folder(stage)} was made with other settings",
            "use the same settings, another --seg-dir, or remove that folder and those of later stages",
        )

    def matches(self, stage: str, settings: Mapping[str, Any]) -> bool:
        """Return whether a stage is finished, made with just these settings."""
        if not self.is_done(stage):
            return False
        before: object = read_json(self.folder(stage) / SETTINGS, f"stage {stage}")
        return before == json.loads(json.dumps(settings))

    def adopt(self, stage: str, source: Store) -> None:
        """Take a finished stage of another run; its files are linked where that can be done."""
        with replacing(self.folder(stage)) as folder:
            copy_files(source.folder(stage), folder, _link)

    @contextmanager
    def building(self, stage: str, settings: Mapping[str, Any], processes: int = 1) -> Iterator[Path]:
        """Yield a folder to write a stage into: it appears whole when the context ends, and not at all if it fails.

        ``processes`` is how many train the stage.

        An unfinished one stays, out of the way, if it holds a file by which the same settings go on: :meth:`resume`.

        Raises:
            SegDREError: if a folder of that name already exists.
        """
        if self.folder(stage).exists():
            raise SegDREError(f"{self.folder(stage)} exists, but is not a finished stage", "remove or rename it")
        origin, partial = Origin(processes), self.root / f".{stage}{PARTIAL}"
        goes_on = UNFINISHED.format(digest(settings)) + "*"
        if any(partial.glob(goes_on)):
            remove_litter(partial)  # half of such a file
        else:
            shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
            with explained(f"cannot write {self.folder(stage)}"):
                partial.mkdir()
        try:
            with saved_by_libraries(self.folder(stage)):
                yield partial
            write_json(partial / PROVENANCE, origin.describe())
            write_json(partial / SETTINGS, settings)
            with explained(f"cannot write {self.folder(stage)}"):
                partial.rename(self.folder(stage))
        except BaseException:
            if not any(partial.glob(goes_on)):
                shutil.rmtree(partial, ignore_errors=True)
            raise

    @staticmethod
    def resume(folder: Path, settings: Mapping[str, Any]) -> Path:
        """Return where the unfinished training of a stage with these settings is kept."""
        return folder / f"{UNFINISHED.format(digest(settings))}.pt"


def differences(
    before: Mapping[str, Any], now: Mapping[str, Any], words: tuple[str, str] = ("there", "now")
) -> list[str]:
    """Return a line for each name whose value was another one before; ``words`` say where each is found."""
    return [
        f"{name}: {before.get(name, 'not set')!r} {words[0]}, {now.get(name, 'not set')!r} {words[1]}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def digest(settings: Mapping[str, Any]) -> str:
    """Return a short hash of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _link(source: Path, target: Path) -> None:
    """Make a file appear in a second place without using its space twice; finished stages never change."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings to dotted names."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, part in value.items() for k, v in flat(part, f"{prefix}.{name}" if prefix else name).items()}

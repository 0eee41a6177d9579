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

from filelock import FileLock, Timeout

from segdre_plugin.data.files import read_json, replacing, write_json
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.stages.artifacts import SETTINGS


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
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SegDREError(f"--seg-dir {self.root}: {error.strerror}", "pass a folder that can be made") from None
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SegDREError(
                f"--seg-dir {self.root}: another run is using it", "wait for it, or pass another folder"
            ) from None
        try:
            yield
        finally:
            lock.release()

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
        self.root.mkdir(parents=True, exist_ok=True)
        with replacing(self.folder(stage)) as folder:
            shutil.copytree(source.folder(stage), folder, copy_function=_link, dirs_exist_ok=True)

    @contextmanager
    def building(self, stage: str, settings: Mapping[str, Any]) -> Iterator[Path]:
        """Yield a folder to write a stage into: it appears whole when the context ends, and not at all if it fails.

        Raises:
            SegDREError: if a folder of that name already exists.
        """
        if self.folder(stage).exists():
            raise SegDREError(f"{self.folder(stage)} exists, but is not a finished stage", "remove or rename it")
        partial = self.root / f".{stage}.partial"
        shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
        partial.mkdir()
        try:
            yield partial
            write_json(partial / SETTINGS, settings)
            partial.rename(self.folder(stage))
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for each name whose value was another one before."""
    return [
        f"{name}: {before.get(name, 'not set')!r} there, {now.get(name, 'not set')!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def digest(settings: Mapping[str, Any]) -> str:
    """Return a short hash of settings."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _link(source: str, target: str) -> None:
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

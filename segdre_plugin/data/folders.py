"""Folders used by one process at a time, replaced whole or not at all, and copied without following links."""

from __future__ import annotations

import glob
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from segdre_plugin.errors import SegDREError, explain, explained, raise_all

PARTIAL = ".partial"  # how the hidden name of what is not whole yet ends
OLD = ".old"  # how that of what is about to be replaced ends
_NOT_WRITTEN = re.compile(r"inline_container|os error \d+")


@contextmanager
def locked(path: Path, busy: str, hint: str) -> Iterator[None]:
    """Hold a lock file inside the context; one that a killed process left behind does not lock.

    Raises:
        SegDREError: with the message ``busy`` if another process holds it.
    """
    lock = FileLock(path)
    with explained(f"cannot write {path}"):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SegDREError(busy, hint) from None
    if not path.exists():  # its last holder removed it in between, and who comes next makes another
        lock.release()
        raise SegDREError(busy, hint)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file; filelock does it there
            path.unlink()
        lock.release()


def remove_litter(folder: Path, name: str = "", keep: str = "") -> None:
    """Remove what killed processes left half written in a folder whose lock is held.

    ``name`` begins the names of the files and folders that were written; a folder with a file like ``keep`` stays.
    """
    for path in folder.glob(f".{glob.escape(name)}*{PARTIAL}"):
        if keep and any(path.glob(keep)):
            continue
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Replace a folder: what was there stays until the new one is whole, also if the process is killed.

    Args:
        folder: where it goes; its parents are created.

    Yields:
        A folder to write into.
    """
    folder = Path(os.path.realpath(folder))  # a link stays one
    with explained(f"cannot write {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _hidden(folder, PARTIAL)
    with _writing(folder):
        with explained(f"cannot write {folder}"):
            _settle(folder)
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            partial.mkdir()
        try:
            with saved_by_libraries(folder):
                yield partial
            with explained(f"cannot write {folder}"):
                if folder.exists():
                    folder.rename(_hidden(folder, OLD))
                partial.rename(folder)
        finally:
            _settle(folder)
            shutil.rmtree(partial, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put a folder back if it was about to be replaced when the process that did so was killed."""
    if not folder.exists() and _hidden(folder, OLD).exists():
        with _writing(folder):
            _settle(folder)


def remove_lock(folder: Path) -> None:
    """Remove the lock that a killed process left on a folder which no other process replaces now."""
    _hidden(folder, ".lock").unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Drop what was replaced where the new folder is whole, and put it back where there is none."""
    old = _hidden(folder, OLD)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.exists():
        old.rename(folder)


def _writing(folder: Path) -> AbstractContextManager[None]:
    busy = f"{folder}: another process is writing it"
    return locked(_hidden(folder, ".lock"), busy, "wait for it, or pass another folder")


def _hidden(folder: Path, end: str) -> Path:
    return folder.with_name(f".{folder.name}{end}")


def regular_files(folder: Path) -> dict[str, Path]:
    """Return the files of a folder and of the folders in it, by their paths in it (``encoder/config.json``).

    Raises:
        SegDREError: if it holds anything else: a link leads to files elsewhere, a pipe or device never ends.
    """
    found, others = {}, []
    for place, folders, files in os.walk(folder):
        for path in (Path(place) / name for name in sorted((*folders, *files))):
            mode, name = path.lstat().st_mode, path.relative_to(folder).as_posix()
            if stat.S_ISREG(mode):
                found[name] = path
            elif not stat.S_ISDIR(mode):
                others.append(
                    f"{name}: a link to {os.readlink(path)}" if stat.S_ISLNK(mode) else f"{name}: not an ordinary file"
                )
    raise_all(others, f"{folder}: expected files and folders only", "replace these by ordinary files, or remove them")
    return found


def copy_files(source: Path, target: Path, copy: Callable[[Path, Path], object] = shutil.copyfile) -> None:
    """Copy the files of a folder, and of the folders in it, into another folder.

    Raises:
        SegDREError: if the folder is a link or holds one.
    """
    if source.is_symlink():
        raise SegDREError(f"{source}: a link to {os.readlink(source)}", "replace it by an ordinary folder")
    for name, path in regular_files(source).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        copy(path, target / name)


@contextmanager
def saved_by_libraries(place: Path) -> Iterator[None]:
    """Explain, inside the context, how torch and libraries in Rust say that no file was written.

    Raises:
        SegDREError: in place of their errors.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and not isinstance(error, BrokenPipeError):
            problem = explain(error, f"cannot write {place}")  # of a copy that breaks off
            raise problem from None
        if not isinstance(error, (SegDREError, OSError)) and _NOT_WRITTEN.search(str(error)):
            raise SegDREError(
                f"cannot write {place}: {str(error).splitlines()[0]}", "check that the disk is not full"
            ) from None
        raise

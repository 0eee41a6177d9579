"""Files written whole or not at all, and read without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from segdre_plugin.errors import SegDREError

if TYPE_CHECKING:
    import torch


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON."""
    write(path, lambda file: file.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()))


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as npz."""
    write(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def write(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Fill a temporary file and rename it to ``path``."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        # mkstemp makes files that only their owner may read
        os.chmod(temporary, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def named_path(text: str) -> Path:
    """Return the path that an argument of a command names; the empty one would be the current folder.

    Raises:
        ArgumentTypeError: if it is empty.
    """
    if not text:
        raise ArgumentTypeError("expected a path, got ''")
    return Path(text)


def check_output(
    option: str, path: Path, sources: Iterable[Path] = (), *, folder: bool = False, parents: bool = False
) -> None:
    """Refuse, before any work, an output that could not be written in the end.

    Args:
        option: the option that names it, for messages.
        path: the output.
        sources: input files, which it must not replace.
        folder: whether a folder is to be written, not a file.
        parents: whether folders above it that are missing will be made.

    Raises:
        SegDREError: if its parent folder is missing or read-only, or something else exists at the path.
    """
    parent = path.absolute().parent
    while parents and not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise SegDREError(f"{option} {path}: no folder {parent}", "create it first")
    if not os.access(parent, os.W_OK):
        raise SegDREError(f"{option} {path}: cannot write into {parent}", "pass another path")
    if path.resolve() in {source.resolve() for source in sources}:
        raise SegDREError(f"{option} {path} is one of the files that are read", "pass another path")
    if path.exists() and path.is_dir() != folder:
        raise SegDREError(f"{option} {path} is not a {'folder' if folder else 'file'}", "pass another path")


def read_json(path: Path, what: str) -> Any:
    """Return the value of a JSON file; ``what`` names its contents in messages.

    Raises:
        SegDREError: if it is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SegDREError(f"{what}: cannot read {path}: {error.strerror}", "check the path") from None
    except (ValueError, RecursionError) as error:  # ValueError: syntax, encoding, numbers of thousands of digits
        raise SegDREError(f"{what}: {path} is not JSON: {error}", "check that the file is whole") from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by name.

    Raises:
        SegDREError: if it is missing or not a whole file of numeric arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise SegDREError(f"cannot read {path}: {error.strerror or error}", "check the path") from None
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise SegDREError(f"{path} is not a file of arrays: {_first_line(error)}", "train that stage again") from None


def read_weights(path: Path, what: str) -> dict[str, torch.Tensor]:
    """Return the state dict of a file, on the CPU; ``what`` names it in messages.

    Raises:
        SegDREError: if it is missing or not a file of tensors.
    """
    import torch  # takes seconds to load, and most commands read no weights

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SegDREError(f"{what}: cannot read {path}: {error.strerror}", "check the path") from None
    except Exception as error:  # torch.load raises half a dozen types for a broken or foreign file
        raise SegDREError(
            f"{what}: {path} is not a checkpoint of tensors: {_first_line(error)}", "train that stage again"
        ) from None
    if not (isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())):
        raise SegDREError(f"{what}: {path} is not a checkpoint of tensors", "pass a saved state_dict")
    return state


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, however large."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Replace a folder: what was there stays until the new one is whole.

    Args:
        folder: where it goes; its parents are created.

    Yields:
        A folder to write into.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (folder.with_name(f".{folder.name}.{end}") for end in ("partial", "old"))
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    finally:
        for left in (partial, old):
            shutil.rmtree(left, ignore_errors=True)

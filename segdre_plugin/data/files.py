"""Files written whole or not at all, and read without pickle.

Links are followed. Nothing replaces pipes and devices: they are written to (:mod:`segdre_plugin.data.pipes`).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import stat
import tarfile
import tempfile
import zipfile
import zlib
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from segdre_plugin.data.folders import PARTIAL, remove_litter
from segdre_plugin.data.pipes import is_stream, open_stream, opened
from segdre_plugin.errors import SegDREError, explained, raise_all

if TYPE_CHECKING:
    import torch


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON."""
    write(path, lambda file: file.write((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()))


def write_documents(path: Path, documents: Iterable[Any]) -> None:
    """Write documents as they come, one a line: JSONL if the path's name says so, else a JSON list."""
    lines = path.suffix == ".jsonl"

    def fill(file: IO[bytes]) -> None:
        before = b"" if lines else b"[\n"
        for document in documents:
            file.write(before + json.dumps(document, ensure_ascii=False).encode() + b"\n" * lines)
            before = b"" if lines else b",\n"
        if not lines:
            file.write(b"[]\n" if before == b"[\n" else b"\n]\n")

    write(path, fill)


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as npz."""
    write(path, lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


def write(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Fill a temporary file and rename it to ``path``, or to what that links to; fill a pipe or a device itself.

    Raises:
        SegDREError: if it cannot be written; a file of that name is then as before.
    """
    with explained(f"cannot write {path}"):
        if is_stream(path):
            with open_stream(path) as file:
                fill(file)
            return
        target = Path(os.path.realpath(path))
        mode = os.stat(path).st_mode if os.path.lexists(target) else 0o644
        if stat.S_ISDIR(mode):
            raise SegDREError(f"cannot write {path}: it is a folder", "pass another path, or remove it")
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{_stem(target)}", suffix=PARTIAL)
        try:
            with os.fdopen(handle, "wb") as file:
                fill(file)
            # mkstemp makes files that only their owner may read
            os.chmod(temporary, stat.S_IMODE(mode))
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise


def remove_half_written(path: Path) -> None:
    """Remove what killed processes left of writing a file which no other process writes now."""
    target = Path(os.path.realpath(path))
    remove_litter(target.parent, _stem(target))


def _stem(path: Path) -> str:
    """Begin the name of what is written before it takes the place of a file."""
    return f"{path.name[:40]}."


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
    if not folder and is_stream(path):
        return
    parent = path.absolute().parent
    while parents and not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise SegDREError(f"{option} {path}: no folder {parent}", "create it first")
    if not os.access(parent, os.W_OK):
        raise SegDREError(f"{option} {path}: cannot write into {parent}", "pass another path")
    if os.path.realpath(path) in map(os.path.realpath, sources):
        raise SegDREError(f"{option} {path} is one of the files that are read", "pass another path")
    if path.exists() and path.is_dir() != folder:
        raise SegDREError(f"{option} {path} is not a {'folder' if folder else 'file'}", "pass another path")


def read_json(path: Path, what: str) -> Any:
    """Return the value of a JSON file; ``what`` names its contents in messages.

    Raises:
        SegDREError: if it is missing or not JSON.
    """
    with opened(path, what) as file:
        return decode(file.read(), path, what)


def decode(text: bytes, path: Path, what: str) -> Any:
    """Return the value of JSON text in UTF-8; ``path`` and ``what`` say where it is from.

    Raises:
        SegDREError: if it is not JSON.
    """
    try:
        return json.loads(text.decode())
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, and numbers of thousands of digits
        reason = str(error)
    raise SegDREError(f"{what}: {path} is not JSON: {reason}", "check that the file is whole")


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file by name.

    Raises:
        SegDREError: if it is missing or not a whole file of numeric arrays.
    """
    try:
        with explained(f"cannot read {path}"), np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except SegDREError:
        raise
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise SegDREError(f"{path} is not a file of arrays: {_first_line(error)}", "train that stage again") from None


def read_weights(path: Path, what: str, key: str | None = None) -> dict[str, torch.Tensor]:
    """Return the state dict of a file, or the one under a ``key`` in it, on the CPU; ``what`` names it in messages.

    Raises:
        SegDREError: if it is missing or not a file of tensors, or some of them are not finite.
    """
    import torch  # takes seconds to load, and most commands read no weights

    state = read_state(path, what)
    if key is not None:
        if not (isinstance(state, dict) and key in state):
            found = ", ".join(map(str, list(state)[:5])) if isinstance(state, dict) else type(state).__name__
            raise SegDREError(f"{what}: {path}: expected a state dict under {key!r}, got {found}", "pass another file")
        state = state[key]
    if not (isinstance(state, dict) and all(isinstance(value, torch.Tensor) for value in state.values())):
        raise SegDREError(f"{what}: {path} is not a checkpoint of tensors", "pass a saved state_dict")
    check_finite(path, state)
    return state


def read_state(path: Path, what: str) -> Any:
    """Return what ``torch.save`` wrote, tensors and plain values, on the CPU; ``what`` names it in messages.

    Raises:
        SegDREError: if it is missing, or holds anything else.
    """
    import torch

    try:
        with explained(f"{what}: cannot read {path}"):
            # in its oldest format, a tar file, torch before 2.6 runs code all the same
            if tarfile.is_tarfile(path):
                raise SegDREError(f"{what}: {path} is not a checkpoint of tensors", "pass a saved state_dict")
            return torch.load(path, map_location="cpu", weights_only=True)
    except SegDREError:
        raise
    except Exception as error:  # torch.load raises half a dozen types for a broken or foreign file
        # of objects torch says how to load them all the same
        found = "other objects" if isinstance(error, pickle.UnpicklingError) else _first_line(error)
        raise SegDREError(f"{what}: {path} is not a checkpoint of tensors: {found}", "train that stage again") from None


def check_finite(path: Path, weights: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights of a file that are not finite.

    Raises:
        SegDREError: with their names.
    """
    raise_all(
        [name for name, weight in weights.items() if not weight.isfinite().all()],
        f"{path}: weights that are not finite",
        "pass other weights, or train that stage again with a lower learning rate",
        limit=5,
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a file, however large."""
    found = hashlib.sha256()
    with explained(f"cannot read {path}"), path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()

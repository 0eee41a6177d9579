"""Files written whole or not at all, and read without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from segdre_plugin.errors import SegDREError


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
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner may read
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: Path, what: str) -> Any:
    """Read JSON.

    Args:
        path: the file.
        what: what it is, for messages.

    Returns:
        Its value.

    Raises:
        SegDREError: if it is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SegDREError(f"{what}: cannot read {path}: {error.strerror}", "check the path") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SegDREError(f"{what}: {path} is no JSON: {error}", "check that the file is whole") from None


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read arrays from npz."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def read_weights(path: Path, what: str) -> dict[str, torch.Tensor]:
    """Read a state dict onto the CPU.

    Args:
        path: the file.
        what: what it is, for messages.

    Returns:
        The state dict.

    Raises:
        SegDREError: if it is missing or not a file of tensors.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise SegDREError(f"{what}: cannot read {path}: {error.strerror}", "check the path") from None
    except Exception as error:  # torch.load raises half a dozen types for a broken or foreign file
        raise SegDREError(
            f"{what}: {path} is no checkpoint of tensors: {str(error).splitlines()[0]}", "train that stage again"
        ) from None


def fingerprint(path: Path) -> str:
    """Give the SHA-256 of a file, however large."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()

"""Input that can be read once, and output that cannot be replaced: standard input and output (``-``), pipes."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, cast

from segdre_plugin.errors import SegDREError, explained

# How files begin that hold no JSON in UTF-8, and what they are.
FOREIGN = {b"PK\3\4": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
FOREIGN |= dict.fromkeys((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "UTF-16")
GZIP = b"\x1f\x8b"


@contextmanager
def opened(path: Path, what: str) -> Iterator[io.BufferedReader]:
    """Open a file of text in UTF-8 to read its bytes, once and from start to end, so that it may be a pipe.

    Args:
        path: ``-`` is standard input.
        what: a noun for the contents, for messages.

    Yields:
        The file; a byte order mark is left out, and gzip is unpacked.

    Raises:
        SegDREError: if it cannot be read, is of another format, or is gzip that breaks off.
    """
    try:
        with (
            explained(f"{what}: cannot read {path}"),
            nullcontext(sys.stdin.buffer) if str(path) == "-" else path.open("rb") as file,
        ):
            start = file.read(len(GZIP))
            content = unread(start, file)
            if start == GZIP:
                content = io.BufferedReader(gzip.GzipFile(fileobj=content))
            start = content.read(5)
            for mark, form in FOREIGN.items():
                if start.startswith(mark):
                    raise SegDREError(f"{what}: {path} is {form}, expected UTF-8, plain or gzip", "convert it")
            yield unread(start.removeprefix(codecs.BOM_UTF8), content)
    except (EOFError, zlib.error) as error:
        raise SegDREError(f"{what}: {path} is broken gzip: {error}", "check that the file is whole") from None


def unread(start: bytes, file: IO[bytes]) -> io.BufferedReader:
    """Return a file that reads ``start``, then what is left of another file."""
    return io.BufferedReader(_Joined(start, file))


class _Joined(io.RawIOBase):
    def __init__(self, start: bytes, file: IO[bytes]) -> None:
        self.start, self.file = start, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self.start[: len(buffer)] or self.file.read1(len(buffer))  # type: ignore[attr-defined]
        self.start = self.start[len(block) :]
        buffer[: len(block)] = block
        return len(block)


def is_stream(path: Path) -> bool:
    """Return whether an output is written to as it is: ``-``, a descriptor (/dev/stdout), a pipe or a device."""
    return _descriptor(path) is not None or (path.exists() and not path.is_file() and not path.is_dir())


def is_stdout(path: Path) -> bool:
    """Return whether an output is standard output, under any name."""
    return _descriptor(path) == 1


def _descriptor(path: Path) -> int | None:
    """Return the descriptor of this process that a path means, through links, if it means one."""
    if str(path) == "-":
        return 1
    for _ in range(40):  # links, at most as many as Linux follows
        if path.name.isdigit() and os.path.realpath(path.parent) in ("/dev/fd", f"/proc/{os.getpid()}/fd"):
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / os.readlink(path)
    return None


@contextmanager
def open_stream(path: Path) -> Iterator[IO[bytes]]:
    """Open what :func:`is_stream` is true of for writing; standard output stays open."""
    number = _descriptor(path)
    if number == 1 and sys.__stdout__ is not None:  # sys.stdout may be redirected for messages
        sys.__stdout__.flush()
        yield cast(IO[bytes], sys.__stdout__.buffer)
        sys.__stdout__.flush()
        return
    with path.open("wb") if number is None else os.fdopen(os.dup(number), "wb") as file:
        yield file


@contextmanager
def written_at_end(path: Path) -> Iterator[Path]:
    """Yield a file to write that can also be read: ``path``, or for a stream a temporary one that is copied into it."""
    if not is_stream(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "output"
        yield copy
        with explained(f"cannot write {path}"), copy.open("rb") as source, open_stream(path) as file:
            shutil.copyfileobj(source, file)


@contextmanager
def rereadable(path: Path, what: str) -> Iterator[Path]:
    """Yield an input that can be read more than once: ``path``, or a temporary copy of what a pipe holds.

    Raises:
        SegDREError: if it cannot be read.
    """
    if path.is_file():
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "input"
        with opened(path, what) as file, explained(f"cannot copy {path} to {folder}"), copy.open("wb") as target:
            shutil.copyfileobj(file, target)
        yield copy

"""Documents one by one from a JSON list or a JSONL file of any size.

A JSON list is decoded element by element as it is read, a JSONL file line by line, so that memory holds one document
and no file. In a JSONL file a broken line is one bad document; in a JSON list nothing after a syntax error can be read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from segdre_plugin.errors import SegDREError

BLOCK = 1 << 20  # characters
CUT_OFF = 16  # more characters than the longest literal, -Infinity
_SPACE = " \t\n\r"


@dataclass(frozen=True)
class Broken:
    """Stands for a line that is no JSON.

    Attributes:
        reason: why.
    """

    reason: str


def read_values(path: Path, what: str = "documents") -> Iterator[Any]:
    """Read the values of a JSON list, or of a file with one JSON value a line.

    Args:
        path: the file; it is taken for a list if its first character is ``[``.
        what: what it holds, for messages.

    Yields:
        The values in the file's order; a :class:`Broken` for each line that is no JSON.

    Raises:
        SegDREError: if the file cannot be read, is empty, or breaks off or is no JSON inside a list.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
            first = _first(file)
            if not first:
                raise SegDREError(f"{what}: {path} is empty", "give a JSON list, or one JSON object a line")
            yield from _elements(file, path, what) if first == "[" else _lines(file)
    except OSError as error:
        raise SegDREError(f"{what}: cannot read {path}: {error.strerror}", "check the path") from None


def count_lines(path: Path) -> int | None:
    """Count the values of a JSONL file; None for a JSON list, which would have to be decoded for that."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        return None if _first(file) == "[" else sum(1 for line in file if line.strip())


def _first(file: IO[str]) -> str:
    """Return the first character that is no space, empty at the end of the file, and go back to the beginning."""
    while (character := file.read(1)) in _SPACE and character:
        pass
    file.seek(0)
    return character


def _lines(file: IO[str]) -> Iterator[Any]:
    for line in file:
        if line.strip():
            yield _decode(line)


def _decode(line: str) -> Any:
    try:
        line.encode()
    except UnicodeEncodeError:
        return Broken("not UTF-8")
    try:
        return json.loads(line)
    except RecursionError:
        return Broken("nested too deeply")
    except ValueError as error:  # JSONDecodeError, and numbers of thousands of digits
        return Broken(f"no JSON: {error}")


def _elements(file: IO[str], path: Path, what: str) -> Iterator[Any]:
    """Decode a list element by element.

    Args:
        file: open at the list's first line.
        path: its path, for messages.
        what: what it holds, for messages.

    Yields:
        The elements.

    Raises:
        SegDREError: at the first syntax error.
    """
    decoder = json.JSONDecoder()
    buffer = _Buffer(file)
    buffer.skip()
    buffer.take()
    n = 0
    mark = "," if buffer.skip() != "]" else "]"
    while mark == ",":
        value, problem = buffer.value(decoder)
        if problem:
            raise SegDREError(f"{what}: {path} is no JSON: element {n}: {problem}", "check that the file is whole")
        yield value
        n += 1
        mark = buffer.skip()
        if mark not in (",", "]"):
            found = repr(mark) if mark else "the end of the file"
            raise SegDREError(
                f"{what}: {path} is no JSON: after element {n - 1}: expected , or ], found {found}",
                "check that the file is whole",
            )
        buffer.take()
        if mark == ",":
            buffer.skip()
    if n == 0:
        buffer.take()
    if buffer.skip():
        raise SegDREError(f"{what}: {path} is no JSON: more text after the list", "give one JSON list a file")


class _Buffer:
    """The part of a file that is being decoded."""

    def __init__(self, file: IO[str]) -> None:
        self.file, self.text, self.at = file, "", 0

    def skip(self) -> str:
        """Go to the next character that is no space and give it; empty at the end of the file."""
        while True:
            while self.at < len(self.text):
                if self.text[self.at] not in _SPACE:
                    return self.text[self.at]
                self.at += 1
            if not self._grow(BLOCK):
                return ""

    def take(self) -> None:
        """Step over a character."""
        self.at += 1

    def value(self, decoder: json.JSONDecoder) -> tuple[Any, str]:
        """Decode the value here; give it, or what is wrong."""
        size = BLOCK
        while True:
            try:
                value, end = decoder.raw_decode(self.text, self.at)
            except RecursionError:
                return None, "nested too deeply"
            except json.JSONDecodeError as error:
                # Text that is cut off goes wrong at its end, or in a string that does not close.
                cut_off = error.pos > len(self.text) - CUT_OFF or error.msg.startswith("Unterminated string")
                if not cut_off or not self._grow(size):
                    return None, f"{error.msg}: {self.text[error.pos : error.pos + 20]!r}"
            except ValueError as error:  # a number of thousands of digits
                return None, str(error)
            else:
                # a number could go on in the next block: "0." decodes as 0
                if end + CUT_OFF <= len(self.text) or not self._grow(size):
                    text, self.at = self.text[self.at : end], end
                    return (value, "") if _is_unicode(text) else (None, "not UTF-8")
            size *= 2  # so that the work stays linear in the value's length

    def _grow(self, size: int) -> bool:
        """Read on; forget what is behind."""
        more = self.file.read(size)
        if not more:
            return False
        self.text, self.at = self.text[self.at :] + more, 0
        return True


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

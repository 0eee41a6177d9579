"""Documents one by one from a JSON list, a JSONL file of any size, or a file of one document.

A JSON list is decoded element by element as it is read (ijson), a JSONL file line by line, so that memory holds one
document and no file. In a JSONL file a broken line is one bad document; a JSON list cannot be read beyond a syntax
error. As ijson's parser has it, a list holds neither NaN nor integers of more than 64 bits, and half a surrogate pair
that is spelled as an escape becomes a question mark; a list that is decoded as a whole keeps them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import ijson

from segdre_plugin.data.files import decode
from segdre_plugin.data.pipes import opened, unread
from segdre_plugin.errors import SegDREError

DEEPEST = 500  # nested lists and objects; documents have five
_SPACE = b" \t\n\r"
_DEPTH = {"start_array": 1, "start_map": 1, "end_array": -1, "end_map": -1}


@dataclass(frozen=True)
class Broken:
    """A line that is not JSON, and what is wrong with it."""

    reason: str


def read_values(path: Path, what: str = "documents", *, whole: bool = False) -> Iterator[Any]:
    """Read the values of a JSON list, or of a file with one JSON value a line or in all.

    Args:
        path: the file, in UTF-8, plain or gzip, perhaps a pipe; read as a list if its first character is ``[``.
        what: a noun for the values, for messages.
        whole: decode a list as a whole: faster, and memory holds the file.

    Yields:
        The values in the file's order; a :class:`Broken` in place of each line that is not JSON.

    Raises:
        SegDREError: if the file cannot be read, is empty, is a list that breaks off or is not JSON, or is an object
            that holds the values under a key.
    """
    with opened(path, what) as file:
        first = _first(file)
        content = unread(first, file)
        if not first:
            raise SegDREError(f"{what}: {path} is empty", "use a JSON list, or one JSON object a line")
        if first == b"[":
            yield from decode(content.read(), path, what) if whole else _elements(content, path, what)
        else:
            yield from _lines(content, path, what)


def count_lines(path: Path) -> int | None:
    """Count the lines that begin an object, for a progress bar; None for a JSON list, which is not decoded for that."""
    with opened(path, "documents") as file:
        first = _first(file)
        return None if first == b"[" else sum(line.startswith(b"{") for line in unread(first, file))


def _first(file: IO[bytes]) -> bytes:
    """Read up to the first character that is not a space, and return it; empty at the end."""
    while (character := file.read(1)) in _SPACE and character:
        pass
    return character


def _lines(file: IO[bytes], path: Path, what: str) -> Iterator[Any]:
    """Yield the values of lines, or the only value of a file that spells it over several."""
    first, second = file.readline(), file.readline()
    value = decode_line(first)
    if isinstance(value, Broken) and second.strip() and not second.startswith(b"{"):
        value, second = decode(first + second + file.read(), path, what), b""
    if isinstance(value, dict) and "title" not in value:
        for key, part in value.items():
            if isinstance(part, list) and part and isinstance(part[0], dict) and "title" in part[0]:
                raise SegDREError(f"{what}: {path}: the list is under the key {key!r}", "write it alone into a file")
    yield value
    yield from map(decode_line, filter(bytes.strip, chain([second], file)))


def decode_line(line: bytes) -> Any:
    """Return the value of a line of JSON, or a :class:`Broken`."""
    try:
        return json.loads(line.decode())
    except UnicodeDecodeError:
        return Broken("not UTF-8")
    except RecursionError:
        return Broken("nested too deeply")
    except ValueError as error:  # JSONDecodeError, and numbers of thousands of digits
        return Broken(f"not JSON: {error}")


def _elements(file: IO[bytes], path: Path, what: str) -> Iterator[Any]:
    """Yield the elements of a list as they are decoded.

    ``ijson.items`` would do, but it keeps the path to each value: memory grows with the square of the depth.

    Raises:
        SegDREError: at the first syntax error, or at an element that is nested too deeply.
    """
    where, hint = f"{what}: {path} is not JSON: element", "check that the file is one whole list"
    n = depth = 0
    try:
        events = ijson.basic_parse(file, use_float=True)
        next(events)  # the list opens
        for event, value in events:
            if depth == 0:
                if event == "end_array":  # the list closes; text after it is an error
                    continue
                builder = ijson.ObjectBuilder()
            builder.event(event, value)
            depth += _DEPTH.get(event, 0)
            if depth > DEEPEST:
                raise SegDREError(f"{where} {n}: nested too deeply", hint)
            if depth == 0:
                yield builder.value
                n += 1
    except (ijson.JSONError, UnicodeDecodeError) as error:  # the parser lets some bytes pass that are not UTF-8
        # the parser adds a picture of the text; where that is not UTF-8, all of it is the repr of bytes
        reason = str(error).removeprefix("b'").partition("\n")[0].partition("\\n")[0]
        raise SegDREError(f"{where} {n}: {reason}", hint) from None

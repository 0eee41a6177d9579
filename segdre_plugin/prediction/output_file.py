"""The files of ``segdre predict``: lines that only grow, and what a killed run left of them.

Each input document becomes one line, of answers or of rejected documents; a line starts with the document's number.
Lines are written in the input's order, so what a killed run left is a prefix: everything behind the first missing
number, and an incomplete last line, is cut off before going on. Beside them lies what the output was made from.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from segdre_plugin.data.files import read_json, write, write_json
from segdre_plugin.errors import SegDREError, explained, raise_all
from segdre_plugin.prediction.features import Rejection
from segdre_plugin.prediction.formats import FORMATS
from segdre_plugin.seg.store import differences
from segdre_plugin.stages.artifacts import check_form

_NUMBER = re.compile(rb'\{"index": (\d+),')


class Output:
    """The output of a prediction.

    Args:
        path: the file that the user asked for.
        form: ``jsonl`` (one answer a line), or another of :mod:`segdre_plugin.prediction.formats`, made of the lines at
            the end.
        source: what the output depends on; what a killed run left is only continued if it was made from the same.
        kept: whether the file stays, and with it what lies beside it; else rejected documents are printed at the end.

    Raises:
        SegDREError: if the form is unknown.
    """

    def __init__(self, path: Path, form: str, source: Mapping[str, Any], kept: bool = True) -> None:
        if form not in FORMATS:
            raise SegDREError(f"unknown format {form!r}", f"formats: {', '.join(FORMATS)}")
        self.path, self.form, self.source = path, form, dict(source) | {"format": form}
        self.kept = kept
        self.lines = path.with_name(f"{path.name}.lines") if FORMATS[form] else path
        self.rejected = path.with_name(f"{path.name}.rejected.jsonl")
        self.state = path.with_name(f"{path.name}.run.json")
        self.files: tuple[IO[bytes], IO[bytes]] | None = None

    def is_complete(self, resume: bool) -> bool:
        """Return whether the output is complete; otherwise it can be started.

        Raises:
            SegDREError: if an output exists and is not to be resumed, or was made from something else.
        """
        there = [path for path in (self.path, self.lines, self.rejected, self.state) if path.exists()]
        return is_complete(there, self.state, self.source, resume) and self.path.exists()

    def start(self) -> int:
        """Open the files, and return the first document still to be predicted: that at which a killed run stopped."""
        first = repair(self.lines, self.rejected)
        write_json(self.state, {"done": False, "source": self.source})
        with explained(f"cannot write {self.path}"):
            self.files = self.lines.open("ab"), self.rejected.open("ab")
        return first

    def add(self, index: int, title: Any, result: dict[str, Any] | Rejection) -> None:
        """Write a document's line."""
        assert self.files is not None
        file = self.files[isinstance(result, Rejection)]
        with explained(f"cannot write {self.path}"):
            file.write(output_line(index, title, result).encode())

    def flush(self) -> None:
        """Flush the files, so that a killed process does not lose what was written."""
        assert self.files is not None
        with explained(f"cannot write {self.path}"):
            for file in self.files:
                file.flush()

    def close(self) -> None:
        """Close the files; what is in them stays."""
        with explained(f"cannot write {self.path}"):
            for file in self.files or ():
                file.close()

    def answers(self) -> Iterator[dict[str, Any]]:
        """Yield the answers that were written, each with the number of its document."""
        with self.lines.open("rb") as file:
            yield from map(json.loads, file)

    def finish(self, report: Mapping[str, Any]) -> None:
        """Mark the output complete; make it of the lines if its format is another."""
        self.close()
        if not self.kept:
            print(self.rejected.read_text(encoding="utf-8"), end="", file=sys.stderr)
        if not self.rejected.stat().st_size:
            self.rejected.unlink()
        make = FORMATS[self.form]
        if make:
            write(self.path, lambda file: make(file, self.answers()))
        write_json(self.state, {"done": True, "source": self.source, "report": dict(report)})
        if make:
            self.lines.unlink()


def is_complete(there: Sequence[Path], state: Path, source: Mapping[str, Any], resume: bool) -> bool:
    """Return whether an output is complete; otherwise it can be started.

    Args:
        there: what exists of it.
        state: its state, ``done`` and ``source``.
        source: what it depends on now.
        resume: whether to go on with what exists.

    Raises:
        SegDREError: if an output exists and is not to be resumed, or was made from something else.
    """
    if there and not resume:
        raise SegDREError(f"{there[0]} already exists", "pass --resume or another --output, or remove it")
    if there and not state.exists():
        raise SegDREError(f"{there[0]} is not an output of segdre predict", "remove it, or pass another --output")
    if not there:
        return False
    found = read_json(state, "state of the output")
    check_form(state, found, {"done": bool, "source": dict}, hint="remove it, or pass another --output")
    raise_all(
        differences(found["source"], source),
        f"{there[0]} was made from something else",
        "resume with the same input, bundle and options, or pass another --output",
    )
    return found["done"] is True


def output_line(index: int, title: Any, result: dict[str, Any] | Rejection, **more: Any) -> str:
    """Return a document's line; ``more`` goes in behind its number."""
    place = {"index": index} | more
    if isinstance(result, Rejection):  # surrogates in its title are written as JSON spells them
        return json.dumps(place | {"title": title, "reasons": result.reasons}) + "\n"
    return json.dumps(place | result, ensure_ascii=False) + "\n"


def repair(lines: Path, rejected: Path) -> int:
    """Cut two files off behind the documents 0, 1, 2, ... that they hold together, and return how many these are."""
    files = [path for path in (lines, rejected) if path.exists()]
    left = [_numbers(path) for path in files]
    following = [next(part, None) for part in left]
    kept = [0] * len(files)
    n = 0
    while True:
        place = next((k for k, line in enumerate(following) if line is not None and line[0] == n), None)
        if place is None:
            break
        line = following[place]
        assert line is not None
        kept[place] = line[1]
        following[place] = next(left[place], None)
        n += 1
    for part in left:
        part.close()
    for path, size in zip(files, kept, strict=True):
        with path.open("r+b") as file:
            file.truncate(size)
    return n


def _numbers(path: Path) -> Generator[tuple[int, int], None, None]:
    """Return each whole line's number and the place of its end; stop at a line that is not ours."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            match = _NUMBER.match(line)
            if match is None or not line.endswith(b"}\n"):
                return
            end += len(line)
            yield int(match[1]), end

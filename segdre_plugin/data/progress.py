"""Progress: a bar on a terminal, and in a log a line a minute without control characters; spans of time in words."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any, TextIO

from tqdm import tqdm

PERIOD = 60  # seconds between two lines of a log
_shown = True  # whether this process shows anything
LINE = "{desc}: {n:.0f} of {total_fmt}, {elapsed} so far"


def progress(items: Iterable[Any] | None = None, *, label: str, **how: Any) -> Any:
    """Return items with their progress shown on standard error, or, without items, a bar that is moved by hand.

    Args:
        items: what is gone through.
        label: what stands before it; empty: nothing is shown.
        how: arguments of ``tqdm``, such as ``total`` and ``leave``.
    """
    stream = sys.stderr
    how |= {"desc": label, "disable": not (label and _shown), "dynamic_ncols": True, "file": stream}
    if not stream.isatty():
        how |= {"file": _Lines(stream), "bar_format": LINE}
    return tqdm(items, **how)


def say(text: str) -> None:
    """Print a line, above the bar if there is one."""
    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()


@contextmanager
def silence() -> Iterator[None]:
    """Print and show nothing inside the context: another process does the same, and shows it."""
    global _shown
    _shown = False
    try:
        with redirect_stdout(_Nothing()):
            yield
    finally:
        _shown = True


def duration(seconds: float) -> str:
    """Return a span of time in the unit that suits it: seconds, minutes or hours."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class _Nothing(StringIO):
    """A stream that keeps nothing."""

    def write(self, text: str) -> int:
        return len(text)


class _Lines:
    """A stream for what tqdm draws over and over: now and then, a drawing becomes a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.last = stream, time.monotonic()

    def write(self, text: str) -> None:
        text, now = text.strip(), time.monotonic()
        if text and now - self.last >= PERIOD:
            self.stream.write(f"segdre: {text}\n")
            self.last = now

    def flush(self) -> None:
        self.stream.flush()

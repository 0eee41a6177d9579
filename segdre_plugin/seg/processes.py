"""Processes that end with the one that started them: their logs, and why they failed."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path


def start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process that calls :func:`end_with_parent`; its output goes into ``log``, and it has no input."""
    with log.open("wb") as file:
        # nothing is written to the pipe: the process sees it close when this one ends
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        return subprocess.Popen(command, stdin=pipe, stdout=file, stderr=both, env=environment)


@cache  # a second call would read the input that the first one put in the pipe's place
def end_with_parent() -> None:
    """End this process with the one at the other end of its standard input, however that ends."""
    pipe = os.dup(0)
    with open(os.devnull, encoding="utf-8") as nothing:
        os.dup2(nothing.fileno(), 0)  # scripts that ask for input find none
    threading.Thread(target=_wait_for_the_end, args=(pipe,), daemon=True).start()


def _wait_for_the_end(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os._exit(1)


def last_words(log: Path) -> str:
    """Return why a process failed: its last error message, else the last line that it printed."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [k for k, line in enumerate(lines) if line.startswith("segdre: error: ")]
    if errors:
        return " ".join(lines[errors[-1] :]).removeprefix("segdre: error: ")
    return lines[-1] if lines else "it printed nothing"

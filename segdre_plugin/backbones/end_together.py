"""Processes of one training end together: when one fails or dies, the main one says why, and no other waits for it.

The main process is connected with all others. At each end of a connection a thread waits for a message from the other
one: an empty one when its work is done, else the reason. The connection breaks when a process dies, which the thread
sees at once, whatever its process is busy with.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from datetime import timedelta
from threading import Lock, Thread
from types import TracebackType
from typing import Any

import torch
import torch.distributed as dist

from segdre_plugin.errors import ENDINGS, SegDREError

LENGTH = 4000  # bytes of a message
PATIENCE = 5.0  # seconds in which a process that fails, too, may say so itself
FAILED = 2  # exit status


class EndTogether:
    """The work of one process, as a context.

    Args:
        rank: its number; 0 is the main process.
        size: how many there are.
        group: a gloo group of all of them, for this alone.
    """

    def __init__(self, rank: int, size: int, group: Any) -> None:
        self.rank, self.size, self.group = rank, size, group
        self.others = range(1, size) if rank == 0 else (0,)
        self.leaving, self.ending = False, Lock()

    def __enter__(self) -> EndTogether:
        self.threads = [Thread(target=self._wait, args=(other,), daemon=True) for other in self.others]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        known = isinstance(error, (*ENDINGS, SystemExit))
        if error and not known:
            time.sleep(PATIENCE)  # an exchange with a dead process fails; the thread says meanwhile that it has died
        self.leaving = True
        self._tell((str(error) or type(error).__name__) if error else "")
        if not error:
            for thread in self.threads:  # the connection stays until all are done
                thread.join()
        elif self.rank and known:
            time.sleep(2 * PATIENCE)  # the main process says it; a launcher would end that as soon as this one ends
            raise SystemExit(FAILED) from None

    def _tell(self, text: str) -> None:
        """Send a message to all; a process that is gone or leaving may never take it."""
        content = text.encode()[:LENGTH]
        message = torch.tensor(list(content.ljust(LENGTH, b"\0")), dtype=torch.uint8)
        for other in self.others:
            with suppress(RuntimeError):
                sent = dist.isend(message, other, group=self.group)
                if sent:
                    sent.wait(timedelta(seconds=PATIENCE))

    def _wait(self, other: int) -> None:
        """Wait for the message of another process."""
        message = torch.zeros(LENGTH, dtype=torch.uint8)
        try:
            dist.recv(message, other, group=self.group)
        except RuntimeError:
            if not self.leaving:
                self._end(f"process {other} of {self.size} has died", "see what the launcher says of it")
            return
        text = bytes(message.tolist()).rstrip(b"\0").decode(errors="replace")
        if text:
            time.sleep(PATIENCE)  # in which this process may say the same, or the main one does
            self._end("" if self.rank else f"process {other} of {self.size}: {text}")

    def _end(self, problem: str, hint: str = "") -> None:
        """Print why this process ends, and end it from this thread; the main process tells the others."""
        with self.ending:  # once
            if problem:
                print(f"segdre: error: {SegDREError(problem, hint)}", file=sys.stderr, flush=True)
            if not self.rank:
                self._tell(problem)
            os._exit(FAILED)

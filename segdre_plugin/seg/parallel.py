"""``--seg-parallel``: the processes of stages that are trained at the same time.

Each runs the command line of the run again for one stage, which the environment names. The run's own process holds the
lock of the folder, gives each a GPU in turn, and ends them all when one fails.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from segdre_plugin.backbones.launched import GPUS, visible_gpus
from segdre_plugin.data.progress import duration, say
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.processes import end_with_parent, last_words, start
from segdre_plugin.seg.store import Store

PERIOD = 0.2  # seconds between two looks at the processes
STAGE = "SEGDRE_STAGE"  # in the environment of a stage's process: which one
SAID, ERROR = "segdre: ", "segdre: error: "  # how the lines of a log begin that are shown, and those that are not


def own_stage() -> str | None:
    """Return the stage whose process this is, which ends with the one that started it; None for the run's own."""
    stage = os.environ.pop(STAGE, None)
    if stage:
        end_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # at Ctrl-C, the run's own process ends this one
    return stage


def check_command_line(flag: str) -> None:
    """Refuse to start the command line of this process again where that would not be the run.

    Raises:
        SegDREError: if ``flag`` is not on it: the run was started from Python.
    """
    if flag not in sys.orig_argv:
        raise SegDREError(
            f"{flag}: each stage gets the command line of this process, which has no {flag}",
            "start the run by a command, or leave it out",
        )


@dataclass
class Child:
    """The process of a stage.

    Attributes:
        process: the process.
        log: what it prints, opened to read on where this process has read to.
        gpu: as CUDA_VISIBLE_DEVICES names it; None on the CPU.
        begun: when it was started, in seconds.
    """

    process: subprocess.Popen[bytes]
    log: IO[str]
    gpu: str | None
    begun: float


class Children:
    """The processes of the stages under way, by stage; at the end of the context all are ended.

    Their logs are in the run's folder: ``STAGE.log``.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.gpus = store, visible_gpus()
        self.running: dict[str, Child] = {}
        self.shown: set[str] = set()

    def __enter__(self) -> Children:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.running.values():
            child.process.kill()
        for child in self.running.values():
            child.process.wait()
            child.log.close()

    def log(self, stage: str) -> Path:
        """Return the file of what a stage's process prints."""
        return self.store.root / f"{stage}.log"

    def start(self, stage: str) -> None:
        """Start the process of a stage, on the GPU with the fewest others."""
        used = [child.gpu for child in self.running.values()]
        gpu = min(self.gpus, key=used.count, default=None)
        say(f"segdre: stage {stage} starts{'' if gpu is None else f' on GPU {gpu}'}; its log: {self.log(stage)}")
        command, own = [sys.executable, *sys.orig_argv[1:]], {STAGE: stage} | ({} if gpu is None else {GPUS: gpu})
        process = start(command, self.log(stage), os.environ | own)
        log = self.log(stage).open(encoding="utf-8", errors="replace")
        self.running[stage] = Child(process, log, gpu, time.monotonic())

    def finished(self) -> list[str]:
        """Wait a little, and show what is said meanwhile.

        Returns:
            The stages that are finished since the last call.

        Raises:
            SegDREError: if one failed.
        """
        found = []
        time.sleep(PERIOD)
        for stage, child in list(self.running.items()):
            status = child.process.poll()
            for line in child.log:
                if line.startswith(SAID) and not line.startswith(ERROR) and line not in self.shown:
                    self.shown.add(line)  # all of them say the same of the data
                    say(line.rstrip())
            if status is None:
                continue
            if status or not self.store.is_done(stage):
                raise self._failure(stage, status)
            self.running.pop(stage).log.close()
            say(f"segdre: stage {stage} is finished after {duration(time.monotonic() - child.begun)}")
            found.append(stage)
        return found

    def _failure(self, stage: str, status: int) -> SegDREError:
        hint = f"correct that, then run the same command again: finished stages are skipped (log: {self.log(stage)})"
        if status < 0:
            reason = f"its process was ended by signal {-status} ({signal.strsignal(-status)})"
            if status == -signal.SIGKILL:
                reason += ", as the system does when memory runs out"
                hint = f"leave --seg-parallel out if it does, else {hint.removeprefix('correct that, then ')}"
            return SegDREError(f"stage {stage}: {reason}", hint)
        said = last_words(self.log(stage))
        return SegDREError(said if said.startswith(f"stage {stage}") else f"stage {stage}: {said}", hint)

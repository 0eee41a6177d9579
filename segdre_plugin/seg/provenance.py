"""How a stage was made: command, date, machine, versions and time, in a file of its folder on which no result depends.

It goes with the stage where another run takes it (``--seg-reuse``), and is never compared with anything.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

FORM = {
    "command": str,
    "date": str,
    "seconds": (int, float),
    "processes": int,
    "machine": {"system": str, "processor": str, "cores": int, "threads": int, "gpu": (str, type(None))},
    "versions": dict.fromkeys(("segdre_plugin", "torch", "transformers", "numpy", "python"), str),
}


class Origin:
    """The origin of a stage whose making begins now, in this process and perhaps others."""

    def __init__(self, processes: int = 1) -> None:
        self.processes = processes
        self._date, self._start = datetime.now(timezone.utc), time.perf_counter()

    def describe(self) -> dict[str, Any]:
        """Return a value of :data:`FORM`: the date is that of the beginning (UTC), the seconds are those until now."""
        return {
            "command": command(),
            "date": self._date.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self._start, 1),
            "processes": self.processes,
            "machine": machine(),
            "versions": versions(),
        }


def command() -> str:
    """Return the command line of this process, as it was typed but for the folder of the program."""
    program, *rest = sys.orig_argv
    if rest and Path(rest[0]).stem == "segdre":  # the interpreter stands before it
        program, *rest = rest
    return shlex.join([Path(program).name, *rest])


def machine() -> dict[str, Any]:
    """Return what computes here; not its name."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "gpu": ", ".join(dict.fromkeys(gpus)) or None,  # which of those that torch sees computes, the script says
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes here."""
    from segdre_plugin import __version__

    return {
        "segdre_plugin": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the model of the processor where the system says it (Linux), else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()

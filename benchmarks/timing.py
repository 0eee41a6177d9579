"""Time the sides of a comparison against each other in one process, and report what came out.

    seconds = interleaved({"upstream": upstream_step, "ours": our_step}, repeats=9)
    rows = compare("dense stage", seconds, against="upstream", peak_mb={"upstream": 900, "ours": 400})
    report("Training step", rows, Path("steps.json"), batch=4)

prints one Markdown table and writes it, with all single times, machine and versions, as JSON.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from segdre_plugin.data.files import write_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.provenance import processor, versions

Row = dict[str, Any]
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def interleaved(
    sides: Mapping[str, Callable[[], Any]],
    *,
    repeats: int = 7,
    warmup: int = 1,
    synchronize: Callable[[], Any] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Run the sides in turn, round after round, so that a busy moment of the machine meets all of them.

    Args:
        sides: name -> what is timed.
        repeats: timed rounds; each runs every side once, beginning with another one each time.
        warmup: rounds before them that are not timed.
        synchronize: called before the clock starts and before it stops, e.g. ``torch.cuda.synchronize``.
        clock: wall time; ``time.process_time`` leaves out the time in which other processes have the cores.

    Returns:
        Seconds of each side's runs, [repeats].

    Raises:
        SegDREError: if there is nothing to time.
    """
    if not sides or repeats < 1:
        raise SegDREError(f"{len(sides)} sides, {repeats} repeats", "pass one side and one repeat or more")
    wait = synchronize or (lambda: None)
    names = list(sides)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.freeze()  # the libraries' objects, which are many, are not looked at again
    try:
        with tqdm(total=(warmup + repeats) * len(names), leave=False, dynamic_ncols=True) as bar:
            for number in range(-warmup, repeats):
                first = number % len(names)
                for name in names[first:] + names[:first]:
                    bar.set_description(name)
                    gc.collect()  # what one side leaves is not the other's work
                    wait()
                    started = clock()
                    sides[name]()
                    wait()
                    if number >= 0:
                        seconds[name].append(clock() - started)
                    bar.update()
    finally:
        gc.unfreeze()
    return seconds


def compare(case: str, seconds: Mapping[str, Sequence[float]], *, against: str, **more: Mapping[str, Any]) -> list[Row]:
    """Make the rows of one comparison.

    Args:
        case: what was compared.
        seconds: of each side, from :func:`interleaved`.
        against: the side that the others are compared with.
        more: further columns: name -> side -> value.

    Returns:
        One row a side: ``median_s``, and ``times_faster``, which is the median of ``against`` divided by the side's.
    """
    base = statistics.median(seconds[against])
    rows = []
    for side, values in seconds.items():
        median = statistics.median(values)
        row = {"case": case, "side": side, "median_s": median, "times_faster": base / median, "seconds": list(values)}
        rows.append(row | {name: column.get(side) for name, column in more.items()})
    return rows


def growth(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Return the exponent with which time grows with size (1: linear, 2: quadratic), by least squares of the logs."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def report(title: str, rows: Sequence[Row], path: Path | None = None, **settings: Any) -> None:
    """Print rows as a Markdown table and write them, and where they were measured, as JSON.

    Args:
        title: of the table.
        rows: one dictionary a line of the table; ``seconds`` (the single times) goes into the file only.
        path: the JSON file; None writes none.
        settings: what the numbers depend on.
    """
    where = machine()
    print(f"\n{title}\n" + "".join(f"{name}: {value}\n" for name, value in (where | settings).items()))
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "seconds"))
    cells = [columns, *([_shown(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print("\n".join(lines))
    if path is not None:
        write_json(path, {"title": title, "machine": where, "settings": settings, "rows": list(rows)})
        print(f"written: {path}")


def machine() -> dict[str, Any]:
    """Return what computes here: processor, cores, threads, other load, GPU, versions."""
    about: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),  # of the last minute: other work on the same cores makes numbers doubtful
    }
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
    return about | versions()


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else str(value)

"""How a training step of the base stage grows with the length, the entities and the number of the documents of a batch.

python benchmarks/growth.py

Real documents of mini Re-DocRED, the real ATLOP: four of about the same length (or number of entities) at a time, from
the shortest to the longest, and batches of 1 to 8 documents; upstream's step against the fast one.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from steps import training_step
from timing import Row, growth, interleaved, report
from workload import FAST, UPSTREAM, Workload, add_places

from segdre_plugin.errors import SegDREError

BATCH = 4
POINTS = 4  # of each curve


def cuts(work: Workload, size: Callable[[dict[str, Any]], float]) -> list[tuple[float, Workload]]:
    """Return batches of documents of like size, from the smallest to the largest, each with its mean size."""
    order = sorted(range(len(work.features)), key=lambda i: size(work.features[i]))
    found = []
    for k in range(POINTS):
        first = round(k * (len(order) - BATCH) / (POINTS - 1))
        chosen = order[first : first + BATCH]
        part = replace(work, features=[work.features[i] for i in chosen], documents=[work.documents[i] for i in chosen])
        found.append((statistics.mean(size(feature) for feature in part.features), part))
    return found


def curve(what: str, cases: Sequence[tuple[float, Workload, int]], repeats: int) -> list[Row]:
    """Time both sides at each size; the exponent is the slope of log time over log size."""
    rows: list[Row] = []
    found: dict[str, list[float]] = {UPSTREAM: [], FAST: []}
    for size, work, batch in cases:
        seconds = interleaved({name: training_step(work, name, "base", batch) for name in found}, repeats=repeats)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        for name, value in medians.items():
            found[name].append(value)
        ratio = medians[UPSTREAM] / medians[FAST]
        rows.append({"grows": what, "size": size} | medians | {"times_faster": ratio, "seconds": seconds})
    sizes = [size for size, _, _ in cases]
    return [
        *rows,
        {"grows": what, "size": "exponent"} | {name: growth(sizes, values) for name, values in found.items()},
    ]


def main() -> None:
    """Measure all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_places(parser)
    parser.add_argument("--documents", type=int, default=100, help="the first of the train file (%(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, default=Path("growth.json"))
    arguments = parser.parse_args()
    work = Workload.load(arguments.data, arguments.clone, arguments.encoder, arguments.documents, "cpu")
    middle = cuts(work, lambda feature: len(feature["input_ids"]))[POINTS // 2][1]
    batches = [
        (n, replace(middle, features=(middle.features * 2)[:n], documents=(middle.documents * 2)[:n]), n)
        for n in (1, 2, 4, 8)
    ]
    rows = [
        row
        for what, cases in {
            "tokens": [(size, part, BATCH) for size, part in cuts(work, lambda f: len(f["input_ids"]))],
            "entities": [(size, part, BATCH) for size, part in cuts(work, lambda f: len(f["entity_pos"]))],
            "documents of a batch": batches,
        }.items()
        for row in curve(what, cases, arguments.repeats)
    ]
    report("Growth of a training step of the base stage, seconds", rows, arguments.json, clone="ATLOP", batch=BATCH)


if __name__ == "__main__":
    try:
        main()
    except SegDREError as error:
        sys.exit(f"error: {error}")

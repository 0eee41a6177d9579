"""What is promised of the same documents read again (docs/performance.md): the same bits on a CPU, 1e-4 on a GPU.

A GPU adds numbers up in another order in batches of another shape, and where many threads add to one place in another
order each time. Decisions are the same there but for a margin within 1e-4 of its threshold, of which these tests have
none.
"""

import json
import re

import numpy as np
import torch

from segdre_plugin.stages.margins import Margins

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
EXACT = len(DEVICES) == 1  # what runs a model takes the GPU where there is one
TOLERANCE = 1e-4  # relative, and absolute
NUMBER = re.compile(r"-?\d+\.\d+(?:e[+-]?\d+)?")


def tolerance(wanted):
    """Return the tolerance for two readings that differ by ``wanted`` at most on a CPU."""
    return wanted if EXACT else max(wanted, TOLERANCE)


def same_text(one, other):
    """Return whether two outputs are the same text; on a GPU but for their numbers with a point, which are near."""
    if EXACT or one == other:
        return one == other
    numbers = [[float(number) for number in NUMBER.findall(text)] for text in (one, other)]
    return NUMBER.split(one) == NUMBER.split(other) and np.allclose(*numbers, rtol=TOLERANCE, atol=TOLERANCE)


def same_files(one, other):
    """Return whether two files of text are the same output."""
    return same_text(one.read_text(encoding="utf-8"), other.read_text(encoding="utf-8"))


def same_answers(one, other):
    """Return whether two values of JSON are the same answers."""
    return same_text(json.dumps(one), json.dumps(other))


def same_margins(one, other):
    """Return whether two files of margins have the same cells and margins."""
    if EXACT:
        return one.read_bytes() == other.read_bytes()
    tables = [Margins.load(path) for path in (one, other)]
    cells = [dict(zip(zip(t.document, t.head, t.tail, t.relation, strict=True), t.margin, strict=True)) for t in tables]
    both = cells[0].keys() & cells[1].keys()  # of classes as likely as each other, either may be among the kept
    near = np.allclose([cells[0][c] for c in both], [cells[1][c] for c in both], rtol=TOLERANCE, atol=TOLERANCE)
    return near and len(both) >= 0.99 * max(map(len, cells))

"""Which documents the report shows: those asked for, or the largest, the smallest and a typical effect of fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segdre_plugin.analysis.report.run_cells import JudgedCandidates
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.vocabulary import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Choice:
    """A document to show.

    Attributes:
        split: dev or test.
        index: its place in the split's file.
        reason: why it is shown; empty if it was asked for.
    """

    split: str
    index: int
    reason: str


def document_scores(document: IntArray, predicted: BoolArray, gold: BoolArray, n_gold: IntArray) -> FloatArray:
    """Return each document's own F1.

    Args:
        document: each cell's document, [cells].
        predicted: which cells are predicted, [cells].
        gold: which are gold, [cells].
        n_gold: gold triples of each document, [documents].

    Returns:
        F1 in percent, [documents]; 100 where there is nothing to predict and nothing is predicted.
    """
    n = len(n_gold)
    hits = np.bincount(document[predicted & gold], minlength=n)
    total = np.bincount(document[predicted], minlength=n) + n_gold
    return 100 * np.divide(2 * hits, total, out=np.ones(n), where=total > 0)


def choose_typical(run: RunFolder, dev: JudgedCandidates) -> list[Choice]:
    """Choose the dev documents whose F1 fusion changed most for the better and for the worse, and a typical one.

    Before them stands the one on which all steps of the method can be seen: triples were injected, and the sparse model
    added a gold one to the tuned base's; of several the one with the largest change.

    Returns:
        Up to four documents, those with gold triples first; ties go to more gold triples, then to the first.
    """
    n_gold = np.array([len(document.get("labels") or []) for document in run.documents["dev"]], dtype=np.int64)
    before = document_scores(dev.cells.document, dev.cells.margin > run.tau_base_alone, dev.gold, n_gold)
    after = document_scores(dev.cells.document, dev.fused, dev.gold, n_gold)
    change = np.round(after - before, 6)
    labelled = np.flatnonzero(n_gold)
    middle = float(np.median(change[labelled]))
    found: list[Choice] = []

    def scores(d: int) -> str:
        return f"{before[d]:.2f} with the tuned base, {after[d]:.2f} fused ({after[d] - before[d]:+.2f})"

    for what, cost in (
        ("the largest change", -change),
        ("the smallest change", change),
        ("the change nearest to the median", np.abs(change - middle)),
    ):
        rest = [d for d in labelled.tolist() if d not in {choice.index for choice in found}]
        if rest:
            d = min(rest, key=lambda d: (cost[d], -n_gold[d], d))
            found.append(Choice("dev", d, f"{what} of F1 on dev: {scores(d)}"))
    stages = [d for d in labelled.tolist() if d in _with_all_steps(run, dev)]
    if stages:
        d = min(stages, key=lambda d: (-change[d], -n_gold[d], d))
        same = [choice for choice in found if choice.index == d]
        first = same or [Choice("dev", d, f"chosen because every stage finds something on it: {scores(d)}")]
        found = [*first, *(choice for choice in found if choice.index != d)]
    return found


def _with_all_steps(run: RunFolder, dev: JudgedCandidates) -> set[int]:
    """Return the documents with injected triples to which the sparse model added a gold triple."""
    sparse = ~dev.is_dense & (dev.stage > run.thresholds.tau_sparse)
    added = sparse & dev.gold & (dev.cells.margin <= run.tau_base_alone)
    injected = run.injected("dev")
    return {d for d in dev.cells.document[added].tolist() if injected[d]}


def find_titles(run: RunFolder, titles: Sequence[str]) -> list[Choice]:
    """Return one choice a title, looked up in dev first.

    Raises:
        SegDREError: if a title is unknown, with titles that exist.
    """
    found = {}
    for split in ("test", "dev"):
        for d, document in enumerate(run.documents.get(split, ())):
            found[document["title"]] = Choice(split, d, "")
    unknown = [title for title in titles if title not in found]
    if unknown:
        some = ", ".join(repr(title) for title in list(found)[:5])
        raise SegDREError(
            f"no document of dev or test has the title {unknown[0]!r}", f"titles are, for example, {some}"
        )
    return [found[title] for title in dict.fromkeys(titles)]

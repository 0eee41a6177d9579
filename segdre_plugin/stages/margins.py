"""Margins: how far a relation's logit lies above the threshold class's, for the top classes of each pair.

A *cell* is a candidate (document, head, tail, relation). A stage's margins are a flat table of cells; a cell that a
stage did not score has the margin -inf there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segdre_plugin.data.files import read_arrays, write_arrays
from segdre_plugin.errors import SegDREError
from segdre_plugin.vocabulary import BoolArray, FloatArray, IntArray

KINDS = {"i": "indices from 0", "ii": "pairs of indices from 0", "f": "finite floating-point numbers"}
CELL = ("document", "head", "tail", "relation")  # what says which cell it is


@dataclass(frozen=True)
class Margins:
    """The margins of one stage on one split, as parallel arrays over cells.

    Attributes:
        document: index of the document in its file.
        head: head entity.
        tail: tail entity.
        relation: class of the relation (rel2id), never 0.
        margin: its margin.
        evidence: predicted evidence of the cell's pair, bool [cells, sentences]; no column where the backbone has none.
    """

    document: IntArray
    head: IntArray
    tail: IntArray
    relation: IntArray
    margin: FloatArray
    evidence: BoolArray

    def __len__(self) -> int:
        return len(self.margin)

    def __repr__(self) -> str:
        return f"Margins({len(self)} cells, {self.evidence.shape[1]} sentences)"

    def take(self, keep: BoolArray | IntArray) -> Margins:
        """Return the cells at ``keep`` (a mask or indices)."""
        return Margins(*(getattr(self, f.name)[keep] for f in fields(self)))

    def pairs(self, n_entities: int) -> IntArray:
        """Return each pair a number of its own, equal across stages; ``n_entities`` exceeds any entity's index."""
        return (self.document * n_entities + self.head) * n_entities + self.tail

    def keys(self, n_entities: int, n_classes: int) -> IntArray:
        """Return each cell a number of its own, equal across stages; the arguments exceed any entity and any class."""
        return self.pairs(n_entities) * n_classes + self.relation

    def save(self, path: Path) -> None:
        """Write the table as npz, integers and margins as 32 bits, evidence only if the backbone has any."""
        arrays = {name: getattr(self, name).astype(np.int32) for name in CELL}
        arrays["margin"] = self.margin.astype(np.float32)
        if self.evidence.shape[1]:
            arrays["evidence"] = self.evidence
        write_arrays(path, arrays)

    @staticmethod
    def load(path: Path) -> Margins:
        """Return a table that :meth:`save` wrote.

        Raises:
            SegDREError: if the file is missing or broken, or its arrays are not those of a table.
        """
        arrays = read_arrays(path)
        check_arrays(path, arrays, dict.fromkeys(CELL, "i") | {"margin": "f"})
        margin = arrays["margin"].astype(np.float64)
        evidence = arrays.get("evidence", np.zeros((len(margin), 0), dtype=bool))
        if evidence.shape[:1] != margin.shape or evidence.ndim != 2 or evidence.dtype != bool:
            raise SegDREError(
                f"{path}: evidence: expected bool [{len(margin)}, sentences], got {evidence.dtype} "
                f"{list(evidence.shape)}",
                "train that stage again",
            )
        document, head, tail, relation = (arrays[name].astype(np.int64) for name in CELL)
        return Margins(document, head, tail, relation, margin, evidence)


def check_arrays(path: Path, arrays: Mapping[str, np.ndarray], kinds: Mapping[str, str]) -> None:
    """Refuse a file whose columns are not parallel arrays of the expected kind.

    The ``kinds`` of columns are keys of :data:`KINDS`; pairs are [n, 2].

    Raises:
        SegDREError: if a column is missing, or has another length or kind.
    """
    hint = "train that stage again"
    missing = sorted(kinds.keys() - arrays.keys())
    if missing:
        raise SegDREError(f"{path}: {', '.join(missing)} missing, got {', '.join(sorted(arrays)) or 'nothing'}", hint)
    lengths = {arrays[name].shape[:1] for name in kinds}
    if len(lengths) > 1 or () in lengths:
        shapes = ", ".join(f"{name} {list(arrays[name].shape)}" for name in kinds)
        raise SegDREError(f"{path}: expected arrays of one length, got {shapes}", hint)
    for name, kind in kinds.items():
        array = arrays[name]
        if array.dtype.kind != kind[0] or array.shape[1:] != ((2,) if kind == "ii" else ()):
            shape = list(array.shape)
            raise SegDREError(f"{path}: {name}: expected {KINDS[kind]}, got {array.dtype} {shape}", hint)
        if array.size and not (np.isfinite(array).all() if kind == "f" else array.min() >= 0):
            raise SegDREError(f"{path}: {name}: expected {KINDS[kind]}, got other numbers", hint)


def concatenate(tables: Sequence[Margins]) -> Margins:
    """Return the cells of several tables one after the other; evidence that a table lacks is none in each sentence."""
    width = max((table.evidence.shape[1] for table in tables), default=0)
    evidence = [np.zeros((0, width), dtype=bool)]
    evidence += [np.pad(table.evidence, ((0, 0), (0, width - table.evidence.shape[1]))) for table in tables]
    nothing = np.empty(0, dtype=np.int64)
    document, head, tail, relation = (
        np.concatenate([nothing, *(getattr(table, name) for table in tables)]) for name in CELL
    )
    margins = np.concatenate([np.empty(0), *(table.margin for table in tables)])
    return Margins(document, head, tail, relation, margins, np.concatenate(evidence))


def top_margins(
    logits: torch.Tensor, num_labels: int, threshold: int | None = 0
) -> tuple[IntArray, IntArray, FloatArray]:
    """Return pair index, class and margin of each pair's top classes, by falling margin: int, int, float [cells].

    Args:
        logits: [pairs, classes].
        num_labels: how many classes a pair may have at most, the threshold class among them; not positive: all.
        threshold: the class whose logit is the threshold; None: zero is, and class 0 is still none of the relations.
    """
    classes = logits.shape[1]
    k = min(num_labels, classes) if num_labels > 0 else classes
    values, relations = logits.float().topk(k, dim=1)
    if threshold is not None:
        values = values - logits[:, threshold : threshold + 1].float()
    margins = values.double().cpu().numpy()
    relations_np = relations.cpu().numpy()
    rows = np.broadcast_to(np.arange(len(margins))[:, None], relations_np.shape)
    keep = (relations_np != 0) & (relations_np != threshold)
    return rows[keep].astype(np.int64), relations_np[keep].astype(np.int64), margins[keep]


def official(cells: Margins, documents: Sequence[Mapping[str, Any]], id2rel: Mapping[int, str]) -> list[dict[str, Any]]:
    """Return cells in DocRED's official format, ordered by document, head, tail and relation, evidence included."""
    cells = cells.take(np.lexsort((cells.relation, cells.tail, cells.head, cells.document)))
    columns = (getattr(cells, name).tolist() for name in CELL)
    rows: list[dict[str, Any]] = [
        {"title": documents[d]["title"], "h_idx": h, "t_idx": t, "r": id2rel[r]}
        for d, h, t, r in zip(*columns, strict=True)
    ]
    if cells.evidence.shape[1]:
        for row, d, sentences in zip(rows, cells.document.tolist(), cells.evidence, strict=True):
            row["evidence"] = np.flatnonzero(sentences[: len(documents[d]["sents"])]).tolist()
    return rows

"""The decisions of fusion on one document: what crossed which threshold of which model, and the gold that is missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from segdre_plugin.analysis.report.run_cells import JudgedCandidates
from segdre_plugin.data.documents import Document
from segdre_plugin.salient import Chain
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.branches import entity_name
from segdre_plugin.vocabulary import IntArray, labels

SHOWN = 8  # a longer list is folded
ADDED = ("added by sparse", "added by dense", "added by base")  # by the model whose threshold let it through
OUTCOMES = {name: name.replace("added by", "Added by the threshold of") for name in ADDED} | {
    "lost": "Lost: the tuned base has it",
    "missed": "Missed gold, by the tuned base, too",
    "kept": "Kept: the tuned base has it, too",
    "cut": "Cut: above 0 in a model, below its threshold",
}


@dataclass(frozen=True)
class Decision:
    """A candidate triple, or a gold one that is not a candidate, and what became of it.

    Attributes:
        head: name of the head.
        relation: name of the relation.
        tail: name of the tail.
        gold: whether it is gold; None without labels.
        kind: ``dense`` or ``sparse``: the stage that scores its pair.
        base: the base model's margin, -inf for none.
        stage: the margin of the pair's stage (fusion ``average``: its mean with the base's), -inf for none.
        over_base: whether ``base`` exceeds the fused threshold of base.
        over_stage: whether ``stage`` exceeds that of its stage.
        fused: whether the fused result has it.
        tuned: whether the base with its own threshold tuned has it.
    """

    head: str
    relation: str
    tail: str
    gold: bool | None
    kind: str
    base: float
    stage: float
    over_base: bool
    over_stage: bool
    fused: bool
    tuned: bool

    @property
    def outcome(self) -> str:
        """Return one of :data:`OUTCOMES`, or nothing where no model says it.

        In the fused result it is ``added`` (not in that of the tuned base) or ``kept``; else ``lost`` (the tuned base
        has it), ``missed`` (gold) or ``cut`` (a model's margin is above 0, below the threshold).
        """
        if self.fused:
            return "kept" if self.tuned else f"added by {self.kind if self.over_stage else 'base'}"
        if self.tuned:
            return "lost"
        return "missed" if self.gold else "cut" if max(self.base, self.stage) > 0 else ""


@dataclass(frozen=True)
class Outcome:
    """The decisions of a document that ended alike, the highest margins first."""

    name: str
    decisions: Sequence[Decision]

    @property
    def n_gold(self) -> int:
        """Return how many of them are gold."""
        return sum(bool(decision.gold) for decision in self.decisions)

    @property
    def is_open(self) -> bool:
        """Return whether the list is shown at once: a short one of what differs from the tuned base or the gold."""
        return self.name not in ("kept", "cut") and len(self.decisions) <= SHOWN


def decide(
    run: RunFolder, document: Document, chain: Chain, found: JudgedCandidates, here: IntArray, labelled: bool
) -> list[Decision]:
    """Return the decision on each candidate at ``here``, [cells], then on gold triples that are not candidates."""
    names = [entity_name(document, entity) for entity in range(len(document["vertexSet"]))]
    relations = {i: run.relation_names.get(relation, relation) for relation, i in run.rel2id.items()}
    cells, tau = found.cells, run.thresholds
    decisions, seen = [], set()
    for k in here.tolist():
        h, r, t = int(cells.head[k]), int(cells.relation[k]), int(cells.tail[k])
        seen.add((h, r, t))
        base, stage, dense = float(cells.margin[k]), float(found.stage[k]), bool(found.is_dense[k])
        decisions.append(
            Decision(
                names[h],
                relations[r],
                names[t],
                bool(found.gold[k]) if labelled else None,
                "dense" if dense else "sparse",
                base,
                stage,
                base > tau.tau_base,
                stage > (tau.tau_dense if dense else tau.tau_sparse),
                bool(found.fused[k]),
                base > run.tau_base_alone,
            )
        )
    for label in labels(document):
        triple = (label["h"], run.rel2id[label["r"]], label["t"])
        if triple not in seen:
            seen.add(triple)
            kind = "dense" if {label["h"], label["t"]} & set(chain) else "sparse"
            words = (names[label["h"]], relations[triple[1]], names[label["t"]])
            decisions.append(Decision(*words, True, kind, -math.inf, -math.inf, False, False, False, False))
    return decisions


def group(decisions: Sequence[Decision]) -> list[Outcome]:
    """Sort decisions by outcome; those that no model says are left out."""
    found = []
    for name in OUTCOMES:
        rows = [decision for decision in decisions if decision.outcome == name]
        if rows:
            found.append(Outcome(name, sorted(rows, key=lambda row: -max(row.base, row.stage))))
    return found

"""One document of the report: its text, its branches, and the triples that each stage added or lost against base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segdre_plugin.analysis.report.choose import Choice
from segdre_plugin.analysis.report.matrix import MatrixPicture, draw_matrix
from segdre_plugin.analysis.report.run_cells import JudgedCandidates
from segdre_plugin.data.documents import Document
from segdre_plugin.errors import SegDREError
from segdre_plugin.injection import BoolArray, Group, Span
from segdre_plugin.metrics import has_gold
from segdre_plugin.salient import Chain
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.artifacts import RETRAIN
from segdre_plugin.stages.branches import branch_text, entity_name, owner

SHOWN = 8  # triples of each kind of change; the others are counted
_TIGHT_LEFT = set(".,;:!?)]}%") | {"'s", "n't", "'"}  # words without a space before them
_TIGHT_RIGHT = set("([{$")


@dataclass(frozen=True)
class Piece:
    """Some words of a sentence.

    Attributes:
        text: the words.
        entity: the entity that they mention; None for other text.
        kind: ``salient``, ``named`` (by an injected branch), ``other`` or ``text``.
        type: the entity's type.
        glue: whether they follow without a space.
    """

    text: str
    entity: int | None
    kind: str
    type: str
    glue: bool


@dataclass(frozen=True)
class TripleRow:
    """A triple in words.

    Attributes:
        head: name of the head.
        relation: name of the relation.
        tail: name of the tail.
        verdict: ``correct``, ``wrong``, or ``unknown`` without gold.
        base: the base model's margin, -inf for none.
        stage: the dense or sparse model's margin, -inf for none.
    """

    head: str
    relation: str
    tail: str
    verdict: str
    base: float
    stage: float


@dataclass(frozen=True)
class Change:
    """Triples of one verdict that a stage ``added`` to base's or ``lost`` from them: the first, and how many more."""

    what: str
    verdict: str
    rows: list[TripleRow]
    more: int

    @property
    def number(self) -> int:
        """Return the number of triples."""
        return len(self.rows) + self.more


@dataclass(frozen=True)
class DocumentView:
    """One document of the report.

    Attributes:
        title: its title.
        split: dev or test.
        reason: why it is shown.
        labelled: whether the split has gold.
        salient: names of the predicted salient entities.
        gold_salient: whether the first one is the gold one; None without gold.
        facts: numbers of entities, and of triples that are gold, predicted by base and fused, and correct of these.
        sentences: the text.
        branches: text of each branch, and its triple.
        changes: stage -> what it changed.
        matrix: the visible matrix.
    """

    title: str
    split: str
    reason: str
    labelled: bool
    salient: list[str]
    gold_salient: bool | None
    facts: Mapping[str, int]
    sentences: list[list[Piece]]
    branches: list[tuple[str, TripleRow]]
    changes: Mapping[str, list[Change]]
    matrix: MatrixPicture


def view_document(run: RunFolder, found: JudgedCandidates, choice: Choice, gold_salient: int | None) -> DocumentView:
    """Return the view of a document; ``gold_salient`` is its gold salient entity, None without gold.

    Raises:
        SegDREError: if an injected triple is none of the cells.
    """
    document = run.documents[choice.split][choice.index]
    chain = run.salient(choice.split)[choice.index]
    triples = run.injected(choice.split)[choice.index]
    labelled = has_gold(run.documents[choice.split])
    # the document's candidates, and what each source predicts of them
    here = np.flatnonzero(found.cells.document == choice.index)
    base, stage, dense = found.cells.margin[here], found.stage[here], found.is_dense[here]
    rows = _rows(run, document, found, here, labelled)
    comparisons = {
        "dense": ((base > 0) & dense, (stage > 0) & dense),
        "sparse": ((base > 0) & ~dense, (stage > 0) & ~dense),
        "fused": (base > 0, found.fused[here]),
    }
    sources = {"base": base > 0, "fused": found.fused[here]}
    facts = {name: int(mask.sum()) for name, mask in sources.items()}
    facts |= {f"{name}_correct": int((mask & found.gold[here]).sum()) for name, mask in sources.items()}
    facts["entities"] = len(document["vertexSet"])
    facts["gold"] = len({(x["h"], x["r"], x["t"]) for x in document.get("labels") or []})
    # its branches, each with the row of the triple that it states
    columns = (found.cells.head[here], found.cells.relation[here], found.cells.tail[here])
    place = {cell: k for k, cell in enumerate(zip(*(c.tolist() for c in columns), strict=True))}
    cells = [place.get((h, run.rel2id.get(r, 0), t)) for h, r, t in triples]
    if None in cells:
        triple = tuple(triples[cells.index(None)])
        raise SegDREError(f"{run.path}: {triple} injected into {document['title']!r} has no margins", RETRAIN)
    branches = [branch_text(document, chain, triple, run.relation_names, run.config) for triple in triples]
    # the branches that hang on each salient entity, in words in place of tokens
    groups = []
    for entity in chain:
        own = [branch for branch, triple in zip(branches, triples, strict=True) if owner(chain, triple) == entity]
        linked = [_spans(document, other) if run.config.link else [] for _, other in own]
        groups.append(Group(_spans(document, entity), [range(len(text.split())) for text, _ in own], linked))
    return DocumentView(
        title=document["title"],
        split=choice.split,
        reason=choice.reason,
        labelled=labelled,
        salient=[entity_name(document, entity) for entity in chain],
        gold_salient=None if gold_salient is None else chain[:1] == (gold_salient,),
        facts=facts,
        sentences=sentence_pieces(document, chain, {other for _, other in branches}),
        branches=[(text, rows[k]) for (text, _), k in zip(branches, cells, strict=True) if k is not None],
        changes={name: _changes(rows, *masks) for name, masks in comparisons.items()},
        matrix=draw_matrix(sum(len(sentence) for sentence in document["sents"]), groups),
    )


def _rows(
    run: RunFolder, document: Document, found: JudgedCandidates, here: np.ndarray[Any, Any], labelled: bool
) -> list[TripleRow]:
    """Put the cells at ``here`` in words."""
    names = [entity_name(document, entity) for entity in range(len(document["vertexSet"]))]
    relations = {i: run.relation_names.get(relation, relation) for relation, i in run.rel2id.items()}
    cells, verdicts = found.cells, {True: "correct", False: "wrong"}
    return [
        TripleRow(
            names[cells.head[k]],
            relations[int(cells.relation[k])],
            names[cells.tail[k]],
            verdicts[bool(found.gold[k])] if labelled else "unknown",
            float(cells.margin[k]),
            float(found.stage[k]),
        )
        for k in here.tolist()
    ]


def _changes(rows: Sequence[TripleRow], before: BoolArray, after: BoolArray) -> list[Change]:
    """Sort what changed by kind; within a kind the highest margins come first."""
    found = []
    for what, mask in (("added", after & ~before), ("lost", before & ~after)):
        changed = [rows[k] for k in np.flatnonzero(mask).tolist()]
        for verdict in ("correct", "wrong", "unknown"):
            kind = sorted((row for row in changed if row.verdict == verdict), key=lambda row: -max(row.base, row.stage))
            if kind:
                found.append(Change(what, verdict, kind[:SHOWN], len(kind[SHOWN:])))
    return found


def _spans(document: Document, entity: int) -> list[Span]:
    """Return an entity's mentions as spans of words of the whole document, in order."""
    starts = np.cumsum([0, *(len(sentence) for sentence in document["sents"])]).tolist()
    spans = {
        (starts[mention["sent_id"]] + mention["pos"][0], starts[mention["sent_id"]] + mention["pos"][1])
        for mention in document["vertexSet"][entity]
    }
    return sorted(spans)


def sentence_pieces(document: Document, salient: Chain, named: set[int]) -> list[list[Piece]]:
    """Cut the text into mentions and the words between them; where mentions overlap, the longer one is shown.

    Args:
        document: a DocRED document.
        salient: its salient entities.
        named: entities that an injected branch names.

    Returns:
        The pieces of each sentence.
    """
    owners: list[list[int | None]] = [[None] * len(sentence) for sentence in document["sents"]]
    starts: list[set[int]] = [set() for _ in document["sents"]]
    mentions = [(m["sent_id"], *m["pos"], e) for e, entity in enumerate(document["vertexSet"]) for m in entity]
    for sentence, first, last, entity in sorted(mentions, key=lambda m: (m[1] - m[2], m)):
        if all(owner is None for owner in owners[sentence][first:last]):
            owners[sentence][first:last] = [entity] * (last - first)
            starts[sentence].add(first)
    types = [str(entity[0].get("type", "")) for entity in document["vertexSet"]]
    found: list[list[Piece]] = []
    for words, of, begun in zip(document["sents"], owners, starts, strict=True):
        found.append([])
        cuts = [i for i in range(len(words)) if i == 0 or i in begun or of[i] != of[i - 1]]
        for first, last in zip(cuts, [*cuts[1:], len(words)], strict=True):
            text, e = words[first], of[first]
            for before, word in zip(words[first:], words[first + 1 : last], strict=False):
                text += word if _tight(before, word) else f" {word}"
            kind = "text" if e is None else "salient" if e in salient else "named" if e in named else "other"
            glue = first == 0 or _tight(words[first - 1], words[first])
            found[-1].append(Piece(text, e, kind, "" if e is None else types[e], glue))
    return found


def _tight(before: str, word: str) -> bool:
    return word in _TIGHT_LEFT or before in _TIGHT_RIGHT

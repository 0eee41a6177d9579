"""One document of the report: its text, and the four steps of the method on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segdre_plugin.analysis.report.choose import Choice
from segdre_plugin.analysis.report.decisions import Outcome, decide, group
from segdre_plugin.analysis.report.matrix import MatrixPicture, draw_matrix
from segdre_plugin.analysis.report.run_cells import JudgedCandidates
from segdre_plugin.analysis.report.steps import EntityBar, Hub, dense_hubs, entity_bars
from segdre_plugin.analysis.report.tree import TreePicture, draw_trees
from segdre_plugin.data.documents import Document
from segdre_plugin.errors import SegDREError
from segdre_plugin.injection import Group, Span
from segdre_plugin.metrics import has_gold
from segdre_plugin.salient import Chain, gold_salient
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.artifacts import RETRAIN
from segdre_plugin.stages.branches import branch_text, entity_name, owner
from segdre_plugin.vocabulary import FloatArray, IntArray, Triple, labels

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
        branches: how many branches hang on them.
    """

    text: str
    entity: int | None
    kind: str
    type: str
    glue: bool
    branches: int


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
        facts: numbers of entities, and of triples that are gold, predicted by the tuned base and fused, and correct of
            these; of sparse triples above 0, above the threshold, and of the latter those that are gold.
        sentences: the text.
        bars: step 1, the entities by their counts.
        hubs: step 2, the dense triples around each salient entity.
        trees: step 3, the branches in their soft positions, for each salient entity that has any.
        matrix: the visible matrix.
        outcomes: step 4, the decisions.
    """

    title: str
    split: str
    reason: str
    labelled: bool
    salient: list[str]
    gold_salient: bool | None
    facts: Mapping[str, int]
    sentences: list[list[Piece]]
    bars: list[EntityBar]
    hubs: list[Hub]
    trees: list[TreePicture]
    matrix: MatrixPicture
    outcomes: list[Outcome]


def view_document(
    run: RunFolder, found: JudgedCandidates, choice: Choice, expected: Sequence[FloatArray] | None
) -> DocumentView:
    """Return the view of a document; ``expected`` counts of its split's entities are None without a count head.

    Raises:
        SegDREError: if an injected triple is none of the cells.
    """
    document = run.documents[choice.split][choice.index]
    chain = run.salient(choice.split)[choice.index]
    triples = run.injected(choice.split)[choice.index]
    labelled = has_gold(run.documents[choice.split])
    here = np.flatnonzero(found.cells.document == choice.index)
    dense = run.margins("dense", choice.split)
    dense = dense.take(dense.document == choice.index)
    _check_injected(run, document, triples, found, here)
    branches = [branch_text(document, chain, triple, run.relation_names, run.config) for triple in triples]
    groups = _groups(run, document, chain, triples, branches)
    texts = [text.split() for text, _ in branches]
    words = [word for sentence in document["sents"] for word in sentence]
    gold = gold_salient(document)
    return DocumentView(
        title=document["title"],
        split=choice.split,
        reason=choice.reason,
        labelled=labelled,
        salient=[entity_name(document, entity) for entity in chain],
        gold_salient=None if gold is None else chain[:1] == (gold,),
        facts=_facts(run, document, found, here),
        sentences=sentence_pieces(document, chain, {other for _, other in branches}, groups),
        bars=entity_bars(document, chain, None if expected is None else expected[choice.index], labelled),
        hubs=dense_hubs(run, document, chain, dense, triples, labelled),
        trees=draw_trees(words, groups, texts),
        matrix=draw_matrix(len(words), groups),
        outcomes=group(decide(run, document, chain, found, here, labelled)),
    )


def _check_injected(
    run: RunFolder, document: Document, triples: Sequence[Triple], found: JudgedCandidates, here: IntArray
) -> None:
    """Refuse injected triples that no stage scored."""
    columns = (found.cells.head[here], found.cells.relation[here], found.cells.tail[here])
    known = set(zip(*(column.tolist() for column in columns), strict=True))
    for h, r, t in triples:
        if (h, run.rel2id.get(r, 0), t) not in known:
            raise SegDREError(f"{run.path}: {(h, r, t)} injected into {document['title']!r} has no margins", RETRAIN)


def _groups(
    run: RunFolder, document: Document, chain: Chain, triples: Sequence[Triple], branches: Sequence[tuple[str, int]]
) -> list[Group]:
    """Return the branches that hang on each salient entity, in words in place of tokens."""
    groups = []
    for entity in chain:
        own = [branch for branch, triple in zip(branches, triples, strict=True) if owner(chain, triple) == entity]
        linked = [_spans(document, other) if run.config.link else [] for _, other in own]
        groups.append(Group(_spans(document, entity), [range(len(text.split())) for text, _ in own], linked))
    return groups


def _facts(run: RunFolder, document: Document, found: JudgedCandidates, here: IntArray) -> dict[str, int]:
    """Count what the text says of a document; see :class:`DocumentView`."""
    gold, sparse, tau = found.gold[here], ~found.is_dense[here], run.thresholds
    stage = found.stage[here]
    masks = {
        "tuned": found.cells.margin[here] > run.tau_base_alone,
        "fused": found.fused[here],
        "sparse": sparse & (stage > 0),
        "over": sparse & (stage > tau.tau_sparse),
    }
    facts = {name: int(mask.sum()) for name, mask in masks.items()}
    facts |= {f"{name}_correct": int((mask & gold).sum()) for name, mask in masks.items()}
    facts["entities"] = len(document["vertexSet"])
    facts["gold"] = len({(x["h"], x["r"], x["t"]) for x in labels(document)})
    return facts


def _spans(document: Document, entity: int) -> list[Span]:
    """Return an entity's mentions as spans of words of the whole document, in order."""
    starts = np.cumsum([0, *(len(sentence) for sentence in document["sents"])]).tolist()
    spans = {
        (starts[mention["sent_id"]] + mention["pos"][0], starts[mention["sent_id"]] + mention["pos"][1])
        for mention in document["vertexSet"][entity]
    }
    return sorted(spans)


def sentence_pieces(
    document: Document, salient: Chain, named: set[int], groups: Sequence[Group] = ()
) -> list[list[Piece]]:
    """Cut the text into mentions and the words between them; where mentions overlap, the longer one is shown.

    Args:
        document: a DocRED document.
        salient: its salient entities.
        named: entities that an injected branch names.
        groups: the branches of each salient entity, and its mentions as spans of words.

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
    hanging = {group.anchors[0][1]: len(group.branches) for group in groups if group.branches}
    types = [str(entity[0].get("type", "")) for entity in document["vertexSet"]]
    found: list[list[Piece]] = []
    n_words = 0
    for words, of, begun in zip(document["sents"], owners, starts, strict=True):
        found.append([])
        cuts = [i for i in range(len(words)) if i == 0 or i in begun or of[i] != of[i - 1]]
        for first, last in zip(cuts, [*cuts[1:], len(words)], strict=True):
            text, e = words[first], of[first]
            for before, word in zip(words[first:], words[first + 1 : last], strict=False):
                text += word if _tight(before, word) else f" {word}"
            kind = "text" if e is None else "salient" if e in salient else "named" if e in named else "other"
            glue = first == 0 or _tight(words[first - 1], words[first])
            branches = hanging.get(n_words + last, 0) if kind == "salient" else 0
            found[-1].append(Piece(text, e, kind, "" if e is None else types[e], glue, branches))
        n_words += len(words)
    return found


def _tight(before: str, word: str) -> bool:
    return word in _TIGHT_LEFT or before in _TIGHT_RIGHT

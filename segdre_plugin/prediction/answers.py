"""The answers of a pipeline, one a document.

====================  ================================================================================================
``title``             the document's
``salient``           ``entity``, ``name`` and ``count``, the expected number of relations that involve it (eq. 7; None
                      if the strategy has no count head); None where no pair exists. With ``--seg-salient-k`` above 1
                      a list of these, the most salient first
``triples``           for each ``h_idx``, ``r``, ``t_idx`` (as in the official format), ``head``, ``relation`` and
                      ``tail`` in words, ``score``, ``source``, and ``evidence`` (sentences) if the backbone has it
``injected``          the dense triples that the sparse model read, best-scored first
``unseen_entities``   those with no mention inside the encoder's windows; no triple can involve them
====================  ================================================================================================

A triple's ``source`` lists the models whose margin is above their threshold: base, and dense or sparse. Its ``score``
is the most by which one of them is above, in logits: always positive, comparable within one bundle, not a probability.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from segdre_plugin.data.documents import Document
from segdre_plugin.fusion import fused_scores
from segdre_plugin.salient import entity_counts
from segdre_plugin.seg.bundle import Description
from segdre_plugin.stages.branches import Triple, entity_name
from segdre_plugin.stages.margins import official
from segdre_plugin.stages.scored import ScoredSplit

OFFICIAL = ("title", "h_idx", "t_idx", "r", "evidence")


def build_answers(
    documents: Sequence[Document],
    seen: Sequence[Sequence[bool]],
    scored: ScoredSplit,
    counts: Mapping[str, Any] | None,
    injected: Sequence[Sequence[Triple]],
    description: Description,
) -> list[dict[str, Any]]:
    """Return one answer a document: its margins fused, and in words.

    Args:
        documents: all of them.
        seen: for each which entities the encoder sees; those with two or more were scored.
        scored: the scored ones with margins and salient entities.
        counts: document, pair and expected count of each pair of the scored ones; None if nothing counts them.
        injected: for each scored document the injected triples.
        description: thresholds and names.
    """
    triples = _fused(scored, description)
    answers = []
    place = 0
    for document, visible in zip(documents, seen, strict=True):
        answer: dict[str, Any] = {
            "title": document["title"],
            "salient": None if description.config.salient_k == 1 else [],
            "triples": [],
            "injected": [],
            "unseen_entities": [entity for entity, flag in enumerate(visible) if not flag],
        }
        if sum(visible) > 1:
            totals = _totals(counts, place, len(document["vertexSet"]))
            chosen = [
                {"entity": entity, "name": entity_name(document, entity), "count": totals and totals[entity]}
                for entity in scored.salient[place]
            ]
            answer["salient"] = chosen if description.config.salient_k > 1 else next(iter(chosen), None)
            names = description.relation_names
            answer["triples"] = [_in_words(document, names, **triple) for triple in triples[place]]
            answer["injected"] = [
                _in_words(document, names, h_idx=head, r=relation, t_idx=tail)
                for head, relation, tail in injected[place]
            ]
            place += 1
        answers.append(answer)
    return answers


def official_rows(answers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the triples of answers in DocRED's official format."""
    return [
        {name: row[name] for name in OFFICIAL if name in row}
        for answer in answers
        for triple in answer["triples"]
        for row in [{"title": answer["title"]} | triple]
    ]


def _totals(counts: Mapping[str, Any] | None, place: int, n_entities: int) -> list[float] | None:
    """Return the expected number of relations that involve each entity; None if nothing counts them."""
    if counts is None:
        return None
    here = counts["document"] == place
    return entity_counts(counts["count"][here], counts["pair"][here], n_entities).tolist()


def _fused(scored: ScoredSplit, description: Description) -> list[list[dict[str, Any]]]:
    """Return each scored document's triples, ordered by head, tail and class."""
    found: list[list[dict[str, Any]]] = [[] for _ in scored.split.documents]
    if not found:
        return found
    cells, taus = scored.cells(), description.thresholds
    scores = fused_scores(cells.cells.margin, cells.stage, cells.is_dense, taus)
    keep = scores > 0
    above_base = (cells.cells.margin - taus.tau_base)[keep]
    above_stage = (cells.stage - np.where(cells.is_dense, taus.tau_dense, taus.tau_sparse))[keep]
    chosen, dense, scores = cells.cells.take(keep), cells.is_dense[keep], scores[keep]
    order = np.lexsort((chosen.relation, chosen.tail, chosen.head, chosen.document))  # that of official()
    rows = official(chosen, scored.split.documents, {i: name for name, i in description.rel2id.items()})
    for k, row in zip(order.tolist(), rows, strict=True):
        source = ["base"] * bool(above_base[k] > 0)
        source += ["dense" if dense[k] else "sparse"] * bool(above_stage[k] > 0)
        del row["title"]
        row |= {"score": float(scores[k]), "source": source}
        found[int(chosen.document[k])].append(row)
    return found


def _in_words(
    document: Document, names: Mapping[str, str], h_idx: int, r: str, t_idx: int, **more: Any
) -> dict[str, Any]:
    """Add the names of a triple's entities and relation."""
    words = {"head": entity_name(document, h_idx), "relation": names[r], "tail": entity_name(document, t_idx)}
    return {"h_idx": h_idx, "r": r, "t_idx": t_idx} | words | more

"""Inference-stage fusion (Xie et al. 2022; paper section 3.6, eq. 11): read the predicted evidence once more, alone.

For a prediction, a *pseudo-document* D' holds its evidence sentences and nothing else. The base model scores D', too:

    P(r | e_s, e_o) = P(r | e_s, e_o; D) + P(r | e_s, e_o; D') - tau

with margins in the place of P. Of several pseudo-documents that hold a pair the largest margin counts; a cell that only
one of D and D' has scored gets :data:`PENALTY` for the other. tau is the exact best cut on dev.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from segdre_plugin.backbones.features import LAST_TOKENS, START_TOKENS, Feature
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.injection import Span
from segdre_plugin.stages.candidates import align, count_entities, fusible
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.pair_types import candidate_cells
from segdre_plugin.stages.scored import ScoredSplit
from segdre_plugin.stages.scoring import score_relations

PENALTY = -10.0  # the margin where D or D' has none (DREEAM's)
_DECIMALS = 10  # of tau, so that the grid around it goes through it

Prediction = tuple[int, int, Sequence[int]]  # head, tail, evidence sentences


def read_pseudo(model: Any, split: Split, base: Margins, pairs: Sequence[str], **how: Any) -> Margins:
    """Return the margins that the base model finds in the pseudo-documents of a split.

    Args:
        model: the base model, wrapped.
        split: documents and the backbone's features.
        base: what the base model finds in the documents themselves.
        pairs: types HEAD:TAIL of the candidate pairs; none: all pairs are candidates.
        how: collate_fn, batch_size, device and label of :func:`segdre_plugin.stages.scoring.outputs`.
    """
    features, places = pseudo_features(split.features, base.take(base.margin > 0))
    return candidate_cells(score_relations(model, features, places, **how), split.documents, pairs)


def with_pseudo(scored: ScoredSplit, pseudo: Margins) -> ScoredSplit:
    """Return a split whose base margins are those of D plus those of D' (eq. 11 without tau)."""
    n_entities = count_entities(scored.split)
    tables = dict(fusible(scored.tables, n_entities, scored.fusion))
    tables["base"] = add_margins(scored.tables["base"], pseudo, n_entities)
    return replace(scored, tables=tables, fusion="union")


def pseudo_features(features: Sequence[Feature], predicted: Margins) -> tuple[list[Feature], list[int]]:
    """Return the features of a split's pseudo-documents, and for each the index of its document."""
    by_document: list[list[Prediction]] = [[] for _ in features]
    for d, h, t, evidence in zip(predicted.document, predicted.head, predicted.tail, predicted.evidence, strict=True):
        by_document[d].append((int(h), int(t), np.flatnonzero(evidence).tolist()))
    made: list[Feature] = []
    places: list[int] = []
    for i, (feature, predictions) in enumerate(zip(features, by_document, strict=True)):
        found = pseudo_documents(feature, predictions)
        made += found
        places += [i] * len(found)
    return made, places


def pseudo_documents(feature: Feature, predictions: Iterable[Prediction]) -> list[Feature]:
    """Return the pseudo-documents of one document: one for each distinct group of sentences.

    A group is the evidence of a prediction; where the head or the tail has no mention in it, the sentence of its first
    mention joins. Predictions without evidence make none. ``entity_map`` says which of the document's
    entities those of a pseudo-document are.
    """
    n = len(feature["input_ids"]) - START_TOKENS - LAST_TOKENS
    sentences = [(min(start, n), min(end, n)) for start, end in feature["sent_pos"]]  # cut where the document is
    starts = [start for start, _ in sentences]
    places = [[bisect_right(starts, start) - 1 for start, _ in mentions] for mentions in feature["entity_pos"]]
    groups: dict[tuple[int, ...], None] = {}  # an ordered set
    for head, tail, evidence in predictions:
        group = {sentence for sentence in evidence if sentence < len(sentences)}
        if not group:
            continue
        for entity in (head, tail):
            if not group & set(places[entity]):
                group.add(min(places[entity]))
        groups[tuple(sorted(group))] = None
    return [_restrict(feature, group, sentences, places) for group in groups]


def _restrict(feature: Feature, group: tuple[int, ...], sentences: list[Span], places: list[list[int]]) -> Feature:
    """Return a feature of some of the sentences, and of the entities with a mention in them."""
    ids = feature["input_ids"]
    body: list[int] = []
    shift: dict[int, int] = {}  # sentence -> how far its tokens move to the left
    sent_pos = []
    for sentence in group:
        start, end = sentences[sentence]
        shift[sentence] = start - len(body)
        sent_pos.append((len(body), len(body) + end - start))
        body += ids[start + START_TOKENS : end + START_TOKENS]
    entities, entity_pos = [], []
    for entity, mentions in enumerate(feature["entity_pos"]):
        inside = [
            (start - shift[sentence], end - shift[sentence])
            for (start, end), sentence in zip(mentions, places[entity], strict=True)
            if sentence in shift and start < sentences[sentence][1]  # not cut off
        ]
        if inside:
            entities.append(entity)
            entity_pos.append(inside)
    pairs = [[h, t] for h in range(len(entities)) for t in range(len(entities)) if h != t]
    return {
        "input_ids": [*ids[:START_TOKENS], *body, *ids[-LAST_TOKENS:]],
        "entity_pos": entity_pos,
        "labels": [[0] * len(feature["labels"][0]) for _ in pairs],  # nothing here may depend on the gold
        "hts": pairs,
        "sent_pos": sent_pos,
        "sent_labels": None,
        "title": feature["title"],
        "entity_map": dict(enumerate(entities)),
    }


def strongest(cells: Margins, n_entities: int) -> Margins:
    """Return each cell once, with its largest margin; cells are ordered."""
    keys = cells.keys(n_entities, 1 + int(cells.relation.max(initial=0)))
    order = np.lexsort((-cells.margin, keys))
    _, first = np.unique(keys[order], return_index=True)
    return cells.take(order[first])


def add_margins(document: Margins, pseudo: Margins, n_entities: int) -> Margins:
    """Return all cells with the sum of D's and D''s margins (eq. 11 without tau), and with the evidence from D."""
    cells, (first, second) = align((document, strongest(pseudo, n_entities)), n_entities, PENALTY)
    return replace(cells, margin=first + second)


def best_cut(sums: ArrayLike, gold: ArrayLike, n_gold: int) -> float:
    """Return the tau for which ``sums > tau`` has the best F1 of all cuts.

    It is midway between the two sums that it separates; of equally good cuts it is the one nearest to 0.

    Args:
        sums: margins of D plus margins of D', [N].
        gold: whether the cell is a gold triple, [N] bool.
        n_gold: all gold triples.

    Raises:
        SegDREError: if there is no gold, or no cell.
    """
    values, hits = np.asarray(sums, dtype=np.float64), np.asarray(gold, dtype=bool)
    if n_gold < 1 or len(values) == 0:
        raise SegDREError(f"no tau can be tuned on {len(values)} cells and {n_gold} gold triples", "use a labelled dev")
    distinct, place = np.unique(values, return_inverse=True)
    # entry k: what lies at or above distinct[k]; one more for the cut above all
    predicted = np.append(np.cumsum(np.bincount(place)[::-1])[::-1], 0)
    correct = np.append(np.cumsum(np.bincount(place, weights=hits)[::-1])[::-1], 0.0)
    f1 = 2 * correct / (predicted + n_gold)
    below = np.concatenate([distinct[:1] - 1, distinct])
    above = np.append(distinct, distinct[-1] + 1)
    rounded = np.round((below + above) / 2, _DECIMALS)
    taus = np.where((below <= rounded) & (rounded < above), rounded, below)
    best = np.flatnonzero(f1 == f1.max())
    return float(taus[best[np.abs(taus[best]).argmin()]])

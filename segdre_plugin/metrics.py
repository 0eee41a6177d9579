"""F1, Ign-F1, Intra-F1, Inter-F1 and evidence F1 of predicted triples (paper section 4.1), by relation, over recall.

F1, Ign-F1 and evidence F1 follow DocRED's official scorer (Yao et al., 2019). The split into intra (some sentence
mentions both head and tail) and inter (none does) follows Eider (Xie et al., 2022). Predictions are in the official
format: dicts with ``title``, ``h_idx``, ``t_idx``, ``r`` and, if there is any, ``evidence``; a ``score`` ranks them.
Scores are fractions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.vocabulary import Document, FloatArray, Triple, entities, is_index, label_triples, labels, named

Fact = tuple[str, str, str]  # head name, relation, tail name
Located = tuple[str, Triple]  # title of a document, a triple in it

FREQUENCIES = (500, 100, 1, 0)  # the fewest train triples of a bucket's relations
CURVE_POINTS = 50  # that are kept of a curve

_FORMAT = (
    "pass {'title': str, 'h_idx': int, 't_idx': int, 'r': str} and, optionally, 'evidence': list of int, "
    "'score': number, for each"
)


@dataclass(frozen=True)
class Curve:
    """Precision over recall of scored triples, one point for each distinct score, the highest first.

    Attributes:
        score: triples with this score or a higher one are predicted, falling, [points].
        precision: of these triples, a fraction, [points].
        recall: of these triples, a fraction, rising, [points].
    """

    score: FloatArray
    precision: FloatArray
    recall: FloatArray

    @property
    def area(self) -> float:
        """The area below the curve up to its last recall: average precision, the sum of precision x gain in recall."""
        return float(np.sum(self.precision * np.diff(self.recall, prepend=0.0)))

    def summary(self) -> dict[str, Any]:
        """Return ``area``, and lists ``recall`` and ``precision``; no scores, whose last digits owe to batches.

        Of all points they hold the first that reaches each 50th of recall, and the last.
        """
        levels = np.arange(1, CURVE_POINTS + 1) / CURVE_POINTS
        reached = np.searchsorted(self.recall, levels)
        kept = np.unique(np.minimum(reached, len(self.recall) - 1)) if len(self.recall) else reached[:0]
        columns = {name: getattr(self, name)[kept].tolist() for name in ("recall", "precision")}
        return {"area": self.area} | columns


def evaluate(
    predictions: Sequence[Mapping[str, Any]],
    documents: Sequence[Document],
    train_documents: Iterable[Document] | None = None,
) -> dict[str, float]:
    """Score predicted triples against gold ones as DocRED's official scorer does (paper section 4.1).

    A triple predicted twice counts once, with the evidence of its first occurrence. A triple of an unknown title is a
    wrong prediction; it has no sentences, so it counts neither as intra nor as inter. Ign-F1 leaves correct predictions
    of facts known from training out of the precision, not out of the recall, and carries the official guard of 1e-5.

    Args:
        predictions: in the official format; may be empty.
        documents: DocRED documents with gold ``labels``; gold without ``evidence`` has none.
        train_documents: documents whose facts Ign-F1 ignores; None ignores no fact.

    Returns:
        Fractions ``precision``, ``recall``, ``f1``, ``ign_f1``, ``intra_f1``, ``inter_f1``, ``evidence_f1``; and the
        numbers of triples ``n_predicted``, ``n_gold``, ``n_correct``, each distinct.

    Raises:
        SegDREError: if there is no gold, two documents share a title, or a prediction or a document is malformed.
    """
    by_title = _by_title(documents)
    gold, n_evidence = _gold(documents)
    if not gold:
        raise SegDREError("no gold: no document has a triple", "score a labelled split")
    predicted = _predicted(predictions, by_title)
    correct = gold.keys() & predicted.keys()

    facts = train_facts(train_documents or ())
    known = sum(in_train(by_title[title], triple, facts) for title, triple in correct)

    unknown = {found for found in predicted if found[0] not in by_title}
    intra = {
        (title, triple)
        for title, triple in (gold.keys() | predicted.keys()) - unknown
        if is_intra(by_title[title], triple.head, triple.tail)
    }
    found_evidence = sum(len(gold[found] & predicted[found]) for found in correct)
    predicted_evidence = sum(len(evidence) for found, evidence in predicted.items() if found not in unknown)
    return {
        "precision": len(correct) / len(predicted) if predicted else 0.0,
        "recall": len(correct) / len(gold),
        "f1": _f1(len(correct), len(predicted), len(gold)),
        "ign_f1": float(ign_f1(len(predicted), len(correct), known, len(gold))),
        "intra_f1": _f1(len(correct & intra), len(predicted.keys() & intra), len(gold.keys() & intra)),
        "inter_f1": _f1(len(correct - intra), len(predicted.keys() - intra - unknown), len(gold.keys() - intra)),
        "evidence_f1": _f1(found_evidence, predicted_evidence, n_evidence),
        "n_predicted": len(predicted),
        "n_gold": len(gold),
        "n_correct": len(correct),
    }


def curve(scores: ArrayLike, correct: ArrayLike, n_gold: int) -> Curve:
    """Return precision over recall of scored triples; those of one score are predicted together.

    Args:
        scores: of distinct triples, the surest highest, finite, [N].
        correct: whether each is gold, bool [N].
        n_gold: number of gold triples, those without a score included.

    Raises:
        SegDREError: if there is no gold, lengths differ or a score is not finite.
    """
    ranked, hits = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=bool)
    if ranked.ndim != 1 or ranked.shape != hits.shape:
        raise SegDREError(f"expected scores and correct [N], got {list(ranked.shape)} and {list(hits.shape)}")
    if not np.isfinite(ranked).all():
        raise SegDREError(f"score {ranked[~np.isfinite(ranked)][0]}: expected finite ones", "leave such triples out")
    if n_gold < 1:
        raise SegDREError("no gold: no document has a triple", "score a labelled split")
    order = np.argsort(-ranked, kind="stable")
    ranked, found = ranked[order], np.cumsum(hits[order])
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], len(ranked) > 0))  # the last triple of each score
    return Curve(ranked[ends], found[ends] / (ends + 1), found[ends] / n_gold)


def curve_of(predictions: Sequence[Mapping[str, Any]], documents: Sequence[Document]) -> Curve:
    """Return precision over recall of predictions with a ``score`` each; of a triple predicted twice the higher counts.

    The curve ends where the predictions do: models' predictions are cut by thresholds.

    Raises:
        SegDREError: as :func:`evaluate` does, and if a prediction has no score.
    """
    by_title = _by_title(documents)
    found = _predicted(predictions, by_title)
    scores = dict.fromkeys(found, -math.inf)
    for row in predictions:
        if row.get("score") is None:
            raise SegDREError(f"title {row['title']!r}: a prediction has no 'score'", "add one to each, or to none")
        place = row["title"], Triple(int(row["h_idx"]), row["r"], int(row["t_idx"]))
        scores[place] = max(scores[place], float(row["score"]))
    gold, _ = _gold(documents)
    return curve([*scores.values()], [place in gold for place in scores], len(gold))


def by_relation(
    predictions: Sequence[Mapping[str, Any]],
    documents: Sequence[Document],
    train_documents: Iterable[Document] | None = None,
) -> dict[str, dict[str, float]]:
    """Return the scores of each relation that is predicted or gold, the most frequent in gold first.

    Returns:
        Relation id -> ``f1``, ``n_correct``, ``n_predicted`` and ``n_gold``, each distinct, and with train documents
        ``n_train``, the number of their distinct triples.

    Raises:
        SegDREError: as :func:`evaluate` does.
    """
    predicted = _predicted(predictions, _by_title(documents)).keys()
    gold = _gold(documents)[0].keys()
    counts = [Counter(triple.relation for _, triple in part) for part in (gold & predicted, predicted, gold)]
    train = Counter(
        triple.relation
        for doc in train_documents or ()
        for triple in dict.fromkeys(triple for triple, _ in label_triples(doc))
    )
    found: dict[str, dict[str, float]] = {}
    for relation in sorted(counts[1].keys() | counts[2].keys(), key=lambda name: (-counts[2][name], name)):
        correct, n_predicted, n_gold = (count[relation] for count in counts)
        numbers = {"n_correct": correct, "n_predicted": n_predicted, "n_gold": n_gold}
        found[relation] = {"f1": _f1(correct, n_predicted, n_gold)} | numbers
        if train_documents is not None:
            found[relation]["n_train"] = train[relation]
    return found


def by_frequency(relations: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the scores of all relations, and of those with so many train triples (:data:`FREQUENCIES`).

    Args:
        relations: what :func:`by_relation` returns with train documents.

    Returns:
        ``all``, ``500 or more``, ``100 to 499``, ``1 to 99`` and ``0`` -> ``f1`` of their triples together,
        ``macro_f1``, the mean F1 of their relations with gold, ``n_relations``, the number of these, and the counts of
        :func:`by_relation`. Buckets without a relation are left out.
    """
    buckets: dict[str, list[Mapping[str, float]]] = {"all": [*relations.values()]}
    for below, least in zip((math.inf, *FREQUENCIES), FREQUENCIES, strict=False):
        several = f"{least} or more" if below == math.inf else f"{least} to {below - 1}"
        name = several if below > least + 1 else f"{least}"
        buckets[name] = [scores for scores in relations.values() if least <= scores["n_train"] < below]
    found: dict[str, dict[str, float]] = {}
    for name, own in buckets.items():
        if not own:
            continue
        counts = {key: int(sum(scores[key] for scores in own)) for key in ("n_correct", "n_predicted", "n_gold")}
        f1s = [scores["f1"] for scores in own if scores["n_gold"]]
        found[name] = {"f1": _f1(*counts.values()), "macro_f1": sum(f1s) / len(f1s) if f1s else 0.0}
        found[name] |= {"n_relations": len(f1s)} | counts
    return found


def train_facts(documents: Iterable[Document]) -> set[Fact]:
    """Return the facts of labelled documents, under every name of the two entities.

    Raises:
        SegDREError: if a document or a label is malformed.
    """
    return {fact for doc in documents for triple, _ in label_triples(doc) for fact in _facts(doc, triple)}


def in_train(doc: Document, triple: Triple, facts: set[Fact]) -> bool:
    """Return whether ``facts`` (of ``train_facts``) hold a triple of the document under any pair of mention names.

    Raises:
        SegDREError: if the document has no such entity, or a mention has no name.
    """
    n = len(entities(doc))
    if not (is_index(triple.head, n) and is_index(triple.tail, n)):
        raise SegDREError(f"{named(doc)}: no pair ({triple.head}, {triple.tail}), it has {n} entities")
    return any(fact in facts for fact in _facts(doc, triple))


def is_intra(doc: Document, h: int, t: int) -> bool:
    """Return whether some sentence mentions both head and tail (intra, not inter)."""
    heads, tails = (set(_mention_values(doc, entity, "sent_id")) for entity in (h, t))
    return not heads.isdisjoint(tails)


def has_gold(documents: Iterable[Document]) -> bool:
    """Return whether there is anything to score against: a document that has a triple."""
    return any(labels(doc) for doc in documents)


def ign_f1(predicted: ArrayLike, correct: ArrayLike, known: ArrayLike, n_gold: int) -> FloatArray:
    """Return the official Ign-F1: known facts leave the precision, not the recall; 1e-5 is its guard against 0 / 0."""
    precision = np.subtract(correct, known) / (np.subtract(predicted, known) + 1e-5)
    recall = np.divide(correct, n_gold)
    total = precision + recall
    return np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)


def _f1(correct: int, predicted: int, gold: int) -> float:
    return 2 * correct / (predicted + gold) if correct else 0.0


def _gold(documents: Sequence[Document]) -> tuple[dict[Located, set[int]], int]:
    """Return the evidence of each gold triple, and the official number of gold evidence sentences, over all labels."""
    gold: dict[Located, set[int]] = {}
    n_evidence = 0
    for doc in documents:
        for triple, evidence in label_triples(doc):
            gold[doc["title"], triple] = set(evidence)
            n_evidence += len(evidence)
    return gold, n_evidence


def _predicted(predictions: Sequence[Mapping[str, Any]], by_title: Mapping[str, Document]) -> dict[Located, set[int]]:
    """Return the evidence of each predicted triple, of the first one where a triple is predicted twice.

    Raises:
        SegDREError: listing every malformed prediction.
    """
    if isinstance(predictions, (Mapping, str)):
        raise SegDREError(f"predictions must be a list, got {type(predictions).__name__}", _FORMAT)
    found: dict[Located, set[int]] = {}
    problems = []
    for i, item in enumerate(predictions):
        wrong = _problem(item, by_title)
        if wrong:
            title = item.get("title") if isinstance(item, Mapping) else None
            problems.append(f"prediction {i} (title {title!r}): {wrong}")
        else:
            triple = Triple(int(item["h_idx"]), item["r"], int(item["t_idx"]))
            found.setdefault((item["title"], triple), set(item.get("evidence") or ()))
    raise_all(problems, f"{len(problems)} of {len(predictions)} predictions are malformed", _FORMAT)
    return found


def _problem(item: object, by_title: Mapping[str, Document]) -> str:
    """Return what is wrong with a prediction; empty if it is well-formed."""
    if not isinstance(item, Mapping):
        return f"expected a dict, got {type(item).__name__}"
    missing = [field for field in ("title", "h_idx", "t_idx", "r") if field not in item]
    if missing:
        return f"lacks {', '.join(map(repr, missing))}"
    for field in ("title", "r"):
        if not isinstance(item[field], str):
            return f"{field!r} must be str, got {item[field]!r}"
    doc = by_title.get(item["title"])
    n = len(entities(doc)) if doc is not None else None
    for field in ("h_idx", "t_idx"):
        if not is_index(item[field], n):
            return f"{field!r} must be an index" + (f" below {n}" if n is not None else "") + f", got {item[field]!r}"
    score = item.get("score")
    if score is not None and not _is_finite(score):
        return f"'score' must be a finite number, got {score!r:.80}"
    evidence, n = item.get("evidence"), len((doc or {}).get("sents") or ()) or None  # None: the text is not known
    if evidence is not None and (
        not isinstance(evidence, (list, tuple, set)) or not all(is_index(sentence, n) for sentence in evidence)
    ):
        return "'evidence' must be a list of sentence indices" + (f" below {n}" if n else "") + f", got {evidence!r}"
    return ""


def _is_finite(value: object) -> bool:
    """Return whether this is a number, not a truth value, and finite as a float."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an int beyond all floats
        return False


def _by_title(documents: Sequence[Document]) -> dict[str, Document]:
    by_title: dict[str, Document] = {}
    for i, doc in enumerate(documents):
        title = doc.get("title")
        if not isinstance(title, str):
            raise SegDREError(f"document {i}: 'title' must be str, got {title!r}", "pass DocRED documents")
        if title in by_title:
            raise SegDREError(
                f"two documents have the title {title!r}", "make titles unique: predictions name documents by title"
            )
        by_title[title] = doc
    return by_title


def _facts(doc: Document, triple: Triple) -> Iterator[Fact]:
    """Return a triple as facts, one for each pair of names of its head and tail."""
    heads, tails = (set(_mention_values(doc, entity, "name")) for entity in (triple.head, triple.tail))
    return ((head, triple.relation, tail) for head, tail in product(heads, tails))


def _mention_values(doc: Document, entity: int, field: str) -> list[Any]:
    mentions = entities(doc)[entity]
    if not all(field in mention for mention in mentions):
        raise SegDREError(f"{named(doc)}: a mention of entity {entity} has no {field!r}", "pass DocRED documents")
    return [mention[field] for mention in mentions]

"""How salient entities are chosen (paper section 6.1, table 5), by name; users add strategies of their own.

A strategy declares what it needs besides the document: a head to train in stage identify, the base model's margins, or
gold labels. One without a head makes stage identify a matter of seconds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from torch import nn

from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.salient import Chain, Document, as_chain, gold_chain, select_chain
from segdre_plugin.stages.linear_head import SquaredCountLoss
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.pair_types import candidate_gold, pair_mask
from segdre_plugin.zip_head import CountHead, CountLoss


@dataclass(frozen=True)
class SelectionInput:
    """One document to choose for, and what was found of it.

    Attributes:
        document: the DocRED document, of two entities or more; if the strategy needs gold, with the labels of candidate
            pairs alone.
        candidates: the entities that are in a candidate pair, in order, [n]; the salient ones have to be among them.
        seed: the run's.
        pairs: entity pairs (h, t) that the strategy's head counted, [n_pairs, 2].
        counts: how many relations it expects of each, [n_pairs].
        base: the cells that the base model scored; None unless the strategy needs them.
    """

    document: Document
    candidates: NDArray[np.integer[Any]]
    seed: int = 0
    pairs: NDArray[np.integer[Any]] = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    counts: NDArray[np.floating[Any]] = field(default_factory=lambda: np.zeros(0))
    base: Margins | None = None


@dataclass(frozen=True)
class CountHeadSpec:
    """What stage identify trains.

    Attributes:
        module: (size of the bilinear features, hidden size) -> what takes the place of the backbone's classifier.
        loss: makes what takes the place of its loss; ``get_label`` gives the expected count of each pair, [pairs].
    """

    module: Callable[[int, int], nn.Module]
    loss: Callable[[], nn.Module]


@dataclass(frozen=True)
class Strategy:
    """A way to choose salient entities.

    Attributes:
        name: what users call it.
        choose: (case, k) -> indices of k different entities or less, the most salient one first.
        head: what stage identify trains for it; None: nothing.
        needs_base: whether it reads the base model's margins.
        needs_gold: whether it reads labels.
    """

    name: str
    choose: Callable[[SelectionInput, int], Sequence[int]]
    head: CountHeadSpec | None = None
    needs_base: bool = False
    needs_gold: bool = False

    @property
    def predicts(self) -> bool:
        """Return whether it rests on what a model says of a document."""
        return self.head is not None or self.needs_base


_strategies: dict[str, Strategy] = {}


def register(strategy: Strategy) -> Strategy:
    """Return a strategy, now known by its name; do this before the options are read.

    Raises:
        SegDREError: if its name is empty or taken, or it wants a head and the base model's margins.
    """
    if not strategy.name or strategy.name in _strategies:
        hint = f"choose another name than {', '.join(_strategies)}"
        raise SegDREError(f"the strategy's name {strategy.name!r} is empty or already exists", hint)
    if strategy.head and strategy.needs_base:
        raise SegDREError(f"strategy {strategy.name}: has a head and needs_base", "choose by one of the two")
    _strategies[strategy.name] = strategy
    return strategy


def get_strategy(name: str) -> Strategy:
    """Return the strategy of a name.

    Raises:
        SegDREError: if there is none of that name.
    """
    if name not in _strategies:
        hint = f"strategies: {', '.join(_strategies)}; one of your own has to be registered first"
        raise SegDREError(f"unknown strategy {name!r} for salient entities", hint)
    return _strategies[name]


def strategy_names() -> list[str]:
    """Return the names of all strategies, the default first."""
    return list(_strategies)


def choose_salient(
    strategy: Strategy,
    documents: Sequence[Document],
    *,
    k: int = 1,
    seed: int = 0,
    base: Margins | None = None,
    counts: Mapping[str, NDArray[Any]] | None = None,
    pairs: Sequence[str] = (),
) -> list[Chain]:
    """Return the salient entities of each document; none where it has no candidate pair.

    Args:
        strategy: how.
        documents: DocRED documents.
        k: most salient entities of a document.
        seed: the run's.
        base: the base model's margins of all documents, for strategies that need them.
        counts: ``document`` (index), ``pair`` (h, t) and ``count`` of each pair that the strategy's head counted, as
            arrays [n_pairs] and [n_pairs, 2], for strategies with a head.
        pairs: types HEAD:TAIL of the candidate pairs; none: all pairs are candidates.

    Raises:
        SegDREError: if the strategy lacks what it needs, or chooses other than 0 to ``k`` different entities.
    """
    hint = "pass them, or use another strategy"
    if strategy.needs_base and base is None:
        raise SegDREError(f"strategy {strategy.name} needs the margins of the base model", hint)
    if strategy.head and counts is None:
        raise SegDREError(f"strategy {strategy.name} needs the counts of its head", hint)
    check_labels(strategy, documents)
    n = len(documents)
    cells = _rows(base.document, n) if base is not None else []
    counted = _rows(counts["document"], n) if counts is not None else []
    found: list[Chain] = []
    for i, document in enumerate(documents):
        allowed = pair_mask(document, pairs)
        candidates = np.flatnonzero(allowed.any(axis=0) | allowed.any(axis=1))
        # of others the labels are not read, and perhaps not checked
        judged = candidate_gold(document, pairs) if strategy.needs_gold else document
        case = SelectionInput(judged, candidates, seed)
        if strategy.needs_base and base is not None:
            case = replace(case, base=base.take(cells[i]))
        if strategy.head and counts is not None:
            case = replace(case, pairs=counts["pair"][counted[i]], counts=counts["count"][counted[i]])
        no_pair = not len(candidates) or (strategy.head and not len(case.pairs))
        found.append(() if no_pair else _checked(strategy, case, strategy.choose(case, k), k))
    return found


def check_labels(strategy: Strategy, documents: Sequence[Document], where: str = "") -> None:
    """Refuse documents without labels if a strategy reads them; ``where`` is their file, for the message.

    Raises:
        SegDREError: with all that have none.
    """
    if strategy.needs_gold:
        without = [(i, document) for i, document in enumerate(documents) if document.get("labels") is None]
        raise_all(
            [f"document {i} {document.get('title')!r}" for i, document in without],
            f"{where}: " * bool(where) + f"strategy {strategy.name} reads labels, and these documents have none",
            "use another strategy, or leave these documents out",
        )


def _rows(document: NDArray[np.integer[Any]], n: int) -> list[NDArray[np.int64]]:
    """Return the rows of a table that belong to each of ``n`` documents."""
    order = np.argsort(document, kind="stable")
    return np.split(order, np.searchsorted(document[order], np.arange(1, n)))


def _checked(strategy: Strategy, case: SelectionInput, chosen: Sequence[int], k: int) -> Chain:
    known, n = case.candidates.tolist(), len(case.document["vertexSet"])
    chain = as_chain(chosen)
    if len(chain) > k or len(set(chain)) < len(chain) or not set(chain) <= set(known):
        which = "" if len(known) == n else f" that are in a candidate pair, {known}"
        expected = f"expected at most {k} different ones of its {n} entities{which}, got {list(chain)}"
        raise SegDREError(f"strategy {strategy.name}: {case.document.get('title')!r}: {expected}")
    return chain


def by_counts(case: SelectionInput, k: int) -> list[int]:
    """Choose greedily by the counts of the strategy's head (section 3.3, after equation 7)."""
    return _greedy(case, case.counts, case.pairs, k)


def _greedy(case: SelectionInput, counts: NDArray[Any], pairs: NDArray[Any], k: int) -> list[int]:
    """Return the greedy chain by counts of pairs; of the candidates alone, whatever the counts are."""
    places = np.searchsorted(case.candidates, pairs)
    return [int(case.candidates[place]) for place in select_chain(counts, places, len(case.candidates), k)]


def _aggregation(case: SelectionInput, k: int) -> list[int]:
    """Count the relations that the base model predicts."""
    assert case.base is not None
    predicted = case.base.take(case.base.margin > 0)
    pairs = np.stack([predicted.head, predicted.tail], axis=1)
    return _greedy(case, np.ones(len(pairs)), pairs, k)


def _max_mention(case: SelectionInput, k: int) -> list[int]:
    """Take the entities with most mentions; ties go to the lower index."""
    entities = case.document["vertexSet"]
    return sorted(case.candidates.tolist(), key=lambda e: -len(entities[e]))[:k]


def _edit_distance(case: SelectionInput, k: int) -> list[int]:
    """Take the entities with a name nearest to the title; ties go to more mentions, then to the lower index."""
    entities, title = case.document["vertexSet"], case.document["title"].casefold()
    distance = [min(Levenshtein.distance(m["name"].casefold(), title) for m in mentions) for mentions in entities]
    return sorted(case.candidates.tolist(), key=lambda e: (distance[e], -len(entities[e])))[:k]


def _random(case: SelectionInput, k: int) -> list[int]:
    """Take any; which ones depends on the seed and the document, and not on what was drawn before."""
    n = len(case.document["vertexSet"])
    generator = random.Random(f"{case.seed} {case.document['title']} {case.document['sents']}")
    order = generator.sample(range(n), n)  # so that one more leaves those before it as they are
    return [entity for entity in order if entity in case.candidates][:k]


def _gold(case: SelectionInput, k: int) -> list[int]:
    """Take the gold ones: an oracle."""
    return gold_chain(case.document, k)


for _strategy in (
    Strategy("zip", by_counts, head=CountHeadSpec(CountHead, CountLoss)),
    Strategy("linear", by_counts, head=CountHeadSpec(partial(CountHead, outputs=1), SquaredCountLoss)),
    Strategy("aggregation", _aggregation, needs_base=True),
    Strategy("max-mention", _max_mention),
    Strategy("edit-distance", _edit_distance),
    Strategy("random", _random),
    Strategy("gold", _gold, needs_gold=True),
):
    register(_strategy)

"""The stages as a chain: each reads a split with what the stages before it found (section 3.2).

base -> identify (the salient entity) -> dense (its pairs) -> sparse (the others, dense triples injected). Training,
evaluation, prediction and re-reading all run this chain, or a part of it; they differ in where models come from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from segdre_plugin.backbones.features import chosen_pairs
from segdre_plugin.data.splits import Split
from segdre_plugin.salient import Chain, gold_chain
from segdre_plugin.stages.branches import Verbaliser, gold_dense_triples
from segdre_plugin.stages.candidates import count_entities, dense_flags
from segdre_plugin.stages.config import STAGES, SegConfig
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.pair_types import candidate_gold
from segdre_plugin.stages.prepare import StageFeatures, prepare_features
from segdre_plugin.stages.scoring import score_counts, score_heads, score_relations
from segdre_plugin.stages.strategies import choose_salient
from segdre_plugin.vocabulary import Triple

ModelFor = Callable[[str], AbstractContextManager[Any]]


@dataclass(frozen=True)
class ChainResult:
    """What the stages have found in a split so far.

    Attributes:
        tables: stage -> margins of its pairs (base, dense, sparse).
        salient: the salient entities of each document, none where it has no pair; None before stage identify.
        counts: document, pair and expected count (eq. 7) of every pair, as arrays; None if no head counts.
        unchosen: margins of the dense head for all pairs, before the salient entities are known; None where dense has
            a model of its own.
        triples: the dense triples to inject into each document, best-scored first; None: those that the dense model
            predicts.
        injected: the triples that were injected into each document (after stage sparse).
        left_out: how many triples exceeded the token budget (after stage sparse).
    """

    tables: Mapping[str, Margins] = field(default_factory=dict)
    salient: Sequence[Chain] | None = None
    counts: Mapping[str, np.ndarray] | None = None
    unchosen: Margins | None = None
    triples: Sequence[Sequence[Triple]] | None = None
    injected: Sequence[Sequence[Triple]] = ()
    left_out: int = 0

    def __repr__(self) -> str:
        cells = ", ".join(f"{stage}: {len(table)} cells" for stage, table in self.tables.items())
        return f"ChainResult({cells or 'no tables'}, {len(self.salient or ())} documents with salient entities)"


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: base, identify, dense or sparse.
        config: the settings of the method.
        rel2id: relation id -> class.
        verbaliser: makes the branches; None before the tokenizer is known, which only stage sparse needs.
        seed: the run's, for strategies that choose by chance.
    """

    name: str
    config: SegConfig
    rel2id: Mapping[str, int]
    verbaliser: Verbaliser | None = None
    seed: int = 0

    def __repr__(self) -> str:
        return f"Stage({self.name!r}, {len(self.rel2id) - 1} relations, {self.verbaliser})"

    @property
    def finds_salient(self) -> bool:
        """Return whether the stage chooses salient entities, and has no margins (section 3.3)."""
        return self.name == "identify"

    @property
    def injects(self) -> bool:
        """Return whether the stage reads documents with branches (section 3.5)."""
        return self.name == "sparse"

    @property
    def pairs(self) -> str:
        """Return on whose pairs the stage is judged: base (all pairs), dense or sparse."""
        return self.name

    @property
    def has_model(self) -> bool:
        """Return whether the stage trains a model, and reads with it."""
        return self.name in self.config.models

    @property
    def shares_encoder(self) -> bool:
        """Return whether the stage's model has the heads of identify and dense, too."""
        return self.config.share_encoder and self.name == "base"

    @property
    def without_model(self) -> str:
        """Return what a stage without a model does in place of training one."""
        if self.config.share_encoder and (self.config.strategy.head or not self.finds_salient):
            return "its head was trained with the base, and has read what the base has"
        return f"strategy {self.config.salient} trains nothing"

    @property
    def has_own_pairs(self) -> bool:
        """Return whether the salient entities say which pairs the stage has (section 3.5)."""
        return self.name in ("dense", "sparse")

    @property
    def starts_from_base(self) -> bool:
        """Return whether all weights of the trained base but those of other stages' heads initialise its model."""
        return self.config.start == "base" and self.has_own_pairs

    def prepare(self, split: Split, model: Any, known: ChainResult) -> StageFeatures:
        """Return the features of the stage's own pairs in a split, with branches in stage sparse."""
        triples = None
        if self.injects:
            triples = known.triples
            if triples is None:
                triples = predicted_triples(known.tables["dense"], len(split.documents), self.rel2id)
        return prepare_features(
            split.features,
            split.documents,
            model,
            salient=known.salient,
            triples=triples,
            verbaliser=self.verbaliser,
            pairs=self.config.pairs,
        )

    def read(
        self, model: Any, split: Split, known: ChainResult, prepared: StageFeatures | None = None, **how: Any
    ) -> ChainResult:
        """Return what was known of a split and what the stage finds, with its model or, without one, in what is known.

        Args:
            model: the model, wrapped for this stage; not used where the stage has none.
            split: documents and the backbone's features.
            known: what the stages before it found.
            prepared: what :meth:`prepare` made of it before; None makes it now.
            how: collate_fn (wrapped), batch_size, device, label, progress and workers of
                :func:`segdre_plugin.stages.scoring.outputs`.
        """
        if not self.has_model:
            if self.finds_salient:
                return replace(known, salient=self._choose(split, base=known.tables.get("base"), counts=known.counts))
            return replace(known, tables={**known.tables, self.name: _of_salient(known, split)})
        prepared = prepared or self.prepare(split, model, known)
        if self.finds_salient:
            counts = _counted(prepared, score_counts(model, prepared.features, **how))
            return replace(known, salient=self._choose(split, counts=counts), counts=counts)
        if self.shares_encoder:
            margins, each, unchosen = score_heads(model, prepared.features, prepared.documents, **how)
            found = replace(known, tables={**known.tables, self.name: margins}, unchosen=unchosen)
            return found if each is None else replace(found, counts=_counted(prepared, each))
        margins = score_relations(model, prepared.features, prepared.documents, **how)
        found = replace(known, tables={**known.tables, self.name: margins})
        if not self.injects:
            return found
        return replace(found, injected=prepared.injected, left_out=prepared.left_out)

    def _choose(self, split: Split, **found: Any) -> list[Chain]:
        config = self.config
        how: dict[str, Any] = {"k": config.salient_k, "seed": self.seed, "pairs": config.pairs}
        return choose_salient(config.strategy, split.documents, **how, **found)


def build_chain(
    config: SegConfig, rel2id: Mapping[str, int], verbaliser: Verbaliser | None = None, seed: int = 0
) -> dict[str, Stage]:
    """Make all stages, in their order; see :class:`Stage` for the arguments."""
    return {name: Stage(name, config, rel2id, verbaliser, seed) for name in STAGES}


def run_chain(
    stages: Iterable[Stage],
    model_for: ModelFor,
    split: Split,
    known: ChainResult | None = None,
    label: str = "",
    **how: Any,
) -> ChainResult:
    """Return what is known of a split after stages have read it, one after the other.

    Args:
        stages: in their order.
        model_for: stage -> its model, wrapped for it, for the time of a context; asked only for stages that
            have one.
        split: documents and the backbone's features.
        known: what is known of the split before the first of them.
        label: of the progress bars, after the stage's name; empty for no bars.
        how: collate_fn (wrapped), batch_size, device and progress of :func:`segdre_plugin.stages.scoring.outputs`.
    """
    found = known or ChainResult()
    for stage in stages:
        if not stage.has_model:
            found = stage.read(None, split, found)
            continue
        with model_for(stage.name) as model:
            found = stage.read(model, split, found, **how | {"label": f"{stage.name}: {label}" if label else ""})
    return found


def training_inputs(split: Split, config: SegConfig, seed: int) -> ChainResult:
    """Return what dense and sparse are trained with: gold salient entities (or the strategy's) and gold triples."""
    k, documents = config.salient_k, [candidate_gold(document, config.pairs) for document in split.documents]
    if config.train_salient == "same":
        salient = choose_salient(config.strategy, documents, k=k, seed=seed, pairs=config.pairs)
    else:
        salient = [tuple(gold_chain(document, k)) for document in documents]
    each = zip(documents, salient, strict=True)
    return ChainResult(salient=salient, triples=[gold_dense_triples(document, chain) for document, chain in each])


def predicted_triples(margins: Margins, n_documents: int, rel2id: Mapping[str, int]) -> list[list[Triple]]:
    """Return the triples that a model predicts for each document: those with a margin above 0, best-scored first."""
    found: list[list[Triple]] = [[] for _ in range(n_documents)]
    id2rel = {i: name for name, i in rel2id.items()}
    predicted = margins.take(margins.margin > 0)
    for k in np.argsort(-predicted.margin, kind="stable").tolist():
        triple = Triple(int(predicted.head[k]), id2rel[int(predicted.relation[k])], int(predicted.tail[k]))
        found[int(predicted.document[k])].append(triple)
    return found


def _of_salient(known: ChainResult, split: Split) -> Margins:
    """Return the margins of the dense head for the pairs that involve a salient entity (section 3.4)."""
    assert known.unchosen is not None
    assert known.salient is not None
    return known.unchosen.take(dense_flags(known.unchosen, known.salient, count_entities(split)))


def _counted(prepared: StageFeatures, counts: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return document, pair and expected count of every pair: int [pairs], int [pairs, 2], float [pairs]."""
    pairs = [np.asarray(f["hts"], dtype=np.int32)[chosen_pairs(f)] for f in prepared.features]
    return {
        "document": np.repeat(np.asarray(prepared.documents, dtype=np.int32), [len(part) for part in pairs]),
        "pair": np.concatenate([np.zeros((0, 2), dtype=np.int32), *pairs]),
        "count": np.concatenate([np.zeros(0, dtype=np.float32), *counts]),
    }

"""A split with what the stages said of it: fused, and compared with its gold (section 3.6, tables 2 to 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from segdre_plugin.data.splits import Split
from segdre_plugin.fusion import GRIDS, FusionResult, apply_thresholds, fused_scores, search_thresholds
from segdre_plugin.metrics import by_frequency, by_relation, curve, evaluate, has_gold
from segdre_plugin.salient import Chain, saliency
from segdre_plugin.stages.candidates import Candidates, count_entities, fusible, gold_flags, join
from segdre_plugin.stages.config import SegConfig
from segdre_plugin.stages.margins import Margins, official
from segdre_plugin.stages.stage import ChainResult, Stage
from segdre_plugin.stages.strategies import choose_salient, get_strategy, strategy_names
from segdre_plugin.vocabulary import Document, labels


@dataclass(frozen=True)
class ScoredSplit:
    """A split with what the stages said of it.

    Attributes:
        split: the split.
        tables: margins of base, dense and sparse.
        salient: the predicted salient entities of each document.
        rel2id: the relations.
        train: train documents, for Ign-F1.
        fusion: how margins are fused (``segdre_plugin.fusion.FUSIONS``).
    """

    split: Split
    tables: Mapping[str, Margins]
    salient: Sequence[Chain]
    rel2id: Mapping[str, int]
    train: Sequence[Document]
    fusion: str = "union"

    def cells(self) -> Candidates:
        """Put the margins side by side."""
        n_entities = count_entities(self.split)
        return join(**fusible(self.tables, n_entities, self.fusion), salient=self.salient, n_entities=n_entities)

    def search(
        self, cells: Candidates, grid: str | tuple[float, float], objective: str, anchor: float | Sequence[float] = 0.0
    ) -> FusionResult:
        """Find the thresholds that are best on this split; ``grid`` is a name, or the first and the last offset."""
        gold, known, n_gold = gold_flags(cells.cells, self.split, self.rel2id, self.train)
        low, high = GRIDS[grid] if isinstance(grid, str) else grid
        found = search_thresholds(
            cells.cells.margin,
            cells.stage,
            gold,
            cells.is_dense,
            n_gold,
            low=low,
            high=high,
            anchor=anchor,
            objective=objective,
            in_train=known,
        )
        return replace(found, fusion=self.fusion)

    def search_base(self, cells: Candidates, grid: str, objective: str) -> float:
        """Find the base model's best threshold on this split when it stands alone: what tuning gives without stages."""
        alone = replace(cells, stage=np.full(len(cells.stage), -np.inf))
        return self.search(alone, grid, objective).tau_base

    def predict(self, cells: Candidates, thresholds: FusionResult) -> list[dict[str, Any]]:
        """Fuse: return the predictions in the official format."""
        keep = apply_thresholds(cells.cells.margin, cells.stage, cells.is_dense, thresholds)
        return self.official(cells.cells.take(keep))

    def official(self, chosen: Margins) -> list[dict[str, Any]]:
        """Write chosen cells in the official format."""
        return official(chosen, self.split.documents, {i: name for name, i in self.rel2id.items()})

    def rows(
        self, predictions: list[dict[str, Any]], thresholds: FusionResult, tau_base_alone: float
    ) -> dict[str, Any]:
        """Return the metrics of base (tuned, too), dense, sparse (and base on their pairs), and fused predictions.

        Beside them stand ``curves`` of base and fused, and scores by relation and by frequency of relation
        (``relations``, ``frequencies``) of tuned base and fused.
        """
        if not has_gold(self.split.documents):
            return {"gold": False}
        cells = self.cells()
        base = cells.cells.margin > 0
        tuned = self.tables["base"].take(self.tables["base"].margin > tau_base_alone)
        predicted = {
            "base": (self._positive("base"), "base"),
            "base_tuned": (tuned, "base"),
            "dense": (self._positive("dense"), "dense"),
            "base_on_dense": (cells.cells.take(base & cells.is_dense), "dense"),
            "sparse": (self._positive("sparse"), "sparse"),
            "base_on_sparse": (cells.cells.take(base & ~cells.is_dense), "sparse"),
        }
        found: dict[str, Any] = {
            name: own_scores(chosen, pairs, self.split, self.salient, self.rel2id, self.train)
            for name, (chosen, pairs) in predicted.items()
        }
        relations = {
            name: by_relation(rows, self.split.documents, self.train)
            for name, rows in (("base_tuned", self.official(tuned)), ("fused", predictions))
        }
        return (
            {"gold": True}
            | found
            | {
                "fused": self.evaluate(predictions),
                "curves": {"base": self.curve(self.tables["base"]), "fused": self.fused_curve(cells, thresholds)},
                "relations": relations,
                "frequencies": {name: by_frequency(own) for name, own in relations.items()},
            }
        )

    def curve(self, cells: Margins) -> dict[str, Any]:
        """Return precision over recall, in a few points, of cells by falling margin (:class:`metrics.Curve`)."""
        gold, _, n_gold = gold_flags(cells, self.split, self.rel2id, ())
        return curve(cells.margin, gold, n_gold).summary()

    def fused_curve(self, cells: Candidates, thresholds: FusionResult) -> dict[str, Any]:
        """Return precision over recall of all candidates by falling :func:`fusion.fused_scores`."""
        scores = fused_scores(cells.cells.margin, cells.stage, cells.is_dense, thresholds)
        return self.curve(replace(cells.cells, margin=scores))

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, float]:
        """Score predictions on all pairs."""
        return evaluate(predictions, self.split.documents, self.train)

    def strategies(self, config: SegConfig, seed: int) -> dict[str, dict[str, float]]:
        """Return the saliency of the run's strategy, then of all those that need neither training nor labels."""
        k, documents = config.salient_k, self.split.documents
        others = (get_strategy(name) for name in strategy_names() if name != config.salient)
        chosen = {config.salient: self.salient} | {
            strategy.name: choose_salient(
                strategy, documents, k=k, seed=seed, base=self.tables["base"], pairs=config.pairs
            )
            for strategy in others
            if not (strategy.head or strategy.needs_gold)
        }
        return {name: saliency(documents, chains, k) for name, chains in chosen.items()}

    @property
    def has_evidence(self) -> bool:
        """Return whether the backbone predicts evidence."""
        return self.tables["base"].evidence.shape[1] > 0

    def _positive(self, stage: str) -> Margins:
        table = self.tables[stage]
        return table.take(table.margin > 0)


def own_scores(
    predicted: Margins,
    stage: str,
    split: Split,
    salient: Sequence[Chain] | None,
    rel2id: Mapping[str, int],
    train: Sequence[Document],
) -> dict[str, float]:
    """Return the metrics of predicted cells, all of a stage's own pairs; empty if there is no gold on these pairs."""
    documents: Sequence[Document] = split.documents
    if stage in ("dense", "sparse"):
        assert salient is not None
        documents = own_gold(documents, salient, stage)
    if not has_gold(documents):
        return {}
    id2rel = {i: name for name, i in rel2id.items()}
    return evaluate(official(predicted, documents, id2rel), documents, train)


def own_gold(documents: Sequence[Document], salient: Sequence[Chain], stage: str) -> list[Document]:
    """Return copies of documents with the gold triples of a stage's own pairs alone; all but ``labels`` is shared."""
    return [
        dict(document)
        | {
            "labels": [
                label
                for label in labels(document)
                if (label["h"] in chain or label["t"] in chain) == (stage == "dense")
            ]
        }
        for document, chain in zip(documents, salient, strict=True)
    ]


def judge(stage: Stage, split: Split, found: ChainResult, train: Sequence[Document]) -> dict[str, float]:
    """Return identify's saliency and accuracy, else the metrics on a stage's own pairs; they are empty without gold."""
    if stage.finds_salient:
        assert found.salient is not None
        return saliency(split.documents, found.salient, stage.config.salient_k) if split.has_gold else {}
    margins = found.tables[stage.name]
    return own_scores(margins.take(margins.margin > 0), stage.pairs, split, found.salient, stage.rel2id, train)

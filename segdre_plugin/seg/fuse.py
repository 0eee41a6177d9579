"""Stage fuse: search the three thresholds on dev, apply them, evaluate and write the results (section 3.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import GRIDS, FusionResult, apply_thresholds, search_thresholds
from segdre_plugin.metrics import evaluate, has_gold
from segdre_plugin.salient import Chain
from segdre_plugin.seg.options import Options
from segdre_plugin.seg.score_table import print_scores
from segdre_plugin.seg.store import Store
from segdre_plugin.stages.artifacts import INJECTED, margins_file, read_salient
from segdre_plugin.stages.candidates import Cells, count_entities, fusible, gold_flags, join
from segdre_plugin.stages.config import SegConfig
from segdre_plugin.stages.identify import compare_strategies
from segdre_plugin.stages.margins import Margins, official
from segdre_plugin.stages.stage import own_scores


@dataclass(frozen=True)
class Scored:
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
    salient: list[Chain]
    rel2id: Mapping[str, int]
    train: Sequence[dict[str, Any]]
    fusion: str = "union"

    def cells(self) -> Cells:
        """Put the margins side by side."""
        n_entities = count_entities(self.split)
        return join(**fusible(self.tables, n_entities, self.fusion), salient=self.salient, n_entities=n_entities)

    def search(
        self, cells: Cells, grid: str | tuple[float, float], objective: str, anchor: float | Sequence[float] = 0.0
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

    def search_base(self, cells: Cells, grid: str, objective: str) -> float:
        """Find the base model's best threshold on this split when it stands alone: what tuning gives without stages."""
        alone = replace(cells, stage=np.full(len(cells.stage), -np.inf))
        return self.search(alone, grid, objective).tau_base

    def predict(self, cells: Cells, thresholds: FusionResult) -> list[dict[str, Any]]:
        """Fuse: give the predictions in the official format."""
        keep = apply_thresholds(cells.cells.margin, cells.stage, cells.is_dense, thresholds)
        return self.official(cells.cells.take(keep))

    def official(self, chosen: Margins) -> list[dict[str, Any]]:
        """Write chosen cells in the official format."""
        return official(chosen, self.split.documents, {i: name for name, i in self.rel2id.items()})

    def rows(self, predictions: list[dict[str, Any]], tau_base_alone: float) -> dict[str, Any]:
        """Evaluate base, dense, sparse and fused.

        Args:
            predictions: the fused ones.
            tau_base_alone: see :meth:`search_base`.

        Returns:
            The metrics of the base model, with its threshold tuned, too; of each stage, with the base model on the same
            pairs beside it; and of the fused predictions.
        """
        if not has_gold(self.split.documents):
            return {"gold": False}
        cells = self.cells()
        base = cells.cells.margin > 0
        predicted = {
            "base": (self._positive("base"), "base"),
            "base_tuned": (self.tables["base"].take(self.tables["base"].margin > tau_base_alone), "base"),
            "dense": (self._positive("dense"), "dense"),
            "base_on_dense": (cells.cells.take(base & cells.is_dense), "dense"),
            "sparse": (self._positive("sparse"), "sparse"),
            "base_on_sparse": (cells.cells.take(base & ~cells.is_dense), "sparse"),
        }
        found: dict[str, Any] = {
            name: own_scores(chosen, pairs, self.split, self.salient, self.rel2id, self.train)
            for name, (chosen, pairs) in predicted.items()
        }
        return {"gold": True} | found | {"fused": self.evaluate(predictions)}

    def evaluate(self, predictions: list[dict[str, Any]]) -> dict[str, float]:
        """Score predictions on all pairs."""
        return evaluate(predictions, self.split.documents, self.train)

    def strategies(self, config: SegConfig, seed: int) -> dict[str, dict[str, float]]:
        """Judge the salient entities, beside those that other strategies choose without training."""
        return compare_strategies(self.split, self.salient, config, seed, self.tables["base"])

    @property
    def has_evidence(self) -> bool:
        """Return whether the backbone predicts evidence."""
        return self.tables["base"].evidence.shape[1] > 0

    def _positive(self, stage: str) -> Margins:
        table = self.tables[stage]
        return table.take(table.margin > 0)


def fuse(
    store: Store, splits: Mapping[str, Split], rel2id: Mapping[str, int], options: Options, seed: int = 0
) -> dict[str, Any]:
    """Fuse the stages of a finished run; write ``result.json`` and ``metrics.json`` and print the table.

    Args:
        store: the run's folder, all stages done.
        splits: the data.
        rel2id: the relations.
        options: grid, objective, and how salient entities are chosen.
        seed: the run's, for strategies that choose by chance.

    Returns:
        The metrics, as written.

    Raises:
        SegDREError: if a stage's file is missing or broken.
    """
    salient = read_salient(store.folder("identify"))
    identify = read_json(store.folder("identify") / "metrics.json", "metrics of stage identify")
    thresholds: FusionResult | None = None
    report: dict[str, Any] = {"salient_k": options.config.salient_k}
    for name in (name for name in ("dev", "test") if name in splits):
        tables = {stage: _load(margins_file(store.folder(stage), name)) for stage in ("base", "dense", "sparse")}
        scored = Scored(splits[name], tables, salient[name], rel2id, splits["train"].documents, options.fusion)
        cells = scored.cells()
        if thresholds is None:
            thresholds = scored.search(cells, options.grid, options.objective)
            tau_base_alone = scored.search_base(cells, options.grid, options.objective)
        predictions = scored.predict(cells, thresholds)
        write_json(store.root / ("result.json" if name == "test" else "result_dev.json"), predictions)
        report[name] = scored.rows(predictions, tau_base_alone) | {"salient": identify[name]}
        if report[name]["gold"]:
            report[name]["strategies"] = scored.strategies(options.config, seed)
        report["evidence"] = scored.has_evidence
    if "test" not in splits:
        write_json(store.root / "result.json", predictions)
    assert thresholds is not None
    search = {"grid": options.grid, "objective": options.objective, "tau_base_alone": tau_base_alone}
    report["thresholds"] = asdict(thresholds) | search
    injected = read_json(store.folder("sparse") / INJECTED, "stage sparse")
    report["branches_left_out"] = {name: part["left_out"] for name, part in injected.items()}
    write_json(store.root / "metrics.json", report)
    print_scores(report, store.root)
    return report


def _load(path: Path) -> Margins:
    try:
        return Margins.load(path)
    except (OSError, ValueError, KeyError) as error:
        raise SegDREError(
            f"{path}: cannot read margins: {error}", "remove that stage's folder and run it again"
        ) from None

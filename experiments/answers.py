"""Does the encoder read what is injected? A model whose branches hold the answers.

python experiments/answers.py OUT --data DIR --encoder DIR --backbone atlop --recipe from-base --seeds 66

The sparse model is trained and judged on *dense* pairs, with the gold dense triples injected: each answer stands in a
branch, and nothing has to be concluded from it. Beside it stands the run's dense model, trained in the same way on the
same pairs without branches. Where this model finds no more than that one, injection cannot help sparse pairs either.
Both are judged at threshold 0. ``--link`` lets the entity that a branch names see it; ``--epochs`` gives it more time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from plan import RAW, plan_of
from probe import ProbeRun, arguments, probe
from run import Experiments

from segdre_plugin.analysis.study.tables import Cell, Table
from segdre_plugin.backbones.features import FEATURE, keep_pairs, visible_entities
from segdre_plugin.backbones.hooks import wrap_state
from segdre_plugin.data.files import read_json
from segdre_plugin.data.splits import Split
from segdre_plugin.seg.launch import messages
from segdre_plugin.stages.branches import gold_dense_triples
from segdre_plugin.stages.prepare import StageFeatures, prepare_features, stage_pairs
from segdre_plugin.stages.stage import ChainResult, Stage

METRICS = {"f1": "F1", "precision": "P", "recall": "R"}
DENSE, ANSWERS = "dense model", "answers injected"


@dataclass(frozen=True)
class AnswersStage(Stage):
    """Dense pairs in documents that hold the gold dense triples; the model is wrapped as the sparse one."""

    @property
    def pairs(self) -> str:
        """Return on whose pairs the stage is judged."""
        return "dense"

    def prepare(self, split: Split, model: Any, known: ChainResult) -> StageFeatures:
        """Return the features of sparse pairs, with their branches, dense pairs instead."""
        salient = known.salient
        assert salient is not None
        made = prepare_features(
            split.features,
            split.documents,
            model,
            salient=salient,
            triples=[gold_dense_triples(d, chain) for d, chain in zip(split.documents, salient, strict=True)],
            verbaliser=self.verbaliser,
        )
        backbone = wrap_state(model).backbone
        features, places = [], []
        for place, feature in zip(made.documents, made.features, strict=True):
            whole = split.features[place]
            pairs = np.asarray(whole["hts"])
            visible = np.asarray(visible_entities(whole, backbone, model.config.transformer_type))
            keep = stage_pairs(whole, "dense", salient[place]) & visible[pairs].all(axis=1)
            if keep.any():
                features.append(keep_pairs(whole, keep, backbone) | {FEATURE: feature[FEATURE]})
                places.append(place)
        return replace(made, features=features, documents=places)


class AnswersRun(ProbeRun):
    """A run whose stage sparse has dense pairs."""

    probed, way = "sparse", MappingProxyType({"pairs": "answers"})
    stage_kind: type[AnswersStage] = AnswersStage

    def prepare(self, name: str) -> tuple[Stage, dict[str, ChainResult]]:
        """Gather what the stage needs."""
        stage, known = super().prepare(name)
        return self.stage_kind(**vars(stage)), known


def measure(
    experiments: Experiments, backbone: str, recipe: str, seed: int, link: bool, epochs: int | None = None
) -> dict[str, Any]:
    """Train the model unless it is there.

    Args:
        experiments: where runs are.
        backbone: which one.
        recipe: which one; its run ``full`` must be finished.
        seed: the run's.
        link: with ``--seg-link``.
        epochs: how many; None takes the recipe's.

    Returns:
        Row -> split -> the metrics on dense pairs, of the dense model and of this one.
    """
    name, title = "answers", ANSWERS
    options: tuple[str, ...] = ()
    if link:
        name, title, options = f"linked-{name}", f"{title}, --seg-link", ("--seg-link",)
    if epochs is not None:
        name, title = f"{name}-{epochs}", f"{title}, {epochs} epochs"
        options = (*options, "--seg-sparse-epochs", str(epochs))
    made = probe(experiments, backbone, recipe, seed, name=name, kind=AnswersRun, stage="sparse", options=options)
    found = {stage: read_json(made.folder(stage) / "metrics.json", "metrics") for stage in ("dense", "sparse")}
    return {DENSE: found["dense"], title: found["sparse"]}


def table(found: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]) -> Table:
    """Make a table of what :func:`measure` found: seed -> row -> split -> metrics."""
    columns = [("dev", name) for name in METRICS] + [("test", name) for name in METRICS]
    lines = [
        (
            row,
            [Cell([100 * rows[row][split][name] for rows in found.values() if row in rows]) for split, name in columns],
        )
        for row in [DENSE, *sorted({row for rows in found.values() for row in rows} - {DENSE})]
    ]
    titles = [f"{split} {METRICS[name]}" for split, name in columns]
    return Table("dense pairs (%)", titles, lines)


def main() -> None:
    """Read the command line, measure, print a table and keep the numbers."""
    parser = arguments(__doc__)
    parser.add_argument("--link", action="store_true")
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    with messages():
        experiments = Experiments(options.out, options.data, options.encoder, plan=plan_of(options.recipe))
        path = RAW / options.backbone / options.recipe / "answers.json"
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for seed in options.seeds:
            rows = measure(experiments, options.backbone, options.recipe, seed, options.link, options.epochs)
            found[str(seed)] = found.get(str(seed), {}) | rows
            experiments.keep(options.backbone, options.recipe, path.name, json.dumps(found, indent=1))
    print(table(found).text())


if __name__ == "__main__":
    main()

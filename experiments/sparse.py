"""Is the sparse model trained badly? Other ways of training it, each beside the run's own.

python experiments/sparse.py OUT --data DIR --encoder DIR --backbone atlop --recipe from-base --seeds 66

- ``crossfit``: branches hold predicted triples in training, too, as in dev and test, in place of gold ones. Each half
  of the train documents is predicted by a base model that was trained on the other half, in as many steps as the run's.
- ``clauses``: branches are worded as clauses of their anchor ("has capital Paris", "is capital of France").
- ``negatives``: a quarter of the pairs without a relation, drawn once, in place of all.

Everything else is the run's: base, salient entities, dense model. All thresholds are searched on dev.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from probe import ProbeRun, main, probe, train_in
from run import Experiments

from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.results import Results
from segdre_plugin.analysis.study.rows import Column, Line, Row, Study
from segdre_plugin.analysis.study.score_row import score
from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.features import keep_pairs
from segdre_plugin.backbones.hooks import wrap_state
from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.salient import Chain
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.seg.store import Store
from segdre_plugin.seg.training_run import TrainingRun
from segdre_plugin.stages.branches import Triple
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.prepare import StageFeatures
from segdre_plugin.stages.stage import ChainResult, Stage, predicted_triples

FOLDS = 2
KEPT = 0.25  # of the pairs without a relation
TRAIN = "train_annotated.json"


def cross_fitted(folds: Sequence[Margins], salient: Sequence[Chain], rel2id: Mapping[str, int]) -> list[list[Triple]]:
    """Return the dense triples that models predict for train documents which they have not seen.

    Args:
        folds: the margins of every ``len(folds)``-th train document, from the first, the second and so on.
        salient: the salient entities of each train document.
        rel2id: relation id -> class.

    Returns:
        The triples of each train document, best-scored first.
    """
    found: list[list[Triple]] = [[] for _ in salient]
    for first, margins in enumerate(folds):
        places = range(first, len(found), len(folds))
        for place, triples in zip(places, predicted_triples(margins, len(places), rel2id), strict=True):
            found[place] = [t for t in triples if t[0] in salient[place] or t[2] in salient[place]]
    return found


@dataclass(frozen=True)
class SampledStage(Stage):
    """The sparse stage with a part of the train pairs without a relation."""

    def prepare(self, split: Split, model: Any, known: ChainResult) -> StageFeatures:
        """Leave the others out."""
        made = super().prepare(split, model, known)
        return sample(made, wrap_state(model).backbone, self.seed) if split.name == "train" else made


def sample(made: StageFeatures, backbone: Backbone, seed: int) -> StageFeatures:
    """Leave all pairs with a relation and a share ``KEPT`` of the others."""
    chance = np.random.default_rng(seed)
    features, documents = [], []
    for feature, document in zip(made.features, made.documents, strict=True):
        none = np.asarray(feature["labels"])[:, 0] == 1  # the threshold class
        keep = ~none | (chance.random(len(none)) < KEPT)
        if keep.any():
            features.append(keep_pairs(feature, keep, backbone))
            documents.append(document)
    return replace(made, features=features, documents=documents)


class CrossFitRun(ProbeRun):
    """A run whose sparse stage is cross-fitted; the folds' models lie beside it."""

    probed, way = "sparse", MappingProxyType({"triples": "cross-fitted"})

    def prepare(self, name: str) -> tuple[Stage, dict[str, ChainResult]]:
        """Gather what the stage needs."""
        stage, known = super().prepare(name)
        if name != "sparse":
            return stage, known
        places = (fold(self.store.root.parent, k, self.args.seed) for k in range(FOLDS))
        folds = [RunFolder(place).margins("base", "test") for place in places]
        train = known["train"]
        assert train.salient is not None
        return stage, known | {"train": replace(train, triples=cross_fitted(folds, train.salient, self.rel2id))}


class SamplingRun(ProbeRun):
    """A run whose sparse stage samples negative pairs."""

    probed, way = "sparse", MappingProxyType({"negatives": KEPT})

    def prepare(self, name: str) -> tuple[Stage, dict[str, ChainResult]]:
        """Gather what the stage needs."""
        stage, known = super().prepare(name)
        return (SampledStage(**vars(stage)) if name == "sparse" else stage), known


@dataclass(frozen=True)
class Way:
    """A way of training the sparse model.

    Attributes:
        title: what it is called in the table.
        kind: the run that trains it.
        options: further options of ours.
    """

    title: str
    kind: type[TrainingRun] = TrainingRun
    options: tuple[str, ...] = ()


WAYS = {
    "crossfit": Way("predicted triples in training, cross-fitted", CrossFitRun),
    "clauses": Way(
        "branches worded as clauses",
        options=("--seg-template-from", "has {relation} {tail}", "--seg-template-to", "is {relation} of {head}"),
    ),
    "negatives": Way("a quarter of the negative pairs", SamplingRun),
}


def rows(name: str) -> tuple[Row, Row]:
    """Return the rows of a way: fused, and the sparse model alone on its pairs."""
    return Row(name), Row(f"{name} sparse", sources=("sparse",), pairs="sparse")


def study_of(title: str, ways: Mapping[str, Way]) -> Study:
    """Make the study that compares each way with the run itself, ``full``."""
    return Study(
        title,
        (Line("as in the run", rows("full")), *(Line(way.title, rows(name)) for name, way in ways.items())),
        tuple(
            Column(f"{split} {part}F1", split=split, row=row)
            for split in ("dev", "test")
            for row, part in ((1, "sparse "), (0, ""))
        ),
        comparisons=tuple((name, "full") for name in ways),
    )


SPARSE = study_of("Other ways of training the sparse model", WAYS)


def fold(folder: Path, k: int, seed: int) -> Path:
    """Return where the model of a fold is."""
    return folder / f"fold-{k}-{seed}"


def train_folds(experiments: Experiments, backbone: str, recipe: str, seed: int) -> None:
    """Train a base model without each fold of the train documents, unless it is there; the fold is its test split."""
    folder = experiments.folder(backbone, recipe) / "probes"
    ours = experiments.arguments(backbone, recipe)
    epochs = float(ours[len(ours) - ours[::-1].index("--num_train_epochs")]) * FOLDS / (FOLDS - 1)
    for k in range(FOLDS):
        target = Store(fold(folder, k, seed))
        if target.is_done("base"):
            continue
        data = folder / f"fold-{k}-data"
        write_fold(experiments.data, data, k)
        how = ["--data_dir", str(data), "--num_train_epochs", str(epochs), "--seed", str(seed)]
        train_in(backbone, TrainingRun, [*ours, *how, "--seg", "--seg-dir", str(target.root), "--seg-stage", "base"])


def write_fold(source: Path, target: Path, k: int) -> None:
    """Write the data of a fold's model: train documents without those of the fold, and these as test documents."""
    documents = read_json(source / TRAIN, "train documents")
    target.mkdir(parents=True, exist_ok=True)
    for name in ("dev.json", "rel_info.json"):
        shutil.copyfile(source / name, target / name)
    write_json(target / TRAIN, [document for i, document in enumerate(documents) if i % FOLDS != k])
    write_json(target / "test.json", documents[k::FOLDS])


def measure(experiments: Experiments, backbone: str, recipe: str, seeds: list[int]) -> Results:
    """Train what is not there, and score.

    Args:
        experiments: where runs are.
        backbone: which one.
        recipe: which one; its runs ``full`` must be finished.
        seeds: the runs'.

    Returns:
        The scores of every row.
    """
    found: dict[str, dict[int, FinishedRun]] = {name: {} for name in ("full", *WAYS)}
    for seed in seeds:
        found["full"][seed] = FinishedRun(experiments.runs(backbone, recipe).path("full", seed))
        train_folds(experiments, backbone, recipe, seed)
        for name, way in WAYS.items():
            where = (experiments, backbone, recipe, seed)
            made = probe(*where, name=name, kind=way.kind, stage="sparse", options=way.options, fused=True)
            found[name][seed] = FinishedRun(made.root)
    return score_ways(found, SPARSE)


def score_ways(found: Mapping[str, Mapping[int, FinishedRun]], study: Study) -> Results:
    """Score the finished runs of each way (``full`` is the run itself): name -> seed -> run."""

    def nothing(split: str) -> Margins:
        raise AssertionError(f"{split}: no row has an ensemble")

    scores = {
        row.name: {seed: score(row, run, nothing, study.splits) for seed, run in runs.items()}
        for name, runs in found.items()
        for row in rows(name)
    }
    return Results(study, tuple(found["full"]), scores, {})


if __name__ == "__main__":
    main(__doc__, measure)

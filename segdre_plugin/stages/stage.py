"""The stages that train: what goes into each, how it is judged on dev, and what it leaves behind (section 3.2).

Training uses the gold salient entity (or, on request, what the run's strategy chooses) and the gold dense triples; dev
and test use those that the stages before predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segdre_plugin.data.documents import Document
from segdre_plugin.data.files import read_json, write_arrays, write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.metrics import evaluate, has_gold
from segdre_plugin.salient import Chain, as_chain, gold_chain, saliency
from segdre_plugin.stages.branches import Verbaliser, gold_dense_triples
from segdre_plugin.stages.config import SegConfig
from segdre_plugin.stages.margins import Margins, official
from segdre_plugin.stages.prepare import Prepared, prepare_features
from segdre_plugin.stages.scoring import score_counts, score_relations
from segdre_plugin.stages.strategies import choose_salient
from segdre_plugin.vocabulary import Triple

SALIENT = "salient.json"
INJECTED = "injected.json"


def margins_file(folder: Path, split: str) -> Path:
    """Return the file of a stage's margins on a split."""
    return folder / f"margins_{split}.npz"


@dataclass(frozen=True)
class Counts:
    """What stage identify says of a split.

    Attributes:
        salient: the salient entities of each document; none where it has no pair.
        arrays: document, pair and expected count (eq. 7) of every pair.
    """

    salient: list[Chain]
    arrays: dict[str, np.ndarray]


@dataclass
class Stage:
    """A stage at work.

    Attributes:
        name: base, identify, dense or sparse.
        rel2id: the relations.
        splits: name -> split, with features.
        salient: split name -> the salient entities of each document (dense and sparse).
        dense: split name -> dense margins (sparse; dev and test).
        verbaliser: makes branches (sparse).
        injected: split name -> the triples injected into each document, and how many exceeded the budget (sparse).
        prepared: split name -> the stage's features of it, once made.
        config: who chooses the salient entities, and how many (identify).
        seed: the run's, for those who choose by chance (identify).
    """

    name: str
    rel2id: Mapping[str, int]
    splits: Mapping[str, Split]
    salient: Mapping[str, Sequence[Chain]] = field(default_factory=dict)
    dense: Mapping[str, Margins] = field(default_factory=dict)
    verbaliser: Verbaliser | None = None
    injected: dict[str, dict[str, Any]] = field(default_factory=dict)
    prepared: dict[str, Prepared] = field(default_factory=dict)
    config: SegConfig = field(default_factory=SegConfig)
    seed: int = 0

    def prepare(self, split: Split, model: Any) -> Prepared:
        """Make the stage's features of a split for the wrapped model; once, though dev is judged every epoch."""
        if split.name in self.prepared:
            return self.prepared[split.name]
        prepared = prepare_features(
            split.features,
            split.documents,
            model,
            salient=self.salient.get(split.name),
            triples=self.triples(split) if self.name == "sparse" else None,
            verbaliser=self.verbaliser,
        )
        triples = [prepared.injected.get(i, []) for i in range(len(split.documents))]
        self.injected[split.name] = {"left_out": prepared.left_out, "triples": triples}
        self.prepared[split.name] = prepared
        return prepared

    def triples(self, split: Split) -> list[list[Triple]]:
        """Return the dense triples to inject into each document, best-scored first: gold in train, else predicted."""
        salient = self.salient[split.name]
        if split.name == "train":
            return [gold_dense_triples(d, chain) for d, chain in zip(split.documents, salient, strict=True)]
        return predicted_triples(self.dense[split.name], len(split.documents), self.rel2id)

    def score(self, model: Any, split: Split, collate_fn: Any, **how: Any) -> Margins:
        """Return a split's margins (stages base, dense and sparse).

        Args:
            model: the wrapped model.
            split: the split.
            collate_fn: the wrapped collate function.
            how: batch_size, device and label of :func:`segdre_plugin.stages.scoring.outputs`.

        Returns:
            The margins of the stage's own pairs.
        """
        prepared = self.prepare(split, model)
        return score_relations(model, prepared.features, prepared.documents, collate_fn, **how)

    def count(self, model: Any, split: Split, collate_fn: Any, **how: Any) -> Counts:
        """Count a split's relations (stage identify).

        Args:
            model: the wrapped model.
            split: the split.
            collate_fn: the wrapped collate function.
            how: batch_size, device and label of :func:`segdre_plugin.stages.scoring.outputs`.

        Returns:
            The expected counts, and the salient entities that follow.
        """
        prepared = self.prepare(split, model)
        features, places = prepared.features, prepared.documents
        counts = score_counts(model, features, collate_fn, **how)
        pairs = [np.asarray(feature["hts"], dtype=np.int32) for feature in features]
        owner = np.repeat(np.asarray(places, dtype=np.int32), [len(p) for p in pairs])
        pair = np.concatenate([np.zeros((0, 2), dtype=np.int32), *pairs])
        arrays = {"document": owner, "pair": pair, "count": np.concatenate([np.zeros(0, dtype=np.float32), *counts])}
        strategy, k = self.config.strategy, self.config.salient_k
        return Counts(choose_salient(strategy, split.documents, k=k, seed=self.seed, counts=arrays), arrays)

    def judge(
        self, model: Any, split: Split, collate_fn: Any, train: Sequence[Document], folder: Path | None, **how: Any
    ) -> dict[str, float]:
        """Score a split and compare it with its gold.

        Args:
            model: the wrapped model.
            split: the split.
            collate_fn: the wrapped collate function.
            train: train documents, for Ign-F1.
            folder: where scores are written; None writes nothing.
            how: batch_size, device and label of :func:`segdre_plugin.stages.scoring.outputs`.

        Returns:
            Saliency and accuracy in stage identify; else the metrics on the stage's own pairs; empty without gold.
        """
        if self.name == "identify":
            counts = self.count(model, split, collate_fn, **how)
            if folder is not None:
                write_arrays(folder / f"counts_{split.name}.npz", counts.arrays)
                path = folder / SALIENT
                before = read_json(path, "salient") if path.exists() else {}
                write_json(path, before | {split.name: counts.salient})
            return saliency(split.documents, counts.salient, self.config.salient_k) if split.has_gold else {}
        margins = self.score(model, split, collate_fn, **how)
        if folder is not None:
            margins.save(margins_file(folder, split.name))
        return own_scores(
            margins.take(margins.margin > 0), self.name, split, self.salient.get(split.name), self.rel2id, train
        )


def predicted_triples(margins: Margins, n_documents: int, rel2id: Mapping[str, int]) -> list[list[Triple]]:
    """Return the triples that a model predicts for each document: those with a margin above 0, best-scored first."""
    found: list[list[Triple]] = [[] for _ in range(n_documents)]
    id2rel = {i: name for name, i in rel2id.items()}
    predicted = margins.take(margins.margin > 0)
    for k in np.argsort(-predicted.margin, kind="stable").tolist():
        triple = Triple(int(predicted.head[k]), id2rel[int(predicted.relation[k])], int(predicted.tail[k]))
        found[int(predicted.document[k])].append(triple)
    return found


def own_scores(
    predicted: Margins,
    stage: str,
    split: Split,
    salient: Sequence[Chain] | None,
    rel2id: Mapping[str, int],
    train: Sequence[Document],
) -> dict[str, float]:
    """Evaluate predicted cells against the gold of a stage's own pairs.

    Args:
        predicted: the predicted cells, all of the stage's pairs.
        stage: base (all pairs), dense or sparse.
        split: the split.
        salient: its salient entities (dense, sparse).
        rel2id: the relations.
        train: train documents, for Ign-F1.

    Returns:
        The metrics; empty if there is no gold on these pairs.
    """
    documents = split.documents
    if stage in ("dense", "sparse"):
        assert salient is not None
        documents = own_gold(documents, salient, stage)
    if not has_gold(documents):
        return {}
    id2rel = {i: name for name, i in rel2id.items()}
    return evaluate(official(predicted, documents, id2rel), documents, train)


def own_gold(documents: Sequence[Document], salient: Sequence[Chain], stage: str) -> list[Document]:
    """Leave only the gold triples of a stage's own pairs in documents.

    Args:
        documents: the documents.
        salient: the salient entities of each.
        stage: dense or sparse.

    Returns:
        Copies; all but ``labels`` is shared.
    """
    return [
        document
        | {
            "labels": [
                label
                for label in document.get("labels") or []
                if (label["h"] in chain or label["t"] in chain) == (stage == "dense")
            ]
        }
        for document, chain in zip(documents, salient, strict=True)
    ]


def train_salient(split: Split, config: SegConfig, seed: int) -> list[Chain]:
    """Return the salient entities of the train split: gold ones, or those of the run's strategy."""
    k = config.salient_k
    if config.train_salient == "same":
        return choose_salient(config.strategy, split.documents, k=k, seed=seed)
    return [tuple(gold_chain(document, k)) for document in split.documents]


def read_salient(folder: Path) -> dict[str, list[Chain]]:
    """Read the salient entities that stage identify chose.

    Args:
        folder: the stage's folder.

    Returns:
        Split name -> the salient entities of each document. Files of older runs hold one entity or null for each.

    Raises:
        SegDREError: if the file is missing or holds something else.
    """
    path = folder / SALIENT
    found = read_json(path, "salient entities")
    try:
        return {name: [as_chain(chosen) for chosen in chains] for name, chains in found.items()}
    except (AttributeError, TypeError, SegDREError):
        raise SegDREError(
            f"{path}: expected split -> a list of salient entities for each document", "make stage identify again"
        ) from None

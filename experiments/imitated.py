"""Do branches help that are as wrong in training as they will be? Ways of reading what other models predicted.

python experiments/imitated.py OUT --data DIR --encoder DIR --backbone atlop --recipe few-from-base --seeds 66

At test branches hold predicted triples, in training gold ones: the model learns to trust what will be wrong.
Cross-fitted predictions cost two more bases (sparse.py); here gold triples of the train documents are made as wrong as
predictions are on dev: as many are left out, and as many wrong ones come in. All branches are linked (``--seg-link``).

- ``linked``: gold triples as they are, the control.
- ``imitated``: with errors.
- ``words``: with errors, and a word at the head of each branch that says how sure its triple is.
- ``both``: as ``words``, with all triples that the base predicts, around both entities of a pair; the paper has those
  of the salient entity, from the dense model.
- ``second``: a second round: a dense model, trained like the sparse one of ``words``, that reads what the sparse model
  predicted.

Everything else is the run's. All thresholds are searched on dev.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from probe import ProbeRun, main, probe
from run import Experiments
from sparse import Way, score_ways, study_of

from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.results import Results
from segdre_plugin.analysis.study.rows import Reading
from segdre_plugin.backbones.attention import position_range
from segdre_plugin.backbones.features import add_branches, keep_pairs, visible_entities
from segdre_plugin.backbones.hooks import wrap_state
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import Chain
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.seg.training_run import TrainingRun
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.prepare import StageFeatures, stage_pairs
from segdre_plugin.stages.scored import ScoredSplit
from segdre_plugin.stages.stage import ChainResult, Stage, predicted_triples
from segdre_plugin.vocabulary import Document, Triple, label_triples

SURENESS = ("perhaps", "likely", "surely")  # by thirds of the margins of what is predicted on dev
KINDS = ("dense", "sparse")


def scored_triples(margins: Margins, n_documents: int, rel2id: Mapping[str, int]) -> list[dict[Triple, float]]:
    """Return the predicted triples of each document and their margins, best-scored first."""
    above = margins.take(margins.margin > 0)
    return [
        dict(zip(triples, sorted(above.margin[above.document == place].tolist(), reverse=True), strict=True))
        for place, triples in enumerate(predicted_triples(margins, n_documents, rel2id))
    ]


def of_kind(triples: Sequence[Triple], chain: Chain, kind: str) -> list[Triple]:
    """Return the triples on dense or on sparse pairs."""
    return [t for t in triples if (t.head in chain or t.tail in chain) == (kind == "dense")]


def gold(document: Document) -> list[Triple]:
    """Return the distinct gold triples of a document."""
    return list(dict.fromkeys(triple for triple, _ in label_triples(document)))


@dataclass(frozen=True)
class Errors:
    """How the triples that a model predicts differ from the gold ones.

    Attributes:
        found: share of the gold triples that are predicted.
        wrong: wrong triples for each right one.
        same_pair: share of the wrong triples on pairs that have a gold triple.
        right_words: share of each word of ``SURENESS`` among right triples.
        wrong_words: the same among wrong ones.
    """

    found: float
    wrong: float
    same_pair: float
    right_words: tuple[float, ...]
    wrong_words: tuple[float, ...]


def sureness(margin: float, cuts: Sequence[float]) -> int:
    """Return the place in ``SURENESS`` of a predicted triple."""
    return int(np.searchsorted(cuts, margin))


def count_errors(
    predicted: Sequence[Mapping[Triple, float]], golden: Sequence[Sequence[Triple]], cuts: Sequence[float]
) -> Errors:
    """Compare predicted triples with gold ones, one entry a document; if none is right, wrong ones count as for one."""
    words = np.zeros((2, len(SURENESS)))
    same = 0
    for triples, own in zip(predicted, golden, strict=True):
        pairs = {(t.head, t.tail) for t in own}
        for triple, margin in triples.items():
            right = triple in own
            words[int(right), sureness(margin, cuts)] += 1
            same += not right and (triple.head, triple.tail) in pairs
    n_wrong, n_right = words.sum(axis=1).tolist()
    shares = [tuple((row / row.sum() if row.any() else np.full(len(row), 1 / len(row))).tolist()) for row in words]
    n_gold = sum(map(len, golden))
    return Errors(n_right / max(1, n_gold), n_wrong / max(1, n_right), same / max(1, n_wrong), shares[1], shares[0])


def imitate(
    document: Document,
    golden: Sequence[Triple],
    chain: Chain,
    errors: Errors,
    relations: Sequence[str],
    chance: np.random.Generator,
) -> dict[Triple, str]:
    """Make gold triples of a document as wrong as predicted ones.

    A wrong triple is a gold one with another relation, or with another entity in place of one that is not salient.

    Args:
        document: the document.
        golden: its triples on dense or on sparse pairs.
        chain: its salient entities.
        errors: of these pairs.
        relations: what another relation is drawn from.
        chance: what everything is drawn with.

    Returns:
        The triples, each with its word of ``SURENESS``.
    """

    def word(shares: Sequence[float]) -> str:
        return str(chance.choice(SURENESS, p=shares))

    made = {triple: word(errors.right_words) for triple in golden if chance.random() < errors.found}
    for _ in range(chance.poisson(errors.wrong * len(made))):
        triple = golden[int(chance.integers(len(golden)))]
        if chance.random() < errors.same_pair:
            other = triple._replace(relation=str(chance.choice(relations)))
        else:
            entity = int(chance.integers(len(document["vertexSet"])))
            ends = [end for end in ("head", "tail") if getattr(triple, end) not in chain] or ["head", "tail"]
            end = str(chance.choice(ends))
            other = triple._replace(head=entity) if end == "head" else triple._replace(tail=entity)
        if other not in golden and other.head != other.tail:
            made.setdefault(other, word(errors.wrong_words))
    return made


def worded(triple: Triple, word: str) -> Triple:
    """Return a triple whose relation carries a word."""
    return triple._replace(relation=f"{word} {triple.relation}")


@dataclass(frozen=True)
class AroundBoth(Stage):
    """Triples hang on all their entities, not only on salient ones; the model is wrapped as the sparse one.

    Attributes:
        judged: whose pairs the model has, dense or sparse.
    """

    judged: str = "sparse"

    @property
    def pairs(self) -> str:
        """Return on whose pairs the stage is judged."""
        return self.judged

    def prepare(self, split: Split, model: Any, known: ChainResult) -> StageFeatures:
        """Return the features of the pairs, with the branches of ``known.triples``."""
        assert known.salient is not None
        assert known.triples is not None
        assert self.verbaliser is not None
        backbone, kind = wrap_state(model).backbone, model.config.transformer_type
        positions, offset = position_range(getattr(model, backbone.encoder), kind)
        features, places, left_out = [], [], 0
        injected: list[list[Triple]] = [[] for _ in split.features]
        for place, (feature, document) in enumerate(zip(split.features, split.documents, strict=True)):
            seen = np.asarray(visible_entities(feature, backbone, kind))[np.asarray(feature["hts"])].all(axis=1)
            keep = stage_pairs(feature, self.judged, known.salient[place]) & seen
            if not keep.any():
                continue
            everybody = tuple(range(len(document["vertexSet"])))
            words = self.verbaliser(document, everybody, known.triples[place])
            made = add_branches(
                keep_pairs(feature, keep, backbone),
                *(everybody, words.branches, words.owners),
                backbone=backbone,
                transformer_type=kind,
                max_positions=positions,
                position_offset=offset,
                link=self.verbaliser.config.link,
            )
            injected[place] = words.triples
            left_out += words.left_out
            features.append(made)
            places.append(place)
        return StageFeatures(features, places, injected, left_out)


class ImitatingRun(ProbeRun):
    """A run whose sparse stage reads triples with errors: gold ones that imitate them, then predicted ones."""

    probed, way = "sparse", MappingProxyType({"triples": "imitated"})
    words = False
    source = "dense"  # whose predictions are read
    kinds: tuple[str, ...] = KINDS[:1]  # those on which pairs
    judged = ""  # whose pairs a stage has whose branches hang on all entities

    def prepare(self, name: str) -> tuple[Stage, dict[str, ChainResult]]:
        """Gather what the stage needs."""
        stage, known = super().prepare(name)
        if name != "sparse":
            return stage, known
        predicted = {
            split: scored_triples(self.predictions(split), len(self.splits[split].documents), self.rel2id)
            for split in known.keys() - {"train"}
        }
        all_margins = sorted(margin for document in predicted["dev"] for margin in document.values())
        if not all_margins:
            raise SegDREError(f"{self.source}: nothing is predicted on dev", "train the run for longer")
        cuts = [all_margins[len(all_margins) * k // len(SURENESS)] for k in range(1, len(SURENESS))]

        told: dict[str, list[dict[Triple, str]]] = {"train": self.imitated(predicted["dev"], known, cuts)}
        for split, documents in predicted.items():
            told[split] = [{t: SURENESS[sureness(m, cuts)] for t, m in each.items()} for each in documents]
        triples = {
            split: [[worded(t, word) if self.words else t for t, word in each.items()] for each in documents]
            for split, documents in told.items()
        }
        assert stage.verbaliser is not None
        own = {f"{word} {key}": f"{word} {text}" for word in SURENESS for key, text in self.relation_names.items()}
        stage.verbaliser.relation_names = {**self.relation_names, **own}
        if self.judged:
            stage = AroundBoth(**vars(stage), judged=self.judged)
        return stage, {split: replace(found, triples=triples[split]) for split, found in known.items()}

    def predictions(self, split: str) -> Margins:
        """Return the margins of the predictions that are read."""
        return RunFolder(self.store.root).margins(self.source, split)

    def imitated(
        self, predicted: Sequence[Mapping[Triple, float]], known: Mapping[str, ChainResult], cuts: Sequence[float]
    ) -> list[dict[Triple, str]]:
        """Return triples of the train documents that are as wrong as predicted ones on dev."""
        chance = np.random.default_rng(self.args.seed)
        train, dev = (self.splits[name].documents for name in ("train", "dev"))
        relations = [label["r"] for document in train for label in document["labels"]]
        made: list[dict[Triple, str]] = [{} for _ in train]
        chains = {split: known[split].salient for split in ("train", "dev")}
        assert chains["train"] is not None
        assert chains["dev"] is not None
        for kind in self.kinds:
            at_dev = list(zip(predicted, dev, chains["dev"], strict=True))
            own = [{t: each[t] for t in of_kind([*each], chain, kind)} for each, _, chain in at_dev]
            errors = count_errors(own, [of_kind(gold(document), chain, kind) for _, document, chain in at_dev], cuts)
            print(f"{kind} triples of {self.source} on dev: {errors}", flush=True)
            for k, (document, chain) in enumerate(zip(train, chains["train"], strict=True)):
                made[k] |= imitate(document, of_kind(gold(document), chain, kind), chain, errors, relations, chance)
        return made


class WordsRun(ImitatingRun):
    """With words."""

    words, way = True, MappingProxyType({"triples": "imitated, with words"})


class BothRun(WordsRun):
    """With what the base says of both entities."""

    source, kinds, judged = "base", KINDS, "sparse"
    way = MappingProxyType({"triples": "imitated, with words, of the base around both entities"})


class SecondRun(WordsRun):
    """A dense model that reads what the run's sparse model predicted."""

    source, kinds, judged = "sparse", KINDS[1:], "dense"
    way = MappingProxyType({"triples": "imitated, with words, of the sparse model", "pairs": "dense"})

    def predictions(self, split: str) -> Margins:
        """Return the margins of the sparse model of the run ``full``."""
        return RunFolder(self.store.root.parents[1] / "runs" / f"full-{self.args.seed}").margins(self.source, split)


class SecondFinished(FinishedRun):
    """A finished run with the margins of another dense model."""

    def __init__(self, path: Path, second: Path) -> None:
        super().__init__(path)
        self.second = RunFolder(second)

    def scored(self, name: str, reading: Reading | None = None) -> ScoredSplit:
        """Return a split."""
        found = super().scored(name, reading)
        return replace(found, tables={**found.tables, "dense": self.second.margins("sparse", name)})


LINK = ("--seg-link",)
WAYS = {
    "linked": Way("gold triples in training, linked", TrainingRun, LINK),
    "imitated": Way("with errors in training", ImitatingRun, LINK),
    "words": Way("with errors, and words for sure and unsure", WordsRun, LINK),
    "both": Way("the base's triples around both entities, with errors and words", BothRun, LINK),
    "second": Way("dense model that reads the sparse model's triples", SecondRun, LINK),
}
IMITATED = study_of("Branches that are as wrong in training as at test", WAYS)


def measure(experiments: Experiments, backbone: str, recipe: str, seeds: list[int]) -> Results:
    """Train what is not there, and score; see :func:`sparse.measure`."""
    found: dict[str, dict[int, FinishedRun]] = {name: {} for name in ("full", *WAYS)}
    for seed in seeds:
        full = experiments.runs(backbone, recipe).path("full", seed)
        found["full"][seed] = FinishedRun(full)
        for name, way in WAYS.items():
            where = (experiments, backbone, recipe, seed)
            how: dict[str, Any] = {"name": name, "kind": way.kind, "stage": "sparse", "options": way.options}
            made = probe(*where, **how, fused=name != "second")
            found[name][seed] = FinishedRun(made.root) if name != "second" else SecondFinished(full, made.root)
    return score_ways(found, IMITATED)


if __name__ == "__main__":
    main(__doc__, measure)

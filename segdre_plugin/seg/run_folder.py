"""The folder of a ``--seg`` run: which files it has, and readers that check what they read.

=================================  ===================================================================================
``run.json``                       where the run's data are, and their hashes; written last
``metrics.json``                   thresholds, and the scores of dev and test
``result.json``                    fused predictions on test (on dev where there is no test), in the official format
``result_dev.json``                the same on dev
``isf.json``                       what inference-stage fusion tuned on dev
``eval/NAME/``                     later evaluations: ``metrics.json`` and ``result.json`` of each
``STAGE/settings.json``            all on which the stage depends; a stage that has it is finished
``STAGE/metrics.json``             the scores of the stage alone
``STAGE/margins_SPLIT.npz``        margins (base, dense, sparse)
``identify/counts_SPLIT.npz``      expected relation counts, where the strategy has a count head
``identify/salient.json``          salient entities
``sparse/injected.json``           injected triples
=================================  ===================================================================================

A checkpoint lies in its stage's folder too, under the name that the train script has for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from segdre_plugin.data.documents import Document, load_documents
from segdre_plugin.data.files import fingerprint, read_arrays, read_json
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.fusion import FUSIONS, GRIDS, FusionResult
from segdre_plugin.salient import Chain
from segdre_plugin.stages.artifacts import (
    INJECTED,
    METRICS,
    SALIENT,
    SETTINGS,
    counts_file,
    margins_file,
    read_salient,
)
from segdre_plugin.stages.config import STAGES, SegConfig
from segdre_plugin.stages.margins import Margins, check_arrays
from segdre_plugin.vocabulary import Triple

RUN = "run.json"
ISF = "isf.json"
EVALUATIONS = "eval"
RESULT, RESULT_DEV = "result.json", "result_dev.json"
SPLITS = ("dev", "test")  # those that a run predicts
TAUS = ("tau_base", "tau_dense", "tau_sparse")
OBJECTIVES = ("f1", "ign_f1")
SCORE_ROWS = ("base", "base_tuned", "dense", "base_on_dense", "sparse", "base_on_sparse", "fused")
SCORES = ("precision", "recall", "f1", "ign_f1", "intra_f1", "inter_f1")

NUMBER = (int, float)
AGAIN = "run its command again: finished stages are skipped"  # what mends an unfinished run
RETRAIN = "remove that stage's folder and run its command again"

T = TypeVar("T")


class RunFolder:
    """A ``--seg-dir``: the names of its files, and what they hold. JSON is read once and kept, arrays are not.

    Args:
        path: the folder.
        data_dir: where the files of the data are now; None takes the paths that the run noted.
    """

    def __init__(self, path: Path, data_dir: Path | None = None) -> None:
        self.path, self.data_dir = path, data_dir
        self.sources_file, self.metrics_file, self.isf_file = path / RUN, path / METRICS, path / ISF
        self.salient_file = self.stage("identify") / SALIENT
        self.injected_file = self.stage("sparse") / INJECTED

    def stage(self, stage: str) -> Path:
        """Return the folder of a stage."""
        return self.path / stage

    def settings_file(self, stage: str) -> Path:
        """Return the file of a stage's settings."""
        return self.stage(stage) / SETTINGS

    def result_file(self, split: str) -> Path:
        """Return the file of the fused predictions on a split."""
        return self.path / (RESULT if split == "test" else RESULT_DEV)

    def evaluation(self, name: str) -> Path:
        """Return the folder of a later evaluation."""
        return self.path / EVALUATIONS / name

    def checkpoint(self, stage: str) -> Path:
        """Return the checkpoint of a stage."""
        return Path(str(self.sources["checkpoint"]).format(folder=self.stage(stage)))

    def is_done(self, stage: str) -> bool:
        """Return whether a stage is finished."""
        return self.settings_file(stage).is_file()

    @property
    def missing(self) -> list[str]:
        """List what a finished run has and this one has not."""
        stages = [f"stage {stage}" for stage in STAGES if not self.is_done(stage)]
        return stages + [path.name for path in (self.metrics_file, self.sources_file) if not path.is_file()]

    @property
    def is_finished(self) -> bool:
        """Return whether all stages are finished and fused."""
        return not self.missing

    def require_finished(self) -> None:
        """Refuse a run that is not finished.

        Raises:
            SegDREError: with all that is missing.
        """
        raise_all(self.missing, f"{self.path}: not a finished run; missing", AGAIN)

    def settings(self, stage: str) -> dict[str, Any]:
        """Return the settings of a stage.

        Args:
            stage: base, identify, dense or sparse.

        Returns:
            ``arguments`` of the train script, hashes of the ``data`` and of the clone's ``modules``, ``options`` of the
            stage, and more.

        Raises:
            SegDREError: if the file is missing or broken, or lacks one of these.
        """
        path = self.settings_file(stage)
        found = _read(path, f"settings of stage {stage}")
        for name in ("arguments", "data", "modules", "options"):
            _field(path, found, name, dict)
        return found

    @cached_property
    def config(self) -> SegConfig:
        """The settings of the method: stage identify has those of its head, stage sparse all others."""
        options: dict[str, Any] = {}
        for stage in ("identify", "sparse"):
            path, own = self.settings_file(stage), self.settings(stage)["options"]
            for field in fields(SegConfig):
                if field.name in own:
                    kind = NUMBER if isinstance(field.default, float) else type(field.default)
                    options[field.name] = _field(path, own, field.name, kind, "options")
        try:
            return SegConfig(**options)
        except SegDREError as error:
            problem = str(error).removesuffix(f"\n  -> {error.hint}")
            raise SegDREError(f"{self.settings_file('sparse')}, or that of identify: {problem}", error.hint) from None

    @cached_property
    def seed(self) -> int:
        """The run's seed."""
        arguments = self.settings("base")["arguments"]
        return _field(self.settings_file("base"), arguments, "seed", int, "arguments")

    @cached_property
    def sources(self) -> dict[str, Any]:
        """Where the data were, and what they were.

        ``adapter``, ``checkpoint`` (with ``{folder}`` for the stage's folder), ``files`` (train, dev, test if there
        is one, rel2id, rel_info -> path), ``hashes`` (the same names, and more -> SHA-256), ``rel2id`` (relation id
        -> class) and ``relation_names`` (relation id -> name).
        """
        path = self.sources_file
        found = _read(path, "sources of the run")
        for name in ("adapter", "checkpoint"):
            _field(path, found, name, str)
        for name, kind in (("files", str), ("hashes", str), ("rel2id", int), ("relation_names", str)):
            for key in _field(path, found, name, dict):
                _field(path, found[name], key, kind, name)
        for name in ("train", "dev", "rel2id", "rel_info"):
            _field(path, found["files"], name, str, "files")
        for name in found["files"]:
            _field(path, found["hashes"], name, str, "hashes")
        return found

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds: ``thresholds``, and of each split its scores."""
        found = _read(self.metrics_file, "metrics of the run")
        search = _field(self.metrics_file, found, "thresholds", dict)
        _thresholds(self.metrics_file, search, "thresholds")
        _field(self.metrics_file, search, "tau_base_alone", NUMBER, "thresholds")
        _field(self.metrics_file, found, "dev", dict)
        for split in _field(self.metrics_file, found, "branches_left_out", dict):
            _field(self.metrics_file, found["branches_left_out"], split, int, "branches_left_out")
        _check_scores(self.metrics_file, found)
        return found

    @property
    def thresholds(self) -> FusionResult:
        """The thresholds that were chosen on dev."""
        return _thresholds(self.metrics_file, self.metrics["thresholds"], "thresholds")

    @property
    def search(self) -> dict[str, str]:
        """How thresholds were searched: the name of the ``grid``, and the ``objective``."""
        return {name: self.metrics["thresholds"][name] for name in ("grid", "objective")}

    @property
    def tau_base_alone(self) -> float:
        """The base model's best threshold on dev when it stands alone."""
        return float(self.metrics["thresholds"]["tau_base_alone"])

    @property
    def isf(self) -> dict[str, Any] | None:
        """What inference-stage fusion tuned on dev; None if there is no such file."""
        if not self.isf_file.is_file():
            return None
        found = _read(self.isf_file, "inference-stage fusion")
        _field(self.isf_file, found, "tau", NUMBER)
        _thresholds(self.isf_file, _field(self.isf_file, found, "thresholds", dict), "thresholds")
        return found

    @property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Metrics of later evaluations, by the name of their folder."""
        found = {}
        for path in sorted((self.path / EVALUATIONS).glob(f"*/{METRICS}")):
            found[path.parent.name] = _read(path, "metrics of an evaluation")
            _check_scores(path, found[path.parent.name])
        return found

    def stage_metrics(self, stage: str) -> dict[str, dict[str, float]]:
        """Return the scores of a stage alone, by split."""
        path = self.stage(stage) / METRICS
        found = _read(path, f"metrics of stage {stage}")
        for split in found:
            for name in _field(path, found, split, dict):
                _field(path, found[split], name, NUMBER, split)
        return found

    def result(self, split: str) -> list[dict[str, Any]]:
        """Return the fused predictions on a split.

        Args:
            split: dev or test.

        Returns:
            ``title``, ``h_idx``, ``t_idx`` and ``r`` of each, as in the official format.

        Raises:
            SegDREError: if the file is missing or broken.
        """
        path = self.result_file(split)
        found = read_json(path, "fused result")
        for i, row in enumerate(found if _is(path, found, list, "predictions") else ()):
            _is(path, row, dict, f"[{i}]")
            for name, kind in (("title", str), ("h_idx", int), ("t_idx", int), ("r", str)):
                _field(path, row, name, kind, f"[{i}]")
        return list(found)

    def margins(
        self, stage: str, split: str, documents: Sequence[Document] | None = None, n_classes: int | None = None
    ) -> Margins:
        """Return the margins of a stage on a split.

        Args:
            stage: base, dense or sparse.
            split: dev or test.
            documents: those of the split; pairs that they do not have are refused.
            n_classes: number of relations with NA; classes from there on are refused.

        Returns:
            The margins.

        Raises:
            SegDREError: if the file is missing or broken, or does not fit the documents.
        """
        path = margins_file(self.stage(stage), split)
        table = Margins.load(path)
        if documents is not None and len(table):
            sizes = np.array([len(document["vertexSet"]) for document in documents])
            inside = (table.document < len(documents)).all()
            if not (inside and (np.maximum(table.head, table.tail) < sizes[table.document]).all()):
                raise SegDREError(f"{path}: holds pairs that {split} does not have", AGAIN)
        last = table.relation.max(initial=-1)
        if n_classes is not None and last >= n_classes:
            raise SegDREError(f"{path}: holds class {last}, expected 0 to {n_classes - 1}", AGAIN)
        return table

    def counts(self, split: str, documents: Sequence[Document] | None = None) -> dict[str, np.ndarray]:
        """Return the relation counts that stage identify expects.

        Args:
            split: dev or test.
            documents: those of the split; pairs of others are refused.

        Returns:
            ``document`` [pairs], ``pair`` [pairs, 2] and ``count`` [pairs].

        Raises:
            SegDREError: if the file is missing or broken, or does not fit the documents.
        """
        path = counts_file(self.stage("identify"), split)
        arrays = read_arrays(path)
        check_arrays(path, arrays, {"document": "i", "pair": "ii", "count": "f"})
        last = arrays["document"].max(initial=-1)
        if documents is not None and last >= len(documents):
            raise SegDREError(f"{path}: holds document {last}, {split} has {len(documents)}", AGAIN)
        return arrays

    def salient(self, split: str, documents: Sequence[Document] | None = None) -> list[Chain]:
        """Return the salient entities that the run predicted.

        Args:
            split: dev or test.
            documents: those of the split; entities that they do not have are refused.

        Returns:
            Those of each document.

        Raises:
            SegDREError: if the file is missing or broken, or does not fit the documents.
        """
        chains = _split(self.salient_file, self._salient, split)
        if documents is not None:
            fits = len(chains) == len(documents) and all(
                entity < len(document["vertexSet"])
                for chain, document in zip(chains, documents, strict=True)
                for entity in chain
            )
            _require(fits, self.salient_file, split, len(documents))
        return chains

    def injected(self, split: str, documents: Sequence[Document] | None = None) -> list[list[Triple]]:
        """Return the triples that were injected.

        Args:
            split: train, dev or test.
            documents: those of the split; triples of others are refused.

        Returns:
            Those of each document.

        Raises:
            SegDREError: if the file is missing or broken, or does not fit the documents.
        """
        triples = _split(self.injected_file, self._injected[0], split)
        _require(documents is None or len(triples) == len(documents), self.injected_file, split, len(documents or ()))
        return triples

    @property
    def left_out(self) -> dict[str, int]:
        """How many branches exceeded the token budget, by split."""
        return self._injected[1]

    @cached_property
    def _salient(self) -> dict[str, list[Chain]]:
        return read_salient(self.stage("identify"))

    @cached_property
    def _injected(self) -> tuple[dict[str, list[list[Triple]]], dict[str, int]]:
        path = self.injected_file
        triples, left_out = {}, {}
        for split, part in _read(path, "injected triples").items():
            if not isinstance(part, dict):
                raise SegDREError(f"{path}: {split}: expected an object, got {type(part).__name__}", RETRAIN)
            left_out[split] = _field(path, part, "left_out", int, split)
            triples[split] = [
                [_triple(path, triple, f"{split}.triples[{i}][{k}]") for k, triple in enumerate(document)]
                for i, document in enumerate(_field(path, part, "triples", list, split))
                if _is(path, document, list, f"{split}.triples[{i}]")
            ]
        return triples, left_out

    @cached_property
    def files(self) -> dict[str, Path]:
        """The files of the data, where they are now.

        Train, dev, test (if there is one), rel2id and rel_info -> path.
        """
        files, problems = {}, []
        for name, file in self.sources["files"].items():
            path = Path(file)
            # relations may lie elsewhere than the documents, as in the folder meta/ of a clone
            if self.data_dir and (name not in ("rel2id", "rel_info") or (self.data_dir / path.name).is_file()):
                path = self.data_dir / path.name
            files[name] = path
            if not path.is_file():
                problems.append(f"{name}: {path} not found")
            elif fingerprint(path) != self.sources["hashes"][name]:
                problems.append(f"{name}: {path} is not the file of the run (other SHA-256)")
        hint = "pass the folder of the run's own files: --data-dir DIR"
        raise_all(problems, "the data of the run have moved or changed", hint)
        return files

    @property
    def rel2id(self) -> dict[str, int]:
        """Relation id -> class."""
        found: dict[str, int] = self.sources["rel2id"]
        return found

    @property
    def relation_names(self) -> dict[str, str]:
        """Relation id -> name."""
        found: dict[str, str] = self.sources["relation_names"]
        return found

    @cached_property
    def documents(self) -> dict[str, list[Document]]:
        """The documents of dev and test (if there is one)."""
        return {name: load_documents(self.files[name], self.rel2id) for name in SPLITS if name in self.files}

    @cached_property
    def train(self) -> list[Document]:
        """The train documents."""
        return load_documents(self.files["train"], self.rel2id)

    def split(self, name: str) -> Split:
        """Return dev or test."""
        return Split(name, self.files[name], self.documents[name])


def _read(path: Path, what: str) -> dict[str, Any]:
    """Read a JSON object."""
    found = read_json(path, what)
    if not isinstance(found, dict):
        raise SegDREError(f"{path}: expected an object, got {type(found).__name__}", AGAIN)
    return found


def _field(path: Path, found: Mapping[str, Any], name: str, kind: type[T] | tuple[type[T], ...], inside: str = "") -> T:
    """Return a field of a file, checked to be of a type; ``inside`` is the object that holds it."""
    where = f"{inside}.{name}" if inside else name
    if name not in found:
        raise SegDREError(f"{path}: {where} missing", AGAIN)
    value: T = found[name]
    _is(path, value, kind, where)
    return value


def _is(path: Path, value: object, kind: type[Any] | tuple[type[Any], ...], where: str) -> bool:
    """Refuse a value of another type; JSON's true and false are not numbers."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        names = " or ".join(one.__name__ for one in kinds)
        raise SegDREError(f"{path}: {where}: expected {names}, got {value!r:.80}", AGAIN)
    return True


def _split(path: Path, found: Mapping[str, T], split: str) -> T:
    if split not in found:
        raise SegDREError(f"{path}: {split} missing", AGAIN)
    return found[split]


def _require(fits: bool, path: Path, split: str, n_documents: int) -> None:
    if not fits:
        raise SegDREError(f"{path}: {split} does not fit the {n_documents} documents of {split}", AGAIN)


def _triple(path: Path, found: object, where: str) -> Triple:
    if not (isinstance(found, list) and [type(part) for part in found] == [int, str, int]):
        raise SegDREError(f"{path}: {where}: expected [head, relation, tail], got {found!r:.80}", AGAIN)
    return Triple(*found)


def _thresholds(path: Path, found: Mapping[str, Any], inside: str) -> FusionResult:
    """Check the result of a search, beside which stands how it was searched."""
    for name, choices in (("fusion", FUSIONS), ("grid", sorted(GRIDS)), ("objective", OBJECTIVES)):
        if _field(path, found, name, str, inside) not in choices:
            raise SegDREError(f"{path}: {inside}.{name}: expected {' or '.join(choices)}, got {found[name]!r}", AGAIN)
    numbers = {
        field.name: float(_field(path, found, field.name, NUMBER, inside))
        for field in fields(FusionResult)
        if field.name != "fusion"
    }
    return FusionResult(**numbers, fusion=found["fusion"])


def _check_scores(path: Path, metrics: Mapping[str, Any]) -> None:
    """Check the scores of each split in ``metrics.json``; a row is empty where no gold lies on its pairs."""
    for split in SPLITS:
        if split not in metrics:
            continue
        scores = _field(path, metrics, split, dict)
        if not _field(path, scores, "gold", bool, split):
            continue
        for row in SCORE_ROWS:
            found = _field(path, scores, row, dict, split)
            for name in SCORES if found else ():
                _field(path, found, name, NUMBER, f"{split}.{row}")
        for strategy, found in _field(path, scores, "strategies", dict, split).items():
            _is(path, found, dict, f"{split}.strategies.{strategy}")
            for name in ("accuracy", "saliency", "saliency_micro", "documents"):
                _field(path, found, name, NUMBER, f"{split}.strategies.{strategy}")

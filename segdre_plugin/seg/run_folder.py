"""The folder of a ``--seg`` run: which files it has, and readers that check what they read.

=================================  ===================================================================================
``run.json``                       where the run's data are, and their hashes; written last
``metrics.json``                   thresholds, and the scores of dev and test; a run that has it is fused
``result.json``                    fused predictions on test (on dev where there is no test), in the official format
``result_dev.json``                the same on dev
``isf.json``                       what inference-stage fusion tuned on dev
``eval/NAME/``                     later evaluations: ``metrics.json`` and ``result.json`` of each
``STAGE.log``                      what the stage's own process printed last (``--seg-parallel``)
``STAGE/settings.json``            all on which the stage depends; a stage that has it is finished
``STAGE/metrics.json``             the scores of the stage alone
``STAGE/provenance.json``          how the stage was made; no result depends on it
``STAGE/margins_SPLIT.npz``        margins (base, dense, sparse)
``base/dense/margins_SPLIT.npz``   margins of the dense head for all pairs, where the base shares its encoder;
                                   ``base/counts_SPLIT.npz`` are those of its count head, then
``identify/counts_SPLIT.npz``      expected relation counts, where the strategy has a count head
``identify/salient.json``          salient entities
``sparse/injected.json``           injected triples
=================================  ===================================================================================

A checkpoint lies in its stage's folder too, under the name that the train script has for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from segdre_plugin.data.documents import Document, check_rel2id, load_documents
from segdre_plugin.data.files import fingerprint, read_arrays, read_json
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.fusion import FUSIONS, GRIDS, FusionResult
from segdre_plugin.salient import Chain
from segdre_plugin.seg import provenance
from segdre_plugin.seg.options import OBJECTIVES
from segdre_plugin.seg.store import digest
from segdre_plugin.stages.artifacts import (
    AGAIN,
    EACH,
    INJECTED,
    METRICS,
    PROVENANCE,
    SALIENT,
    SETTINGS,
    check_form,
    counts_file,
    margins_file,
    read_salient,
)
from segdre_plugin.stages.config import STAGES, SegConfig
from segdre_plugin.stages.isf import PENALTY
from segdre_plugin.stages.margins import Margins, check_arrays
from segdre_plugin.vocabulary import Triple, is_index

RUN = "run.json"
ISF = "isf.json"
EVALUATIONS = "eval"
RESULT, RESULT_DEV = "result.json", "result_dev.json"
IN_STAGE = "{folder}/"  # how the place of a checkpoint begins
SPLITS = ("dev", "test")  # those that a run predicts
TAUS = ("tau_base", "tau_dense", "tau_sparse")
SCORE_ROWS = ("base", "base_tuned", "dense", "base_on_dense", "sparse", "base_on_sparse", "fused")
SCORES = ("precision", "recall", "f1", "ign_f1", "intra_f1", "inter_f1")

# The forms of the files, as check_form takes them.
NUMBER = (int, float)
KINDS = {float: NUMBER, tuple: [str]}
CONFIG_FORM = {f.name: KINDS.get(type(f.default), type(f.default)) for f in fields(SegConfig)}
THRESHOLDS_FORM = {field.name: NUMBER for field in fields(FusionResult)} | {"fusion": FUSIONS}
THRESHOLDS = THRESHOLDS_FORM | {"grid": tuple(sorted(GRIDS)), "objective": OBJECTIVES}
METRICS_FORM = {
    "thresholds": THRESHOLDS | {"tau_base_alone": NUMBER},
    "dev": dict,
    "branches_left_out": {EACH: int},
}
ISF_FORM = {"tau": NUMBER, "thresholds": THRESHOLDS}
CURVE = {"area": NUMBER} | {name: [NUMBER] for name in ("recall", "precision")}
BY_RELATION = {row: {EACH: {EACH: NUMBER}} for row in ("base_tuned", "fused")}
DETAILS = {"curves": {"base": CURVE, "fused": CURVE}, "relations": BY_RELATION, "frequencies": BY_RELATION}
STRATEGIES = {EACH: dict.fromkeys(("accuracy", "saliency", "saliency_micro", "documents"), NUMBER)}
INJECTED_FORM = {EACH: {"left_out": int, "triples": [[list]]}}
RESULT_FORM = [{"title": str, "h_idx": int, "t_idx": int, "r": str}]
SETTINGS_FORM = dict.fromkeys(("arguments", "data", "modules", "options"), dict)
SOURCES_FORM = {
    "adapter": str,
    "checkpoint": str,
    "checkpoint_key": (str, type(None)),
    "files": {EACH: str, "train": str, "dev": str, "rel2id": str, "rel_info": str},
    "hashes": {EACH: str},
    "rel2id": {EACH: int},
    "relation_names": {EACH: str},
}

T = TypeVar("T")


class RunFolder:
    """A ``--seg-dir``: the names of its files, and what they hold. JSON is read once and kept, arrays are not.

    ``data_dir`` is where the files of the data are now; None takes the paths that the run noted.
    """

    def __init__(self, path: Path, data_dir: Path | None = None) -> None:
        self.path, self.data_dir = path, data_dir
        self.sources_file, self.metrics_file, self.isf_file = path / RUN, path / METRICS, path / ISF
        self.salient_file = self.stage("identify") / SALIENT
        self.injected_file = self.stage("sparse") / INJECTED

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

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
        return self.stage(stage) / self.sources["checkpoint"].removeprefix(IN_STAGE)

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

    def require_finished(self, hint: str = AGAIN) -> None:
        """Refuse a run that is not finished.

        Raises:
            SegDREError: with all that is missing.
        """
        raise_all(self.missing, f"{self.path}: not a finished run; missing", hint)

    def settings(self, stage: str) -> dict[str, Any]:
        """Return the settings of a stage.

        Among them are ``arguments`` of the train script, hashes of the ``data`` and of the clone's ``modules``, and
        ``options`` of the stage.

        Raises:
            SegDREError: if the file is missing or broken, or lacks one of these.
        """
        return _read(self.settings_file(stage), f"settings of stage {stage}", SETTINGS_FORM)

    def provenance(self, stage: str) -> dict[str, Any] | None:
        """Return how a stage was made (:mod:`segdre_plugin.seg.provenance`); None if that was not recorded."""
        path = self.stage(stage) / PROVENANCE
        return _read(path, f"provenance of stage {stage}", provenance.FORM) if path.is_file() else None

    @cached_property
    def config(self) -> SegConfig:
        """The settings of the method: base and identify have those of their heads, stage sparse all others."""
        options: dict[str, Any] = {}
        for stage in ("base", "identify", "sparse"):
            own = self.settings(stage)["options"]
            kinds = {name: form for name, form in CONFIG_FORM.items() if name in own}
            check_form(self.settings_file(stage), own, kinds, "options")
            options |= {name: own[name] for name in kinds}
        try:
            return SegConfig(**options)
        except SegDREError as error:
            raise error.at(f"{self.settings_file('sparse')}, or those of base and identify") from None

    @cached_property
    def seed(self) -> int:
        """The run's seed."""
        arguments = self.settings("base")["arguments"]
        check_form(self.settings_file("base"), arguments, {"seed": int}, "arguments")
        return int(arguments["seed"])

    @cached_property
    def sources(self) -> dict[str, Any]:
        """Where the data were, and what they were.

        ``adapter``, ``checkpoint`` (with ``{folder}`` for the stage's folder), ``files`` (train, dev, test if there
        is one, rel2id, rel_info -> path), ``hashes`` (the same names, and more -> SHA-256), ``rel2id`` (relation id
        -> class) and ``relation_names`` (relation id -> name).

        Raises:
            SegDREError: if the file is missing or broken, or the checkpoint is not in the stage's folder.
        """
        found: dict[str, Any] = _read(self.sources_file, "sources of the run", SOURCES_FORM)
        check_form(self.sources_file, found["hashes"], dict.fromkeys(found["files"], str), "hashes")
        check_rel2id(self.sources_file, found["rel2id"])
        own = Path(found["checkpoint"].removeprefix(IN_STAGE))
        if not found["checkpoint"].startswith(IN_STAGE) or own.is_absolute() or ".." in own.parts:
            expected = f"expected {IN_STAGE} and a file in it, got {found['checkpoint']!r:.80}"
            raise SegDREError(f"{self.sources_file}: checkpoint: {expected}", AGAIN)
        return found

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """What ``metrics.json`` holds: ``thresholds``, and of each split its scores."""
        found: dict[str, Any] = _read(self.metrics_file, "metrics of the run", METRICS_FORM)
        _check_scores(self.metrics_file, found)
        return found

    @property
    def thresholds(self) -> FusionResult:
        """The thresholds that were chosen on dev."""
        return FusionResult.of(self.metrics["thresholds"])

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
        return _read(self.isf_file, "inference-stage fusion", ISF_FORM)

    @property
    def isf_stages(self) -> str:
        """Identify the stages for which inference-stage fusion is tuned, and what thresholds are searched for."""
        stages = {stage: self.settings(stage) for stage in STAGES}
        return digest({"stages": stages, "search": self.search, "penalty": PENALTY})

    @property
    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Metrics of later evaluations, by the name of their folder; those of an earlier fusion are refused."""
        found = {}
        for path in sorted((self.path / EVALUATIONS).glob(f"*/{METRICS}")):
            metrics = found[path.parent.name] = _read(path, "metrics of an evaluation", dict)
            _check_scores(path, metrics)
            if metrics.get("thresholds") != self.metrics["thresholds"]:
                raise SegDREError(
                    f"{path}: evaluated with other thresholds than those of {self.metrics_file}",
                    "evaluate that file again, or remove its folder",
                )
        return found

    def stage_metrics(self, stage: str, split: str) -> dict[str, float]:
        """Return the scores of a stage alone on a split."""
        path = self.stage(stage) / METRICS
        found: dict[str, dict[str, float]] = _read(path, f"metrics of stage {stage}", {EACH: {EACH: NUMBER}})
        return _split(path, found, split)

    def result(self, split: str) -> list[dict[str, Any]]:
        """Return the fused predictions on a split, in the official format: title, h_idx, t_idx and r of each."""
        return _read(self.result_file(split), "fused result", RESULT_FORM)

    def evaluation_result(self, name: str) -> list[dict[str, Any]]:
        """Return the predictions of a later evaluation, as :meth:`result` does."""
        return _read(self.evaluation(name) / RESULT, "result of an evaluation", RESULT_FORM)

    def margins(
        self, stage: str, split: str, documents: Sequence[Document] | None = None, n_classes: int | None = None
    ) -> Margins:
        """Return the margins of base, dense or sparse on a split.

        Pairs that its ``documents`` do not have are refused, and so are classes from ``n_classes`` (NA included) on.

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

    def counts(
        self, split: str, documents: Sequence[Document] | None = None, stage: str = "identify"
    ) -> dict[str, np.ndarray]:
        """Return the relation counts that identify, or the count head of a ``stage`` with one, expects in a split.

        Those are ``document`` [pairs], ``pair`` [pairs, 2] and ``count`` [pairs].

        Raises:
            SegDREError: if the file is missing or broken, or has other documents than ``documents``, the split's.
        """
        path = counts_file(self.stage(stage), split)
        arrays = read_arrays(path)
        check_arrays(path, arrays, {"document": "i", "pair": "ii", "count": "f"})
        last = arrays["document"].max(initial=-1)
        if documents is not None and last >= len(documents):
            raise SegDREError(f"{path}: holds document {last}, {split} has {len(documents)}", AGAIN)
        return arrays

    def salient(self, split: str, documents: Sequence[Document] | None = None) -> list[Chain]:
        """Return the salient entities that the run predicted for each document of dev or test.

        Raises:
            SegDREError: if the file is missing or broken, or does not fit ``documents``, those of the split.
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
        """Return the triples that were injected into each document of train, dev or test.

        Raises:
            SegDREError: if the file is missing or broken, or does not fit ``documents``, those of the split.
        """
        triples = _split(self.injected_file, self._injected[0], split)
        if documents is not None:
            fits = len(triples) == len(documents) and all(
                is_index(entity, len(document["vertexSet"]))
                for own, document in zip(triples, documents, strict=True)
                for triple in own
                for entity in (triple.head, triple.tail)
            )
            _require(fits, self.injected_file, split, len(documents))
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
        found = _read(path, "injected triples", INJECTED_FORM)
        triples = {
            split: [
                [_triple(path, triple, f"{split}.triples[{i}][{k}]") for k, triple in enumerate(document)]
                for i, document in enumerate(part["triples"])
            ]
            for split, part in found.items()
        }
        return triples, {split: part["left_out"] for split, part in found.items()}

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
        return _train_documents(self.files["train"], self.sources["hashes"]["train"])

    def split(self, name: str) -> Split:
        """Return dev or test."""
        return Split(name, self.files[name], self.documents[name])


@lru_cache(maxsize=1)
def _train_documents(path: Path, sha256: str) -> list[Document]:
    """Read train documents once for all runs on the same file; a study reads many."""
    return load_documents(path)


def _read(path: Path, what: str, form: Any) -> Any:
    """Read a JSON file and check its form."""
    found = read_json(path, what)
    check_form(path, found, form)
    return found


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


def _check_scores(path: Path, metrics: Mapping[str, Any]) -> None:
    """Check the scores of each split in ``metrics.json``; a row is empty where no gold lies on its pairs."""
    for split in SPLITS:
        if split not in metrics:
            continue
        check_form(path, metrics[split], {"gold": bool}, split)
        if metrics[split]["gold"]:
            empty = [row for row in SCORE_ROWS if not metrics[split].get(row, {})]
            with_isf = ("base_isf", "fused_isf") if "isf" in metrics else ()
            rows = dict.fromkeys((*SCORE_ROWS, *with_isf), dict.fromkeys(SCORES, NUMBER)) | dict.fromkeys(empty, dict)
            check_form(path, metrics[split], rows | DETAILS | {"strategies": STRATEGIES}, split)

"""Let the dense and the sparse model of a finished run read a split again: other salient entities, other triples.

Nothing is trained. The models are built by the backbone's own ``main()``, up to where it would call ``train()``. With
the run's own salient entities, triples and alpha the margins are the run's own, bit by bit.
"""

from __future__ import annotations

import json
import traceback
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.clones.stand_ins import no_report, open_outside
from segdre_plugin.data.files import read_json, replacing, write_json
from segdre_plugin.salient import Chain
from segdre_plugin.seg.checkpoints import load_all
from segdre_plugin.seg.training_run import TrainingRun
from segdre_plugin.stages.artifacts import INJECTED, margins_file
from segdre_plugin.stages.branches import Triple, Verbaliser
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.prepare import prepare_features
from segdre_plugin.stages.scoring import score_relations
from segdre_plugin.stages.stage import predicted_triples
from segdre_plugin.stages.wrap import unwrap_model, wrap_model

READINGS = "readings"  # a run's folder of readings, one subfolder each
REQUEST = "request.json"  # what a reading answers; written last


@dataclass(frozen=True)
class Request:
    """Input for the dense and the sparse model.

    Attributes:
        salient: split -> the salient entities of each document.
        triples: split -> the triples to inject into each document, best-scored first; None: those that the dense model
            predicts with these salient entities.
        reads_dense: whether the dense model reads although triples are given: with other salient entities its pairs
            are others.
        alpha: share of them that is injected (eq. 9).
        models: stage -> digest of its settings, which identifies the models.
    """

    salient: dict[str, list[Chain]]
    triples: dict[str, list[list[Triple]]] | None
    reads_dense: bool
    alpha: float
    models: dict[str, str]


def is_read(folder: Path, request: Request) -> bool:
    """Return whether a folder holds the answer to a request."""
    path = folder / REQUEST
    return path.is_file() and read_json(path, "request of a reading") == json.loads(json.dumps(asdict(request)))


class Repredict(TrainingRun):
    """A finished run whose models read again."""

    def answer(self, requests: Mapping[str, Request]) -> dict[str, str]:
        """Answer requests; the answer to each is a folder in the run's ``readings``, which appears whole.

        Args:
            requests: name -> request.

        Returns:
            Name -> what went wrong, for those that could not be answered.
        """
        problems: dict[str, str] = {}

        def read(args: Namespace, model: Any, *_: Any) -> None:
            self.reader.fill_missing()
            problems.update(self._read(args, model, requests))

        with self.store.locked():
            for stage in ("dense", "sparse"):
                self.require("sparse", (stage,))
                self.store.check(stage, self.settings.of(stage))
            names = {"train": read, "collate_fn": self.collate(), "open": open_outside(self.store.root)}
            if self.script.report:
                names[self.script.report] = no_report
            self.run_main({"save_path": "", "load_path": ""}, names)
        return problems

    def _read(self, args: Namespace, model: Any, requests: Mapping[str, Request]) -> dict[str, str]:
        """Read with the dense model first, then with the sparse one, so that each is loaded once."""
        problems: dict[str, str] = {}
        dense: dict[str, dict[str, Margins]] = {}
        with self._loaded(model, "dense"):
            for name, request in requests.items():
                if request.reads_dense or request.triples is None:
                    with _noting(name, problems):
                        dense[name] = {
                            split: self._score(args, model, split, salient, f"dense: {name}")[0]
                            for split, salient in request.salient.items()
                        }
        with self._loaded(model, "sparse"):
            for name, request in requests.items():
                if name not in problems:
                    with _noting(name, problems), replacing(self.store.root / READINGS / name) as folder:
                        self._read_sparse(args, model, request, dense.get(name), folder)
        return problems

    def _read_sparse(
        self, args: Namespace, model: Any, request: Request, dense: Mapping[str, Margins] | None, folder: Path
    ) -> None:
        """Inject, read, and write a request's folder."""
        injected = {}
        (folder / "sparse").mkdir()
        if dense is not None:
            (folder / "dense").mkdir()
            for split, margins in dense.items():
                margins.save(margins_file(folder / "dense", split))
        for split, salient in request.salient.items():
            if request.triples is None:
                assert dense is not None
                triples = predicted_triples(dense[split], len(salient), self.rel2id)
            else:
                triples = request.triples[split]
            how = (triples, request.alpha)
            margins, injected[split] = self._score(args, model, split, salient, f"sparse: {folder.name}", *how)
            margins.save(margins_file(folder / "sparse", split))
        write_json(folder / INJECTED, injected)
        write_json(folder / REQUEST, asdict(request))

    def _score(
        self,
        args: Namespace,
        model: Any,
        name: str,
        salient: Sequence[Chain],
        label: str,
        triples: Sequence[Sequence[Triple]] | None = None,
        alpha: float = 1.0,
    ) -> tuple[Margins, dict[str, int]]:
        """Score a split with the loaded model; also return how many triples were injected and left out."""
        split = self.splits[name]
        config = replace(self.options.config, alpha=alpha)
        prepared = prepare_features(
            split.features,
            split.documents,
            model,
            salient=salient,
            triples=triples,
            verbaliser=Verbaliser(self.reader.tokenizer, self.relation_names, config),
        )
        how = {"batch_size": args.test_batch_size, "device": args.device, "label": label}
        margins = score_relations(model, prepared.features, prepared.documents, self.names["collate_fn"], **how)
        n_injected = sum(len(found) for found in prepared.injected)
        return margins, {"triples": n_injected, "left_out": prepared.left_out}

    @contextmanager
    def _loaded(self, model: Any, stage: str) -> Iterator[None]:
        """Make the script's model that of a stage while the context lasts."""
        wrap_model(model, stage=stage, adapter=self.backbone, config=self.options.config, **self.options.speed)
        try:
            load_all(model, self.checkpoint(stage))
            yield
        finally:
            unwrap_model(model)


@contextmanager
def _noting(name: str, problems: dict[str, str]) -> Iterator[None]:
    """Note an error of one request, with its traceback on stderr; the other requests go on."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        problems[name] = f"{type(error).__name__}: {error}"

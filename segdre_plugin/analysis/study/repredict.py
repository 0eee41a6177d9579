"""Re-read a split with the dense and the sparse model of a finished run: other salient entities, other triples.

Nothing is trained. The models are built by the backbone's own ``main()``, up to where it would call ``train()``. With
the run's own salient entities, triples and alpha the margins are the run's own, bit by bit.
"""

from __future__ import annotations

import json
import traceback
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.clones.stand_ins import no_report, open_outside
from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.data.folders import replacing
from segdre_plugin.salient import Chain
from segdre_plugin.seg.training_run import TrainingRun
from segdre_plugin.stages.artifacts import INJECTED, save_result
from segdre_plugin.stages.branches import Triple, Verbaliser
from segdre_plugin.stages.stage import build_chain, run_chain

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


class RereadRun(TrainingRun):
    """A finished run whose models read again."""

    def answer(self, requests: Mapping[str, Request]) -> dict[str, str]:
        """Answer named requests, each in a folder of ``readings`` that appears whole; return name -> what failed."""
        problems: dict[str, str] = {}

        def read(args: Namespace, model: Any, *_: Any, **__: Any) -> None:
            self.reader.fill_missing()
            problems.update(self._read(args, model, requests))

        with self.store.locked():
            for stage in ("dense", "sparse"):
                self.require("sparse", (stage,))
                self.store.check(stage, self.settings.of(stage))
            own = self.script.names
            names = {own.train: read, own.collate: self.collate(), "open": open_outside(self.store.root)}
            if self.script.report:
                names[self.script.report] = no_report(self.script.reported)
            self.run_main({"save_path": self.script.no_save_path, "load_path": ""}, names)
        return problems

    def _read(self, args: Namespace, model: Any, requests: Mapping[str, Request]) -> dict[str, str]:
        """Answer each request by the chain's last stages: sparse, and dense before it where it has to read."""
        problems: dict[str, str] = {}
        model_for = partial(self.loaded, model, self.options.config)
        how = {
            "collate_fn": self.names[self.script.names.collate],
            "batch_size": args.test_batch_size,
            "device": args.device,
        }
        for name, request in requests.items():
            with _noting(name, problems), replacing(self.store.root / READINGS / name) as folder:
                config = replace(self.options.config, alpha=request.alpha)
                words = Verbaliser(self.reader.tokenizer, self.relation_names, config)
                chain = build_chain(config, self.rel2id, words, self.args.seed)
                reads_dense = request.reads_dense or request.triples is None
                stages = [chain[stage] for stage in (("dense", "sparse") if reads_dense else ("sparse",))]
                injected, before = {}, self.known("dense")
                for split, salient in request.salient.items():
                    triples = request.triples[split] if request.triples else None
                    known = replace(before[split], salient=salient, triples=triples)
                    found = run_chain(stages, model_for, self.splits[split], known, label=name, **how)
                    for stage in stages:
                        (folder / stage.name).mkdir(exist_ok=True)
                        save_result(folder / stage.name, stage, split, found)
                    injected[split] = {"triples": sum(map(len, found.injected)), "left_out": found.left_out}
                write_json(folder / INJECTED, injected)
                write_json(folder / REQUEST, asdict(request))
        return problems


@contextmanager
def _noting(name: str, problems: dict[str, str]) -> Iterator[None]:
    """Note an error of one request, with its traceback on stderr; the other requests go on."""
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        problems[name] = f"{type(error).__name__}: {error}"

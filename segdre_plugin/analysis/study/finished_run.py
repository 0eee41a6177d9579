"""A finished run of a study: its data, its margins, and what its models are to read once more."""

from __future__ import annotations

from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from segdre_plugin.analysis.report.run_cells import Run, load_run
from segdre_plugin.analysis.study.repredict import READINGS, REQUEST, Request
from segdre_plugin.analysis.study.rows import OWN, SOURCES, Reading
from segdre_plugin.data.documents import Document, load_documents
from segdre_plugin.data.files import read_arrays, read_json
from segdre_plugin.data.splits import Split
from segdre_plugin.salient import Chain, as_chain
from segdre_plugin.seg.store import digest
from segdre_plugin.stages.artifacts import INJECTED, SETTINGS, margins_file
from segdre_plugin.stages.branches import Triple, gold_dense_triples
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.scored import ScoredSplit
from segdre_plugin.stages.stage import predicted_triples
from segdre_plugin.stages.strategies import choose_salient, get_strategy

SPLIT = "dev"  # on which models read once more


class Finished:
    """A finished run.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def run(self) -> Run:
        """What the run's folder says; read when it is first asked for."""
        return load_run(self.path)

    @cached_property
    def train(self) -> list[Document]:
        """The train documents, for Ign-F1."""
        return _documents(self.run.paths["train"], self.run.hashes["train"])

    def split(self, name: str) -> Split:
        """Return a split's documents."""
        return Split(name, self.run.paths[name], self.run.documents[name])

    def scored(self, name: str, reading: Reading | None = None) -> ScoredSplit:
        """Return a split with the margins of the run, or those of a reading where it has its own."""
        folders = dict.fromkeys(SOURCES, self.path)
        salient = list(self.run.salient[name])
        if reading is not None:
            own = self.path / READINGS / reading.name
            asked = read_json(own / REQUEST, "request of a reading")["salient"][name]
            salient = [as_chain(chosen) for chosen in asked]
            folders |= {stage: own for stage in ("dense", "sparse") if (own / stage).is_dir()}
        tables = {stage: Margins.load(margins_file(folder / stage, name)) for stage, folder in folders.items()}
        return ScoredSplit(self.split(name), tables, salient, self.run.rel2id, self.train, self.run.fusion)

    def n_injected(self, name: str, reading: Reading) -> int:
        """Return how many triples were injected into the documents of a split."""
        found = read_json(self.path / READINGS / reading.name / INJECTED, "injected triples")
        return int(found[name]["triples"])

    def request(self, reading: Reading, head: Path) -> Request:
        """Spell a reading out.

        Args:
            reading: what is to be read.
            head: folder of the run whose stage identify counts relations for the reading's strategy, if it needs that.

        Returns:
            The request.
        """
        salient = self.salient(reading.salient, head)
        triples = self._triples(reading, salient)
        return Request(
            {SPLIT: salient},
            None if triples is None else {SPLIT: triples},
            triples is not None and reading.salient != OWN,
            self.run.config.alpha if reading.alpha is None else reading.alpha,
            {stage: digest(self._settings(stage)) for stage in ("dense", "sparse")},
        )

    def salient(self, strategy: str, head: Path) -> list[Chain]:
        """Return the salient entities that a strategy chooses on dev; see :meth:`request`."""
        if strategy == OWN:
            return list(self.run.salient[SPLIT])
        chosen = get_strategy(strategy)
        return choose_salient(
            chosen,
            self.run.documents[SPLIT],
            k=self.run.config.salient_k,
            seed=self._settings("base")["arguments"]["seed"],
            base=self.scored(SPLIT).tables["base"] if chosen.needs_base else None,
            counts=read_arrays(head / "identify" / f"counts_{SPLIT}.npz") if chosen.head else None,
        )

    def _settings(self, stage: str) -> dict[str, Any]:
        found: dict[str, Any] = read_json(self.path / stage / SETTINGS, f"stage {stage}")
        return found

    def _triples(self, reading: Reading, salient: list[Chain]) -> list[list[Triple]] | None:
        """Return the triples that a reading injects; None where its dense model has to be asked."""
        documents = self.run.documents[SPLIT]
        if reading.triples == "gold":
            return [gold_dense_triples(document, chain) for document, chain in zip(documents, salient, strict=True)]
        if reading.triples == "dense" and reading.salient != OWN:
            return None
        scored = self.scored(SPLIT)
        margins = scored.tables["dense"]
        if reading.triples == "base":
            cells = scored.cells()
            margins = cells.cells.take(cells.is_dense)  # with the base model's margins
        return predicted_triples(margins, len(documents), self.run.rel2id)


@lru_cache(maxsize=1)
def _documents(path: Path, fingerprint: str) -> list[Document]:
    """Read documents once for all runs on the same file."""
    return load_documents(path)

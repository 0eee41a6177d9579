"""A finished run of a study: its margins, and what its models are asked to read again."""

from __future__ import annotations

from pathlib import Path

from segdre_plugin.analysis.study.repredict import READINGS, REQUEST, Request
from segdre_plugin.analysis.study.rows import OWN, SOURCES, Reading
from segdre_plugin.data.files import read_json
from segdre_plugin.salient import Chain, as_chain
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.seg.store import digest
from segdre_plugin.stages.artifacts import INJECTED, check_form, margins_file
from segdre_plugin.stages.branches import Triple, gold_dense_triples
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.pair_types import candidate_gold
from segdre_plugin.stages.scored import ScoredSplit
from segdre_plugin.stages.stage import predicted_triples
from segdre_plugin.stages.strategies import choose_salient, get_strategy

SPLIT = "dev"  # on which models read again
REREAD = "remove that reading's folder and run the study again"


class FinishedRun(RunFolder):
    """The folder of a finished run, with its ``readings/``."""

    def scored(self, name: str, reading: Reading | None = None) -> ScoredSplit:
        """Return a split with the margins of the run, or those of a reading where it has its own."""
        folders = {stage: self.stage(stage) for stage in SOURCES}
        salient = self.salient(name)
        if reading is not None:
            own = self.reading(reading)
            asked = read_json(own / REQUEST, "request of a reading")
            check_form(own / REQUEST, asked, {"salient": {name: [[int]]}}, hint=REREAD)
            salient = [as_chain(chosen) for chosen in asked["salient"][name]]
            folders |= {stage: own / stage for stage in ("dense", "sparse") if (own / stage).is_dir()}
        tables = {stage: Margins.load(margins_file(folder, name)) for stage, folder in folders.items()}
        return ScoredSplit(self.split(name), tables, salient, self.rel2id, self.train, self.thresholds.fusion)

    def reading(self, reading: Reading) -> Path:
        """Return the folder of a reading."""
        return self.path / READINGS / reading.name

    def n_injected(self, name: str, reading: Reading) -> int:
        """Return how many triples were injected into the documents of a split."""
        path = self.reading(reading) / INJECTED
        found = read_json(path, "injected triples")
        check_form(path, found, {name: {"triples": int}}, hint=REREAD)
        return int(found[name]["triples"])

    def request(self, reading: Reading, head: Path) -> Request:
        """Spell a reading out, with counts of stage identify of the run ``head`` if its strategy needs them."""
        salient = self.choose(reading.salient, head)
        triples = self._triples(reading, salient)
        return Request(
            {SPLIT: salient},
            None if triples is None else {SPLIT: triples},
            triples is not None and reading.salient != OWN,
            self.config.alpha if reading.alpha is None else reading.alpha,
            {stage: digest(self.settings(stage)) for stage in ("dense", "sparse")},
        )

    def choose(self, strategy: str, head: Path) -> list[Chain]:
        """Return the salient entities that a strategy chooses on dev; see :meth:`request`."""
        if strategy == OWN:
            return self.salient(SPLIT)
        chosen = get_strategy(strategy)
        return choose_salient(
            chosen,
            self.documents[SPLIT],
            k=self.config.salient_k,
            seed=self.seed,
            pairs=self.config.pairs,
            base=self.margins("base", SPLIT) if chosen.needs_base else None,
            counts=RunFolder(head).counts(SPLIT, self.documents[SPLIT]) if chosen.head else None,
        )

    def _triples(self, reading: Reading, salient: list[Chain]) -> list[list[Triple]] | None:
        """Return the triples that a reading injects; None where its dense model has to be asked."""
        documents = [candidate_gold(document, self.config.pairs) for document in self.documents[SPLIT]]
        if reading.triples == "gold":
            return [gold_dense_triples(document, chain) for document, chain in zip(documents, salient, strict=True)]
        if reading.triples == "dense" and reading.salient != OWN:
            return None
        scored = self.scored(SPLIT)
        margins = scored.tables["dense"]
        if reading.triples == "base":
            cells = scored.cells()
            margins = cells.cells.take(cells.is_dense)  # with the base model's margins
        return predicted_triples(margins, len(documents), self.rel2id)

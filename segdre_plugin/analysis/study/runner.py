"""Run a study: train runs, let their models read, score rows. What fails is noted, and the rest goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.repredict import Request
from segdre_plugin.analysis.study.results import Results
from segdre_plugin.analysis.study.rows import Row, Study
from segdre_plugin.analysis.study.runs import PARTNER, SHARED, Runs
from segdre_plugin.analysis.study.score_row import Scores, score
from segdre_plugin.data.progress import progress, say
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.artifacts import margins_file
from segdre_plugin.stages.margins import Margins

KEPT = 4  # finished runs with their documents in memory


class StudyRunner:
    """A study under way; without ``trains``, rows fail whose runs are not there."""

    def __init__(self, study: Study, runs: Runs, seeds: Sequence[int], trains: bool = True) -> None:
        self.study, self.runs, self.seeds, self.trains = study, runs, tuple(seeds), trains
        self.scores: dict[str, dict[int, Scores]] = {name: {} for name in study.rows}
        self.errors: dict[str, dict[int, str]] = {}
        self._failed: dict[tuple[str, int], str] = {}  # run and its seed -> why
        self.finished = lru_cache(maxsize=KEPT)(lambda name, seed: FinishedRun(runs.path(name, seed)))

    def run(self) -> Results:
        """Train, read and score whatever is not finished; return scores, and errors of rows that failed."""
        self._train()
        for row, seed in self._open_rows():
            needed = [self.runs.find(name, seed) for name in row.trainings]
            problems = [self._failed[run] for run in needed if run in self._failed]
            if problems:
                self._note(row, seed, problems[0])
        for seed in self.seeds:
            for name in dict.fromkeys(row.run for row in self.study.rows.values() if row.reading):
                self._read(name, seed)
        for row, seed in progress(list(self._open_rows()), label="rows scored"):
            with self._noting(row, seed):
                self.scores[row.name][seed] = self._score(row, seed)
        return Results(self.study, self.seeds, self.scores, self.errors)

    def any_finished(self) -> FinishedRun | None:
        """Return a run that tells what the data are; None if there is none."""
        for seed in self.seeds:
            run = self.finished(SHARED, seed)
            try:
                if run.is_finished and run.documents:
                    return run
            except SegDREError:  # its data have moved or changed
                continue
        return None

    def _train(self) -> None:
        names = dict.fromkeys(name for row in self.study.rows.values() for name in row.trainings)
        runs = list(dict.fromkeys(self.runs.find(name, seed) for seed in self.seeds for name in names))
        with progress(runs, label="runs", unit="run", smoothing=0) as bar:
            for run in bar:
                path = self.runs.path(*run)
                bar.set_postfix_str(path.name)
                if self.runs.is_finished(*run):
                    say(f"segdre: run {path.name} is done")
                    continue
                if not self.trains:
                    self._failed[run] = f"run {path.name} is not finished"
                    continue
                say(f"segdre: run {path.name}: what it prints is in {path}.log")
                try:
                    self.runs.train(*run)
                except SegDREError as error:
                    self._failed[run] = f"run {path.name}: {error}"
                    say(f"segdre: failed: {self._failed[run]}")

    def _read(self, name: str, seed: int) -> None:
        """Let the models of a run read whatever rows want of them."""
        readers: dict[str, list[Row]] = {}
        requests: dict[str, Request] = {}
        for row, _ in [part for part in self._open_rows() if part[1] == seed and part[0].run == name]:
            if row.reading is not None:
                readers.setdefault(row.reading.name, []).append(row)
                with self._noting(row, seed):
                    head = self.runs.path(row.reading.head, seed)
                    requests[row.reading.name] = self.finished(name, seed).request(row.reading, head)
        for key, problem in self.runs.read(name, seed, requests).items():
            for row in readers[key]:
                self._note(row, seed, problem)

    def _score(self, row: Row, seed: int) -> Scores:
        partner = self.runs.path(*self.runs.find(PARTNER, seed)) / "base"
        found = self.finished(row.run, seed)
        return score(row, found, lambda split: Margins.load(margins_file(partner, split)), self.study.splits)

    def _open_rows(self) -> Iterator[tuple[Row, int]]:
        """Go through the rows and seeds that have not failed."""
        for seed in self.seeds:
            for row in self.study.rows.values():
                if seed not in self.errors.get(row.name, {}):
                    yield row, seed

    def _note(self, row: Row, seed: int, problem: str) -> None:
        self.errors.setdefault(row.name, {})[seed] = problem

    @contextmanager
    def _noting(self, row: Row, seed: int) -> Iterator[None]:
        """Note an error of ours for a row; it concerns no others."""
        try:
            yield
        except SegDREError as error:
            self._note(row, seed, str(error))

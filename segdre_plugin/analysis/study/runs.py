"""The runs of a study: trained in processes of their own, shared stages once, finished ones skipped.

A study's folder holds ``runs/NAME-SEED/``, each the ``--seg-dir`` of a run, and beside it ``NAME-SEED.log`` (what its
training printed last), ``NAME-SEED.readings.log`` (the same of its readings) and ``NAME-SEED.json`` (the command line
that it was finished with).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from segdre_plugin.analysis.study.repredict import READINGS, Request, is_read
from segdre_plugin.analysis.study.studies import TRAININGS
from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.processes import last_words, start
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.seg.store import Store

# A worker's code: nothing is imported from the current folder, which may be anybody's (python -P, from 3.11 on).
WORKER = """import sys
sys.path = [path for path in sys.path if path]
from segdre_plugin.analysis.study.worker import serve
serve(sys.argv[1:])"""
OURS = ("--seed", "--seg-dir", "--seg-stage", "--seg-bundle")  # options that the study sets itself
RUNS = "runs"  # the folder of the runs in that of a study
SHARED = "full"  # the run whose stages others share
PARTNER = "partner"  # the run of a naive ensemble's second model
PARTNER_OFFSET = 1000  # its seed minus that of the first, unless it is that of another seed of the study


@dataclass(frozen=True)
class Runs:
    """Where the runs of a study are, and how they are started.

    Attributes:
        folder: the study's folder.
        script: the backbone's train script; None takes the reference model's.
        arguments: its command line, without what the study sets itself.
        partners: seed -> seed of the second model of its naive ensembles.
        others: folders of other studies; their stages with the same settings are taken, not trained.
        adapter: of the script's backbone, a name or a Python file; None recognises the script.
    """

    folder: Path
    script: Path | None
    arguments: tuple[str, ...]
    partners: Mapping[int, int]
    others: tuple[Path, ...] = ()
    adapter: str | None = None

    def find(self, name: str, seed: int) -> tuple[str, int]:
        """Return which run, by its name and its own seed, a seed's row means by a name (of ``TRAININGS``)."""
        if name != PARTNER:
            return name, seed
        other = self.partners[seed]
        return (SHARED if other in self.partners else PARTNER), other

    def path(self, name: str, seed: int, folder: Path | None = None) -> Path:
        """Return the folder of a run, of this study or of that in another folder."""
        return (folder or self.folder) / RUNS / f"{name}-{seed}"

    def is_finished(self, name: str, seed: int) -> bool:
        """Return whether a run is finished, with the command line that it would get now."""
        path, stage = self.path(name, seed), TRAININGS[name].stage
        mark = path.with_suffix(".json")
        whole = RunFolder(path).is_finished if stage == "all" else Store(path).is_done(stage)
        return whole and mark.is_file() and read_json(mark, "finished run") == self._command(name, seed)

    def train(self, name: str, seed: int) -> None:
        """Train a run (of ``TRAININGS``); finished stages are skipped.

        Raises:
            SegDREError: if a stage that it shares is missing, or its process failed.
        """
        path, command = self.path(name, seed), self._command(name, seed)
        target, source = Store(path), Store(self.path(SHARED, seed))
        for stage in (shared for shared in TRAININGS[name].shares if not target.is_done(shared)):
            if not source.is_done(stage):
                raise SegDREError(f"needs stage {stage} of {source.root.name}, which is not finished")
            target.adopt(stage, source)
        self._start(path, [*command["arguments"], *self._reuse(name, seed)])
        write_json(path.with_suffix(".json"), command)

    def read(self, name: str, seed: int, requests: Mapping[str, Request]) -> dict[str, str]:
        """Do the readings that a finished run lacks; return name -> why, for those that failed."""
        path = self.path(name, seed)
        unread = {key: request for key, request in requests.items() if not is_read(path / READINGS / key, request)}
        if not unread:
            return {}
        file = path.with_suffix(".requests.json")
        write_json(file, {key: asdict(request) for key, request in unread.items()})
        problem = ""
        try:
            self._start(path, self._command(name, seed)["arguments"], file)
        except SegDREError as error:
            problem = str(error)
        finally:
            file.unlink()
        return {key: problem for key, request in unread.items() if not is_read(path / READINGS / key, request)}

    def _command(self, name: str, seed: int) -> dict[str, Any]:
        """Return the command line of a run."""
        training = TRAININGS[name]
        ours = ["--seed", seed, "--seg", "--seg-dir", self.path(name, seed)]
        ours += ["--seg-stage", training.stage, *training.options]
        return {"script": self.script and str(self.script), "arguments": [*self.arguments, *map(str, ours)]}

    def _reuse(self, name: str, seed: int) -> list[str]:
        """Name the runs of other studies that are there and may have stages with the settings of a run's."""
        places = (
            self.path(run, seed, folder) for folder in self.others for run in dict.fromkeys((name, SHARED, PARTNER))
        )
        return [part for path in places if path.is_dir() for part in ("--seg-reuse", str(path))]

    def _start(self, path: Path, arguments: Sequence[str], requests: Path | None = None) -> None:
        """Start a process for a run, and wait for it."""
        command = ["--script", str(self.script)] if self.script else []
        command += ["--adapter", self.adapter] if self.adapter else []
        command += ["--requests", str(requests)] if requests else []
        log = path.with_suffix(".readings.log" if requests else ".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        threads = {} if self.script else {"OMP_NUM_THREADS": "1"}  # more gain nothing with so small a model
        status = launch([*command, "--", *arguments], log, threads | os.environ)
        if status:
            raise SegDREError(f"{last_words(log)} (exit status {status}, log: {log})")


def launch(arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> int:
    """Run a worker, its output in ``log``; return its exit status, or minus the signal that ended it."""
    with start([sys.executable, "-c", WORKER, *arguments], log, environment) as process:
        try:
            return process.wait()
        except BaseException:
            process.kill()
            raise

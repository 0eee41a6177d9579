"""The folder of ``segdre predict --engine ray``: a file of answers for each input file, whole or not at all.

``NAME.jsonl`` or ``NAME.parquet`` has the answers to the input file of that name, ``_NAME.rejected.jsonl`` the rejected
documents if there are any, ``_run.json`` what all is made from, and whether it is done. Names with ``_`` are not data
for what reads such folders.
"""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

from segdre_plugin.data.files import read_json, remove_half_written, write, write_json
from segdre_plugin.errors import SegDREError, explained, raise_all
from segdre_plugin.prediction.output_file import is_complete
from segdre_plugin.prediction.shards import WRITERS

STATE = "_run.json"
AGAIN = "start again with --resume"
Row = dict[str, Any]  # a predicted window, see :class:`segdre_plugin.prediction.ray_engine.Predictor`


class OutputFolder:
    """The folder of answers.

    Args:
        folder: the folder.
        form: the format of answers.
        made_from: what all answers depend on.
        inputs: the hashes of the input files by their names.
    """

    def __init__(self, folder: Path, form: str, made_from: Mapping[str, Any], inputs: Mapping[str, str]) -> None:
        self.folder, self.form, self.made_from, self.inputs = folder, form, made_from, inputs
        self.state = folder / STATE

    def path(self, name: str) -> Path:
        """Return the file of answers to an input file."""
        return self.folder / f"{name}.{self.form}"

    def _rejected(self, name: str) -> Path:
        """Return the file of the documents of an input file that were rejected."""
        return self.folder / f"_{name}.rejected.jsonl"

    def missing(self, resume: bool) -> set[str]:
        """Return the names of input files without answers.

        Raises:
            SegDREError: if the folder exists and is not to be resumed, or has answers of something else.
        """
        if not self.folder.exists():
            return {*self.inputs}
        is_complete([self.folder], self.state, self.made_from, resume)
        before = read_json(self.state, "state of the output").get("inputs", {})
        there = {path.name.removesuffix(f".{self.form}") for path in self.folder.glob(f"[!_.]*.{self.form}")}
        changed = sorted(name for name in there if name not in before or before[name] != self.inputs.get(name))
        raise_all(changed, f"{self.folder}: answers of files that have changed or are gone", "pass another --output")
        return self.inputs.keys() - there

    def write(self, rows: Iterator[Row], files: Mapping[str, Path], skip: bool) -> dict[str, Any]:
        """Write the answers of files as they come.

        Args:
            rows: the predicted windows, each file's in order with one of no documents behind them.
            files: the input files that ``rows`` are of.
            skip: whether to go on without rejected documents.

        Returns:
            How many documents, triples and rejected documents there were, and documents a second.

        Raises:
            SegDREError: with what a worker says, at a rejected document that is not to be skipped, or if rows are not
                those of all documents in order.
            KeyboardInterrupt: if files are done by then, with how to go on.
        """
        report: dict[str, Any] = {"documents": 0, "triples": 0, "rejected": 0}
        started = time.perf_counter()
        new = not self.folder.exists()
        with explained(f"cannot write {self.folder}"):
            self.folder.mkdir(exist_ok=True)
        said = {"source": self.made_from, "inputs": self.inputs}
        try:
            write_json(self.state, {"done": False} | said)
            for name, file in files.items():
                remove_half_written(self.path(name))
                self._rejected(name).unlink(missing_ok=True)  # of a killed process; the input may have changed since
                own = _of_file(rows, file.name)
                write(self.path(name), partial(self._fill, name=name, rows=own, skip=skip, report=report))
            for row in rows:  # it has to end, too
                found = f"document {row['first']} of {row['file']}"
                raise SegDREError(
                    f"Ray delivered more than all documents: {found}", "remove the folder and start again"
                )
        except BaseException as error:
            if new and not any(self.path(name).exists() for name in files):
                shutil.rmtree(self.folder)
            elif isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt("--resume goes on from here") from None
            raise
        report["documents_per_second"] = report["documents"] / max(time.perf_counter() - started, 1e-9)
        write_json(self.state, {"done": True, "report": report} | said)
        return report

    def _fill(self, file: IO[bytes], name: str, rows: Iterator[Row], skip: bool, report: dict[str, Any]) -> None:
        rejected: list[str] = []

        def lines() -> Iterator[str]:
            for row in rows:
                if row["rejected"] and not skip:
                    reasons = json.loads(row["rejected"].partition("\n")[0])["reasons"]
                    heading = f"{row['file']}: stopped at a document that cannot be predicted"
                    hint = "correct it and start again, or continue without it: --resume --on-error skip"
                    raise SegDREError("\n  - ".join([heading, *reasons]), hint)
                for count in ("documents", "triples", "rejected"):
                    report[count] += row[f"n_{count}"]
                rejected.append(row["rejected"])
                yield from io.StringIO(row["answers"])

        WRITERS[self.form](file, lines())
        if any(rejected):
            write(self._rejected(name), lambda part: part.write("".join(rejected).encode()))


def _of_file(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """Yield a file's windows, from its first document to its end.

    Raises:
        SegDREError: with what a worker says, or if a window is missing or another comes.
    """
    following = 0
    for row in rows:
        if row["problem"]:
            raise SegDREError(*json.loads(row["problem"]))
        if (row["file"], row["first"]) != (name, following):
            found = f"document {row['first']} of {row['file']}, expected document {following} of {name}"
            raise SegDREError(f"Ray delivered {found}", AGAIN)
        if not row["n_documents"]:
            return
        following += row["n_documents"]
        yield row
    raise SegDREError(f"Ray ended before the end of {name}", AGAIN)

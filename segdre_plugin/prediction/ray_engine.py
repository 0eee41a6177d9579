"""``segdre predict --engine ray``: folders of documents with Ray Data, whose actors hold the models.

Tasks cut files into the windows of the local engine, actors predict them, and this process writes the answers in the
input's order, a file for each input file. The windows have the local engine's batches, so the answers are its answers.
Ray repeats what a dead worker was at; that nothing is lost or doubled is checked where it is written: the documents of
a file have to come as 0, 1, 2, ... up to its end.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import torch

from segdre_plugin.data.files import check_output, fingerprint
from segdre_plugin.data.folders import locked
from segdre_plugin.data.stream import Broken, decode_line
from segdre_plugin.errors import SegDREError
from segdre_plugin.prediction.features import Rejection
from segdre_plugin.prediction.output_file import output_line
from segdre_plugin.prediction.output_folder import OutputFolder, Row
from segdre_plugin.prediction.pipeline import SegPipeline
from segdre_plugin.prediction.predict import WINDOW, check_settings, windows
from segdre_plugin.prediction.shards import input_files, read_file
from segdre_plugin.seg.bundle import bundle_fingerprint, read_bundle

READERS = 2  # tasks that read files; they wait for the actors most of the time
RETRIES = 3  # of a window whose worker died; actors start again without limit
STORE = 500 << 20  # bytes of a local Ray's object store: windows that wait


def predict_folder(
    bundle: Path,
    source: Path,
    output: Path,
    *,
    clone: Path | None = None,
    adapter: str | None = None,
    batch_size: int = 8,
    resume: bool = False,
    on_error: str = "stop",
    form: str = "jsonl",
    device: str | None = None,
    isf: bool = False,
    actors: int | None = None,
    threads: int = 1,
    address: str | None = None,
) -> dict[str, Any]:
    """Predict a folder of files of documents.

    Args:
        bundle: the bundle's folder.
        source: a folder of JSON, JSONL and Parquet files (:mod:`segdre_plugin.prediction.shards`), or one of them.
        output: the folder to write: ``NAME.jsonl`` or ``NAME.parquet`` for each input file, whole or not at all,
            ``_NAME.rejected.jsonl`` if documents were rejected, and ``_run.json``.
        clone: the backbone's clone.
        adapter: the backbone's adapter, a name or a Python file; None takes the one that the bundle names.
        batch_size: documents that go through the models at once.
        resume: go on with the files that an interrupted run did not finish.
        on_error: ``stop`` at a document that cannot be predicted, or ``skip`` it.
        form: one of :data:`segdre_plugin.prediction.shards.WRITERS`.
        device: ``cpu``, or ``cuda`` for a GPU an actor; None takes GPUs if Ray has any.
        isf: fuse with what the base model finds in the predicted evidence alone (eq. 11).
        actors: how many; None takes as many as Ray has GPUs, or CPU cores for ``threads`` each.
        threads: CPU threads of an actor, and the cores that Ray reserves for it.
        address: a cluster's; None takes ``RAY_ADDRESS``, or starts Ray here and ends it again. A Ray that this process
            has started is taken, and stays.

    Returns:
        How many documents, triples and rejected documents this call wrote, and documents a second, the start of the
        actors included.

    Raises:
        SegDREError: if something is wrong; files that are done by then stay and can be resumed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.data  # noqa: F401
    except ImportError:
        raise SegDREError("--engine ray needs Ray Data", 'pip install "segdre-plugin[ray]"') from None
    check_settings(on_error, batch_size)
    for option, value in (("--actors", actors), ("--threads", threads)):
        if value is not None and value < 1:
            raise SegDREError(f"{option} is {value}", "pass 1 or more")
    if device not in (None, "cpu", "cuda"):
        raise SegDREError(f"--device is {device!r}", "pass cpu or cuda: Ray chooses which GPU an actor gets")
    check_output("--output", output, [source], folder=True)
    files = input_files(source)
    read_bundle(bundle)
    made_from = {"bundle": bundle_fingerprint(bundle), "batch_size": batch_size, "isf": isf, "format": form}
    if adapter and Path(adapter).is_file():
        adapter = str(Path(adapter).absolute())
    how = {"path": bundle.absolute(), "backbone_dir": clone and clone.absolute(), "adapter": adapter, "isf": isf}
    busy = f"{output}: another process is writing it"
    with locked(output.with_name(f".{output.name}.lock"), busy, "wait for it, or pass another --output"):
        target = OutputFolder(output, form, made_from, {name: fingerprint(file) for name, file in files.items()})
        left = {name: file for name, file in files.items() if name in target.missing(resume)}
        if not left:
            print(f"segdre: {output} is complete")
            return {"documents": 0, "triples": 0, "rejected": 0, "documents_per_second": 0.0}
        for file in left.values():
            next(read_file(file), None)  # what cannot be read at all is refused before any work
        with _connected(address) as resources:
            pool = _pool(resources, actors, threads, device)
            rows = _stream(list(left.values()), WINDOW * batch_size, (how, batch_size, threads), *pool)
            with closing(rows):  # while Ray is still there
                return target.write(rows, left, on_error == "skip")


@contextmanager
def _connected(address: str | None) -> Iterator[Mapping[str, float]]:
    """Yield the resources of a Ray cluster, or of one started here, which ends with the context.

    Raises:
        SegDREError: if it cannot be reached, or in place of Ray's errors in the context.
    """
    import ray

    own = not ray.is_initialized()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    local: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE} if address == "local" else {}
    try:
        if own:
            try:
                _reach(address)
                ray.init(address, log_to_driver=False, logging_level="WARNING", **local)
            except (OSError, RuntimeError, ValueError) as error:
                raise SegDREError(
                    f"Ray ({address}): {_reason(error)}", "pass another --ray-address, or none"
                ) from error
        yield ray.cluster_resources()
    except ray.exceptions.RayError as error:
        hint = "see Ray's logs (/tmp/ray/session_latest/logs), and go on with --resume"
        raise SegDREError(f"Ray ({address}): {_reason(error)}", hint) from error
    finally:
        if own:
            ray.shutdown()


def _reach(address: str) -> None:
    """Fail at once where no server is: Ray would try it for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _reason(error: Exception) -> str:
    """Return an error of Ray in a line: what ends the first traceback in it if there is one."""
    text = str(error).strip()
    first = re.search(r"^[\w.]+(Error|Exception): .*", text, re.MULTILINE)
    return first[0] if first else f"{type(error).__name__}: {text.rpartition(chr(10))[2]}"


def _pool(resources: Mapping[str, float], actors: int | None, threads: int, device: str | None) -> tuple[int, int]:
    """Return how many actors there are, and how many GPUs each has: none or one.

    Raises:
        SegDREError: if Ray has not got what they need: it would wait for it.
    """
    cores, cards = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    gpus = int(device == "cuda" or (device is None and cards > 0))
    most = min(cores // threads, cards) if gpus else cores // threads
    size = actors or max(most, 1)
    if size > most:
        needed = f"{size} actors of {threads} CPU cores" + " and a GPU" * gpus
        raise SegDREError(f"Ray has {cores} CPU cores and {cards} GPUs, too few for {needed}", "pass fewer --actors")
    return size, gpus


def _stream(
    files: list[Path], size: int, arguments: tuple[Any, ...], actors: int, gpus: int
) -> Generator[Row, None, None]:
    """Yield the predicted windows of files in order, and behind each file's a row with no documents.

    Args:
        files: the files.
        size: documents of a window.
        arguments: those of :class:`Predictor`.
        actors: how many predict.
        gpus: how many each of them has.
    """
    import ray.data

    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = 1  # a window is a task: it is what a dead worker loses
    context.execution_options.preserve_order = True
    predictor: Any = Predictor
    with ray.data.DataContext.current(context), catch_warnings():
        simplefilter("ignore")  # max_task_retries has no other place yet, and without it a fatal document has no end
        paths = ray.data.from_items([str(file.absolute()) for file in files], override_num_blocks=len(files))
        windows_of = partial(_read, size=size)
        rows = paths.flat_map(windows_of, compute=ray.data.TaskPoolStrategy(size=READERS), num_cpus=0).map(
            predictor,
            fn_constructor_args=arguments,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=arguments[-1],
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=RETRIES,
        )
    yield from rows.iter_rows()


def _read(row: Row, size: int) -> Iterator[Row]:
    """Yield the windows of a file, a line of JSON a document, and an empty one at its end."""
    path = Path(row["item"])
    first = 0
    for documents, problem in windows(read_file(path), size):
        yield {"file": path.name, "first": first, "documents": "\n".join(map(_packed, documents)), "problem": ""}
        first += len(documents)
        if problem:
            yield {"file": path.name, "first": first, "documents": "", "problem": _spelled(problem)}
    yield {"file": path.name, "first": first, "documents": "", "problem": ""}


def _packed(value: Any) -> str:
    """Return a document, or in second place why there is none, as a line."""
    try:
        return json.dumps([None, value.reason] if isinstance(value, Broken) else [value], default=lambda _: None)
    except RecursionError:
        return _packed(Broken("nested too deeply"))


def _unpacked(line: str) -> Any:
    pair = decode_line(line.encode())
    return pair if isinstance(pair, Broken) else Broken(pair[1]) if len(pair) == 2 else pair[0]


def _spelled(error: SegDREError) -> str:
    return json.dumps([error.problem, error.hint])


class Predictor:
    """An actor: the models of a bundle, which answer windows; its errors are rows, for the main process to raise."""

    def __init__(self, how: Mapping[str, Any], batch_size: int, threads: int) -> None:
        torch.set_num_threads(threads)
        self.batch_size, self.problem = batch_size, ""
        try:
            self.pipeline = SegPipeline.from_pretrained(**how)
        except SegDREError as error:
            self.problem = _spelled(error)

    def __call__(self, row: Row) -> Row:
        """Return a window's lines of answers and of rejected documents, and how many triples they have."""
        place = {"file": row["file"], "first": row["first"], "problem": self.problem or row["problem"]}
        documents = [] if place["problem"] else [_unpacked(line) for line in row["documents"].split("\n") if line]
        results = self.pipeline.answer(documents, self.batch_size, row["first"]) if documents else []
        lines: tuple[list[str], list[str]] = [], []
        for i, (document, result) in enumerate(zip(documents, results, strict=True), start=row["first"]):
            title = document.get("title") if isinstance(document, dict) else None
            lines[isinstance(result, Rejection)].append(output_line(i, title, result, file=row["file"]))
        triples = sum(len(result["triples"]) for result in results if not isinstance(result, Rejection))
        counts = {"n_documents": len(documents), "n_rejected": len(lines[1]), "n_triples": triples}
        return place | counts | {"answers": "".join(lines[0]), "rejected": "".join(lines[1])}

"""``segdre predict``: a file of documents of any size, window by window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from segdre_plugin.data.documents import Document, check
from segdre_plugin.data.files import check_output, remove_half_written
from segdre_plugin.data.folders import locked
from segdre_plugin.data.pipes import written_at_end
from segdre_plugin.data.progress import progress
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.prediction.features import Rejection
from segdre_plugin.prediction.output_file import Output
from segdre_plugin.prediction.pipeline import SegPipeline, usable_device
from segdre_plugin.prediction.source import Source, documents_of, texts_of
from segdre_plugin.seg.bundle import bundle_fingerprint

WINDOW = 8  # batches that are read ahead and sorted by length (10 % padding on DocRED; 51 % without)
BAR = "{l_bar}{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
OPEN_BAR = "{n:.0f} documents [{elapsed}, {rate_fmt}]"  # of a JSON list: how many there are is not known
ON_ERROR = ("stop", "skip")
# writes documents with their answers, in the input's order, into a file of its own
Page = Callable[[Iterable[tuple[Document, dict[str, Any]]]], Any]


def predict(
    bundle: Path,
    source: Path | Sequence[Path],
    output: Path,
    *,
    spacy: str | None = None,
    clone: Path | None = None,
    adapter: str | None = None,
    batch_size: int = 8,
    resume: bool = False,
    on_error: str = "stop",
    form: str = "jsonl",
    page: Page | None = None,
    device: str | None = None,
    isf: bool = False,
) -> dict[str, Any]:
    """Predict a file of documents, or files of text.

    Memory holds a window of ``8 * batch_size`` documents. Windows begin at multiples of that in the input, also after
    a resume, so batches are the same and a resumed output equals an uninterrupted one.

    Args:
        bundle: the bundle's folder.
        source: documents, JSON or JSONL; ``-`` or a pipe is copied to a temporary file first. With ``spacy`` files of
            text and folders of them.
        output: the file to write; ``-`` or a pipe gets everything at the end, and rejected documents are printed.
        spacy: the name or path of the spaCy pipeline that finds sentences and entities in texts.
        clone: the backbone's clone.
        adapter: the backbone's adapter, a name or a Python file; None takes the one that the bundle names.
        batch_size: documents that go through the models at once.
        resume: go on with what a killed run left.
        on_error: ``stop`` at a document that cannot be predicted, or ``skip`` it and write it to a file of its own.
        form: one of :data:`segdre_plugin.prediction.formats.FORMATS`.
        page: is given the documents with their answers when all are written.
        device: where to compute.
        isf: fuse with what the base model finds in the predicted evidence alone (eq. 11).

    Returns:
        How many documents, triples and rejected documents this call wrote, and documents a second.

    Raises:
        SegDREError: if something is wrong; what is done by then stays and can be resumed.
    """
    check_settings(on_error, batch_size)
    where = usable_device(device)
    paths = [source] if isinstance(source, Path) else list(source)
    check_output("--output", output, paths)
    bundle_hash = bundle_fingerprint(bundle)
    opened = documents_of(*paths) if spacy is None else nullcontext(texts_of(paths, spacy))
    with opened as documents, written_at_end(output) as file:
        if form == "official":
            problems = [problem for _, found in check(documents.read(), lambda *_: []) for problem in found]
            raise_all(
                problems,
                f"--format official: rows say which document they are of by its title; {documents.name} has",
                "make titles unique, or use --format jsonl",
            )
        if on_error != "skip":
            hint = "correct or remove them, or continue without them: --on-error skip"
            raise_all(documents.problems, "texts that cannot be predicted", hint)
        made_from = {"input": documents.fingerprint, "bundle": bundle_hash, "batch_size": batch_size, "isf": isf}
        target = Output(file, form, made_from, kept=file == output)
        load = partial(SegPipeline.from_pretrained, bundle, clone, where, adapter=adapter, isf=isf)
        return _predict(load, documents, target, batch_size, resume, on_error == "skip", page)


def check_settings(on_error: str, batch_size: int) -> None:
    """Refuse values that cannot be.

    Raises:
        SegDREError: with the values to choose from.
    """
    if on_error not in ON_ERROR:
        raise SegDREError(f"on_error is {on_error!r}", f"choose from {', '.join(ON_ERROR)}")
    if batch_size < 1:
        raise SegDREError(f"--batch-size is {batch_size}", "pass 1 or more")


def _predict(
    load: Callable[[], SegPipeline],
    source: Source,
    target: Output,
    batch_size: int,
    resume: bool,
    skip: bool,
    page: Page | None,
) -> dict[str, Any]:
    """Predict documents, locked, and return the report; ``load`` is called if any are left, the rest as there."""
    output = target.path
    busy = f"{output}: another process is writing it"
    with locked(output.with_name(f".{output.name}.lock"), busy, "wait for it, or pass another --output"):
        remove_half_written(output)
        if target.is_complete(resume):
            if page and not target.lines.exists():
                hint = "use --format jsonl, or pass another --output"
                raise SegDREError(f"{output} is complete, and its answers are no longer there for a page", hint)
            print(f"segdre: {output} is complete")
            if page:
                page(_answered(source, target))
            return {"documents": 0, "triples": 0, "rejected": 0, "documents_per_second": 0.0}
        pipeline = load()
        with closing(target):
            try:
                report = _run(pipeline, source, target, target.start(), batch_size, skip)
            except KeyboardInterrupt:
                raise KeyboardInterrupt("--resume goes on from here" if target.kept else "") from None
            if page:
                page(_answered(source, target))
            target.finish(report)
    return report


def _answered(source: Source, target: Output) -> Iterator[tuple[Document, dict[str, Any]]]:
    """Yield the documents that have an answer, with it."""
    numbered = enumerate(source.read())
    for answer in target.answers():
        yield next(document for i, document in numbered if i == answer["index"]), answer


def _run(
    pipeline: SegPipeline, source: Source, target: Output, first: int, batch_size: int, skip: bool
) -> dict[str, Any]:
    size = WINDOW * batch_size
    begin = first - first % size
    report: dict[str, Any] = {"documents": 0, "triples": 0, "rejected": 0}
    started = time.perf_counter()
    total = source.total
    shown: dict[str, Any] = {"unit": "doc", "smoothing": 0, "bar_format": BAR if total else OPEN_BAR}
    with progress(label="predict", total=total, initial=first, **shown) as bar:
        for documents, problem in windows(islice(source.read(), begin, None), size):
            results = pipeline.answer(documents, batch_size, begin, bar.update)
            for i, (document, result) in enumerate(zip(documents, results, strict=True), start=begin):
                if i < first:
                    continue
                if isinstance(result, Rejection):
                    if not skip:
                        target.flush()
                        raise _stopped(result, target)
                    report["rejected"] += 1
                else:
                    report["triples"] += len(result["triples"])
                target.add(i, document.get("title") if isinstance(document, dict) else None, result)
                report["documents"] += 1
            target.flush()
            begin += len(documents)
            bar.n = max(first, begin)  # exactly: some documents have no batch, some several
            bar.refresh()
            if problem:
                raise problem
    report["documents_per_second"] = report["documents"] / max(time.perf_counter() - started, 1e-9)
    return report


def _stopped(result: Rejection, target: Output) -> SegDREError:
    done = f"; {target.lines} holds what came before" if target.kept and target.lines.stat().st_size else ""
    return SegDREError(
        "\n  - ".join(["stopped at a document that cannot be predicted" + done, *result.reasons]),
        f"correct it and start again, or continue without it: {'--resume ' if target.kept else ''}--on-error skip",
    )


def windows(values: Iterator[Any], size: int) -> Iterator[tuple[list[Any], SegDREError | None]]:
    """Yield documents, ``size`` at a time, with the error that ends them if one does."""
    while True:
        window: list[Any] = []
        problem = None
        try:
            for value in islice(values, size):
                window.append(value)
        except SegDREError as error:
            problem = error
        if window or problem:
            yield window, problem
        if problem or len(window) < size:
            return

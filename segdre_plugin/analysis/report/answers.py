"""The page of ``segdre predict --html``: each document's text with its entities, its triples as a graph and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from segdre_plugin import __version__
from segdre_plugin.analysis.report.documents import sentence_pieces
from segdre_plugin.analysis.report.graph import HEIGHT, LINE, draw_graph
from segdre_plugin.analysis.report.render import load_template, resource
from segdre_plugin.data.documents import Document
from segdre_plugin.data.files import check_output, write
from segdre_plugin.data.pipes import is_stream
from segdre_plugin.errors import SegDREError

SHOWN = 100  # documents of a page; the others are counted

Answered = Iterable[tuple[Document, Mapping[str, Any]]]


def answers_page(path: Path, others: Sequence[Path], replace: bool) -> Callable[[Answered], None]:
    """Check that a page can be written, before any work, and return the function that writes it.

    Args:
        path: the file.
        others: the files that are read and written, too.
        replace: whether it may exist already.

    Returns:
        A function of the documents and their answers.

    Raises:
        SegDREError: if it could not be written.
    """
    if is_stream(path):
        raise SegDREError(f"--html {path} is not a file", "pass the name of a file")
    check_output("--html", path, others)
    if path.exists() and not replace:
        raise SegDREError(f"{path} already exists", "pass --resume or another --html, or remove it")
    return lambda answered: _write(path, answered)


def _write(path: Path, answered: Answered) -> None:
    rest = iter(answered)
    documents = [_view(document, answer) for document, answer in islice(rest, SHOWN)]
    more = sum(1 for _ in rest)
    text = load_template("answers.html.j2").render(
        documents=documents,
        more=more,
        triples=sum(len(document["triples"]) for document in documents),
        evidence=any("evidence" in triple for document in documents for triple in document["triples"]),
        version=__version__,
        style=resource("style.css"),
        line=LINE,
        height=HEIGHT,
    )
    write(path, lambda file: file.write(text.encode("utf-8", errors="xmlcharrefreplace")))


def _view(document: Document, answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template shows of a document."""
    salient = answer["salient"] if isinstance(answer["salient"], list) else [answer["salient"]]
    chain = tuple(found["entity"] for found in salient if found)
    triples = sorted(answer["triples"], key=lambda triple: -triple["score"])
    return {
        "title": answer["title"],
        "sentences": sentence_pieces(document, chain, {t[end] for t in triples for end in ("h_idx", "t_idx")}),
        "salient": [found["name"] for found in salient if found],
        "n_entities": len(document["vertexSet"]),
        "unseen": len(answer["unseen_entities"]),
        "triples": triples,
        "graph": draw_graph(triples, chain) if triples else None,
    }

"""Load and check DocRED documents; problems are reported all at once, each with title and field."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segdre_plugin.data.files import read_json
from segdre_plugin.data.stream import Broken, read_values
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.vocabulary import Document, entities, is_na, labels

ALL = 1_000_000_000  # limit of the problems that validate lists
LONGEST = 100  # characters of a value in a message


def load_documents(path: Path, rel2id: Mapping[str, int] | None = None) -> list[Document]:
    """Return the documents, unchanged, of a file in DocRED's format.

    Args:
        path: as for :func:`read_gold`; ``labels`` may be missing, and ``evidence`` too.
        rel2id: the known relations; None leaves relations unchecked.

    Raises:
        SegDREError: if the file cannot be read, or with the list of all problems found in it.
    """
    documents = list(read_values(path, whole=True))
    problems = [problem for _, found in check(documents, partial(find_problems, rel2id=rel2id)) for problem in found]
    raise_all(problems, f"{path}: {len(problems)} problems", "fix or remove these documents")
    return documents


def load_gold(path: Path, rel2id: Mapping[str, int] | None = None) -> list[Document]:
    """Read all DocRED documents of a JSON or JSONL file; arguments and errors as :func:`read_gold`."""
    return list(read_gold(path, rel2id))


def read_gold(path: Path, rel2id: Mapping[str, int] | None = None) -> Iterator[Document]:
    """Read DocRED documents one by one; their file may be larger than memory.

    Args:
        path: a JSON list, JSONL or one document; plain or gzip, perhaps a pipe, ``-`` for standard input.
        rel2id: the known relations; None leaves relations unchecked.

    Yields:
        The documents; after a problem no more of them.

    Raises:
        SegDREError: if the file cannot be read, or at its end with the list of all problems found in it.
    """
    problems: list[str] = []
    for document, found in check(read_values(path), partial(find_problems, rel2id=rel2id)):
        problems += found
        if not problems:
            yield document
    raise_all(problems, f"{path}: {len(problems)} problems", "fix or remove these documents", limit=ALL)


def validate(path: Path, rel2id: Path | None = None) -> str:
    """Return a line on what a data file holds; arguments and errors as :func:`read_gold`, ``rel2id`` as a file."""
    return f"{path}: {count_parts(load_gold(path, None if rel2id is None else read_rel2id(rel2id)))}"


def count_parts(documents: Sequence[Document]) -> str:
    """Return how many documents, entities, mentions and triples there are, in words."""
    mentions = [len(entity) for document in documents for entity in entities(document)]
    triples = sum(len(labels(document)) for document in documents)
    return f"{len(documents)} documents, {len(mentions)} entities, {sum(mentions)} mentions, {triples} triples"


def read_rel2id(path: Path) -> dict[str, int]:
    """Return relation id -> class from DocRED's ``rel2id.json``.

    Raises:
        SegDREError: if the file is missing, or its classes are not 0 (NA), 1, 2, ...
    """
    return check_rel2id(path, read_json(path, "relations"))


def check_rel2id(path: Path, found: Any) -> dict[str, int]:
    """Return what a file holds as relation id -> class.

    Raises:
        SegDREError: if its classes are not 0 (NA), 1, 2, ...
    """
    classes = list(found.values()) if isinstance(found, dict) else []
    if not classes or any(type(i) is not int for i in classes) or sorted(classes) != list(range(len(classes))):
        raise SegDREError(f"{path}: expected relation -> class with classes 0, 1, 2, ...", "use DocRED's rel2id.json")
    na = next(name for name, i in found.items() if i == 0)
    if not is_na(na):
        raise SegDREError(f"{path}: class 0 is {na!r}", "make class 0 NA: it is the threshold class")
    return dict(found)


def check(values: Iterable[Any], find: Callable[[Any, int], list[str]]) -> Iterator[tuple[Any, list[str]]]:
    """Check the documents of a file one by one, each on its own and for a title that occurs twice.

    Args:
        values: candidates for documents.
        find: (candidate, its place in the file) -> its own problems.

    Yields:
        Each value and its problems, one line each.
    """
    titles: dict[str, int] = {}
    for i, value in enumerate(values):
        problems = find(value, i)
        title = value.get("title") if isinstance(value, dict) else None
        if isinstance(title, str) and titles.setdefault(title, i) != i:
            problems.append(f"document {i} {title!r}: has the same title as document {titles[title]}")
        yield value, problems


def find_problems(document: Any, index: int, rel2id: Mapping[str, int] | None = None) -> list[str]:
    """Return what is wrong with a document, one line each with its field.

    Args:
        document: a candidate for a DocRED document.
        index: its place in its file, from 0.
        rel2id: the known relations; None leaves relations unchecked.
    """
    if not isinstance(document, dict):
        return [not_an_object(document, index)]
    where = f"document {index} {_short(document.get('title'))}"
    problems = [] if is_text(document.get("title")) else [f"{where}: title: expected text"]
    # entities and labels refer to sentences, so nothing below can be checked without them
    sents, entities = document.get("sents"), document.get("vertexSet")
    if not (isinstance(sents, list) and sents and all(_is_sentence(sent) for sent in sents)):
        return [*problems, f"{where}: sents: expected sentences, each a list of one word or more"]
    problems += [
        f"{where}: sents[{i}][{j}]: {_short(word)} is half a character (a lone surrogate)"
        for i, sent in enumerate(sents)
        for j, word in enumerate(sent)
        if not is_text(word)
    ]
    if not isinstance(entities, list):
        return [*problems, f"{where}: vertexSet: expected a list of entities, got {type(entities).__name__}"]
    for e, mentions in enumerate(entities):
        if not (isinstance(mentions, list) and mentions):
            problems.append(f"{where}: vertexSet[{e}]: expected one mention or more")
            continue
        for m, mention in enumerate(mentions):
            problem = _mention_problem(mention, sents)
            if problem:
                problems.append(f"{where}: vertexSet[{e}][{m}]: {problem}")
    labels = document.get("labels")
    if labels is not None and not isinstance(labels, list):
        return [*problems, f"{where}: labels: expected a list, got {type(labels).__name__}"]
    for k, label in enumerate(labels or []):
        problem = _label_problem(label, len(entities), len(sents), rel2id)
        if problem:
            problems.append(f"{where}: labels[{k}]: {problem}")
    return problems


def not_an_object(value: Any, index: int) -> str:
    """Return the problem of a document that is not a JSON object."""
    reason = value.reason if isinstance(value, Broken) else f"expected an object, got {type(value).__name__}"
    return f"document {index}: {reason}"


def _short(value: Any) -> str:
    """Return a value as text for a message, at most LONGEST characters of it."""
    try:
        text = repr(value)
    except RecursionError:
        return type(value).__name__
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _is_sentence(sent: Any) -> bool:
    return isinstance(sent, list) and len(sent) > 0 and all(isinstance(word, str) for word in sent)


def is_text(value: Any) -> bool:
    """Return whether this is text that can be written and tokenised: JSON can spell half a surrogate pair."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _is_index(value: Any, n: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < n


def _mention_problem(mention: Any, sents: Sequence[Sequence[str]]) -> str:
    if not isinstance(mention, dict):
        return f"expected an object, got {type(mention).__name__}"
    if not is_text(mention.get("name")):
        return f"name: expected text, got {_short(mention.get('name'))}"
    sent_id, pos = mention.get("sent_id"), mention.get("pos")
    if not _is_index(sent_id, len(sents)):
        return f"sent_id: expected 0 to {len(sents) - 1}, got {_short(sent_id)}"
    words = len(sents[sent_id])  # type: ignore[index]
    inside = isinstance(pos, (list, tuple)) and len(pos) == 2 and all(_is_index(p, words + 1) for p in pos)
    if not inside or not pos[0] < pos[1]:  # type: ignore[index]
        return f"pos: {_short(pos)} is not a [start, end) inside sentence {sent_id} of {words} words"
    return ""


def _label_problem(label: Any, n_entities: int, n_sents: int, rel2id: Mapping[str, int] | None) -> str:
    if not isinstance(label, dict):
        return f"expected an object, got {type(label).__name__}"
    head, tail, relation, evidence = (label.get(key) for key in ("h", "t", "r", "evidence"))
    for name, entity in (("h", head), ("t", tail)):
        if not _is_index(entity, n_entities):
            return f"{name}: expected an entity from 0 to {n_entities - 1}, got {_short(entity)}"
    if head == tail:
        return f"h and t are the same entity {head}"
    if rel2id is None and not is_text(relation):
        return f"r: expected a relation id, got {_short(relation)}"
    if rel2id is not None and (not isinstance(relation, str) or rel2id.get(relation, 0) == 0):
        return f"r: {_short(relation)} is not a relation of rel2id.json"
    if evidence is not None and not (isinstance(evidence, list) and all(_is_index(s, n_sents) for s in evidence)):
        return f"evidence: expected sentences from 0 to {n_sents - 1}, got {_short(evidence)}"
    return ""

"""``segdre validate --fix``: what foreign files spell otherwise than DocRED is fixed where it has one obvious answer.

That is a number that is written as text or text that is a number, and null among evidence sentences. Nothing is lost
and nothing guessed: a label whose head is its tail, an unknown relation, a mention outside its sentence stay problems.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from segdre_plugin.data.documents import ALL, check, count_parts, find_problems, is_text, read_rel2id
from segdre_plugin.data.files import check_output, write_documents
from segdre_plugin.data.stream import read_values
from segdre_plugin.errors import raise_all
from segdre_plugin.vocabulary import Document

WHOLE = re.compile(r"\s*([0-9]{1,9})(?:\.0+)?\s*")
EXACT = 2**53  # from here on a float stands for several whole numbers


class Fix(NamedTuple):
    """One change to a document.

    Attributes:
        kind: the field and what was done, the same for all changes of that kind.
        place: of the field in the document.
    """

    kind: str
    place: str


def fix_file(path: Path, output: Path, rel2id: Path | None = None) -> str:
    """Write the documents of a file, fixed: JSONL if the output's name says so, else a JSON list.

    Args:
        path: as for :func:`segdre_plugin.data.documents.read_gold`, but memory holds it.
        output: written whole or not at all.
        rel2id: a file of the relations that may occur in labels; None leaves relations unchecked.

    Returns:
        A line on what the output holds, and one for each kind of fix: how often, and where first.

    Raises:
        SegDREError: if a file cannot be read or written, or with all problems that are left; nothing is written then.
    """
    check_output("--fix", output, [path])
    known = None if rel2id is None else read_rel2id(rel2id)
    fixed = [fix(value) for value in read_values(path, whole=True)]
    documents = [document for document, _ in fixed]
    problems = [
        problem
        for i, (document, found) in enumerate(check(documents, partial(find_problems, rel2id=known)))
        for problem in found or _unwritable(document, i)
    ]
    raise_all(problems, f"{path}: {len(problems)} problems", "fix or remove these documents", limit=ALL)
    write_documents(output, documents)
    lines = summarise(documents, [fixes for _, fixes in fixed]) or [f"{path} needs no fix"]
    return "\n".join([f"{output}: {count_parts(documents)}", *lines])


def fix(document: Any) -> tuple[Any, list[Fix]]:
    """Return a candidate for a DocRED document, fixed, and what was changed; the old one stays as it is."""
    fixes: list[Fix] = []
    fixed = _apply(document, OF_DOCUMENT, "", fixes)
    for field, rules in (("vertexSet", OF_MENTION), ("labels", OF_LABEL)):
        if isinstance(fixed, dict) and isinstance(fixed.get(field), list):
            fixed[field] = [_each(item, rules, f"{field}[{i}]", fixes) for i, item in enumerate(fixed[field])]
    return fixed, fixes


def summarise(documents: Sequence[Document], fixes: Sequence[Sequence[Fix]]) -> list[str]:
    """Return a line for each kind of fix; ``fixes`` are those of each document."""
    places: dict[str, list[str]] = {}
    for i, (document, own) in enumerate(zip(documents, fixes, strict=True)):
        for kind, place in own:
            places.setdefault(kind, []).append(f"document {i} {document['title']!r}: {place}")
    return [f"fixed: {kind}: {len(found)} times, first in {found[0]}" for kind, found in places.items()]


def _each(item: Any, rules: Sequence[Rule], place: str, fixes: list[Fix]) -> Any:
    """Fix a label, or all mentions of an entity."""
    if isinstance(item, list):
        return [_apply(mention, rules, f"{place}[{m}]: ", fixes) for m, mention in enumerate(item)]
    return _apply(item, rules, f"{place}: ", fixes)


def _apply(owner: Any, rules: Sequence[Rule], place: str, fixes: list[Fix]) -> Any:
    """Return a copy of an object with some of its fields changed; anything else as it is."""
    if not isinstance(owner, dict):
        return owner
    changed = dict(owner)
    for field, kind, change in rules:
        value = change(changed.get(field))
        if value is not changed.get(field):
            changed[field] = value
            fixes.append(Fix(f"{field}: {kind}", f"{place}{field}"))
    return changed


def _number(value: Any) -> Any:
    """Return the whole number that text or a float stands for; anything else as it is."""
    if isinstance(value, str) and (spelled := WHOLE.fullmatch(value)):
        return int(spelled[1])
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < EXACT else value


def _text(value: Any) -> Any:
    """Return a whole number as text, anything else as it is."""
    number = _number(value) if isinstance(value, float) else value
    return str(number) if isinstance(number, int) and not isinstance(number, bool) else value


def _items(change: Callable[[Any], Any], values: Any) -> Any:
    """Change the items of a list; return the list itself where all stay as they are, or it is none."""
    if not isinstance(values, list):
        return values
    changed = [change(value) for value in values]
    return values if all(new is old for new, old in zip(changed, values, strict=True)) else changed


def _without_null(values: Any) -> Any:
    is_list = isinstance(values, list) and None in values
    return [value for value in values if value is not None] if is_list else values


def _unwritable(document: Document, index: int) -> list[str]:
    """Return why a document without other problems is not JSON in UTF-8."""
    try:
        whole = is_text(json.dumps(document, ensure_ascii=False, allow_nan=False))
        reason = "" if whole else "half a character (a lone surrogate)"
    except ValueError:
        reason = "NaN or an infinity, which JSON does not have"
    return [f"document {index} {document['title']!r}: holds {reason}"] if reason else []


# Field, what is done, and how: a function that returns the value itself where nothing is to be done.
Rule = tuple[str, str, Callable[[Any], Any]]
NUMBER, TEXT = "text or float to whole number", "number to text"
OF_DOCUMENT: tuple[Rule, ...] = (("title", TEXT, _text), ("sents", TEXT, partial(_items, partial(_items, _text))))
OF_MENTION: tuple[Rule, ...] = (
    ("name", TEXT, _text),
    ("sent_id", NUMBER, _number),
    ("pos", NUMBER, partial(_items, _number)),
)
OF_LABEL: tuple[Rule, ...] = (
    ("h", NUMBER, _number),
    ("t", NUMBER, _number),
    ("evidence", "null dropped", _without_null),
    ("evidence", NUMBER, partial(_items, _number)),
)

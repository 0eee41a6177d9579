"""``segdre convert``: plain text with entity spans to DocRED's JSON.

Input, a JSON list or JSONL, as any system for named entities and coreference can write it::

    {"title": "...", "text": "...", "entities": [{"type": "PER", "mentions": [[0, 5], [40, 42]]}, ...]}

A mention is [start, end) in characters of ``text`` (Unicode code points, as Python counts them); ``type`` may be
missing. Finding the entities and which mentions belong together is not ours to do.

Words are runs of letters and digits (with single apostrophes, hyphens and points inside, as in "didn't" or "U.S"), and
every other character that is no space. A sentence ends after ``.``, ``!`` or ``?`` and closing quotes or brackets if
spaces and no small letter follow, and at an empty line. Mentions rule over both: a word is cut where a mention starts
or ends, a sentence does not end inside a mention, and spaces at the ends of a mention are left out.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from segdre_plugin.data.documents import find_problems
from segdre_plugin.data.files import check_output, write
from segdre_plugin.data.stream import Broken, read_values
from segdre_plugin.errors import raise_all

WORD = re.compile(r"\w+(?:['\u2019.\-]\w+)*|[^\w\s]")
SENTENCE_END = re.compile(r"[.!?]+[\"'\u201d\u2019)\]]*(?=\s+[^\sa-z])|\n[ \t]*(?=\n)")
UNTYPED = "MISC"  # DocRED's type of entities that are none of the others

Span = tuple[int, int]


@dataclass
class Converted:
    """What became of a file.

    Attributes:
        documents: how many there are.
        cut_words: how many words were cut where a mention starts or ends.
        joined_sentences: how many sentence ends lay inside a mention and were ignored.
    """

    documents: int = 0
    cut_words: int = 0
    joined_sentences: int = 0


@dataclass
class _Grid:
    """A text's sentences and words, by character offsets.

    Attributes:
        sentences: each a list of words [start, end).
        starts: offset of a word's first character -> (sentence, word).
        ends: offset after a word's last character -> (sentence, word).
    """

    sentences: list[list[Span]] = field(default_factory=list)
    starts: dict[int, tuple[int, int]] = field(default_factory=dict)
    ends: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, words: list[Span]) -> None:
        """Add a sentence; one without a word is none."""
        if not words:
            return
        for w, (start, end) in enumerate(words):
            self.starts[start] = self.ends[end] = (len(self.sentences), w)
        self.sentences.append(words)


def convert_file(path: Path, output: Path) -> str:
    """Convert a file; the output is written whole or not at all.

    Args:
        path: texts with entity spans, JSON or JSONL.
        output: DocRED documents: JSONL if it is called ``.jsonl``, else a JSON list.

    Returns:
        A line on what was done. Raises SegDREError with every problem in the file, or if ``output`` cannot be written.
    """
    check_output("--output", output, [path])
    tally = Converted()
    lines = output.suffix == ".jsonl"

    def fill(file: IO[bytes]) -> None:
        problems: list[str] = []
        titles: Counter[str] = Counter()
        for i, value in enumerate(read_values(path, "texts")):
            found = text_problems(value, i)
            if not found:
                titles[value["title"]] += 1
                if titles[value["title"]] == 2:
                    found = [f"document {i} {value['title']!r}: has the same title as another document"]
            problems += found
            if not problems:
                before = b"" if lines else b"[\n" if i == 0 else b",\n"
                file.write(before + json.dumps(convert(value, tally), ensure_ascii=False).encode())
                file.write(b"\n" if lines else b"")
        raise_all(problems, f"{path}: {len(problems)} problems", "mend or remove these documents")
        if not lines:
            file.write(b"\n]\n" if tally.documents else b"[]\n")

    write(output, fill)
    return (
        f"{output}: {tally.documents} documents; {tally.cut_words} words were cut at mentions, "
        f"{tally.joined_sentences} sentence ends inside mentions ignored"
    )


def text_problems(value: Any, index: int) -> list[str]:
    """List what is wrong with a text and its spans, one line each.

    Args:
        value: what should be a document of the form that the module's docstring shows.
        index: its place in its file.

    Returns:
        The problems; empty if there is none.
    """
    if isinstance(value, Broken):
        return [f"document {index}: {value.reason}"]
    if not isinstance(value, dict):
        return [f"document {index}: expected an object, found {type(value).__name__}"]
    where = f"document {index} {value.get('title')!r}"
    problems = [
        f"{where}: {name}: expected text, found {type(value.get(name)).__name__}"
        for name in ("title", "text")
        if not _is_text(value.get(name))
    ]
    text, entities = value.get("text"), value.get("entities")
    if not problems and not WORD.search(text):  # type: ignore[arg-type]
        problems.append(f"{where}: text: no word in it")
    if not isinstance(entities, list):
        return [*problems, f"{where}: entities: expected a list, found {type(entities).__name__}"]
    for e, entity in enumerate(entities):
        mentions = entity.get("mentions") if isinstance(entity, dict) else None
        if not (isinstance(mentions, list) and mentions):
            problems.append(f"{where}: entities[{e}]: expected an object with one mention or more")
            continue
        if not isinstance(entity.get("type", UNTYPED), str):
            problems.append(f"{where}: entities[{e}]: type: expected text, found {entity['type']!r}")
        problems += [
            f"{where}: entities[{e}].mentions[{m}]: {problem}"
            for m, span in enumerate(mentions)
            if isinstance(text, str) and (problem := _span_problem(span, text))
        ]
    return problems


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _span_problem(span: Any, text: str) -> str:
    whole = isinstance(span, (list, tuple)) and len(span) == 2
    if not whole or not all(isinstance(end, int) and not isinstance(end, bool) for end in span):
        return f"expected [start, end) in characters, found {span!r}"
    start, end = span
    if not 0 <= start < end <= len(text):
        return f"{span!r} is no [start, end) inside the text of {len(text)} characters"
    if not text[start:end].strip():
        return f"{span!r} holds only spaces"
    return ""


def convert(value: Mapping[str, Any], tally: Converted | None = None) -> dict[str, Any]:
    """Convert one document without problems.

    Args:
        value: of the form that the module's docstring shows.
        tally: counts documents and what mentions did to words and sentences.

    Returns:
        A DocRED document without labels.
    """
    tally = Converted() if tally is None else tally
    text = value["text"]
    entities = [[_trimmed(text, span) for span in entity["mentions"]] for entity in value["entities"]]
    grid = _split(text, [span for spans in entities for span in spans], tally)
    vertex_set = []
    for entity, spans in zip(value["entities"], entities, strict=True):
        mentions = []
        for start, end in spans:
            sentence, first = grid.starts[start]
            pos = [first, grid.ends[end][1] + 1]
            name = " ".join(text[start:end].split())
            mentions.append({"name": name, "sent_id": sentence, "pos": pos, "type": entity.get("type", UNTYPED)})
        vertex_set.append(mentions)
    sents = [[text[a:b] for a, b in words] for words in grid.sentences]
    document = {"title": value["title"], "sents": sents, "vertexSet": vertex_set}
    assert not find_problems(document, 0)
    tally.documents += 1
    return document


def _trimmed(text: str, span: Iterable[int]) -> Span:
    start, end = span
    mention = text[start:end]
    return start + len(mention) - len(mention.lstrip()), end - len(mention) + len(mention.rstrip())


def _split(text: str, mentions: list[Span], tally: Converted) -> _Grid:
    """Cut a text into sentences and words so that mentions fit."""
    inside = [False] * (len(text) + 1)  # whether a cut before this character would cut a mention
    for start, end in mentions:
        inside[start + 1 : end] = [True] * (end - start - 1)
    edges = sorted({edge for span in mentions for edge in span})
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    tally.joined_sentences += sum(inside[end] for end in ends)
    kept = [0, *(end for end in ends if not inside[end]), len(text)]
    grid = _Grid()
    for start, end in pairwise(kept):
        grid.add([piece for match in WORD.finditer(text, start, end) for piece in _cut(match.span(), edges, tally)])
    return grid


def _cut(word: Span, edges: list[int], tally: Converted) -> Iterator[Span]:
    start, end = word
    inner = [edge for edge in edges if start < edge < end]
    tally.cut_words += bool(inner)
    yield from pairwise([start, *inner, end])

"""``segdre convert``: plain text with entity spans to DocRED's JSON.

Input, a JSON list or JSONL, as any system for named entities and coreference can write it::

    {"title": "...", "text": "...", "entities": [{"type": "PER", "mentions": [[0, 5], [40, 42]]}, ...]}

A mention is [start, end) in characters of ``text`` (Unicode code points, as Python counts them); ``type`` may be
missing. Finding the entities and which mentions belong together is not part of the conversion.

Words and sentences follow Unicode's rules for text in any language (UAX 29, by uniseg), with spaces left out and one
change: a line break counts as a space, so that wrapped lines stay together, and an empty line ends a sentence. Mentions
rule over both: a word is cut where a mention starts or ends, a sentence does not end inside a mention, and spaces at
the ends of a mention are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from segdre_plugin.data.documents import check, find_problems, is_text, not_an_object
from segdre_plugin.data.files import check_output, write_documents
from segdre_plugin.data.stream import read_values
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.vocabulary import Span

LINE_BREAK = re.compile(r"\r|\n(?!\s*\n)")  # not before an empty line
NOT_SPACE = re.compile(r"\S+")
UNTYPED = "MISC"  # DocRED's type of entities that are none of the others


@dataclass
class Converted:
    """Counts of a conversion."""

    documents: int = 0
    cut_words: int = 0  # where a mention starts or ends
    joined_sentences: int = 0  # sentence ends inside a mention, which were ignored


@dataclass
class _Grid:
    """A text's sentences and words, by character offsets."""

    sentences: list[list[Span]] = field(default_factory=list)  # each a list of words [start, end)
    # offset of a word's first character, and of what follows its last one -> (sentence, word)
    starts: dict[int, tuple[int, int]] = field(default_factory=dict)
    ends: dict[int, tuple[int, int]] = field(default_factory=dict)

    def add(self, words: list[Span]) -> None:
        """Add a sentence unless it has no word."""
        if not words:
            return
        for w, (start, end) in enumerate(words):
            self.starts[start] = self.ends[end] = (len(self.sentences), w)
        self.sentences.append(words)


def convert_file(path: Path, output: Path) -> str:
    """Convert a JSON or JSONL file; the output is written whole or not at all: JSONL if its name says so, else a list.

    Returns:
        A line on what was done. Raises SegDREError with every problem in the file, or if ``output`` cannot be written
        or uniseg is not installed.
    """
    check_output("--output", output, [path])
    _unicode_rules()
    tally = Converted()

    def documents() -> Iterator[dict[str, Any]]:
        problems: list[str] = []
        for value, found in check(read_values(path, "texts"), text_problems):
            problems += found
            if not problems:
                yield convert(value, tally)
        raise_all(problems, f"{path}: {len(problems)} problems", "fix or remove these documents")

    write_documents(output, documents())
    return (
        f"{output}: {tally.documents} documents; {tally.cut_words} words were cut at mentions, "
        f"{tally.joined_sentences} sentence ends inside mentions ignored"
    )


def text_problems(value: Any, index: int) -> list[str]:
    """Return the problems of a text and its spans, one line each.

    Args:
        value: a candidate for a document of the form that the module's docstring shows.
        index: its place in its file, from 0.
    """
    if not isinstance(value, dict):
        return [not_an_object(value, index)]
    where = f"document {index} {value.get('title')!r}"
    problems = [
        f"{where}: {name}: expected text, got {type(value.get(name)).__name__}"
        for name in ("title", "text")
        if not is_text(value.get(name))
    ]
    text, entities = value.get("text"), value.get("entities")
    if not problems and not text.strip():  # type: ignore[union-attr]
        problems.append(f"{where}: text: no word in it")
    if not isinstance(entities, list):
        return [*problems, f"{where}: entities: expected a list, got {type(entities).__name__}"]
    for e, entity in enumerate(entities):
        mentions = entity.get("mentions") if isinstance(entity, dict) else None
        if not (isinstance(mentions, list) and mentions):
            problems.append(f"{where}: entities[{e}]: expected an object with one mention or more")
            continue
        if not is_text(entity.get("type", UNTYPED)):
            problems.append(f"{where}: entities[{e}]: type: expected text, got {entity['type']!r}")
        problems += [
            f"{where}: entities[{e}].mentions[{m}]: {problem}"
            for m, span in enumerate(mentions)
            if isinstance(text, str) and (problem := _span_problem(span, text))
        ]
    return problems


def _span_problem(span: Any, text: str) -> str:
    whole = isinstance(span, (list, tuple)) and len(span) == 2
    if not whole or not all(isinstance(end, int) and not isinstance(end, bool) for end in span):
        return f"expected [start, end) in characters, got {span!r}"
    start, end = span
    if not 0 <= start < end <= len(text):
        return f"{span!r} is not a [start, end) inside the text of {len(text)} characters"
    if not text[start:end].strip():
        return f"{span!r} holds only spaces"
    return ""


def convert(value: Mapping[str, Any], tally: Converted | None = None) -> dict[str, Any]:
    """Return the DocRED document, without labels, of one text without problems; ``tally`` counts what was done."""
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

    word_boundaries, sentence_boundaries = _unicode_rules()
    flat = LINE_BREAK.sub(" ", text)  # of the same length, so that offsets stay
    ends = list(sentence_boundaries(flat))
    tally.joined_sentences += sum(inside[end] for end in ends)
    grid = _Grid()
    for start, end in pairwise(end for end in ends if not inside[end]):
        segments = pairwise(start + boundary for boundary in word_boundaries(flat[start:end]))
        words = [match.span() for a, b in segments for match in NOT_SPACE.finditer(text, a, b)]
        grid.add([piece for word in words for piece in _cut(word, edges, tally)])
    return grid


def _unicode_rules() -> tuple[Callable[[str], Iterator[int]], Callable[[str], Iterator[int]]]:
    """Return the functions that list where words and where sentences begin and end (UAX 29).

    Raises:
        SegDREError: if uniseg is not installed.
    """
    try:
        from uniseg.sentencebreak import sentence_boundaries
        from uniseg.wordbreak import word_boundaries
    except ImportError:
        raise SegDREError("segdre convert needs uniseg", 'pip install "segdre-plugin[text]"') from None
    return word_boundaries, sentence_boundaries


def _cut(word: Span, edges: list[int], tally: Converted) -> Iterator[Span]:
    start, end = word
    inner = [edge for edge in edges if start < edge < end]
    tally.cut_words += bool(inner)
    yield from pairwise([start, *inner, end])

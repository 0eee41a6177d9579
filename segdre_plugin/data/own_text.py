"""Plain text to DocRED's documents: sentences, words and entities as a spaCy pipeline of the user's finds them.

spaCy is not required by the package (extra ``text``), and the pipeline is loaded by the name or path that the user
gives, which runs its code. It has to set sentences and entities.

Which mentions are one entity is what the pipeline's coreference component says (coreferee's ``doc._.coref_chains``,
fastcoref's ``doc._.coref_clusters``): a cluster with a named mention is an entity, pronouns and nouns in it are further
mentions. Without such a component, and for names that it leaves alone, mentions of one name are one entity.
A line break counts as a space, and no sentence ends inside a mention, as in :mod:`segdre_plugin.data.convert`.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from segdre_plugin.data.convert import LINE_BREAK, UNTYPED
from segdre_plugin.data.documents import find_problems
from segdre_plugin.data.pipes import opened
from segdre_plugin.data.stream import Broken
from segdre_plugin.errors import SegDREError
from segdre_plugin.vocabulary import Document, Span

# spaCy's entity labels (OntoNotes, and those of the models trained on WikiNER) -> DocRED's types; None: DocRED's
# annotation has no such entities. Nationalities are places there. Labels that are not listed become MISC.
TYPES: dict[str, str | None] = {
    "PERSON": "PER",
    "PER": "PER",
    "GPE": "LOC",
    "LOC": "LOC",
    "FAC": "LOC",
    "NORP": "LOC",
    "ORG": "ORG",
    "DATE": "TIME",
    "TIME": "TIME",
    "PERCENT": "NUM",
    "MONEY": "NUM",
    "QUANTITY": "NUM",
    "CARDINAL": "NUM",
    "ORDINAL": None,
    "EVENT": "MISC",
    "LANGUAGE": "MISC",
    "LAW": "MISC",
    "PRODUCT": "MISC",
    "WORK_OF_ART": "MISC",
    "MISC": "MISC",
}
VALUES = ("TIME", "NUM")  # a name is never the same entity as one of these
COREFERENCE = ("coref_chains", "coref_clusters")  # of a spaCy document
SUFFIX = ".txt"  # of the files of a folder of texts
_AROUND = re.compile(r"^(the|an?) |['\u2019]s$")  # what is no part of a name, as spaCy's English pipelines cut it


class _Mention(NamedTuple):
    span: Span  # of tokens
    type: str
    name: tuple[str, str]  # equal for mentions of one name


class TextReader:
    """Reads texts with a spaCy pipeline, and counts what it did.

    Args:
        pipeline: the name or path of a pipeline, or a loaded one.

    Raises:
        SegDREError: if spaCy is not installed, or the pipeline cannot be loaded.
    """

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = _load(str(pipeline)) if isinstance(pipeline, (str, Path)) else pipeline
        meta = self.pipeline.meta
        self.name = f"{meta['lang']}_{meta['name']} {meta['version']}"
        self.counts: Counter[str] = Counter()
        self.omitted: Counter[str] = Counter()  # labels that DocRED has no entities for
        self.unknown: Counter[str] = Counter()  # labels that are not listed
        self.coreference = ""  # the attribute that the pipeline sets, if one does

    def read(self, text: str, title: str) -> Document | Broken:
        """Return the DocRED document, without labels, of a text, or why there is none.

        Raises:
            SegDREError: if the pipeline does not find sentences and entities.
        """
        if not text.strip():
            return Broken(f"{title}: no word in it")
        flat = LINE_BREAK.sub(" ", text)  # of the same length, so that offsets stay
        try:
            parsed = self.pipeline(flat)
        except Exception as error:  # whatever a text makes foreign code do
            return Broken(f"{title}: {self.name}: {type(error).__name__}: {' '.join(str(error).split()):.300}")
        self._check(parsed)
        groups = self._groups(parsed)
        sents, places = _words(parsed, [span for group in groups for span, _ in group])
        vertex_set = [
            [
                {"name": " ".join(parsed[start:end].text.split()), "sent_id": places[start][0]}
                | {"pos": [places[start][1], places[end - 1][1] + 1], "type": _most(group)}
                for start, end in sorted(span for span, _ in group)
            ]
            for group in groups
        ]
        if len(vertex_set) < 2:
            names = ", ".join(repr(entity[0]["name"]) for entity in vertex_set)
            found = f"found one entity ({names})" if names else "found no entity"
            return Broken(f"{title}: {self.name} {found}; a relation needs two")
        document = {"title": title, "sents": sents, "vertexSet": vertex_set}
        assert not find_problems(document, 0)
        self.counts += Counter(texts=1, entities=len(groups), mentions=sum(map(len, groups)), sentences=len(sents))
        return document

    def summary(self) -> str:
        """Return a line on what was read, and how mentions became entities."""
        parts = [f"{self.name}: " + ", ".join(f"{n} {name}" for name, n in sorted(self.counts.items(), reverse=True))]
        if self.coreference:
            parts.append(f"coreference from doc._.{self.coreference}")
        else:
            parts.append("the pipeline has no coreference component, so mentions of one name are one entity")
        for labels, what in ((self.omitted, "left out"), (self.unknown, "read as MISC")):
            if labels:
                parts.append(f"{what}: " + ", ".join(f"{n} {label}" for label, n in sorted(labels.items())))
        return "; ".join(parts)

    def _check(self, parsed: Any) -> None:
        """Refuse a pipeline that leaves sentences or entities unset."""
        for attribute, what, remedy in (
            ("SENT_START", "sentences", 'a parser, a "senter" or a "sentencizer"'),
            ("ENT_IOB", "entities", 'an "ner" component'),
        ):
            if not parsed.has_annotation(attribute):
                has = ", ".join(self.pipeline.pipe_names) or "none"
                raise SegDREError(
                    f"spaCy pipeline {self.name}: it finds no {what}; its components: {has}",
                    f"pass a pipeline with {remedy}",
                )

    def _groups(self, parsed: Any) -> list[list[tuple[Span, str]]]:
        """Return the entities, each a list of mentions: a span of tokens, and the type of a named one."""
        named = list(self._named(parsed))
        found: dict[Any, list[tuple[Span, str]]] = {}
        owner: dict[int, int] = {}  # of a named mention its cluster
        others: dict[int, list[Span]] = {}  # of a cluster its mentions that are not named
        for c, spans in enumerate(self._clusters(parsed)):
            for span in spans:
                n = _named_by(parsed, span, named)
                if n is None:
                    others.setdefault(c, []).append(span)
                else:
                    owner.setdefault(n, c)
        known: dict[Any, Any] = {}  # name -> entity
        for n, c in owner.items():
            known.setdefault(named[n].name, c)
        for n, mention in enumerate(named):
            key = owner.get(n, known.setdefault(mention.name, mention.name))
            found.setdefault(key, []).append((mention.span, mention.type))
        taken = {i for mention in named for i in range(*mention.span)}
        for c, spans in others.items():
            for span in spans if c in found else ():
                if taken.isdisjoint(range(*span)):
                    taken.update(range(*span))
                    found[c].append((span, ""))
        return list(found.values())

    def _named(self, parsed: Any) -> Iterator[_Mention]:
        """Yield the entities that the pipeline recognised, in the text's order."""
        for entity in parsed.ents:
            span = _trimmed(parsed, entity.start, entity.end)
            kind = TYPES.get(entity.label_, UNTYPED)
            if kind is None:
                self.omitted[entity.label_] += 1
            elif span:
                if entity.label_ not in TYPES:
                    self.unknown[entity.label_] += 1
                folded = " ".join(unicodedata.normalize("NFKC", entity.text).casefold().split())
                name = _AROUND.sub("", folded).strip() or folded
                yield _Mention(span, kind, (name, kind if kind in VALUES else ""))

    def _clusters(self, parsed: Any) -> list[list[Span]]:
        """Return the clusters of the pipeline's coreference component, as spans of tokens."""
        for attribute in COREFERENCE:
            clusters = getattr(parsed._, attribute, None) if parsed.has_extension(attribute) else None
            if clusters is not None:
                self.coreference = attribute
                return [[span for mention in c if (span := _tokens(parsed, mention))] for c in clusters]
        return []


def _load(name: str) -> Any:
    try:
        import spacy
    except ImportError:
        raise SegDREError("plain text needs spaCy", 'pip install "segdre-plugin[text]"') from None
    hint = f"install it first (python -m spacy download {name}), or pass the name or folder of another pipeline"
    try:
        return spacy.load(name)
    except Exception as error:  # a missing package, a broken folder, a component whose package is not imported
        reason = " ".join(str(error).split())
        raise SegDREError(f"spaCy cannot load the pipeline {name!r}: {reason:.300}", hint) from None


def _tokens(parsed: Any, mention: Any) -> Span | None:
    """Return a mention of a cluster as a span of tokens; None for several at once ("Ida and Olo")."""
    if hasattr(mention, "token_indexes"):  # coreferee's, by its head
        indexes = mention.token_indexes
        return (indexes[0], indexes[0] + 1) if len(indexes) == 1 else None
    span = parsed.char_span(*mention, alignment_mode="expand")  # fastcoref's [start, end) in characters
    return span and _trimmed(parsed, span.start, span.end)


def _trimmed(parsed: Any, start: int, end: int) -> Span | None:
    """Return a span of tokens without spaces at its ends; None if nothing is left."""
    words = [i for i in range(start, end) if not parsed[i].is_space]
    return (words[0], words[-1] + 1) if words else None


def _named_by(parsed: Any, span: Span, named: Sequence[_Mention]) -> int | None:
    """Return the named mention that a cluster's mention means: the same one, or the one that has its head."""
    head = parsed[slice(*span)].root.i if parsed.has_annotation("DEP") or span[1] - span[0] == 1 else None
    for n, (own, *_) in enumerate(named):
        if own == span or (head is not None and own[0] <= head < own[1]):
            return n
    return None


def _words(parsed: Any, spans: Sequence[Span]) -> tuple[list[list[str]], dict[int, tuple[int, int]]]:
    """Return the sentences as lists of words, and token -> (sentence, word)."""
    inside = {i for start, end in spans for i in range(start + 1, end)}
    sents: list[list[str]] = [[]]
    places = {}
    for token in parsed:
        if token.is_sent_start and token.i not in inside and sents[-1]:
            sents.append([])
        if not token.is_space:
            places[token.i] = (len(sents) - 1, len(sents[-1]))
            sents[-1].append(token.text)
    return [words for words in sents if words], places


def _most(group: Sequence[tuple[Span, str]]) -> str:
    """Return an entity's type: that of most of its named mentions."""
    return Counter(kind for _, kind in group if kind).most_common(1)[0][0]


def text_files(paths: Sequence[Path]) -> list[Path]:
    """Return the files of texts that paths name: a folder means those in it that end with ``.txt``.

    Raises:
        SegDREError: if one does not exist, or a folder has no such file.
    """
    found = []
    for path in paths:
        inside = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not inside:
            raise SegDREError(f"--text {path}: the folder has no file *{SUFFIX}", "pass the files themselves")
        if str(path) != "-" and not path.exists():
            raise SegDREError(f"--text {path}: no such file", "check the path")
        found += inside
    return found


def read_texts(paths: Sequence[Path], reader: TextReader) -> list[Document | Broken]:
    """Return a document for each file of text in UTF-8, or why there is none; titles are the files' names."""
    found: list[Document | Broken] = []
    for path in paths:
        title = "text" if str(path) == "-" else os.fsencode(path.stem).decode("utf-8", "replace")
        try:
            with opened(path, "text") as file:
                text = file.read().decode("utf-8")
        except UnicodeDecodeError as error:
            found.append(Broken(f"{path} is not UTF-8 (byte {error.start}: {error.reason}): convert it, as with iconv"))
        except SegDREError as error:
            found.append(Broken(" ".join(str(error).split())))
        else:
            found.append(reader.read(text, title))
    return found

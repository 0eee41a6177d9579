"""What is predicted: documents of a file that may be larger than memory, or texts that a spaCy pipeline reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdre_plugin.data.files import fingerprint
from segdre_plugin.data.own_text import TextReader, read_texts, text_files
from segdre_plugin.data.pipes import rereadable
from segdre_plugin.data.stream import Broken, count_lines, read_values


@dataclass(frozen=True)
class Source:
    """Documents to predict.

    Attributes:
        name: where they are from, for messages.
        read: yields candidates for documents, from the first one each time; ``Broken`` in place of what is none.
        fingerprint: equal for the same documents.
        total: how many they are; None if they are not counted.
        problems: what is wrong with them, as far as it is known before they are predicted.
    """

    name: str
    read: Callable[[], Iterator[Any]]
    fingerprint: str
    total: int | None
    problems: Sequence[str] = ()


@contextmanager
def documents_of(path: Path) -> Iterator[Source]:
    """Yield the documents of a JSON or JSONL file; what a pipe holds is copied to a temporary file first.

    Raises:
        SegDREError: if it cannot be read.
    """
    with rereadable(path, "documents") as file:
        yield Source(str(path), lambda: read_values(file), fingerprint(file), count_lines(file))


def texts_of(paths: Sequence[Path], pipeline: Any) -> Source:
    """Return the documents of files of text, all read at once; what was found in them is printed.

    Raises:
        SegDREError: if spaCy or the pipeline is missing, the pipeline does not find sentences and entities, or a path
            has no text.
    """
    files = text_files(paths)
    reader = TextReader(pipeline)
    documents = read_texts(files, reader)
    print(f"segdre: {reader.summary()}")
    found = hashlib.sha256(repr(documents).encode("utf-8", "backslashreplace")).hexdigest()
    problems = [document.reason for document in documents if isinstance(document, Broken)]
    return Source(", ".join(map(str, paths)), lambda: iter(documents), found, len(documents), problems)

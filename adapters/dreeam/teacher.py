"""DREEAM's files of teacher attentions: one array [pairs, tokens] for each document of the train file, pickled."""

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def teacher_problems(path: Path, documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the problems of a file of teacher attentions, once DREEAM's reader, which unpickles it first, has failed.

    One line each; none if the file has an array for each of the train documents.
    """
    try:
        with path.open("rb") as file:
            attentions = pickle.load(file)
    except Exception as error:  # a broken pickle raises nearly anything
        return [f"{path}: cannot be read: {type(error).__name__}: {error}"]
    if not isinstance(attentions, Sequence):
        return [f"{path}: expected a list with an array for each document, got {type(attentions).__name__}"]
    wrong = [i for i, rows in enumerate(attentions[: len(documents)]) if getattr(rows, "ndim", None) != 2]
    if len(attentions) < len(documents):
        first = documents[len(attentions)].get("title")
        return [f"{path}: {len(attentions)} documents; document {len(attentions)} {first!r} has no attentions"]
    return [f"{path}: document {i} {documents[i].get('title')!r}: expected an array [pairs, tokens]" for i in wrong]

"""The documents of the experiments: found under DocRED's, Re-DocRED's and our own names, and all of them or a few."""

from __future__ import annotations

from pathlib import Path

from segdre_plugin.data.documents import load_documents
from segdre_plugin.errors import SegDREError
from segdre_plugin.vocabulary import Document

FILES = {  # under our name -> the names that they may have
    "train_annotated.json": ("train_annotated.json", "train_revised.json", "train.json"),
    "dev.json": ("dev.json", "dev_revised.json"),
    "test.json": ("test.json", "test_revised.json"),
    "rel_info.json": ("rel_info.json",),
}


def find(data: Path, target: str) -> Path:
    """Return a file of the data by our name for it.

    Raises:
        SegDREError: if it is missing.
    """
    found = next((data / source for source in FILES[target] if (data / source).is_file()), None)
    if found is None:
        raise SegDREError(f"{data}: no {' or '.join(FILES[target])}", "pass a folder with train, dev, test, rel_info")
    return found


def fewest(path: Path, size: int) -> list[Document]:
    """Return the documents of a file that have the fewest entities, in that order.

    Raises:
        SegDREError: if there are not so many.
    """
    documents = load_documents(path)
    if len(documents) < size:
        raise SegDREError(f"{path}: expected at least {size} documents, got {len(documents)}", "ask for fewer")
    return sorted(documents, key=lambda document: len(document["vertexSet"]))[:size]

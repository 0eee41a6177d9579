"""The data of a ``--seg`` run: its splits and relations, loaded and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segdre_plugin.data.documents import is_text, load_documents, read_rel2id
from segdre_plugin.data.files import fingerprint, read_json, write
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.metrics import has_gold
from segdre_plugin.vocabulary import Document, entities, labels


@dataclass
class Split:
    """One split of the data: train, dev or test, with its file and its checked documents."""

    name: str
    path: Path
    documents: Sequence[Document]
    # the backbone's, one a document; empty until the backbone's reader has run
    features: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {self.path}, {len(self.documents)} documents, {len(self.features)} features)"

    @property
    def has_gold(self) -> bool:
        """Return whether the split has labels."""
        return has_gold(self.documents)


def load_splits(paths: Mapping[str, Path], rel2id: Mapping[str, int], skip_unusable: bool) -> dict[str, Split]:
    """Return the splits by name, checked.

    Args:
        paths: train, dev or test -> file.
        rel2id: relation id -> class.
        skip_unusable: accept documents without a pair of entities.

    Raises:
        SegDREError: if a file has problems, documents without a pair, or lacks the labels that it needs, or is a pipe.
    """
    pipes = [path for path in paths.values() if path.name == "-" or (path.exists() and not path.is_file())]
    if pipes:
        raise SegDREError(
            f"{pipes[0]} is not a file: a run reads its data more than once",
            "write the documents to a file (gzip is read as it is)",
        )
    splits = {name: Split(name, path, load_documents(path, rel2id)) for name, path in paths.items()}
    for split in splits.values():
        lone = [
            f"document {i} {document['title']!r}: {len(entities(document))} entities"
            for i, document in enumerate(split.documents)
            if len(entities(document)) < 2
        ]
        if not skip_unusable:
            raise_all(
                lone,
                f"{split.path}: documents without a pair of entities",
                "remove them, or leave them out with --seg-skip-unusable (their gold triples still count)",
            )
        if split.name != "test" and not split.has_gold:
            raise SegDREError(f"{split.path}: no document has labels", f"pass gold triples: {split.name} needs them")
    return splits


def check_sentences(splits: Mapping[str, Split], most: int, argument: str) -> None:
    """Refuse documents with more than ``most`` sentences; ``argument`` is the script's name of that limit.

    Raises:
        SegDREError: listing all documents with more sentences than the model predicts evidence for.
    """
    _check_count(splits, most, argument, "sentences", "sents")


def check_entities(splits: Mapping[str, Split], most: int, argument: str | None) -> None:
    """Refuse documents with more than ``most`` entities; ``argument`` is the script's name of that limit, if any.

    Raises:
        SegDREError: listing all documents with more entities than the model has room for.
    """
    _check_count(splits, most, argument, "entities", "vertexSet")


def _check_count(splits: Mapping[str, Split], most: int, argument: str | None, what: str, field: str) -> None:
    counts = {split.name: [len(document[field]) for document in split.documents] for split in splits.values()}
    needed = max(map(max, filter(None, counts.values())), default=0)
    hint = f"pass --{argument} {needed}, or " if argument else ""
    raise_all(
        [
            f"{split.path}: document {i} {split.documents[i]['title']!r}: {count} {what}"
            for split in splits.values()
            for i, count in enumerate(counts[split.name])
            if count > most
        ],
        f"documents with more {what} than " + (f"--{argument} {most}" if argument else f"the model's {most}"),
        f"{hint}shorten these documents",
    )


def load_rel2id(path: Path, num_class: int) -> dict[str, int]:
    """Return relation id -> class from DocRED's ``rel2id.json``.

    Args:
        path: the file.
        num_class: number of classes of the model, NA included.

    Raises:
        SegDREError: if the file is missing, or its classes are not 0 (NA) to ``num_class - 1``.
    """
    rel2id = read_rel2id(path)
    if len(rel2id) != num_class:
        raise SegDREError(f"{path} has {len(rel2id)} classes, the model {num_class}", f"pass --num_class {len(rel2id)}")
    return rel2id


def load_relation_names(candidates: Sequence[Path], rel2id: Mapping[str, int]) -> tuple[Path, dict[str, str]]:
    """Read the names of all relations in ``rel2id`` from the first of several rel_info.json that exists.

    Returns:
        The file's path, and relation id -> name.

    Raises:
        SegDREError: if no file exists, or it lacks a relation.
    """
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise SegDREError(
            f"no file of relation names: looked for {', '.join(map(str, candidates))}",
            "pass --seg-rel-info FILE (DocRED's rel_info.json: relation id -> name): branches need names",
        )
    return path, read_relation_names(path, [name for name, i in rel2id.items() if i != 0])


def read_relation_names(path: Path, relations: Iterable[str]) -> dict[str, str]:
    """Return relation id -> name from a rel_info.json.

    Raises:
        SegDREError: if it cannot be read, or lacks one of ``relations``.
    """
    names = read_json(path, "relation names")
    if not isinstance(names, dict):
        raise SegDREError(f"{path}: expected relation id -> name", "use DocRED's rel_info.json")
    missing = [relation for relation in relations if not is_text(names.get(relation)) or not names[relation].strip()]
    raise_all(missing, f"{path}: relations without a name", "add them")
    return names


def fingerprints(splits: Mapping[str, Split], rel2id: Path) -> dict[str, str]:
    """Return the hashes of the splits' files and of the relations."""
    return {name: fingerprint(split.path) for name, split in splits.items()} | {"rel2id": fingerprint(rel2id)}


def write_plain(split: Split, folder: Path) -> Path:
    """Write a split's documents so that every backbone's reader reads them right.

    Readers open a file in the locale's encoding, so it is a JSON list in ASCII, whatever the split's file is. They
    index ``label["evidence"]`` and loop over ``labels``: empty lists take the place of null and of missing evidence.

    Returns:
        The file, in ``folder``.
    """
    filled = [
        {**document, "labels": [{**label, "evidence": label.get("evidence") or []} for label in labels(document)]}
        if "labels" in document
        else document
        for document in split.documents
    ]
    path = folder / split.path.name  # readers may look for further files by this name
    write(path, lambda file: file.write(json.dumps(filled).encode()))
    return path

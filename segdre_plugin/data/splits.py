"""The data of a ``--seg`` run: the splits, the relations, and what every stage needs to know of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.features import Feature, visible_entities
from segdre_plugin.data.documents import Document, load_documents
from segdre_plugin.data.files import fingerprint, read_json
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.metrics import has_gold

SUM_TOLERANCE = 0.02  # of a distribution that was stored in half precision


@dataclass
class Split:
    """One split of the data.

    Attributes:
        name: train, dev or test.
        path: its file.
        documents: its documents.
        features: the backbone's features, one a document; empty until the backbone's reader ran.
    """

    name: str
    path: Path
    documents: list[Document]
    features: list[Feature] = field(default_factory=list)

    @property
    def has_gold(self) -> bool:
        """Return whether the split has labels."""
        return has_gold(self.documents)


def load_splits(paths: Mapping[str, Path], rel2id: Mapping[str, int], skip_unusable: bool) -> dict[str, Split]:
    """Read and check the splits.

    Args:
        paths: name -> file.
        rel2id: the relations.
        skip_unusable: accept documents that have no pair of entities.

    Returns:
        Name -> split.

    Raises:
        SegDREError: if a file has problems, documents without a pair, or lacks the labels that it needs.
    """
    splits = {name: Split(name, path, load_documents(path, rel2id)) for name, path in paths.items()}
    for split in splits.values():
        lone = [
            f"document {i} {document['title']!r}: {len(document['vertexSet'])} entities"
            for i, document in enumerate(split.documents)
            if len(document["vertexSet"]) < 2
        ]
        if not skip_unusable:
            raise_all(
                lone,
                f"{split.path}: documents without a pair of entities",
                "remove them, or leave them out with --seg-skip-unusable (their gold triples still count)",
            )
        if split.name != "test" and not split.has_gold:
            raise SegDREError(f"{split.path}: no document has labels", f"{split.name} needs gold triples")
    return splits


def attach_features(
    split: Split, features: Sequence[Feature], backbone: Backbone, transformer_type: str, skip_unusable: bool
) -> None:
    """Take what the backbone's reader made of a split.

    Args:
        split: the split; gets its features.
        features: one a document.
        backbone: says what the encoder sees.
        transformer_type: bert or roberta.
        skip_unusable: accept entities that the encoder does not see.

    Raises:
        SegDREError: if features and documents do not go together, or an entity has no mention that the encoder sees.
    """
    titles = [feature.get("title") for feature in features]
    if titles != [document["title"] for document in split.documents]:
        raise SegDREError(
            f"{split.path}: the backbone's reader gave {len(features)} features that are not those of the "
            f"{len(split.documents)} documents",
            "is the clone's prepro.py the original one?",
        )
    raise_all(
        [
            f"document {i} {feature['title']!r}: {problem}"
            for i, feature in enumerate(features)
            for problem in _token_problems(feature, backbone)
        ],
        f"{split.path}: token distributions (teacher attentions) that are not those of these documents",
        "make their file again, from these very documents and with the same tokenizer",
    )
    if not skip_unusable:
        raise_all(
            [
                f"document {i} {document['title']!r}: entity {e} ({document['vertexSet'][e][0]['name']!r})"
                for i, (document, feature) in enumerate(zip(split.documents, features, strict=True))
                for e, seen in enumerate(visible_entities(feature, backbone, transformer_type))
                if not seen
            ],
            f"{split.path}: entities without a mention inside the encoder's windows",
            "shorten these documents, raise --max_seq_length (the windows hold about 1,020 tokens), or leave the pairs "
            "of these entities out with --seg-skip-unusable (their gold triples still count)",
        )
    split.features = list(features)


def _token_problems(feature: Feature, backbone: Backbone) -> Iterator[str]:
    """Return what is wrong with the fields that hold a distribution over the document's tokens for each pair."""
    for name in backbone.token_fields:
        rows = feature.get(name)
        if rows is None:
            continue
        expected = (len(feature["hts"]), len(feature["input_ids"]))
        if tuple(rows.shape) != expected:
            yield f"{name} are {list(rows.shape)}, expected {list(expected)} [pairs, tokens]"
            continue
        sums = rows.sum(axis=1)
        strange = ~((abs(sums - 1) < SUM_TOLERANCE) | (sums == 0))  # NaN is strange, too
        if strange.any():
            yield f"{name} of {int(strange.sum())} pairs do not sum to 1 over the document's tokens"


def check_sentences(splits: Mapping[str, Split], most: int, argument: str) -> None:
    """Refuse documents with more sentences than the model has evidence for.

    Args:
        splits: the data.
        most: how many sentences a document may have.
        argument: the script's argument that says so.

    Raises:
        SegDREError: with all such documents.
    """
    counts = [len(document["sents"]) for split in splits.values() for document in split.documents]
    raise_all(
        [
            f"{split.path}: document {i} {document['title']!r}: {len(document['sents'])} sentences"
            for split in splits.values()
            for i, document in enumerate(split.documents)
            if len(document["sents"]) > most
        ],
        f"documents with more sentences than --{argument} {most}",
        f"pass --{argument} {max(counts, default=0)}, or shorten these documents",
    )


def load_rel2id(path: Path, num_class: int) -> dict[str, int]:
    """Read the relations and check that they fit the model.

    Args:
        path: the file.
        num_class: classes of the model.

    Returns:
        Relation id -> class.

    Raises:
        SegDREError: if the file is missing, or its classes are not 0 (NA) to ``num_class - 1``.
    """
    rel2id = read_json(path, "relations")
    if not isinstance(rel2id, dict) or sorted(rel2id.values(), key=str) != sorted(range(len(rel2id)), key=str):
        raise SegDREError(f"{path}: expected relation -> class with classes 0, 1, 2, ...", "use DocRED's rel2id.json")
    if len(rel2id) != num_class:
        raise SegDREError(f"{path} has {len(rel2id)} classes, the model {num_class}", f"pass --num_class {len(rel2id)}")
    na = next(name for name, i in rel2id.items() if i == 0)
    if na.lower() not in ("na", "n/a"):
        raise SegDREError(f"{path}: class 0 is {na!r}", "class 0 must be NA: it is the threshold class")
    return rel2id


def load_relation_names(candidates: Sequence[Path], rel2id: Mapping[str, int]) -> tuple[Path, dict[str, str]]:
    """Read the relations' names.

    Args:
        candidates: where rel_info.json may be; the first one that exists is read.
        rel2id: the relations that need a name.

    Returns:
        The file, and relation id -> name.

    Raises:
        SegDREError: if there is no such file, or it lacks a relation.
    """
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        raise SegDREError(
            f"no file of relation names: looked for {', '.join(map(str, candidates))}",
            "branches need names: pass --seg-rel-info FILE (DocRED's rel_info.json: relation id -> name)",
        )
    return path, read_relation_names(path, [name for name, i in rel2id.items() if i != 0])


def read_relation_names(path: Path, relations: Iterable[str]) -> dict[str, str]:
    """Read the relations' names from one file.

    Args:
        path: rel_info.json.
        relations: ids of those that need a name.

    Returns:
        Relation id -> name.

    Raises:
        SegDREError: if it cannot be read, or lacks a relation.
    """
    names = read_json(path, "relation names")
    if not isinstance(names, dict):
        raise SegDREError(f"{path}: expected relation id -> name", "use DocRED's rel_info.json")
    missing = [relation for relation in relations if not isinstance(names.get(relation), str)]
    raise_all(missing, f"{path}: relations without a name", "add them")
    return names


def fingerprints(splits: Mapping[str, Split], rel2id: Path) -> dict[str, str]:
    """Return the hashes of the splits' files and of the relations."""
    return {name: fingerprint(split.path) for name, split in splits.items()} | {"rel2id": fingerprint(rel2id)}


def readable(split: Split, folder: Path) -> Path:
    """Return a file of the split that the backbones' readers understand.

    They index ``label["evidence"]`` and loop over ``labels``; both may be missing in legal data.

    Args:
        split: the split.
        folder: where a copy may be written.

    Returns:
        The split's own file, or a copy of it with the missing fields.
    """
    labels = [document.get("labels", []) for document in split.documents]
    if all(part is not None and all(label.get("evidence") is not None for label in part) for part in labels):
        return split.path
    filled = [
        document
        | {"labels": [label | {"evidence": label.get("evidence") or []} for label in document.get("labels") or []]}
        for document in split.documents
    ]
    copy = folder / split.path.name
    copy.write_text(json.dumps(filled), encoding="utf-8")
    return copy

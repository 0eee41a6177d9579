"""From documents to predict to the backbone's features; a document that cannot be read is named and left out."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.features import Feature
from segdre_plugin.data.documents import Document
from segdre_plugin.errors import SegDREError
from segdre_plugin.prediction.clone_code import BackboneCode
from segdre_plugin.seg.reader import call_reader, count_tokens, explain

SPECIAL = 3  # two special tokens, and DREEAM's reader wants one more


@dataclass(frozen=True)
class Rejection:
    """Stands for a document that has no answer.

    Attributes:
        reasons: why, one line each.
    """

    reasons: list[str]


def read_features(
    documents: Sequence[Document], code: BackboneCode, tokenizer: Any, arguments: Mapping[str, Any], args: Namespace
) -> list[Feature | Rejection]:
    """Return one feature a document from the backbone's reader, or why there is none.

    Labels are left out: they are no input, and they need not be of the bundle's relations. ``arguments`` are those of
    the reader besides file and tokenizer; ``args`` are the script's, for readers that take them.

    Raises:
        SegDREError: if the reader takes other arguments.
    """
    try:
        return list(_read(documents, code, tokenizer, arguments, args))
    except SegDREError:
        raise
    except Exception as error:  # whatever a document makes foreign code do
        if len(documents) == 1:
            reason = explain(documents[0], tokenizer, arguments, error)
            return [Rejection([f"the backbone's reader stopped: {reason}"])]
        return [read_features([document], code, tokenizer, arguments, args)[0] for document in documents]


def read_whole(
    documents: Sequence[Document], code: BackboneCode, tokenizer: Any, arguments: Mapping[str, Any], args: Namespace
) -> list[Feature | Rejection]:
    """Return what :func:`read_features` does, with no document cut where the backbone takes as many windows as needed.

    The ``max_seq_length`` with which models were trained holds for the documents that fit into it.
    """
    found = read_features(documents, code, tokenizer, arguments, args)
    limit = arguments.get("max_seq_length")
    if code.backbone.windows is not None or limit is None:
        return found
    for i, (document, feature) in enumerate(zip(documents, found, strict=True)):
        if isinstance(feature, Rejection) or len(feature["input_ids"]) >= limit:
            needed = count_tokens(document, tokenizer) + SPECIAL
            if needed > limit:
                whole = dict(arguments) | {"max_seq_length": needed}
                found[i] = read_features([document], code, tokenizer, whole, args)[0]
    return found


def _read(
    documents: Sequence[Document], code: BackboneCode, tokenizer: Any, arguments: Mapping[str, Any], args: Namespace
) -> list[Feature]:
    plain = [
        {
            "title": str(i),  # readers look titles up, and two documents may have the same
            "sents": document["sents"],
            "vertexSet": [[{"type": ""} | mention for mention in entity] for entity in document["vertexSet"]],
        }
        for i, document in enumerate(documents)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.json"
        path.write_text(json.dumps(plain), encoding="utf-8")
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # their progress bars and counts
            features: list[Feature] = call_reader(code.read, code.script, str(path), tokenizer, args, arguments)[0]
    assert [feature["title"] for feature in features] == [document["title"] for document in plain]
    return [feature | {"title": document["title"]} for feature, document in zip(features, documents, strict=True)]

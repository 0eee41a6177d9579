"""The backbone's reader between checked documents and the features of every stage."""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.attach import attach_features
from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.script import Script
from segdre_plugin.data.splits import Split, write_plain
from segdre_plugin.errors import SegDREError, raise_all


class Reader:
    """What stands in for the script's ``read_docred``; it keeps the features for the stages to come."""

    def __init__(
        self,
        read: Callable[..., Any],
        splits: Mapping[str, Split],
        backbone: Backbone,
        script: Script,
        args: Namespace,
        skip_unusable: bool,
    ) -> None:
        self.read, self.splits, self.backbone, self.script = read, splits, backbone, script
        self.args = args
        self.skip_unusable = skip_unusable  # accept entities that the encoder does not see
        self.tokenizer: Any = None
        self.arguments: dict[str, Any] = {}  # of the last call, those for train only left out

    def __call__(self, path: Any, tokenizer: Any, **arguments: Any) -> Any:
        """Read a split, or another file as the script would."""
        self.tokenizer = tokenizer
        split = next((s for s in self.splits.values() if s.path == Path(path)), None)
        if split is None:
            return self.read(path, tokenizer, **arguments)
        self.arguments = {k: v for k, v in arguments.items() if k not in self.script.train_only}
        self.script.check_reading(self.arguments, self.script.file)  # else its bundle could not be read
        if not split.features:
            self._fill(split, arguments)
        return split.features

    def fill_missing(self) -> None:
        """Read the splits that the script did not ask for, as it read the others."""
        for split in self.splits.values():
            if not split.features:
                self._fill(split, self.arguments)

    def _fill(self, split: Split, arguments: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = write_plain(split, Path(folder))
            try:
                features = self.read(str(path), self.tokenizer, **arguments)
            except SegDREError:
                raise
            except Exception as error:  # whatever bad data make the backbone's reader do
                self._explain(split, arguments, error)
                raise SegDREError(
                    f"{split.path}: the backbone's reader stopped: {_name(error)}",
                    f"is it the original one of {self.backbone.repository}?",
                ) from error
        labels = self.backbone.evidence_labels
        rows = (label for document in split.documents for label in document.get("labels") or [])
        has_evidence = any(label.get("evidence") for label in rows)
        if split.name == "train" and labels and not has_evidence:
            print("segdre: no label of train has evidence: training without the evidence loss")
            features = [feature | {labels: None} for feature in features]
        attach_features(split, features, self.backbone, self.args.transformer_type, self.skip_unusable)

    def _explain(self, split: Split, arguments: dict[str, Any], error: Exception) -> None:
        """Read document by document to find those that the reader stumbles over, and raise."""
        problems = []
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            for i, document in enumerate(split.documents):
                path = write_plain(replace(split, documents=[document]), Path(folder))
                try:
                    self.read(str(path), self.tokenizer, **self.arguments)
                except Exception as cause:
                    reason = explain(document, self.tokenizer, self.arguments, cause)
                    problems.append(f"document {i} {document['title']!r}: {reason}")
        raise_all(
            problems,
            f"{split.path}: documents that the backbone's reader cannot read",
            "correct, shorten or remove these documents",
        )
        if set(arguments) & set(self.script.train_only):
            files = self.script.inputs(self.args, split.path)
            raise_all(
                self.script.explain(files, split.documents),
                f"{split.path}: the backbone's reader stopped ({_name(error)})",
                "make these files again from the same documents",
            )


def explain(document: Mapping[str, Any], tokenizer: Any, arguments: Mapping[str, Any], error: Exception) -> str:
    """Return why a backbone's reader stopped at a document: it is too long, or what the reader raised."""
    limit = arguments.get("max_seq_length")
    tokens = count_tokens(document, tokenizer)
    if limit is not None and tokens >= limit:
        return f"{tokens} tokens, expected fewer than --max_seq_length {limit}: shorten or split the document"
    return _name(error)


def _name(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def count_tokens(document: Mapping[str, Any], tokenizer: Any) -> int:
    """Count a document's tokens as the backbones do: word pieces, and a marker before and after each mention."""
    mentions = [mention for mentions in document["vertexSet"] for mention in mentions]
    markers = {(m["sent_id"], m["pos"][0], "*") for m in mentions} | {(m["sent_id"], m["pos"][1]) for m in mentions}
    return len(markers) + sum(len(tokenizer.tokenize(word)) for sent in document["sents"] for word in sent)

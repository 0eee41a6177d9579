"""The backbone's reader between checked documents and the features of every stage."""

from __future__ import annotations

import inspect
import os
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.attach import attach_features
from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.features import unread_tokens
from segdre_plugin.backbones.script import Script
from segdre_plugin.data.splits import Split, write_plain
from segdre_plugin.errors import SegDREError, raise_all


def call_reader(
    read: Callable[..., Any], script: Script, path: str, tokenizer: Any, args: Namespace, arguments: Mapping[str, Any]
) -> tuple[Any, tuple[Any, ...]]:
    """Call a backbone's reader as its script's description says.

    Returns:
        The features, and what else it gives.

    Raises:
        SegDREError: if it cannot be called so.
    """
    known = {"path": path, "tokenizer": tokenizer, "args": args} | dict(arguments)
    further = {name: value for name, value in arguments.items() if name not in script.reads}
    try:
        leading = [known[name] for name in script.reads]
        inspect.signature(read).bind(*leading, **further)
    except (KeyError, TypeError) as error:
        called = ", ".join([*script.reads, *(f"{name}=" for name in further)])
        raise SegDREError(
            f"{script.names.reader}{inspect.signature(read)} cannot be called with ({called}): {_name(error)}", READS
        ) from None
    found = read(*leading, **further)
    return (found[0], found[1:]) if isinstance(found, tuple) else (found, ())


READS = "describe the reader's positional arguments by Script.reads, those with names by Script.reading"


class Reader:
    """What stands in for the script's reader; it keeps the features for the stages to come."""

    def __init__(
        self,
        read: Callable[..., Any],
        splits: Mapping[str, Split],
        backbone: Backbone,
        script: Script,
        args: Namespace,
        skip_unusable: bool,
        rel2id: Mapping[str, int] | None = None,
    ) -> None:
        self.read, self.splits, self.backbone, self.script = read, splits, backbone, script
        self.args = args
        self.rel2id = rel2id
        self.skip_unusable = skip_unusable  # accept entities that the encoder does not see
        self.tokenizer: Any = None
        self.arguments: dict[str, Any] = {}  # of the last call, those for train only left out
        self._further: dict[str, tuple[Any, ...]] = {}  # split -> what the backbone's reader gives besides features

    def __call__(self, *leading: Any, **named: Any) -> Any:
        """Read a split, or another file as the script would; return what the script's reader does."""
        arguments = self._by_name(leading, named)
        path, self.tokenizer = Path(arguments.pop("path")), arguments.pop("tokenizer")
        self.args = arguments.pop("args", self.args)
        split = next((s for s in self.splits.values() if s.path.resolve() == path.resolve()), None)
        if split is None:
            return self.read(*leading, **named)
        self.arguments = {k: v for k, v in arguments.items() if k not in self.script.train_only}
        self.script.check_reading(self.arguments, self.script.file)  # else its bundle could not be read
        if not split.features:
            self._fill(split, arguments)
        further = self._further.get(split.name, ())
        return (split.features, *further) if further else split.features

    def _by_name(self, leading: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments with which the script calls its reader, by name.

        Raises:
            SegDREError: if they are others than the description says.
        """
        expected = self.script.reads
        found = dict(zip(expected, leading, strict=False)) | dict(named)
        fits = len(leading) <= len(expected) and isinstance(found.get("path"), (str, os.PathLike))
        if not (fits and "tokenizer" in found):
            kinds = [*(type(value).__name__ for value in leading), *(f"{name}=" for name in named)]
            reader = f"{self.script.file} calls {self.script.names.reader}({', '.join(kinds)})"
            raise SegDREError(f"{reader}, expected ({', '.join(expected)})", READS)
        return found

    def _call(self, path: Path, arguments: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...]]:
        return call_reader(self.read, self.script, str(path), self.tokenizer, self.args, arguments)

    def fill_missing(self) -> None:
        """Read the splits that the script did not ask for, as it read the others."""
        for split in self.splits.values():
            if not split.features:
                self._fill(split, self.arguments)

    def _fill(self, split: Split, arguments: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = write_plain(split, Path(folder))
            try:
                features, self._further[split.name] = self._call(path, arguments)
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
        kind = self.args.transformer_type
        attach_features(split, features, self.backbone, kind, self.skip_unusable, self.rel2id)
        unread = [n for feature in split.features if (n := unread_tokens(feature, self.backbone, kind))]
        if unread:
            some = f"{len(unread)} documents have tokens between their windows, up to {max(unread)}"
            print(f"segdre: {split.name}: {some}, which are not read: --seg-windows reads more")

    def _explain(self, split: Split, arguments: dict[str, Any], error: Exception) -> None:
        """Read document by document to find those that the reader stumbles over, and raise."""
        problems = []
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            for i, document in enumerate(split.documents):
                path = write_plain(replace(split, documents=[document]), Path(folder))
                try:
                    self._call(path, self.arguments)
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

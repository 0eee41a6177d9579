"""Use a trained SegDRE: documents in, triples out (sections 3.2 to 3.6 without training).

base -> identify (the salient entity) -> dense (its pairs) -> sparse (the others, dense triples injected) -> thresholds;
the same functions as in a ``--seg`` run, on models from a bundle.
"""

from __future__ import annotations

import copy
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import torch

from segdre_plugin.backbones.clones.compat import on_host
from segdre_plugin.backbones.features import visible_entities
from segdre_plugin.backbones.memory import DeviceMemoryError, enough_memory
from segdre_plugin.backbones.registry import load_adapter
from segdre_plugin.backbones.windows import sliding
from segdre_plugin.data.documents import Document, find_problems
from segdre_plugin.data.own_text import TextReader
from segdre_plugin.data.splits import Split
from segdre_plugin.data.stream import Broken
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.fusion import FusionResult
from segdre_plugin.prediction.answers import build_answers
from segdre_plugin.prediction.clone_code import BackboneCode, load_backbone_code
from segdre_plugin.prediction.features import Rejection, read_whole
from segdre_plugin.prediction.models import build_model, load_encoder
from segdre_plugin.seg.bundle import Description, read_bundle, read_encoder, read_stage, write_bundle
from segdre_plugin.seg.checkpoints import ENCODER
from segdre_plugin.stages.branches import Verbaliser
from segdre_plugin.stages.isf import read_pseudo, with_pseudo
from segdre_plugin.stages.pair_types import untyped
from segdre_plugin.stages.scored import ScoredSplit
from segdre_plugin.stages.stage import build_chain, run_chain
from segdre_plugin.stages.wrap import wrap_collate

SPLIT = "predict"


class SegPipeline:
    """All models of a run, ready to predict; made by :meth:`from_pretrained`.

    Attributes:
        description: what the bundle says.
        models: stage -> wrapped model, in eval mode.
        tokenizer: the encoder's.
        code: the backbone's code.
        encoder_files: the encoder's configuration and the tokenizer as files, name -> content.
        device: where the models are.
        isf: whether inference-stage fusion is used (eq. 11).
    """

    isf: bool = False

    def __init__(
        self,
        description: Description,
        models: Mapping[str, Any],
        tokenizer: Any,
        code: BackboneCode,
        encoder_files: Mapping[str, bytes],
        device: torch.device,
    ) -> None:
        self.description, self.models, self.tokenizer, self.code = description, models, tokenizer, code
        self.encoder_files, self.device = encoder_files, device
        self._collate = wrap_collate(code.collate, adapter=code.backbone)
        self._progress: Callable[[float], Any] | None = None
        verbaliser = Verbaliser(tokenizer, description.relation_names, description.config)
        self._chain = build_chain(description.config, description.rel2id, verbaliser, description.seed)

    def __repr__(self) -> str:
        about = self.description
        relations = f"{len(about.rel2id) - 1} relations"
        return (
            f"SegPipeline({about.adapter!r}, {about.encoder!r}, {relations}, {', '.join(self.models)}, {self.device})"
        )

    @classmethod
    @on_host()
    def from_pretrained(
        cls,
        path: str | Path,
        backbone_dir: str | Path | None = None,
        device: str | torch.device | None = None,
        code: BackboneCode | None = None,
        adapter: str | Path | None = None,
        isf: bool = False,
    ) -> SegPipeline:
        """Return the pipeline of a bundle.

        Args:
            path: its folder.
            backbone_dir: a clone of the backbone; the reference model needs none.
            device: where to compute; None takes a GPU if there is one.
            code: the code of a backbone of your own, in place of a clone.
            adapter: the adapter of a backbone of your own: a Python file with ``BACKBONE`` and ``SCRIPT``.
            isf: fuse with what the base model finds in the predicted evidence alone (eq. 11).

        Raises:
            SegDREError: if the bundle is damaged or has no thresholds for ``isf``, or the clone is missing or not the
                right one.
        """
        folder = Path(path)
        description = read_bundle(folder)
        if isf and description.isf is None:
            raise SegDREError(
                f"{folder}: no thresholds for inference-stage fusion",
                "evaluate the run's dev file with it (DREEAM: --eval_mode fushion), and make the bundle again",
            )
        clone = Path(backbone_dir) if backbone_dir is not None else None
        try:
            own = None if adapter is None else load_adapter(str(adapter))
            code = code or load_backbone_code(description.adapter, clone, description.rel2id, description.modules, own)
        except SegDREError as error:
            raise error.at(folder) from None
        if code.backbone.slides:  # documents of any length
            code = replace(code, backbone=sliding(code.backbone))
        code.script.check_reading(description.reading, str(folder))
        code.script.check_args(description.args, str(folder))
        config, tokenizer = load_encoder(folder / ENCODER)
        where = usable_device(device)
        models = {}
        for stage in description.config.models:
            state = read_stage(folder, stage)
            try:
                model = build_model(code, copy.deepcopy(config), tokenizer, description, stage, state)
                model.load_state_dict(state)
            except Exception as error:  # whatever wrong arguments make foreign code do
                raise SegDREError(
                    f"{folder}: the weights of stage {stage} do not fit: {' '.join(str(error).split())[:300]}",
                    f"use the clone of {code.backbone.name} that the models were trained with",
                ) from None
            with enough_memory(lambda: f"{folder}: moving the models to {where}", "compute elsewhere: --device"):
                models[stage] = model.to(where).eval()
        classes = code.backbone.classes(models["base"])
        if classes != len(description.rel2id):
            problem = f"{len(description.rel2id)} relations (NA included), its models know {classes}"
            raise SegDREError(f"{folder}: {problem}", "make the bundle again")
        pipeline = cls(description, models, tokenizer, code, read_encoder(folder), where)
        pipeline.isf = isf
        return pipeline

    def save_pretrained(self, path: str | Path) -> None:
        """Write a bundle into a folder; one that already exists is replaced."""

        def write_encoder(folder: Path) -> None:
            for name, content in self.encoder_files.items():
                (folder / name).write_bytes(content)

        write_bundle(Path(path), self.description, lambda stage: self.models[stage].state_dict(), write_encoder)

    @overload
    def __call__(self, documents: Document, batch_size: int = 8) -> dict[str, Any]: ...

    @overload
    def __call__(self, documents: Iterable[Document], batch_size: int = 8) -> list[dict[str, Any]]: ...

    def __call__(self, documents: Document | Iterable[Document], batch_size: int = 8) -> Any:
        """Predict one document or several.

        Args:
            documents: a DocRED document, or any number of them; labels and evidence are not needed and not read (but
                the oracle strategy ``gold`` reads labels).
            batch_size: how many go through the models at once; it changes time and memory, not the numbers.

        Returns:
            One answer a document, see :mod:`segdre_plugin.prediction.answers`; a list if a list was given.

        Raises:
            SegDREError: with what is wrong with all documents that cannot be predicted.
        """
        if isinstance(documents, Mapping):
            return self([dict(documents)], batch_size)[0]
        answers = self.answer(list(documents), batch_size)
        problems = [line for answer in answers if isinstance(answer, Rejection) for line in answer.reasons]
        raise_all(problems, "documents that cannot be predicted", "correct or remove them")
        return answers

    @overload
    def from_text(self, texts: str, spacy: Any, batch_size: int = 8) -> dict[str, Any]: ...

    @overload
    def from_text(self, texts: Iterable[str], spacy: Any, batch_size: int = 8) -> list[dict[str, Any]]: ...

    def from_text(self, texts: str | Iterable[str], spacy: Any, batch_size: int = 8) -> Any:
        """Predict plain text, one or several.

        A warning says it if the pipeline has no coreference component, so that mentions of one name are one entity.

        Args:
            texts: a text, or any number of them.
            spacy: the spaCy pipeline that finds sentences and entities (:mod:`segdre_plugin.data.own_text`): its name
                or path, or a loaded one.
            batch_size: as for documents.

        Returns:
            One answer a text, as for documents; a list if several texts were given.

        Raises:
            SegDREError: if the pipeline cannot be used, or with what is wrong with all texts that cannot be predicted.
        """
        several = [texts] if isinstance(texts, str) else list(texts)
        reader = TextReader(spacy)
        documents = [reader.read(text, f"text {i}") for i, text in enumerate(several)]
        problems = [document.reason for document in documents if isinstance(document, Broken)]
        raise_all(problems, "texts that cannot be predicted", "correct or remove them")
        if documents and not reader.coreference:
            warnings.warn(reader.summary(), stacklevel=2)
        answers = self([document for document in documents if not isinstance(document, Broken)], batch_size)
        return answers[0] if isinstance(texts, str) else answers

    @on_host()
    def answer(
        self,
        documents: Sequence[Any],
        batch_size: int = 8,
        first: int = 0,
        progress: Callable[[float], Any] | None = None,
    ) -> list[dict[str, Any] | Rejection]:
        """Return an answer for each document, or why there is none.

        Args:
            documents: anything; documents without problems are predicted.
            batch_size: how many go through the models at once.
            first: the number of the first one, for messages.
            progress: called after each batch of each stage with the share of a document's work times documents.

        Raises:
            SegDREError: if ``batch_size`` is below 1, or so large that the device has not enough memory.
        """
        if batch_size < 1:
            raise SegDREError(f"batch_size is {batch_size}", "pass 1 or more")
        self._progress = progress
        results: list[Any] = [None] * len(documents)
        unread = () if self.description.config.strategy.needs_gold else ("labels",)
        for i, document in enumerate(documents):
            plain = {k: v for k, v in document.items() if k not in unread} if isinstance(document, dict) else document
            problems = find_problems(plain, first + i) or self._unfit(document, first + i)
            results[i] = Rejection(problems) if problems else None
        whole = [i for i, result in enumerate(results) if result is None]
        reading, args = self.description.reading, Namespace(**self.description.args)
        features = read_whole([documents[i] for i in whole], self.code, self.tokenizer, reading, args)
        readable = []
        for i, feature in zip(whole, features, strict=True):
            if isinstance(feature, Rejection):
                results[i] = _placed(feature, first + i, documents[i])
            else:
                readable.append((i, feature))
        split = Split(SPLIT, Path(), [documents[i] for i, _ in readable], [feature for _, feature in readable])
        for (i, _), answer in zip(readable, self._predict_each(split, batch_size), strict=True):
            results[i] = _placed(answer, first + i, documents[i]) if isinstance(answer, Rejection) else answer
        return results

    def _predict_each(self, split: Split, batch_size: int) -> Sequence[dict[str, Any] | Rejection]:
        """Predict a split, and document by document if one of them cannot be."""
        try:
            return self._predict(split, batch_size)
        except SegDREError as error:
            if isinstance(error, DeviceMemoryError) and batch_size > 1:  # the same for one document after the other
                raise
            if len(split.documents) == 1:
                return [Rejection([" ".join(str(error).split())])]
        singles = zip(split.documents, split.features, strict=True)
        return [self._predict_each(Split(SPLIT, split.path, [d], [f]), batch_size)[0] for d, f in singles]

    def _unfit(self, document: Document, index: int) -> list[str]:
        """Return why the models of the bundle cannot read a document without problems."""
        found = untyped(document) if self.description.config.pairs else []
        known = {**self.description.args, **self.description.arguments}
        script = self.code.script
        for field, limit, what in (
            ("sents", script.max_sentences, "sentences"),
            ("vertexSet", script.max_entities, "entities"),
        ):
            most = known.get(limit) if isinstance(limit, str) else limit
            if most is not None and len(document[field]) > most:
                found.append(f"{field}: expected at most {most} {what}, got {len(document[field])}")
        return [f"document {index} {document['title']!r}: {line}" for line in found]

    def _predict(self, split: Split, batch_size: int) -> list[dict[str, Any]]:
        """Run all stages on readable documents."""
        kind = self.models["base"].config.transformer_type
        seen = [visible_entities(feature, self.code.backbone, kind) for feature in split.features]
        kept = [i for i, visible in enumerate(seen) if sum(visible) > 1]  # backbones fail on documents without a pair
        rest = Split(SPLIT, split.path, [split.documents[i] for i in kept], [split.features[i] for i in kept])
        how: dict[str, Any] = {"collate_fn": self._collate, "batch_size": batch_size, "device": self.device}
        found = run_chain(
            self._chain.values(),
            lambda stage: nullcontext(self.models[stage]),
            rest,
            **how,
            progress=self._advance,
        )
        fusion = self.description.thresholds.fusion
        salient = list(found.salient or [])
        scored = ScoredSplit(rest, found.tables, salient, self.description.rel2id, [], fusion)
        about = self.description
        if self.isf and about.isf:
            base, pairs = found.tables["base"], about.config.pairs
            scored = with_pseudo(scored, read_pseudo(self.models["base"], rest, base, pairs, label="", **how))
            about = replace(about, thresholds=FusionResult.of(about.isf["thresholds"]))
        return build_answers(split.documents, seen, scored, found.counts, found.injected, about)

    def _advance(self, documents: int) -> None:
        if self._progress:
            self._progress(documents / len(self.models))


def usable_device(device: str | torch.device | None) -> torch.device:
    """Return a device; None takes a GPU if there is one, else the CPU.

    Raises:
        SegDREError: if there is none of that name, or nothing can be computed there.
    """
    try:
        found = torch.ones(1, device=device or ("cuda" if torch.cuda.is_available() else "cpu"))
        found.sum().item()  # "meta" has no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # by the library that is missing
        reason = str(error).splitlines()[0]
        gpus = ", ".join(f"cuda:{i}" for i in range(torch.cuda.device_count()))
        hint = f"pass cpu{f', {gpus}' if gpus else '; torch sees no GPU here'}"
        raise SegDREError(f"device {str(device)!r}: {reason}", hint) from None
    return found.device


def _placed(rejection: Rejection, index: int, document: Document) -> Rejection:
    return Rejection([f"document {index} {document['title']!r}: {reason}" for reason in rejection.reasons])

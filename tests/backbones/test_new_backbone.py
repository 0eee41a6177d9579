"""docs/new-backbone.md: its blocks run, on a model with other names and on a script that nobody has described."""

import json
import re
import sys
from dataclasses import fields, replace

import pytest
import tiny
import torch
from pages import Page
from torch import nn

from segdre_plugin import Backbone, SegDREError, unwrap_model, wrap_model
from segdre_plugin.backbones.hooks import InjectedPositions
from segdre_plugin.backbones.reference import (
    AdaptiveThresholdLoss,
    ReferenceModel,
    build_encoder,
    build_features,
    build_tokenizer,
    collate_fn,
    prepare_config,
    train,
)
from segdre_plugin.backbones.script import Script
from segdre_plugin.data.synthetic.corpus import write_corpus
from segdre_plugin.seg.launch import entry
from segdre_plugin.zip_head import CountHead, CountLoss

PAGE = Page("new-backbone.md")
run = PAGE.run


class Mine(ReferenceModel):
    """The reference model with other names for its parts, and sentence positions that it does not use."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.bert_model, self.scorer, self.criterion = (
            self._modules.pop(name) for name in ("model", "bilinear", "loss_fnt")
        )

    # the reference model's own code goes by the old names
    model = property(lambda self: self.bert_model)
    bilinear = property(lambda self: self.scorer)
    loss_fnt = property(lambda self: self.criterion)

    def forward(self, input_ids, attention_mask, labels=None, entity_pos=None, hts=None, sent_pos=None):
        assert len(sent_pos) == len(input_ids)
        return super().forward(input_ids, attention_mask, labels, entity_pos, hts)


def mine(tokenizer, classes):
    torch.manual_seed(0)
    encoder = build_encoder(len(tokenizer), hidden=32, layers=2, heads=2)
    config = prepare_config(encoder.config, tokenizer, classes, "bert")
    return Mine(config, encoder, emb_size=16, block_size=4, num_labels=4)


@pytest.fixture
def data(tmp_path):
    write_corpus(tmp_path, train=6, dev=3, test=3, seed=2)
    return tmp_path


def read(data, name):
    return json.loads((data / f"{name}.json").read_text())


def test_model_and_loop(data):
    documents, rel2id, names = (read(data, name) for name in ("train_annotated", "rel2id", "rel_info"))
    tokenizer = build_tokenizer(documents, list(names.values()))
    seen = []

    def collate(batch):
        return (*collate_fn(batch), [None] * len(batch))

    found = run(
        "backbone",
        "loop",
        model=mine(tokenizer, len(rel2id)),
        documents=documents,
        features=[build_features(document, tokenizer, rel2id) for document in documents],
        tokenizer=tokenizer,
        relation_names=names,
        collate_fn=lambda batch: seen.append(batch) or collate(batch),
    )
    found["loss"].backward()
    assert isinstance(found["batch"][3], InjectedPositions)
    assert any(len(part.input_ids) > part.n_document for part in found["batch"][3].injections)
    assert found["predictions"].shape == (sum(len(f["hts"]) for f in seen[0]), len(rel2id))
    assert found["model"].bert_model.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_everything_that_is_missing_is_listed():
    with pytest.raises(SegDREError) as caught:
        wrap_model(tiny.model(), adapter=run("backbone")["BACKBONE"])
    for problem in ("bert_model: missing", "scorer: missing", "criterion: missing", "no argument 'sent_pos'"):
        assert problem in str(caught.value)


@pytest.mark.slow
def test_script(data, tmp_path, monkeypatch, capsys):
    script = replace(
        run("script")["SCRIPT"], reading={"rel2id": dict, "max_seq_length": int}
    )  # what the reference's reader takes
    backbone = Backbone(name="mine", repository="here", batch=tiny.ATLOP.batch)
    names = dict(vars(train))
    for name in ("main", "train", "evaluate", "read_docred"):  # the same functions, of a module of our own
        function = names[name]
        names[name] = type(function)(function.__code__, names, name, function.__defaults__, function.__closure__)
    main = entry(names, backbone, script)
    flags = ["--data_dir", str(data), "--num_class", str(len(read(data, "rel2id"))), "--num_train_epochs", "1"]
    seg = ["--seg", "--seg-dir", str(tmp_path / "out"), "--seg-identify-epochs", "1", "--seg-hidden", "8"]
    monkeypatch.setattr(sys, "argv", ["train.py", *flags, "--emb_size", "16", "--block_size", "4", *seg])
    main()
    assert "fused" in capsys.readouterr().out
    for stage in ("base", "identify", "dense", "sparse"):
        assert (tmp_path / "out" / stage / "best.pt").is_file()


def test_fields_that_the_page_names_exist():
    known = {field.name for spec in (Backbone, Script) for field in fields(spec)}
    part = PAGE.text[PAGE.text.index("The other fields") :]
    rows = re.findall(r"^\| (`[^|]*) \|", part, re.M)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 40
    assert named <= known


def test_a_backbone_of_the_users_own():
    class Renamed(nn.Module):
        """ATLOP with other names for its parts."""

        def __init__(self):
            super().__init__()
            inner = tiny.model()
            self.bert, self.scorer, self.criterion = inner.model, inner.bilinear, AdaptiveThresholdLoss()
            self.config, self.num_labels = inner.config, 4

        def encode(self):
            """Stand here."""

        get_hrt = encode

        def forward(self, input_ids, attention_mask, labels, entity_pos, hts):
            return self.scorer(torch.zeros(1, self.scorer.in_features))

    spec = Backbone(
        name="renamed",
        repository="mine",
        batch=tiny.ATLOP.batch,
        encoder="bert",
        classifier="scorer",
        loss="criterion",
    )
    model = Renamed()
    with pytest.raises(SegDREError, match=r"Renamed\.bilinear: missing"):
        wrap_model(model, adapter="atlop")
    wrap_model(model, stage="identify", adapter=spec)
    assert isinstance(model.scorer, CountHead)
    assert isinstance(model.criterion, CountLoss)
    unwrap_model(model)
    assert isinstance(model.scorer, nn.Linear)
    assert isinstance(model.criterion, AdaptiveThresholdLoss)

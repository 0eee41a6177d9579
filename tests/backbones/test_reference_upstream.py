"""The reference model and its features against the real ATLOP: the same numbers from the same weights and files."""

import importlib.util
import json
import sys

import pytest
import torch
from torch import nn

from segdre_plugin.backbones.reference import ReferenceModel, build_features, collate_fn, prepare_config

pytestmark = [pytest.mark.upstream, pytest.mark.slow]


@pytest.fixture
def load_upstream(atlop, tmp_path, redocred, monkeypatch):
    """Load modules of the clone; sys.modules, sys.path and the working directory are as before after the test."""
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "rel2id.json").write_text((redocred / "rel2id.json").read_text())
    monkeypatch.chdir(tmp_path)  # prepro reads meta/rel2id.json at import

    def load(name):
        spec = importlib.util.spec_from_file_location(name, atlop / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return load


class OldTokenizer:
    """A tokenizer with the method that transformers 5 dropped."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def build_inputs_with_special_tokens(self, ids):
        return [self.tokenizer.cls_token_id, *ids, self.tokenizer.sep_token_id]


class TupleEncoder(nn.Module):
    """Gives the plain tuple that upstream reads by position."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, **inputs):
        output = self.encoder(**inputs)
        return output.last_hidden_state, output.attentions


@pytest.mark.parametrize("max_seq_length", [1024, 200])
def test_features_equal_upstream(load_upstream, redocred, encoder_dir, tmp_path, max_seq_length):
    pytest.importorskip("ujson")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    documents = json.loads((redocred / "dev.json").read_text())[:40]
    documents.append({key: value for key, value in documents[0].items() if key != "labels"})
    (tmp_path / "documents.json").write_text(json.dumps(documents))
    prepro = load_upstream("prepro")
    expected = prepro.read_docred(str(tmp_path / "documents.json"), OldTokenizer(tokenizer), max_seq_length)
    relations = json.loads((redocred / "rel2id.json").read_text())
    ours = [build_features(document, tokenizer, relations, max_seq_length=max_seq_length) for document in documents]
    assert ours == expected
    utils = load_upstream("utils")
    for mine, theirs in zip(collate_fn(ours[:5]), utils.collate_fn(expected[:5]), strict=True):
        if isinstance(mine, torch.Tensor):
            assert mine.dtype == theirs.dtype
            assert torch.equal(mine, theirs)
        else:
            assert mine == theirs


@pytest.mark.parametrize("transformer_type", ["bert", "roberta"])
def test_same_weights_give_upstreams_numbers(load_upstream, redocred, encoder_dir, monkeypatch, transformer_type):
    from transformers import AutoModel, AutoTokenizer

    before = set(sys.modules)
    for name in ("long_seq", "losses"):
        load_upstream(name)
    upstream = load_upstream("model")
    assert {"long_seq", "losses", "model"} <= set(sys.modules) - before
    tokenizer = AutoTokenizer.from_pretrained(encoder_dir)
    encoder = AutoModel.from_pretrained(encoder_dir, attn_implementation="eager", num_hidden_layers=2).eval()
    config = prepare_config(encoder.config, tokenizer, 97, transformer_type)
    config.max_position_embeddings += (
        transformer_type == "roberta"
    )  # as RoBERTa counts; positions start behind the padding's
    torch.manual_seed(0)
    theirs = upstream.DocREModel(config, encoder, emb_size=128, block_size=32, num_labels=4).eval()
    ours = ReferenceModel(config, encoder, emb_size=128, block_size=32, num_labels=4).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.model = TupleEncoder(encoder)

    relations = json.loads((redocred / "rel2id.json").read_text())
    documents = sorted(json.loads((redocred / "dev.json").read_text()), key=lambda d: sum(map(len, d["sents"])))
    features = [build_features(d, tokenizer, relations) for d in [*documents[:2], documents[-1]]]
    assert len(features[0]["input_ids"]) < 512 < len(features[-1]["input_ids"])
    seen = []
    for model in (ours, theirs):
        model.bilinear.register_forward_hook(lambda module, inputs, output: seen.append(output))
    for batch in (collate_fn(features), collate_fn(features[:2])):  # with two windows, with one
        seen.clear()
        results = []
        for model in (ours, theirs):
            fresh = [[row[:] for row in document] for document in batch[2]]
            results.append(model(*batch[:2], fresh, *batch[3:]))
        torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
        assert torch.equal(results[0][1], results[1][1])

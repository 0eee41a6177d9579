"""The real ATLOP: its model on real documents, and the windows that it feeds to its encoder."""

import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest
import tiny
import torch
import transformers
import upstream
from locate import REPOSITORY
from scripts import importer
from torch import nn

from segdre_plugin import SegConfig, unwrap_model, wrap_collate, wrap_model
from segdre_plugin.backbones.clones.compat import AutoTokenizer
from segdre_plugin.backbones.features import FEATURE, visible_entities
from segdre_plugin.backbones.windows import merge, split
from segdre_plugin.stages.config import STAGES
from segdre_plugin.zip_head import CountHead

pytestmark = [pytest.mark.upstream, pytest.mark.slow]
script = importer(REPOSITORY / "benchmarks")
N_DOCUMENTS = 4


@pytest.fixture(scope="module")
def clone(atlop, redocred, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cwd")
    (folder / "meta").mkdir()
    shutil.copy(redocred / "rel2id.json", folder / "meta")
    before = set(sys.modules), list(sys.path), os.getcwd()
    modules = upstream.load(atlop, ("model", "losses", "long_seq", "utils", "prepro"), folder)
    left = {name for name in set(sys.modules) - before[0] if name in vars(modules)}
    assert (left, sys.path, os.getcwd()) == (set(), before[1], before[2])
    return modules


@pytest.fixture(scope="module")
def features(clone, redocred, encoder_dir, tmp_path_factory):
    """Read real documents with the real reader and a real tokenizer."""
    path = tmp_path_factory.mktemp("data") / "dev.json"
    documents = json.loads((redocred / "dev.json").read_text())
    path.write_text(json.dumps(sorted(documents, key=lambda d: sum(map(len, d["sents"])))[20 : 20 + N_DOCUMENTS]))
    return clone.prepro.read_docred(str(path), AutoTokenizer.from_pretrained(str(encoder_dir)))


@pytest.fixture
def model(clone):
    """Return a real DocREModel around a tiny encoder with the real vocabulary."""
    encoder = tiny.encoder(vocabulary=30522)
    config = tiny.configure(encoder.config, classes=97)
    return clone.model.DocREModel(config, encoder, emb_size=16, block_size=4, num_labels=4).eval()


class Tuples(nn.Module):
    """The encoder as ATLOP knew it: outputs end in the attentions."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, **kwargs):
        output = self.encoder(**kwargs)
        return output.last_hidden_state, output.attentions


def unwrapped_logits(model, batch):
    """Run the model without the plugin; on transformers 5 that takes an encoder that gives tuples."""
    plain = tiny.twin(model)
    if int(transformers.__version__.split(".")[0]) >= 5:
        plain.model = Tuples(plain.model)
    return tiny.logits(plain, batch)


def test_a_step_takes_few_operators_whatever_the_documents(clone, features, script):
    """Six layers and twelve blocks, on a GPU's branches; tests/backbones/test_operators.py has the controls."""
    counted, encoder = script("operators"), tiny.encoder(vocabulary=30522, num_hidden_layers=6)
    config = tiny.configure(encoder.config, classes=97)
    model = wrap_model(clone.model.DocREModel(config, encoder, emb_size=96, block_size=8, num_labels=4)).train()
    found = []
    for some in (features[:2], features[2:]):
        one = clone.utils.collate_fn(some)
        model.zero_grad()
        with counted.as_on_cuda():
            found.append(counted.count(lambda one=one: model(*one)[0].backward())[:2])
    assert found[0] == found[1]
    assert found[0][0] <= 1500


class TestModel:
    def test_base_gives_the_logits_of_the_unwrapped_model(self, clone, model, features):
        batch = clone.utils.collate_fn(features)
        due = unwrapped_logits(model, batch)
        assert due.shape == (sum(len(feature["hts"]) for feature in features), 97)
        wrap_model(model, fast=False)
        collated = wrap_collate(clone.utils.collate_fn, adapter="atlop")(features)
        assert torch.equal(tiny.logits(model, collated), due)

    def test_a_batch_of_one_long_document(self, clone, model, features):
        long = features[0] | {"input_ids": [*features[0]["input_ids"][:-1] * 8][:700]}
        batch = clone.utils.collate_fn([long, features[1]])
        assert batch[0].shape[1] == 700
        due = unwrapped_logits(model, batch)
        wrap_model(model, fast=False)
        assert torch.equal(tiny.logits(model, batch), due)

    @pytest.mark.parametrize("stage", ["base", "dense", "sparse"])
    def test_state_dict_stays_upstreams(self, model, stage):
        keys = list(model.state_dict())
        wrap_model(model, stage=stage)
        assert list(model.state_dict()) == keys
        unwrap_model(model)
        assert list(model.state_dict()) == keys

    def test_identify_trains_in_upstreams_forward(self, clone, model, features):
        wrap_model(model, stage="identify", config=SegConfig(hidden=8)).train()
        assert isinstance(model.bilinear, CountHead)
        loss, counts = model(*clone.utils.collate_fn(features[:2]))
        loss.backward()
        assert counts.shape == (sum(len(feature["hts"]) for feature in features[:2]),)
        assert all(p.grad.abs().sum() > 0 for p in model.bilinear.parameters())

    def test_sparse_without_branches_is_base_and_with_branches_is_not(self, clone, model, features):
        collate = wrap_collate(clone.utils.collate_fn, adapter="atlop")
        due = unwrapped_logits(model, clone.utils.collate_fn(features))
        wrap_model(model, stage="sparse")
        none, some = ([tiny.injected(feature, tiny.branches(n)) for feature in features] for n in (0, 5))
        torch.testing.assert_close(tiny.logits(model, collate(none)), due, rtol=0, atol=1e-6)
        assert (tiny.logits(model, collate(some)) - due).abs().max() > 1e-3

    @torch.no_grad()
    def test_windows_without_a_limit_give_its_two_windows(self, clone, model):
        wrap_model(model, fast=False)  # its encode finds the encoder's outputs
        made = [tiny.feature(n, mentions=[]) for n in (700, 40, 1024)]
        ids, mask, *_ = clone.utils.collate_fn(made)
        rows, masks, documents = split(ids, mask, [2], [3], 512, None)
        assert len(rows) == 5
        found = merge(*model.encode(rows, masks), documents, 1024)
        for ours, theirs in zip(found, model.encode(ids, mask), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)

    @pytest.mark.slow
    @pytest.mark.parametrize("stage", STAGES)
    def test_the_fast_path_gives_the_same_logits_and_gradients(self, clone, model, features, stage):
        batch = tiny.two_windows(model, features)
        if stage == "sparse":
            batch = [tiny.injected(one, tiny.branches(5)) for one in batch]
        collated = wrap_collate(clone.utils.collate_fn, adapter="atlop")(batch)

        def run(model):
            model(*collated)[0].backward()
            grads = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            return tiny.logits(model, collated).detach(), grads

        plain, fast = tiny.plain_and_fast(model, stage, run)
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_checkpointing_gives_the_same_gradients(self, clone, model, features):
        batch = [tiny.injected(one, tiny.branches(5)) for one in tiny.two_windows(model, features)]
        collated = wrap_collate(clone.utils.collate_fn, adapter="atlop")(batch)

        def run(model):
            model(*collated)[0].backward()
            return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

        plain, again = tiny.plain_and_checkpointed(model, "sparse", run)
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-7)

    def test_entities_of_real_documents_are_seen(self, features):
        for feature in features:
            assert all(visible_entities(feature, tiny.ATLOP, "bert"))


class Recorder(nn.Module):
    """An encoder that remembers what it gets; a token's state is its id."""

    def forward(self, input_ids, attention_mask, output_attentions):
        self.ids, self.mask = input_ids, attention_mask
        n = input_ids.shape[1]
        attention = torch.eye(n).expand(len(input_ids), 1, n, n)
        return input_ids[..., None].float() + 1, (attention,)


LENGTHS = (30, 511, 512, 513, 700, 1022, 1024)


@pytest.mark.parametrize("lengths", [*((n,) for n in LENGTHS), LENGTHS])
@pytest.mark.parametrize("kind", tiny.KINDS)
class TestWindows:
    @staticmethod
    def record(clone, kind, lengths):
        made = [tiny.feature(n, kind=kind, seed=n) for n in lengths]
        ids, mask, *_ = clone.utils.collate_fn(made)
        recorder, special = Recorder(), tiny.SPECIAL[kind]
        ends = [special["sep"]] * tiny.ATLOP.end_tokens[kind]
        states, _ = clone.long_seq.process_long_input(recorder, ids, mask, [special["cls"]], ends)
        return made, recorder, states

    def test_are_those_of_upstream(self, clone, kind, lengths):
        made, recorder, _ = self.record(clone, kind, lengths)
        ours = [part for one in made for part in tiny.injected(one, [([90], 1)], kind=kind)[FEATURE]]
        assert len(ours) == len(recorder.ids) == len(lengths) + sum(n > 512 for n in lengths)
        for part, ids, mask in zip(ours, recorder.ids, recorder.mask, strict=True):
            assert part.n_document == mask.sum()
            assert part.input_ids[: part.n_document].tolist() == ids[: part.n_document].tolist()

    def test_visible_entities_are_those_that_upstream_reads(self, clone, kind, lengths):
        """A token that is in no window is left at zero."""
        made, _, states = self.record(clone, kind, lengths)
        for one, read in zip(made, states, strict=True):
            n = len(one["input_ids"])
            every = one | {"entity_pos": [[(start, start + 1)] for start in range(n + 5)]}
            due = [start + 1 < n - 1 and bool(read[start + 1] > 0) for start in range(n + 5)]
            assert visible_entities(every, tiny.ATLOP, kind) == due


def test_loading_leaves_modules_of_the_same_name_alone(atlop, redocred, tmp_path, monkeypatch):
    (tmp_path / "meta").mkdir()
    shutil.copy(redocred / "rel2id.json", tmp_path / "meta")
    mine = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "losses", mine)
    modules = upstream.load(atlop, ("losses", "prepro"), tmp_path)
    assert sys.modules["losses"] is mine
    assert hasattr(modules.losses, "ATLoss")
    assert "prepro" not in sys.modules

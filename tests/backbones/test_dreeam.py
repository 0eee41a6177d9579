"""The real DREEAM: its model on real documents, its evidence under injection."""

import json
import shutil

import numpy as np
import pytest
import slow
import tiny
import torch
import transformers
import upstream
from torch import nn

from segdre_plugin import SegConfig, wrap_collate, wrap_model
from segdre_plugin.adapters import BACKBONES, SCRIPTS
from segdre_plugin.backbones.attention import check_encoder
from segdre_plugin.backbones.clones.compat import AutoTokenizer
from segdre_plugin.backbones.features import keep_pairs
from segdre_plugin.backbones.registry import find_backbone
from segdre_plugin.stages.config import STAGES

DREEAM = BACKBONES["dreeam"]
N_DOCUMENTS = 4
pytestmark = [pytest.mark.upstream, pytest.mark.slow]


@pytest.fixture(scope="module")
def clone(dreeam, redocred, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cwd")
    (folder / "meta").mkdir()
    shutil.copy(redocred / "rel2id.json", folder / "meta")
    return upstream.load(dreeam, ("model", "losses", "long_seq", "utils", "prepro"), folder)


@pytest.fixture(scope="module")
def features(clone, redocred, encoder_dir, tmp_path_factory):
    """Read real documents with the real reader and a real tokenizer."""
    path = tmp_path_factory.mktemp("data") / "dev.json"
    documents = json.loads((redocred / "dev.json").read_text())
    path.write_text(json.dumps(sorted(documents, key=lambda d: sum(map(len, d["sents"])))[20 : 20 + N_DOCUMENTS]))
    return clone.prepro.read_docred(str(path), AutoTokenizer.from_pretrained(str(encoder_dir)))


def make_model(clone, *, kind="bert", classes=97, vocabulary=30522):
    encoder = tiny.encoder(kind, vocabulary=vocabulary, num_hidden_layers=4)
    config = tiny.configure(encoder.config, kind, classes=classes)
    # random attention is spread over the document: a low bar for evidence
    how = {"emb_size": 16, "block_size": 4, "num_labels": 4, "max_sent_num": 25, "evi_thresh": 0.1}
    return clone.model.DocREModel(config, encoder, None, **how).eval()


@pytest.fixture
def model(clone):
    return make_model(clone)


def test_the_log_of_stage_identify_names_saliency_as_saliency():
    kept, printed, *_ = SCRIPTS["dreeam"].scores(0.5, {"saliency": 0.5, "accuracy": 0.25})
    assert printed == {"dev_saliency": 50.0, "dev_accuracy": 25.0}
    assert kept["dev_F1_ign"] == 50.0  # by which the script keeps a checkpoint
    _, printed, *_ = SCRIPTS["dreeam"].scores(0.5, {"F1": 0.5, "F1_ign": 0.25})
    assert printed == {"dev_F1": 50.0, "dev_F1_ign": 25.0}


class Tuples(nn.Module):
    """The encoder as DREEAM knew it: outputs end in hidden states and attentions."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, **kwargs):
        output = self.encoder(**kwargs)
        return output.last_hidden_state, output.hidden_states, output.attentions


def unwrapped(model):
    plain = tiny.twin(model)
    if int(transformers.__version__.split(".")[0]) >= 5:
        plain.model = Tuples(plain.model)
    return plain


def inputs(batch, **more):
    return dict(zip(DREEAM.batch, batch, strict=True)) | more


def random_teacher(features, seed=0):
    rng = np.random.default_rng(seed)
    rows = [rng.random((len(f["hts"]), len(f["input_ids"])), dtype=np.float32) for f in features]
    for row in rows:
        row[:, 1::3] = 0.0  # what DREEAM's forward writes into
    return [row / row.sum(axis=1, keepdims=True) for row in rows]


def flat(output):
    """Put all tensors of an output side by side."""
    losses = {f"loss.{name}": value for name, value in output.get("loss", {}).items()}
    attns = {f"attns.{i}": value for i, value in enumerate(output.get("attns", ()))}
    return {k: v for k, v in output.items() if k not in ("loss", "attns")} | losses | attns


def assert_same(found, due):
    found, due = flat(found), flat(due)
    assert found.keys() == due.keys()
    for name, value in due.items():
        assert torch.equal(found[name], value), name


class TestForward:
    @pytest.mark.parametrize("tag", ["dev", "infer"])
    def test_base_gives_relations_evidence_and_losses_of_the_unwrapped_model(self, clone, model, features, tag):
        batch = clone.utils.collate_fn(features)
        due = unwrapped(model)(**inputs(batch, tag=tag))
        expected = {"rel_pred", "evi_pred"} | ({"attns"} if tag == "infer" else {"scores", "topks", "loss"})
        assert due.keys() == expected
        assert due["evi_pred"].any()
        wrap_model(model, fast=False)
        assert_same(model(**inputs(wrap_collate(clone.utils.collate_fn, adapter="dreeam")(features), tag=tag)), due)

    def test_long_documents(self, clone, model, features):
        long = features[0] | {"input_ids": [*features[0]["input_ids"][:-1] * 8][:700]}
        batch = clone.utils.collate_fn([long, features[1]])
        due = unwrapped(model)(**inputs(batch, tag="dev"))
        wrap_model(model, fast=False)
        assert_same(model(**inputs(batch, tag="dev")), due)

    def test_teacher_attentions_are_not_written_to(self, clone, model, features):
        taught = [f | {"attns": rows} for f, rows in zip(features, random_teacher(features), strict=True)]
        batch = clone.utils.collate_fn(taught)
        teacher = batch[-1].clone()
        assert (teacher == 0).any()
        wrap_model(model, fast=False)
        found = model(**inputs(batch, sent_labels=None))
        assert torch.equal(batch[-1], teacher)
        positional = model(*batch[:6], None, batch[-1])
        assert torch.equal(batch[-1], teacher)
        assert_same({k: v for k, v in positional.items() if k == "rel_pred"}, {"rel_pred": found["rel_pred"]})
        due = unwrapped(make_model(clone))(**inputs(batch, sent_labels=None))
        assert_same(found, due)
        assert not torch.equal(batch[-1], teacher)  # negative control: upstream's own forward does write

    @pytest.mark.slow
    @pytest.mark.parametrize("stage", STAGES)
    @pytest.mark.parametrize("tag", ["train", "dev", "infer"])
    def test_the_fast_path_gives_the_same(self, clone, model, features, stage, tag):
        batch = tiny.two_windows(model, features)
        if stage == "sparse":
            batch = [tiny.injected(one, tiny.branches(5), backbone=DREEAM) for one in batch]
        collated = wrap_collate(clone.utils.collate_fn, adapter="dreeam")(batch)

        def run(model):
            output = flat(model(**inputs(collated, tag=tag)))
            if tag == "train":
                sum(value for name, value in output.items() if name.startswith("loss.")).backward()
            grads = {f"grad.{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            assert bool(grads) == (tag == "train")
            return {name: value.detach() for name, value in output.items()} | grads

        plain, fast = tiny.plain_and_fast(model, stage, run)
        torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    def test_checkpointing_gives_the_same_gradients(self, clone, model, features):
        batch = [tiny.injected(one, tiny.branches(5), backbone=DREEAM) for one in tiny.two_windows(model, features)]
        collated = wrap_collate(clone.utils.collate_fn, adapter="dreeam")(batch)

        def run(model):
            sum(model(**inputs(collated))["loss"].values()).backward()
            return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

        plain, again = tiny.plain_and_checkpointed(model, "sparse", run)
        torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-7)

    def test_evidence_loss_without_a_positive_pair_is_zero(self, clone, model, features):
        negative = [keep_pairs(f, np.array([row[0] == 1 for row in f["labels"]]), DREEAM) for f in features]
        batch = clone.utils.collate_fn(negative)
        assert unwrapped(model)(**inputs(batch))["loss"]["evi_loss"].isnan()
        wrap_model(model).train()
        losses = model(**inputs(batch))["loss"]
        assert losses["evi_loss"] == 0
        sum(losses.values()).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

    def test_identify_trains_in_upstreams_forward(self, clone, model, features):
        wrap_model(model, stage="identify", config=SegConfig(hidden=8)).train()
        output = model(**inputs(clone.utils.collate_fn(features[:2]), tag="dev"))
        assert output["rel_pred"].shape == (sum(len(f["hts"]) for f in features[:2]),)
        sum(output["loss"].values()).backward()
        assert all(p.grad.abs().sum() > 0 for p in model.bilinear.parameters())

    def test_it_is_the_most_specific_backbone(self, model):
        assert not BACKBONES["atlop"].problems(model)  # it is an ATLOP, too
        assert find_backbone(model) is DREEAM
        assert find_backbone(tiny.model()).name == "atlop"


def sentence_feature(n, kind):
    """A random document with sentences of about ten tokens, gold evidence for some pairs."""
    one = tiny.feature(n, kind=kind, seed=n)
    ends = [*range(10, n - 12, 10), n - 2]
    sentences = list(zip([0, *ends[:-1]], ends, strict=True))
    return one | {"sent_pos": sentences, "sent_labels": [[k % 2] * len(sentences) for k in range(len(one["hts"]))]}


@pytest.mark.parametrize("kind", tiny.KINDS)
class TestInjection:
    """Evidence is a distribution over the document's own tokens, also where branches are attended to."""

    @staticmethod
    def wrapped(clone, kind):
        return wrap_model(
            make_model(clone, kind=kind, classes=tiny.CLASSES, vocabulary=tiny.VOCABULARY), stage="sparse"
        )

    @staticmethod
    def slow_attention(model, one, texts, kind):
        """Attention of the last three layers in the appended layout, token by token; the document's tokens only."""
        ids, anchors = one["input_ids"], [(s + 1, e + 1) for s, e in one["entity_pos"][0]]
        document, leaves = slow.tree(ids, anchors, [tokens for tokens, _ in texts], offset=tiny.OFFSET[kind])
        tokens = slow.appended(document, leaves, anchors)
        visible = torch.as_tensor(slow.matrix(tokens, anchors))[None]
        ids = torch.tensor([[token.id for token in tokens]])
        output = model.model.forward(  # past the hooks
            input_ids=ids,
            position_ids=torch.tensor([[token.position for token in tokens]]),
            token_type_ids=torch.zeros_like(ids),
            attention_mask=check_encoder(model.model, kind, 512)(visible, torch.float32),
            output_attentions=True,
        )
        n = len(document)
        whole = torch.stack(output.attentions[-3:]).mean(0)[0]  # [heads, tokens, tokens]
        return whole[:, :n, :n], whole

    @torch.no_grad()
    def test_distributions_are_those_over_document_tokens(self, clone, kind):
        model = self.wrapped(clone, kind)
        one, texts = sentence_feature(60, kind), tiny.branches(6)
        batch = wrap_collate(clone.utils.collate_fn, adapter="dreeam")([tiny.injected(one, texts, kind=kind)])
        output = model(**inputs(batch, tag="infer"))
        attention, whole = self.slow_attention(model, one, texts, kind)
        start = one["entity_pos"][0][0][0] + 1
        assert whole[:, start, 60:].sum() > 0.05  # the salient entity does look at its branches
        for row, evidence, (h, t) in zip(output["attns"][0], output["evi_pred"], one["hts"], strict=True):
            focus = [attention[:, [s + 1 for s, _ in one["entity_pos"][e]]].mean(1) for e in (h, t)]
            shared = (focus[0] * focus[1]).mean(0)
            due = shared / shared.sum()
            torch.testing.assert_close(row, due, rtol=0, atol=1e-5)
            assert row.sum() == pytest.approx(1, abs=1e-5)
            sums = torch.stack([due[s + 1 : e + 1].sum() for s, e in one["sent_pos"]])
            clear = (sums - model.evi_thresh).abs() > 1e-4
            assert torch.equal(evidence[: len(sums)][clear], (sums > model.evi_thresh)[clear])
            assert not evidence[len(sums) :].any()

    @torch.no_grad()
    def test_branches_change_the_distributions(self, clone, kind):
        model = self.wrapped(clone, kind)
        collate = wrap_collate(clone.utils.collate_fn, adapter="dreeam")
        one = sentence_feature(60, kind)
        none, some = (
            model(**inputs(collate([tiny.injected(one, tiny.branches(n), kind=kind)]), tag="infer"))["attns"][0]
            for n in (0, 6)
        )
        assert (none - some).abs().max() > 1e-3

    def test_trains_with_teacher_attentions(self, clone, kind):
        model = self.wrapped(clone, kind).train()
        made = [sentence_feature(n, kind) for n in (40, 61)]
        taught = [f | {"attns": rows} for f, rows in zip(made, random_teacher(made), strict=True)]
        kept = [keep_pairs(f, np.arange(len(f["hts"])) % 2 == 0, DREEAM) for f in taught]
        assert all(f["attns"].shape == (6, len(f["input_ids"])) for f in kept)
        collate = wrap_collate(clone.utils.collate_fn, adapter="dreeam")
        batch = collate([tiny.injected(f, tiny.branches(3), kind=kind) for f in kept])
        losses = model(**inputs(batch, sent_labels=None))["loss"]
        sum(losses.values()).backward()
        assert losses["attn_loss"] > 0
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)

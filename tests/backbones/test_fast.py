"""The fast path against the plain one: values and gradients, what it falls back on, and that it can be undone."""

import warnings
from dataclasses import replace

import pytest
import tiny
import torch

from segdre_plugin import SegConfig, SegDREError, unwrap_model, wrap_collate, wrap_model
from segdre_plugin.backbones.fast import encoder as fast_encoder
from segdre_plugin.backbones.fast.pooling import PairPooler
from segdre_plugin.backbones.reference import collate_fn
from segdre_plugin.stages.config import STAGES

NAMED = hasattr(__import__("transformers").models.bert.modeling_bert, "ALL_ATTENTION_FUNCTIONS")


def batch(kind="bert", stage="base", seed=0):
    features = [tiny.feature(n, kind=kind, seed=n + seed) for n in (40, 61, 33)]
    if stage != "sparse":
        return collate_fn(features)
    texts = [tiny.branches(k, seed=k) for k in (3, 0, 5)]
    return wrap_collate(collate_fn, adapter="atlop")(
        [tiny.injected(one, some, kind=kind) for one, some in zip(features, texts, strict=True)]
    )


def run(model, one):
    model.zero_grad()
    loss, _ = model(*one)
    loss.backward()
    return tiny.logits(model, one).detach(), {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("stage", STAGES)
class TestModel:
    def test_logits_and_gradients_are_those_of_the_plain_path(self, kind, stage):
        found = tiny.plain_and_fast(tiny.model(kind).double(), stage, lambda model: run(model, batch(kind, stage)))
        (due, due_grads), (logits, grads) = found
        torch.testing.assert_close(logits, due, rtol=1e-9, atol=1e-11)
        assert grads.keys() == due_grads.keys()
        for name, grad in grads.items():
            torch.testing.assert_close(grad, due_grads[name], rtol=1e-8, atol=1e-10, msg=name)
        assert any(not torch.equal(grads[name], due_grads[name]) for name in grads)  # it is another way, though

    @pytest.mark.slow
    def test_in_float32_to_1e_5(self, kind, stage):
        found = tiny.plain_and_fast(tiny.model(kind), stage, lambda model: run(model, batch(kind, stage)))
        torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-5)
        for name, grad in found[1][1].items():
            torch.testing.assert_close(grad, found[0][1][name], rtol=1e-4, atol=1e-5, msg=name)

    @pytest.mark.slow
    def test_bf16_is_near_and_can_be_undone(self, kind, stage):
        model = tiny.model(kind)
        torch.manual_seed(1)
        wrap_model(model, stage=stage, config=SegConfig(hidden=8))
        due = tiny.logits(model, batch(kind, stage))
        unwrap_model(model)
        torch.manual_seed(1)
        wrap_model(model, stage=stage, config=SegConfig(hidden=8), bf16=True)
        logits, grads = run(model, batch(kind, stage))
        assert logits.dtype == torch.float32
        assert all(g.dtype == torch.float32 and g.isfinite().all() for g in grads.values())
        assert not torch.equal(logits, due)
        assert (logits - due).abs().mean() < 0.05 * due.abs().mean() + 0.02
        assert not torch.is_autocast_enabled("cpu")
        with pytest.raises(SegDREError):
            model(*batch(kind, stage)[:3])
        assert not torch.is_autocast_enabled("cpu")


class TestPooling:
    def test_get_hrt_of_the_model(self):
        model = tiny.model().double()
        one = collate_fn(
            [tiny.feature(40, mentions=[[(1, 3)], [(5, 8), (60, 63)], [(70, 72)], [(2, 4), (9, 12), (20, 21)]])]
        )
        states, attention = model.encode(*one[:2])
        pairs = [[[0, 1], [1, 0], [2, 3], [3, 3], [1, 2]]]
        due = model.get_hrt(states, attention.double(), one[3], pairs)
        found = PairPooler(1, 1e-5, False)(states, attention.double(), one[3], pairs)
        for ours, theirs in zip(found, due, strict=True):
            torch.testing.assert_close(ours.tensor(), theirs)
        assert (due[0][2] == 0).all()  # an entity without a mention in the input

    def test_a_get_hrt_of_ones_own_is_used(self):
        class Own(type(tiny.model())):
            def get_hrt(self, *args):
                return tuple(2 * part for part in super().get_hrt(*args))

        model = tiny.model(cls=Own)
        due = tiny.logits(model, batch())
        with pytest.warns(UserWarning, match="get_hrt does not pool as atlop's does"):
            wrap_model(model)
        assert "get_hrt" not in vars(model)
        assert torch.equal(tiny.logits(model, batch()), due)
        unwrap_model(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            wrap_model(model, fast=False)

    def test_a_backbone_that_says_nothing_has_no_fast_path(self):
        model = wrap_model(tiny.model(), adapter=tiny.another(pooling=None))
        assert "get_hrt" not in vars(model)
        assert model.model.config._attn_implementation == "eager"

    def test_a_head_written_otherwise_is_right(self):
        """No word of it is known to the fast path, but the tensors are."""

        class Other(type(tiny.model())):
            def forward(self, input_ids, attention_mask, labels=None, entity_pos=None, hts=None):
                states, attention = self.encode(input_ids, attention_mask)
                hs, rs, ts = self.get_hrt(states, attention, entity_pos, hts)
                head = torch.tanh(self.head_extractor(torch.hstack([hs, 2 * rs])))
                products = torch.einsum("pi,pj->pij", head.view(-1, 16), ts[:, :4] + rs[:, :4])
                return (self.bilinear(products.reshape(len(products), -1)),)

        model = tiny.model(cls=Other).double()
        due = tiny.logits(model, batch())
        wrap_model(model)
        assert "get_hrt" in vars(model)
        torch.testing.assert_close(tiny.logits(model, batch()), due)


@pytest.mark.skipif(not NAMED, reason="this transformers chooses BERT's attention at construction: eager is used")
class TestEncoder:
    def test_gives_weights_of_the_last_layers_only(self):
        model = wrap_model(tiny.model(num_hidden_layers=4), adapter=tiny.another(pooling=_pooling(layers=3)))
        ids, mask, *_ = batch()
        output = model.model(input_ids=ids, attention_mask=mask, output_attentions=True)
        assert len([weights for weights in output.attentions if weights is not None]) == 3
        assert output[-1][-1] is output.attentions[-1]

    def test_padding_is_hidden(self):
        model = wrap_model(tiny.model())
        long, short = tiny.feature(60, seed=1), tiny.feature(30, seed=2)
        alone = tiny.logits(model, collate_fn([short]))
        torch.testing.assert_close(tiny.logits(model, collate_fn([long, short]))[-len(alone) :], alone)

    def test_an_encoder_that_differs_stays_eager(self, monkeypatch):
        def wrong(*args, layers, **how):
            mixed, weights = original(*args, layers=layers, **how)
            return mixed * 1.01, weights

        original = fast_encoder._attend
        monkeypatch.setattr(fast_encoder, "_attend", wrong)
        monkeypatch.setattr(fast_encoder, "NAME", "segdre_wrong_{layers}")
        model = tiny.model()
        due = tiny.logits(model, batch())
        wrap_model(model)
        assert model.model.config._attn_implementation == "eager"
        torch.testing.assert_close(tiny.logits(model, batch()), due)

    @torch.no_grad()
    def test_dropout_keeps_the_mean(self):
        model = wrap_model(tiny.model(num_hidden_layers=1, attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0))
        ids, mask = (part[:1] for part in batch()[:2])
        due = model.model(input_ids=ids, attention_mask=mask, output_attentions=True).attentions[-1]
        model.train()
        torch.manual_seed(0)
        copies = {"input_ids": ids.repeat(200, 1), "attention_mask": mask.repeat(200, 1)}
        found = model.model(**copies, output_attentions=True).attentions[-1]
        assert (found[0] == 0).double().mean() > 0.4
        assert (found.mean(0) - due[0]).abs().max() < 0.3 * due.max()
        assert (found.mean(0) - due[0]).mean().abs() < 0.01 * due.mean()

    def test_dropout_is_drawn_from_torchs_generator(self):
        model = wrap_model(tiny.model(attention_probs_dropout_prob=0.5)).train()
        found = []
        for seed in (3, 3, 4):
            torch.manual_seed(seed)
            found.append(tiny.logits(model, batch()))
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])


def _pooling(**changes):
    return replace(tiny.ATLOP.pooling, **changes)

"""wrap_model and unwrap_model: what they change, that they put all of it back, and what they refuse."""

import pytest
import tiny
import torch
import transformers
from torch import nn

import segdre_plugin.stages.wrap
from segdre_plugin import SegConfig, SegDREError, unwrap_model, wrap_model
from segdre_plugin.backbones import attention
from segdre_plugin.backbones.reference import AdaptiveThresholdLoss, collate_fn
from segdre_plugin.stages.config import STAGES
from segdre_plugin.stages.linear_head import SquaredCountLoss
from segdre_plugin.stages.prepare import prepare_features
from segdre_plugin.stages.scoring import score_counts, score_relations
from segdre_plugin.zip_head import CountHead, CountLoss

# transformers 4 keeps sdpa and falls back to eager by itself when attention is asked for
EAGER = "eager" if int(transformers.__version__.split(".")[0]) >= 5 else "sdpa"
SAME_KEYS = ("base", "dense", "sparse")


def snapshot(model):
    """Take down everything of a model that wrapping could change, down to names and order of attributes."""
    # Before the snapshot: transformers hangs up hooks of its own when attention is asked for the first time.
    model.model(input_ids=torch.ones(1, 4, dtype=torch.long), output_attentions=True)
    return {
        "keys": list(model.state_dict()),
        "modules": [(name, module, type(module)) for name, module in model.named_modules()],
        "attributes": {name: sorted(vars(module)) for name, module in model.named_modules()},
        "hooks": {
            (name, kind): dict(hooks)
            for name, module in model.named_modules()
            for kind, hooks in vars(module).items()
            if kind.endswith(("_hooks", "_with_kwargs", "_always_called"))
        },
        "forward": model.forward,
        "attention": model.model.config._attn_implementation,
        "config": model.model.config.to_dict(),
        "training": [module.training for module in model.modules()],
        "loss": model.loss_fnt,
    }


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_same_weights(model, before):
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def batch(kind="bert"):
    return collate_fn([tiny.feature(n, kind=kind, seed=n) for n in (40, 61)])


@pytest.mark.parametrize("kind", tiny.KINDS)
class TestBase:
    def test_logits_are_those_of_the_model(self, kind):
        model = tiny.model(kind)
        expected, loss = tiny.logits(model, batch(kind)), model(*batch(kind))[0]
        wrap_model(model, fast=False)
        assert torch.equal(tiny.logits(model, batch(kind)), expected)
        assert torch.equal(model(*batch(kind))[0], loss)

    @pytest.mark.parametrize("stage", SAME_KEYS)
    def test_state_dict_stays(self, kind, stage):
        model = tiny.model(kind)
        before = weights(model)
        assert wrap_model(model, stage=stage) is model
        assert_same_weights(model, before)

    def test_attention_is_the_last_output(self, kind):
        """The place where upstream looks for it, in every version of transformers."""
        model = wrap_model(tiny.model(kind))
        ids, mask, *_ = batch(kind)
        output = model.model(input_ids=ids, attention_mask=mask, output_attentions=True, output_hidden_states=True)
        assert output[-1][-1] is output.attentions[-1]
        assert output[-2][-3:] == output.hidden_states[-3:]
        assert output[0] is output.last_hidden_state
        assert output.attentions[-1].shape == (2, 4, 61, 61)

    def test_sdpa_becomes_eager(self, kind):
        model = tiny.model(kind, attn_implementation="sdpa")
        expected = tiny.logits(tiny.model(kind), batch(kind))
        wrap_model(model, fast=False)
        assert torch.equal(tiny.logits(model, batch(kind)), expected)
        unwrap_model(model)
        assert model.model.config._attn_implementation == "sdpa"


class TestIdentify:
    def test_the_strategy_says_which_head(self):
        model = tiny.model()
        wrap_model(model, stage="identify", config=SegConfig(hidden=7, salient="linear"))
        assert isinstance(model.loss_fnt, SquaredCountLoss)
        assert model.bilinear.output.weight.shape == (1, 7)
        result, predictions = model.train()(*batch())
        counts = torch.tensor([sum(row[1:]) for labels in batch()[2] for row in labels])
        assert result.item() == pytest.approx(((predictions - counts) ** 2).mean().item(), rel=1e-6)
        result.backward()
        assert all(p.grad.abs().sum() > 0 for p in model.bilinear.parameters())

    def test_a_strategy_without_head_has_no_such_stage(self):
        model = tiny.model()
        before = snapshot(model)
        with pytest.raises(SegDREError, match="strategy max-mention trains nothing in stage identify"):
            wrap_model(model, stage="identify", config=SegConfig(salient="max-mention"))
        assert snapshot(model) == before

    def test_replaces_classifier_and_loss(self):
        model = tiny.model()
        before = tiny.twin(model)
        wrap_model(model, stage="identify", config=SegConfig(hidden=7))
        assert isinstance(model.bilinear, CountHead)
        assert isinstance(model.loss_fnt, CountLoss)
        assert model.bilinear.hidden.weight.shape == (7, before.bilinear.in_features)
        assert "bilinear.output.weight" in dict(model.named_parameters())  # upstream's optimiser groups go by this name
        untouched = {name: value for name, value in before.state_dict().items() if not name.startswith("bilinear")}
        state = model.state_dict()
        assert all(torch.equal(state[name], value) for name, value in untouched.items())

    def test_the_head_is_where_the_classifier_was(self):
        model = tiny.model().double()
        wrap_model(model, stage="identify")
        assert {p.dtype for p in model.bilinear.parameters()} == {torch.float64}

    def test_trains_counts(self):
        model = wrap_model(tiny.model(), stage="identify", config=SegConfig(hidden=8)).train()
        loss, predictions = model(*batch())
        assert predictions.shape == (24,)
        assert (predictions >= 0).all()
        loss.backward()
        assert all(p.grad.abs().sum() > 0 for p in model.bilinear.parameters())
        assert model.model.embeddings.word_embeddings.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("stage", STAGES)
class TestUnwrap:
    def test_restores_everything(self, stage, implementation):
        model = tiny.model(attn_implementation=implementation).train()
        model.model.eval()
        before, values = snapshot(model), weights(model)
        wrap_model(model, stage=stage)
        assert snapshot(model) != before  # negative control: the snapshot sees what wrapping does
        assert unwrap_model(model) is model
        assert snapshot(model) == before
        assert_same_weights(model, values)

    def test_and_wraps_again(self, stage, implementation):
        model = tiny.model(attn_implementation=implementation)
        expected = tiny.logits(tiny.model(), batch())
        unwrap_model(wrap_model(model, stage=stage))
        wrap_model(model, fast=False)
        assert torch.equal(tiny.logits(model, batch()), expected)


def test_a_deep_copy_is_undone_on_its_own():
    model = wrap_model(tiny.model(attn_implementation="sdpa"), stage="identify", config=SegConfig(hidden=8), fast=False)
    copy = unwrap_model(tiny.twin(model))
    assert isinstance(copy.bilinear, nn.Linear)
    assert isinstance(copy.loss_fnt, AdaptiveThresholdLoss)
    assert isinstance(model.bilinear, CountHead)
    assert (copy.model.config._attn_implementation, len(copy.model._forward_hooks)) == ("sdpa", 0)
    assert (model.model.config._attn_implementation, len(model.model._forward_hooks)) == (EAGER, 1)


class BrokenError(RuntimeError):
    pass


def fail(*_, **__):
    raise BrokenError


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("stage", "step"),
    [
        ("base", "check_encoder"),
        ("base", "build_loss"),
        ("base", "speed_up"),
        ("identify", "guard"),
        ("identify", "BranchCutter"),
        ("sparse", "BranchAppender"),
        ("sparse", "BranchCutter"),
    ],
)
def test_a_failed_wrap_changes_nothing(monkeypatch, stage, step, implementation):
    model = tiny.model(attn_implementation=implementation).train()
    before, values = snapshot(model), weights(model)
    monkeypatch.setattr(segdre_plugin.stages.wrap, step, fail)
    with pytest.raises(BrokenError):
        wrap_model(model, stage=stage)
    assert snapshot(model) == before
    assert_same_weights(model, values)


class TestRefuses:
    @pytest.mark.parametrize("stage", STAGES)
    def test_wrapping_twice(self, stage):
        model = wrap_model(tiny.model(), stage=stage)
        before = snapshot(model)
        with pytest.raises(SegDREError, match=rf"ReferenceModel is already wrapped \(stage {stage}\)"):
            wrap_model(model)
        assert snapshot(model) == before

    @pytest.mark.parametrize(
        "call",
        [
            unwrap_model,
            lambda model: prepare_features([], [], model),
            lambda model: score_relations(model, [], [], collate_fn, batch_size=1, device="cpu", label=""),
            lambda model: score_counts(model, [], collate_fn, batch_size=1, device="cpu", label=""),
        ],
        ids=["unwrap_model", "prepare_features", "score_relations", "score_counts"],
    )
    def test_a_model_that_is_not_wrapped(self, call):
        message = r"^this ReferenceModel is not wrapped\n  -> call wrap_model\(model, stage=\.\.\.\) first$"
        with pytest.raises(SegDREError, match=message):
            call(tiny.model())

    def test_unknown_stage(self):
        with pytest.raises(SegDREError, match=r"unknown stage 'fuse'\n.*base, identify, dense, sparse"):
            wrap_model(tiny.model(), stage="fuse")

    def test_unknown_adapter(self):
        with pytest.raises(SegDREError, match=r"unknown adapter 'nobody'\n.*atlop"):
            wrap_model(tiny.model(), adapter="nobody")

    @pytest.mark.parametrize("adapter", [None, "atlop"])
    def test_an_unknown_model_with_everything_it_lacks(self, adapter):
        class Other(nn.Module):
            def __init__(self):
                super().__init__()
                self.bilinear = nn.Bilinear(2, 2, 2)
                self.loss_fnt = nn.CrossEntropyLoss()
                self.config = tiny.configure(tiny.encoder().config, "bert")
                self.config.transformer_type = "xlnet"

            def forward(self, input_ids, attention_mask):
                return None

        with pytest.raises(SegDREError) as caught:
            wrap_model(Other(), adapter=adapter)
        for problem in (
            "Other.model: missing",
            "Other.encode: missing",
            "Other.get_hrt: missing",
            "Other.num_labels: missing",
            "Other.bilinear: expected torch.nn.Linear, got Bilinear",
            "Other.loss_fnt: CrossEntropyLoss has no get_label",
            "Other.config.transformer_type: expected one of ['bert', 'roberta'], got 'xlnet'",
            "Other.forward: no argument 'labels'",
            "Other.forward: no argument 'entity_pos'",
            "Other.forward: no argument 'hts'",
        ):
            assert problem in str(caught.value)
        assert "'input_ids'" not in str(caught.value)

    @pytest.mark.parametrize("thing", [None, "atlop", nn.Linear(2, 2), nn.DataParallel(tiny.model())])
    def test_what_is_no_model(self, thing):
        with pytest.raises(SegDREError, match=f"{type(thing).__name__} is none of the known backbones"):
            wrap_model(thing)

    def test_an_encoder_that_gives_no_attention(self, monkeypatch):
        monkeypatch.setattr(attention, "_CHECKED", {})
        model = tiny.model()
        before = snapshot(model)
        model.model.forward = lambda **_: type("Output", (), {"attentions": None})()
        with pytest.raises(SegDREError, match=r"BertModel as .*: the encoder returns no attention weights"):
            wrap_model(model)
        del model.model.forward
        assert snapshot(model) == before


def test_features_and_documents_in_another_order_are_refused():
    model = wrap_model(tiny.model(), stage="base", adapter="atlop")
    features = [tiny.feature(40, seed=seed) for seed in range(3)]
    documents = [{"title": feature["title"]} for feature in features]
    assert len(prepare_features(features, documents, model).features) == 3
    with pytest.raises(SegDREError, match="feature 'random 0', document 'random 2'"):
        prepare_features(features, documents[::-1], model)

"""The losses against their formulas spelled out, their properties, the registry, and the swap by wrap_model."""

import math

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from segdre_plugin import SegConfig, SegDREError, unwrap_model, wrap_model
from segdre_plugin.backbones import losses
from segdre_plugin.backbones.losses import (
    AdaptiveThresholdLoss,
    BalancedSoftmaxLoss,
    HingeBalanceLoss,
    ThresholdLoss,
    build_loss,
    loss_names,
    register_loss,
)
from segdre_plugin.zip_head import CountLoss

NEW = {"balanced-softmax": BalancedSoftmaxLoss, "hinge-abl": HingeBalanceLoss}
ALL = NEW | {"atl": AdaptiveThresholdLoss}


def slow_balanced(scores, positive):
    """One pair: the formula of Zhang et al. 2021, class by class."""
    negatives, positives = torch.exp(scores[0]), torch.exp(-scores[0])
    for r in range(1, len(scores)):
        if positive[r]:
            positives = positives + torch.exp(-scores[r])
        else:
            negatives = negatives + torch.exp(scores[r])
    return torch.log(negatives) + torch.log(positives)


def slow_hinge(scores, positive, m=5.0):
    """One pair: the formula of Wang et al. 2023, class by class."""
    total = 0
    for side in (True, False):
        hinges, terms = [], []
        for r in range(1, len(scores)):
            if bool(positive[r]) == side:
                short = scores[0] - scores[r] if side else scores[r] - scores[0]
                hinges.append(max(short * 0, m + short))
                terms.append(-torch.log(1 / (1 + torch.exp(short))))
        if sum(hinges) > 0:
            total = total + sum(h / sum(hinges) * term for h, term in zip(hinges, terms, strict=True))
    return total


SLOW = {"balanced-softmax": slow_balanced, "hinge-abl": slow_hinge}


def random_case(pairs=9, classes=7, scale=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(pairs, classes, dtype=torch.float64, generator=generator)
    labels = (torch.rand(pairs, classes, generator=generator) > 0.7).double()
    labels[0, 1:], labels[1, 1:] = 0, 1  # no positive class, and no negative one
    return logits.requires_grad_(), labels


def gradient(value, logits):
    return torch.autograd.grad(value, logits, retain_graph=True)[0]


@pytest.mark.parametrize("name", NEW)
class TestFormula:
    def test_value_and_gradient(self, name):
        for seed in range(5):
            logits, labels = random_case(seed=seed)
            loss = NEW[name]()(logits, labels)
            due = sum(SLOW[name](s, p) for s, p in zip(logits, labels, strict=True)) / len(logits)
            torch.testing.assert_close(loss, due, rtol=1e-12, atol=0)
            torch.testing.assert_close(gradient(loss, logits), gradient(due, logits), rtol=1e-9, atol=1e-14)

    def test_control_another_loss_differs(self, name):
        logits, labels = random_case()
        others = [cls() for other, cls in ALL.items() if other != name] + [HingeBalanceLoss(4.0)]
        loss = NEW[name]()(logits, labels)
        assert all(abs(loss - other(logits, labels)) > 0.01 for other in others)
        assert abs(loss - NEW[name]()(logits, 1 - labels)) > 0.01

    def test_gradcheck(self, name):
        logits, labels = random_case()
        assert torch.autograd.gradcheck(NEW[name](), (logits, labels))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_types(self, name, dtype):
        logits, labels = random_case()
        given = logits.detach().to(dtype).requires_grad_()
        loss = NEW[name]()(given, labels.to(dtype))
        precise = NEW[name]()(given.double(), labels)
        assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(loss.double(), precise, rtol=1e-5, atol=0)
        slope = gradient(loss, given)
        assert slope.dtype == dtype
        accuracy = max(torch.finfo(dtype).eps, 1e-6)
        torch.testing.assert_close(slope.double(), gradient(precise, given).double(), rtol=accuracy, atol=accuracy)

    @pytest.mark.parametrize("scale", [1e2, 1e4, 1e30])
    def test_large_logits(self, name, scale):
        logits = (scale * random_case()[0].detach()).float().requires_grad_()
        loss = NEW[name]()(logits, random_case()[1].float())
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient(loss, logits)).all()

    def test_inputs_stay(self, name):
        logits, labels = random_case()
        before = logits.detach().clone(), labels.clone()
        NEW[name]()(logits, labels).backward()
        assert torch.equal(logits, before[0])
        assert torch.equal(labels, before[1])

    def test_no_pair(self, name):
        logits = torch.zeros(0, 4, requires_grad=True)
        loss = NEW[name]()(logits, torch.zeros(0, 4))
        assert loss == 0
        loss.backward()

    @pytest.mark.parametrize("shapes", [((3, 4), (3, 5)), ((4,), (4,)), ((2, 3), (3, 3))])
    def test_shapes_that_do_not_fit(self, name, shapes):
        with pytest.raises(SegDREError, match=r"expected logits and labels \[pairs, classes\], got logits"):
            NEW[name]()(*map(torch.zeros, shapes))


rows = st.lists(st.floats(-20, 20), min_size=5, max_size=5)
marks = st.lists(st.booleans(), min_size=5, max_size=5)


def value(name, row, positive):
    return float(ALL[name]()(torch.tensor([row], dtype=torch.float64), torch.tensor([positive]).double()))


@given(st.sampled_from(sorted(ALL)), rows, marks, st.floats(-50, 50), st.permutations(range(1, 5)))
def test_what_holds_for_every_loss(name, row, positive, shift, order):
    loss = value(name, row, positive)
    assert loss >= 0
    assert value(name, [s + shift for s in row], positive) == pytest.approx(loss, abs=1e-9)  # only margins matter
    shuffled = [0, *order]
    assert value(name, [row[i] for i in shuffled], [positive[i] for i in shuffled]) == pytest.approx(loss, abs=1e-9)
    assert value(name, row, [not positive[0], *positive[1:]]) == loss  # column 0 is not read


@given(rows, marks, st.integers(1, 4), st.floats(0, 10))
def test_balanced_softmax_falls_with_positives_and_rises_with_negatives(row, positive, r, step):
    raised = [*row[:r], row[r] + step, *row[r + 1 :]]
    before, after = (value("balanced-softmax", scores, positive) for scores in (row, raised))
    assert (after <= before + 1e-9) if positive[r] else (after >= before - 1e-9)


@given(rows, st.integers(1, 4), st.floats(0, 10))
def test_hinge_falls_with_the_only_positive(row, r, step):
    positive = [i == r for i in range(5)]
    raised = [*row[:r], row[r] + step, *row[r + 1 :]]
    assert value("hinge-abl", raised, positive) <= value("hinge-abl", row, positive) + 1e-9


def test_hinge_moves_weight_to_the_harder_of_two_positives():
    # so raising the easier one can raise the loss: docs/losses.md says so
    easier = [value("hinge-abl", [0.0, -2.0, s], [False, True, True]) for s in (3.0, 4.9)]
    assert easier[1] > easier[0]


def test_hinge_asks_for_its_margin_and_no_more():
    beyond, within = [0.0, 5.0, -5.0], [0.0, 4.9, -5.0]
    assert value("hinge-abl", beyond, [False, True, False]) == 0
    assert value("hinge-abl", within, [False, True, False]) == pytest.approx(math.log1p(math.exp(-4.9)))
    assert value("balanced-softmax", beyond, [False, True, False]) > 0
    with pytest.raises(SegDREError, match="margin is 0"):
        HingeBalanceLoss(0)


class TestDecision:
    @pytest.mark.parametrize("name", ALL)
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_get_label(self, name, dtype):
        logits = torch.tensor([[0.0, 3.0, 2.0, 1.0], [0.0, -1.0, -2.0, 0.0]], dtype=dtype)
        for num_labels, due in ((-1, [0, 1, 1, 1]), (2, [0, 1, 1, 0]), (9, [0, 1, 1, 1])):
            label = ALL[name]().get_label(logits, num_labels)
            assert label.tolist() == [due, [1, 0, 0, 0]]
            assert label.dtype == dtype

    def test_get_score(self):
        scores, classes = ThresholdLoss().get_score(torch.tensor([[0.5, 3.0, 2.0, -1.0]]), 3)
        assert (scores.tolist(), classes.tolist()) == ([[3.0, 2.0, 0.5]], [[1, 2, 0]])
        assert [part.shape for part in ThresholdLoss().get_score(torch.zeros(2, 4))] == [(2, 4)] * 2
        assert ThresholdLoss().get_score(torch.zeros(2, 4), 9)[0].shape == (2, 4)


class TestRegistry:
    @pytest.fixture(autouse=True)
    def own(self, monkeypatch):
        monkeypatch.setattr(losses, "_FACTORIES", dict(losses._FACTORIES))

    def test_a_loss_of_ones_own(self):
        register_loss("softer", lambda: HingeBalanceLoss(margin=2.0))
        assert loss_names() == ("atl", "balanced-softmax", "hinge-abl", "softer")
        assert build_loss("softer", AdaptiveThresholdLoss()).margin == 2

    @pytest.mark.parametrize("name", ["atl", "hinge-abl"])
    def test_a_taken_name(self, name):
        with pytest.raises(SegDREError, match=f"a loss '{name}' already exists"):
            register_loss(name, BalancedSoftmaxLoss)

    def test_an_unknown_name(self):
        with pytest.raises(SegDREError, match=r"unknown loss 'afl'\n.*atl, balanced-softmax, hinge-abl.*register_loss"):
            build_loss("afl", AdaptiveThresholdLoss())

    @pytest.mark.parametrize(
        ("factory", "message"),
        [
            (lambda: torch.nn.functional.cross_entropy, "'mine' is a function"),
            (nn.CrossEntropyLoss, "CrossEntropyLoss lacks get_label and get_score"),
        ],
    )
    def test_what_is_no_such_loss(self, factory, message):
        register_loss("mine", factory)
        model = tiny.model()
        before = model.loss_fnt
        with pytest.raises(SegDREError, match=message):
            wrap_model(model, config=SegConfig(loss="mine"))
        assert model.loss_fnt is before

    def test_a_loss_with_parameters(self):
        class Learned(ThresholdLoss):
            def __init__(self):
                super().__init__()
                self.slope = nn.Parameter(torch.ones(()))

        register_loss("learned", Learned)
        with pytest.raises(SegDREError, match="Learned has parameters or buffers: slope"):
            wrap_model(tiny.model(), config=SegConfig(loss="learned"))


class TestWrap:
    @pytest.mark.parametrize("stage", ["base", "dense", "sparse"])
    @pytest.mark.parametrize("name", NEW)
    def test_the_loss_of_a_stage_and_back(self, stage, name):
        model = tiny.model()
        own, keys = model.loss_fnt, list(model.state_dict())
        wrap_model(model, stage=stage, config=SegConfig(loss=name))
        assert type(model.loss_fnt) is NEW[name]
        assert list(model.state_dict()) == keys
        copy = unwrap_model(tiny.twin(model))
        assert type(copy.loss_fnt) is AdaptiveThresholdLoss
        assert unwrap_model(model).loss_fnt is own

    @pytest.mark.parametrize("stage", ["base", "dense", "sparse"])
    def test_atl_is_the_backbones_own_object(self, stage):
        model = tiny.model()
        own = model.loss_fnt
        assert wrap_model(model, stage=stage, config=SegConfig(loss="atl")).loss_fnt is own

    def test_identify_has_its_own(self):
        model = wrap_model(tiny.model(), stage="identify", config=SegConfig(hidden=8, loss="hinge-abl"))
        assert type(model.loss_fnt) is CountLoss

    def test_an_unknown_loss_changes_nothing(self):
        model = tiny.model()
        with pytest.raises(SegDREError, match="unknown loss 'afl'"):
            wrap_model(model, config=SegConfig(loss="afl"))
        assert len(model.model._forward_hooks) == 0
        wrap_model(model)

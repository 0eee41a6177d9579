"""One encoder for base, identify and dense: the joint loss and one reading, against the three heads by hand."""

import copy
import math

import numpy as np
import pytest
import tiny
import torch

from segdre_plugin import SegConfig, SegDREError, unwrap_model, wrap_collate, wrap_model
from segdre_plugin.backbones.features import DENSE_PAIRS
from segdre_plugin.backbones.hooks import wrap_state
from segdre_plugin.backbones.reference import collate_fn
from segdre_plugin.data.splits import Split
from segdre_plugin.stages.prepare import prepare_features
from segdre_plugin.stages.shared_encoder import check_shared
from segdre_plugin.stages.stage import ChainResult, build_chain

SHARED = SegConfig(share_encoder=True, hidden=7)
COLLATE = wrap_collate(collate_fn, adapter=tiny.ATLOP)
HOW = {"collate_fn": COLLATE, "batch_size": 2, "device": "cpu", "label": ""}
REL2ID = {"Na": 0} | {f"P{k}": k for k in range(1, tiny.CLASSES)}
NONE = ()


def features(n=2):
    return [tiny.feature(40 + 9 * k, seed=k) for k in range(n)]


def documents(of):
    return [{"title": one["title"], "vertexSet": [[{"name": "e"}]] * len(one["entity_pos"]), "sents": []} for one in of]


def shared(**how):
    """A model in float64, whose heads put out more than its own classifier."""
    model = wrap_model(tiny.model().double(), config=SHARED, **how)
    torch.manual_seed(3)
    for name in ("bilinear_identify", "bilinear_dense"):
        for weight in getattr(model, name).parameters():
            torch.nn.init.normal_(weight, std=0.5)
    return model


def batch(model, salient):
    found = prepare_features(features(), documents(features()), model, salient=salient)
    return COLLATE(found.features)


def classified(model, collated):
    """Return what the classifier reads, [pairs, width]: every product made."""
    seen = []
    handle = model.bilinear.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    try:
        model(**tiny.ATLOP.inputs(collated, "cpu"))
    finally:
        handle.remove()
    return torch.cat(seen)


def linear(layer, row):
    return layer.weight @ row + layer.bias


def threshold_loss(logits, labels):
    """ATL of one pair, class by class (Zhou et al. 2021)."""
    positive = [r for r in range(1, len(labels)) if labels[r]]
    negative = [r for r in range(1, len(labels)) if not labels[r]]
    over = {True: logits[[0, *positive]].exp().sum().log(), False: logits[[0, *negative]].exp().sum().log()}
    return sum((over[True] - logits[r] for r in positive), over[False] - logits[0])


def count_loss(logits, labels):
    """The negative log-likelihood of one pair's count (eq. 3, 5)."""
    zero, rate, count = logits[0].sigmoid(), logits[1].exp().add(1).log(), int(sum(labels[1:]))
    poisson = (1 - zero) * (-rate).exp() * rate**count / math.factorial(count)
    return -(poisson + zero * (count == 0)).log()


def slow_loss(model, salient, involved=lambda pair, chain: bool(set(pair) & set(chain))):
    """Return the sum of the three losses, pair by pair."""
    rows = classified(model, batch(model, salient))
    pairs = [(pair, chain) for one, chain in zip(features(), salient, strict=True) for pair in one["hts"]]
    labels = [row for one in features() for row in one["labels"]]
    head = model.bilinear_identify
    base = [threshold_loss(linear(model.bilinear, row), gold) for row, gold in zip(rows, labels, strict=True)]
    counts = [
        count_loss(linear(head.output, linear(head.hidden, row)), gold) for row, gold in zip(rows, labels, strict=True)
    ]
    dense = [
        threshold_loss(linear(model.bilinear_dense, row), gold)
        for row, gold, (pair, chain) in zip(rows, labels, pairs, strict=True)
        if involved(pair, chain)
    ]
    return sum(sum(part) / len(part) for part in (base, counts, dense) if part)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("salient", [[(1,), (0, 2)], [(1,), NONE], [NONE, NONE]])
def test_the_joint_loss_is_the_sum_of_three(salient, fast):
    model = shared(fast=fast)
    found, due = model(*batch(model, salient))[0], slow_loss(model, salient)
    torch.testing.assert_close(found, due, rtol=1e-9, atol=0)
    ours, theirs = gradients(model, found), gradients(model, slow_loss(model, salient))
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)
    assert ("bilinear_dense.weight" in ours) == (salient != [NONE, NONE])
    assert {"bilinear_identify.output.weight", "bilinear.weight", "model.embeddings.word_embeddings.weight"} <= {*ours}


def test_a_dense_head_that_learns_all_pairs_is_seen():
    model, salient = shared(), [(1,), NONE]
    with torch.no_grad():
        found = slow_loss(model, salient)
        assert not torch.allclose(slow_loss(model, salient, lambda pair, chain: True), found, rtol=1e-3)


def test_a_strategy_without_head_adds_the_dense_classifier_alone():
    model = wrap_model(tiny.model(), config=SegConfig(share_encoder=True, salient="max-mention"))
    assert wrap_state(model).shared == {"dense": "bilinear_dense"}
    assert model(*batch(model, [(1,), (0,)]))[0].isfinite()


def test_another_loss_trains_base_and_dense():
    config = SegConfig(share_encoder=True, salient="max-mention", loss="balanced-softmax")
    model, salient = wrap_model(tiny.model().double(), config=config), [(1,), (0,)]
    rows = classified(model, batch(model, salient))
    labels = torch.tensor([row for one in features() for row in one["labels"]])
    involved = [entity in pair for one, (entity,) in zip(features(), salient, strict=True) for pair in one["hts"]]
    dense, own = torch.tensor(involved), model.loss_fnt.forward
    due = own(model.bilinear(rows), labels) + own(model.bilinear_dense(rows)[dense], labels[dense])
    torch.testing.assert_close(model(*batch(model, salient))[0], due)


class TestReading:
    @pytest.fixture
    def split(self):
        return Split("dev", None, documents(features(3)), features(3))

    @pytest.fixture
    def found(self, split):
        model = shared()
        self.model = model
        return self.chain()["base"].read(model, split, ChainResult(), **HOW)

    @staticmethod
    def chain(config=SHARED):
        return build_chain(config, REL2ID)

    @staticmethod
    def cells(table):
        columns = (table.document, table.head, table.tail, table.relation)
        return dict(zip(zip(*(c.tolist() for c in columns), strict=True), table.margin.tolist(), strict=True))

    def test_one_pass_is_the_three_heads_by_hand(self, split, found):
        margins, counts = {"base": {}, "dense": {}}, []
        for d, one in enumerate(split.features):
            rows = classified(self.model, collate_fn([one])).detach()
            for stage, head in (("base", self.model.bilinear), ("dense", self.model.bilinear_dense)):
                for (h, t), row in zip(one["hts"], head(rows).detach(), strict=True):
                    for r in row.topk(4).indices.tolist():
                        if r:
                            margins[stage][d, h, t, r] = float(row[r] - row[0])
            zero, rate = self.model.bilinear_identify(rows).unbind(dim=1)
            counts += ((1 - zero.sigmoid()) * torch.nn.functional.softplus(rate)).tolist()
        assert self.cells(found.tables["base"]) == pytest.approx(margins["base"], rel=1e-4, abs=1e-5)
        assert self.cells(found.unchosen) == pytest.approx(margins["dense"], rel=1e-4, abs=1e-5)
        assert found.counts["count"].tolist() == pytest.approx(counts, rel=1e-4)
        assert margins["base"].keys() != margins["dense"].keys()  # negative control

    def test_identify_and_dense_need_no_model(self, split, found):
        chain = self.chain()
        identify = chain["identify"].read(None, split, found)
        dense = chain["dense"].read(None, split, identify).tables["dense"]
        for d, one in enumerate(split.features):
            mine = found.counts["document"] == d
            totals = np.zeros(4)
            for (h, t), count in zip(found.counts["pair"][mine], found.counts["count"][mine], strict=True):
                totals[[h, t]] += count
            assert identify.salient[d] == (int(totals.argmax()),)
            pairs = [tuple(pair) for pair in one["hts"] if identify.salient[d][0] in pair]
            assert {cell[1:3] for cell in self.cells(dense) if cell[0] == d} == set(pairs)
        every = self.cells(found.unchosen)
        assert all(every[cell] == margin for cell, margin in self.cells(dense).items())
        assert len(dense) < len(found.unchosen)

    def test_other_stages_have_a_model(self):
        assert [name for name, stage in self.chain().items() if stage.has_model] == ["base", "sparse"]


class TestWrapping:
    def test_undone(self):
        model = tiny.model()
        before = copy.deepcopy(model.state_dict())
        wrap_model(model, config=SHARED)
        assert model.state_dict().keys() - before.keys() == {
            "bilinear_dense.weight",
            "bilinear_dense.bias",
            *(f"bilinear_identify.{part}.{kind}" for part in ("hidden", "output") for kind in ("weight", "bias")),
        }
        twin = copy.deepcopy(model)
        unwrap_model(model)
        assert list(model.state_dict()) == list(before)
        hooked = (model, model.bilinear, model.loss_fnt)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in hooked)
        twin(*batch(twin, [(1,), (0,)]))[0].backward()  # a copy goes on alone
        assert twin.bilinear_dense.weight.grad.any()

    @pytest.mark.parametrize("stage", ["identify", "dense"])
    def test_stages_without_a_model_are_refused(self, stage):
        with pytest.raises(SegDREError, match=f"share_encoder: stage {stage} has no model of its own"):
            wrap_model(tiny.model(), stage=stage, config=SHARED)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"loss": None}, "its forward computes the loss itself"),
            ({"logits": "loss"}, "its loss gives the logits that decide"),
            ({"all_pairs": True}, "it computes with all pairs in every stage"),
        ],
    )
    def test_backbones_that_cannot_share_are_refused(self, changes, words):
        check_shared(tiny.ATLOP)
        with pytest.raises(SegDREError, match=f"share_encoder: atlop cannot train three heads: {words}"):
            check_shared(tiny.another(**changes))

    def test_a_training_batch_without_its_dense_pairs(self):
        model = shared()
        with pytest.raises(SegDREError, match="got a batch without its dense pairs\n  -> prepare features"):
            model(*COLLATE(features()))

    def test_training_without_labels(self):
        model = shared().train()
        ids, mask, _, *rest = batch(model, [(1,), (0,)])
        with pytest.raises(SegDREError, match="the heads of identify and dense would not learn"):
            model(ids, mask, None, *rest)

    def test_dense_pairs_travel_with_training_features_alone(self):
        model = shared()
        found = prepare_features(features(), documents(features()), model).features
        assert not any(DENSE_PAIRS in one for one in found)
        plain = wrap_model(tiny.model())
        found = prepare_features(features(), documents(features()), plain, salient=[(1,), (0,)]).features
        assert not any(DENSE_PAIRS in one for one in found)

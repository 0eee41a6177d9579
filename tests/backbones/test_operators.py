"""How many operators a step on the fast path dispatches, and what its 16-bit products of matrices look like."""

import numpy as np
import pytest
import tiny
import torch
from locate import REPOSITORY
from scripts import importer

from segdre_plugin import SegConfig, unwrap_model, wrap_collate, wrap_model
from segdre_plugin.backbones import alignment
from segdre_plugin.backbones.features import FEATURE, pack_labels
from segdre_plugin.backbones.hooks import assemble, present_tokens, wrap_state
from segdre_plugin.backbones.reference import ReferenceModel, collate_fn
from segdre_plugin.stages.config import STAGES

pytestmark = pytest.mark.slow

MOST = 1500  # of a base step with six layers and twelve blocks, forward and backward
script = importer(REPOSITORY / "benchmarks")


def model(layers=1, classes=6, kind="bert"):
    """Make a model of widths that are multiples of 8, but for its classes, with twelve blocks as the backbones have."""
    encoder = tiny.encoder(kind, num_hidden_layers=layers)
    config = tiny.configure(encoder.config, kind, classes)
    return ReferenceModel(config, encoder, emb_size=96, block_size=8, num_labels=2)


def batch(kind="bert", stage="base", sizes=((40, 4), (61, 4), (33, 4)), classes=tiny.CLASSES):
    features = [tiny.feature(n, kind=kind, n_entities=e) for n, e in sizes]
    for one in features:
        one["labels"] = [[*row, *[0] * (classes - tiny.CLASSES)] for row in one["labels"]]
    if stage != "sparse":
        return collate_fn(features)
    made = [tiny.injected(one, tiny.branches(k), kind=kind) for k, one in enumerate(features)]
    return wrap_collate(collate_fn, adapter="atlop")(made)


def step(model, one):
    model.train().zero_grad()
    return lambda: model(*one)[0].backward()


class TestNumber:
    SMALL, LARGE = ((60, 3), (61, 2), (33, 4)), ((200, 30), (80, 12), (80, 7))

    def counts(self, script, fast):
        counted = script("operators")
        made = wrap_model(model(layers=6), fast=fast)
        with counted.as_on_cuda():
            return [counted.count(step(made, batch(sizes=sizes))) for sizes in (self.SMALL, self.LARGE)]

    def test_few_and_the_same_for_any_entities_mentions_and_pairs(self, script):
        small, large = self.counts(script, fast=True)
        assert small[:2] == large[:2]
        assert small[0] <= MOST
        assert small[1] < small[0]  # without views, which launch nothing

    def test_control_the_plain_path(self, script):
        small, large = self.counts(script, fast=False)
        assert small[0] < large[0] > MOST

    @pytest.mark.parametrize("fast", [True, False])
    def test_prediction(self, script, fast):
        counted = script("operators")
        made = wrap_model(model(layers=6).eval(), fast=fast)
        with counted.as_on_cuda(), torch.no_grad():
            found = [counted.count(lambda s=s: tiny.logits(made, batch(sizes=s)))[0] for s in (self.SMALL, self.LARGE)]
        assert (len(set(found)) == 1) is fast
        assert (max(found) <= MOST / 3) is fast


@pytest.mark.parametrize("kind", tiny.KINDS)
class TestWidths:
    """Rows in 16 bits begin at multiples of 16 bytes, with odd numbers of classes, tokens, heads and pairs."""

    def odd(self, script, stage, kind):
        counted = script("operators")
        made = wrap_model(model(layers=2, classes=97, kind=kind), stage=stage, config=SegConfig(hidden=8), bf16=True)
        with counted.as_on_cuda(), counted.Operators() as found:
            step(made, batch(kind, stage, classes=97))()
        assert len(found.widths) > 10
        return {(name, *widths) for name, widths in found.widths if any(width % alignment.NUMBERS for width in widths)}

    @pytest.mark.parametrize("stage", STAGES)
    def test_multiples(self, script, stage, kind):
        assert not self.odd(script, stage, kind)

    def test_control_without_padding(self, script, kind, monkeypatch):
        monkeypatch.setattr(alignment, "missing", lambda width, device: 0)
        found = self.odd(script, "base", kind)
        assert {width for _, *widths in found for width in widths if width % 8} == {61, 97}


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("fast", [True, False])
def test_padding_changes_no_number(kind, fast, monkeypatch):
    """In float64, which needs none: logits and gradients."""
    made, one, found = model(layers=2, classes=97, kind=kind).double().eval(), batch(kind, classes=97), []
    wrap_model(made, fast=fast)
    for padded in (False, True):
        if padded:
            monkeypatch.setattr(alignment, "missing", lambda width, device: -width % alignment.NUMBERS)
            alignment.align(made, wrap_state(made), 512)
        made.zero_grad()
        made(*one)[0].backward()
        found.append({name: p.grad.clone() for name, p in made.named_parameters() if p.grad is not None})
        found[-1]["logits"] = tiny.logits(made, one).detach()
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)
    unwrap_model(made)
    assert "forward" not in vars(made.bilinear)
    assert not made.model._forward_pre_hooks


def test_branches_are_filled_up():
    one = tiny.injected(tiny.feature(41), tiny.branches(2))[FEATURE]
    total = len(one[0].input_ids)
    exact, filled = (assemble(one, 41, multiple)[2] for multiple in (1, 8))
    assert exact.shape[1] == total < filled.shape[1] == total + -total % 8
    assert not present_tokens(torch.ones(1, 41), filled)[:, total:].any()


class TestLabels:
    def test_arrays_give_the_loss_of_lists(self):
        made = wrap_model(model())
        features = [tiny.feature(n) for n in (40, 61)]
        packed = [pack_labels(one, tiny.ATLOP) for one in features]
        assert all(one["labels"].dtype == np.uint8 for one in packed)
        losses = [made.eval()(*collate_fn(some))[0] for some in (features, packed)]
        assert torch.equal(*losses)

    def test_others_are_left_as_they_are(self):
        one = tiny.feature(40)
        assert pack_labels(one, tiny.another(label_arrays=False)) is one
        soft = one | {"labels": [[0.5] * 6 for _ in one["hts"]]}
        assert pack_labels(soft, tiny.ATLOP) is soft
        assert pack_labels({"hts": []}, tiny.ATLOP) == {"hts": []}

"""Models whose predictions are not those of the margins are refused; the right description is accepted."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from segdre_plugin import SegConfig, SegDREError, unwrap_model, wrap_collate, wrap_model
from segdre_plugin.backbones.reference import AdaptiveThresholdLoss, ReferenceModel, collate_fn
from segdre_plugin.stages.config import STAGES
from segdre_plugin.stages.decisions import decisions
from segdre_plugin.stages.scoring import score_relations

ZERO = replace(tiny.ATLOP, name="zero", threshold=None)


class ZeroLoss(AdaptiveThresholdLoss):
    """A loss whose threshold is zero, as DocuNet's: class 0 is none of the relations."""

    def get_label(self, logits, num_labels=-1):
        found = decisions(logits, num_labels, None).to(logits)
        found[:, 0] = (found.sum(1) == 0).to(logits)
        return found


def zero_model():
    model = tiny.model()
    model.loss_fnt = ZeroLoss()
    return model


class Shifted(ReferenceModel):
    """Adds to the predictions what the classifier has not seen, as GREP does."""

    def forward(self, input_ids, attention_mask, labels=None, entity_pos=None, hts=None):
        *loss, predictions = super().forward(input_ids, attention_mask, labels, entity_pos, hts)
        return (*loss, 1 - predictions)


def slow_decisions(row, num_labels, threshold):
    limit = 0 if threshold is None else row[threshold]
    kept = sorted(row, reverse=True)[:num_labels] if num_labels > 0 else row
    return [k > 0 and value > limit and value in kept for k, value in enumerate(row)]


@pytest.mark.parametrize("num_labels", [-1, 1, 3, 50])
@pytest.mark.parametrize("threshold", [0, None])
def test_equals_the_loop(num_labels, threshold):
    logits = torch.randn(40, 6, generator=torch.Generator().manual_seed(1))
    due = [slow_decisions(row, num_labels, threshold) for row in logits.tolist()]
    assert decisions(logits, num_labels, threshold).tolist() == due


@pytest.mark.parametrize("stage", STAGES)
def test_a_threshold_of_zero_is_not_a_class(stage):
    model = zero_model()
    with pytest.raises(SegDREError, match=r"model itself predicts \d+ relations, .* against the logit of class 0 \d+"):
        wrap_model(model, stage=stage, adapter="atlop")
    unwrap_model(wrap_model(model, stage=stage, adapter=ZERO))  # and the right description


def test_a_class_is_not_a_threshold_of_zero():
    with pytest.raises(SegDREError, match="against zero"):
        wrap_model(tiny.model(), adapter=ZERO)


def scores(model, adapter):
    wrap_model(model, adapter=adapter)
    how = {"batch_size": 2, "device": "cpu", "label": ""}
    return score_relations(model, [tiny.feature(40, seed=3)], [0], wrap_collate(collate_fn, adapter=adapter), **how)


def test_margins_above_zero_are_the_models_own_predictions():
    model = zero_model()
    found = scores(model, ZERO)
    with torch.no_grad():
        own = model(*collate_fn([tiny.feature(40, seed=3)]))[-1][:, 1:].nonzero()
    pairs = np.asarray(tiny.feature(40, seed=3)["hts"])
    due = {(*pairs[row].tolist(), relation + 1) for row, relation in own.tolist()}
    above = found.take(found.margin > 0)
    assert {*zip(above.head.tolist(), above.tail.tolist(), above.relation.tolist(), strict=True)} == due
    assert due


def test_logits_that_are_changed_behind_the_classifier_are_noticed():
    with pytest.raises(SegDREError, match="pairs of the first batch the model itself predicts"):
        scores(tiny.model(cls=Shifted), "atlop")
    assert len(scores(tiny.model(), "atlop"))  # negative control


def test_more_labels_than_classes():
    model = tiny.model()
    model.num_labels = tiny.CLASSES + 1
    with pytest.raises(SegDREError, match="num_labels is 7, the classifier has 6 classes"):
        wrap_model(model, adapter="atlop")


def test_a_loss_with_a_threshold_class_needs_one():
    with pytest.raises(SegDREError, match="learns a threshold class, which zero has not"):
        wrap_model(zero_model(), adapter=ZERO, config=SegConfig(loss="hinge-abl"))

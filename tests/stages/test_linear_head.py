"""The squared error of counts against sums spelled out, and its interface."""

import pytest
import torch

from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.linear_head import SquaredCountLoss
from segdre_plugin.zip_head import CountHead, CountLoss

LABELS = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]], dtype=torch.float64)  # class 0 is NA
COUNTS = [0, 2, 1]


def test_equals_the_mean_square():
    logits = torch.tensor([[0.7], [-1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    before = LABELS.clone()
    loss = SquaredCountLoss()(logits, LABELS)
    assert loss.item() == pytest.approx((0.7**2 + 3.0**2 + 2.0**2) / 3, rel=1e-12)
    loss.backward()
    due = [2 * (x - y) / 3 for x, y in zip([0.7, -1.0, 3.0], COUNTS, strict=True)]
    assert logits.grad.flatten().tolist() == pytest.approx(due, rel=1e-12)
    assert torch.equal(LABELS, before)
    # negative control: NA is no relation
    assert loss.item() != pytest.approx(((logits[:, 0] - LABELS.sum(1)) ** 2).mean().item())


def test_the_output_is_the_count():
    logits = torch.tensor([[float(count)] for count in COUNTS])
    assert SquaredCountLoss()(logits, LABELS).item() == 0
    assert SquaredCountLoss().get_label(logits).tolist() == COUNTS
    scores, classes = SquaredCountLoss().get_score(logits, 4)
    assert (scores.shape, scores.flatten().tolist()) == ((3, 1), COUNTS)
    assert classes.dtype == torch.long
    assert isinstance(SquaredCountLoss(), CountLoss)


def test_half_types_are_computed_in_float32():
    logits = torch.tensor([[0.5], [1.0], [1.0]], dtype=torch.bfloat16)
    loss = SquaredCountLoss()(logits, LABELS.int())
    assert loss.dtype == SquaredCountLoss().get_label(logits).dtype == torch.float32
    assert loss.item() == pytest.approx((0.25 + 1) / 3)


def test_head_with_one_output_is_both_layers():
    torch.manual_seed(0)
    head = CountHead(5, hidden=3, outputs=1).double()
    features = torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(head(features), head.output(head.hidden(features)))
    assert head(features).shape == (4, 1)
    with pytest.raises(SegDREError, match="outputs=0"):
        CountHead(5, outputs=0)


@pytest.mark.parametrize(
    ("logits", "labels"), [((3, 2), (3, 4)), ((2, 1), (3, 4)), ((3,), (3, 4)), ((3, 1), (3,)), ((0, 1), (0, 4))]
)
def test_refuses(logits, labels):
    with pytest.raises(SegDREError, match="logits"):
        SquaredCountLoss()(torch.zeros(logits), torch.zeros(labels))


def test_refuses_the_logits_of_another_head():
    with pytest.raises(SegDREError, match=r"expected logits \[N, 1\], got \[3, 2\]"):
        SquaredCountLoss().get_label(torch.zeros(3, 2))

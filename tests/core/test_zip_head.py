"""zip_head against scipy, in extremes, and against the two-layer form of the head."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, log_expit
from scipy.stats import poisson
from torch import nn

from segdre_plugin.errors import SegDREError
from segdre_plugin.zip_head import CountHead, CountLoss, zip_mean, zip_nll

F64 = torch.float64


def scipy_nll(a, b, y):
    """Equation 6 from scipy's Poisson distribution, one element after the other."""
    log_poisson = log_expit(-a) + poisson.logpmf(y, np.logaddexp(b, 0))
    return -np.where(y == 0, np.logaddexp(log_expit(a), log_poisson), log_poisson)


def grid(a, b, y, dtype=F64):
    return [torch.tensor(np.array(x).ravel(), dtype=dtype) for x in np.meshgrid(a, b, y)]


class TestParity:
    a, b, y = grid([-8, -1.3, 0, 0.7, 9], [-35, -6, 0, 0.4, 3, 19.9, 20.1, 45], [0, 1, 2, 5, 40])

    def test_equals_scipy(self):
        expected = scipy_nll(self.a.numpy(), self.b.numpy(), self.y.numpy())
        np.testing.assert_allclose(zip_nll(self.a, self.b, self.y, "none").numpy(), expected, rtol=1e-9, atol=1e-9)

    def test_plain_poisson_differs(self):
        # negative control: forgetting the zero component is seen
        wrong = -poisson.logpmf(self.y.numpy(), np.logaddexp(self.b.numpy(), 0))
        assert np.abs(zip_nll(self.a, self.b, self.y, "none").numpy() - wrong).max() > 0.1

    def test_mean_equals_scipy(self):
        expected = expit(-self.a.numpy()) * np.logaddexp(self.b.numpy(), 0)
        np.testing.assert_allclose(zip_mean(self.a, self.b).numpy(), expected, rtol=1e-12)

    def test_reductions(self):
        each = zip_nll(self.a, self.b, self.y, "none")
        torch.testing.assert_close(zip_nll(self.a, self.b, self.y, "sum"), each.sum())
        torch.testing.assert_close(zip_nll(self.a, self.b, self.y), each.mean())

    def test_broadcast(self):
        out = zip_nll(self.a[:3, None], self.b[:4], torch.zeros(1, dtype=torch.long), "none")
        assert out.shape == (3, 4)
        torch.testing.assert_close(out[1, 2], zip_nll(self.a[1], self.b[2], torch.tensor(0), "none"))


def test_gradcheck():
    a, b, y = grid([-3.0, 0.2, 4.0], [-45.0, -5.0, 0.3, 6.0], [0, 1, 7])
    a.requires_grad_()
    b.requires_grad_()
    assert torch.autograd.gradcheck(lambda p, r: zip_nll(p, r, y, "none"), (a, b))
    assert torch.autograd.gradcheck(zip_mean, (a, b))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, F64])
def test_finite_in_extremes(dtype):
    edges = [-1e4, -200, -104, -88, -40, -20, 0, 20, 40, 88, 104, 1e4]
    top = 1e4 if dtype == torch.float16 else 1e6  # the gradient is as large as the count, and float16 ends at 65,504
    a, b, y = grid(edges, edges, [0, 1, 3, 96, top], torch.float32)
    a, b = a.to(dtype).requires_grad_(), b.to(dtype).requires_grad_()
    loss = zip_nll(a, b, y, "none")
    mean = zip_mean(a, b)
    assert loss.dtype == mean.dtype == (F64 if dtype == F64 else torch.float32)
    loss.sum().backward()
    mean.sum().backward()
    for x in (loss, mean, a.grad, b.grad):
        assert torch.isfinite(x).all()


logit = st.floats(-12, 3.5)


@given(logit, logit)
def test_is_a_distribution(a, b):
    y = torch.arange(80)
    a, b = torch.tensor(a, dtype=F64), torch.tensor(b, dtype=F64)
    nll = zip_nll(a, b, y, "none")
    assert (nll >= -1e-12).all()
    probability = (-nll).exp()
    assert probability.sum().item() == pytest.approx(1, abs=1e-9)
    assert (y * probability).sum().item() == pytest.approx(zip_mean(a, b).item(), abs=1e-9)


class TestCountHead:
    def test_equals_two_layers(self):
        torch.manual_seed(0)
        head = CountHead(11, hidden=7).double()
        layers = nn.Sequential(nn.Linear(11, 7), nn.Linear(7, 2)).double()
        for mine, theirs in zip(head.parameters(), layers.parameters(), strict=True):
            theirs.data.copy_(mine.data)
        x = torch.randn(3, 5, 11, dtype=F64, requires_grad=True)
        weight = torch.randn(3, 5, 2, dtype=F64)
        value, expected = head(x), layers(x)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)
        grads = torch.autograd.grad((value**2 * weight).sum(), [x, *head.parameters()])
        due = torch.autograd.grad((expected**2 * weight).sum(), [x, *layers.parameters()])
        assert len(grads) == 5
        for grad, other in zip(grads, due, strict=True):
            assert other.abs().max() > 0
            torch.testing.assert_close(grad, other, rtol=1e-10, atol=1e-10)

    def test_parameters_of_the_paper(self):
        shapes = {name: tuple(p.shape) for name, p in CountHead(20).named_parameters()}
        assert shapes == {
            "hidden.weight": (768, 20),
            "hidden.bias": (768,),
            "output.weight": (2, 768),
            "output.bias": (2,),
        }

    def test_errors(self):
        with pytest.raises(SegDREError, match="sizes must be >= 1"):
            CountHead(0)
        with pytest.raises(SegDREError, match=r"\[4, 5\]"):
            CountHead(6, 2)(torch.zeros(4, 5))


class TestCountLoss:
    labels = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0], [1, 0, 0, 1]])
    logits = torch.tensor([[2.0, -1.0], [-1.0, 1.0], [0.0, 0.5]])

    def test_counts_leave_na_out(self):
        before = self.labels.clone()
        expected = zip_nll(self.logits[:, 0], self.logits[:, 1], torch.tensor([0, 2, 1]))
        torch.testing.assert_close(CountLoss()(self.logits, self.labels), expected)
        torch.testing.assert_close(CountLoss()(self.logits, self.labels.bfloat16()), expected)
        assert torch.equal(self.labels, before)

    def test_label_and_score(self):
        loss = CountLoss()
        label = loss.get_label(self.logits, num_labels=4)
        torch.testing.assert_close(label, zip_mean(self.logits[:, 0], self.logits[:, 1]))
        scores = loss.get_score(self.logits, 4)
        assert torch.equal(scores[0], label[:, None])
        assert torch.equal(scores[1], torch.zeros(3, 1, dtype=torch.long))
        assert loss.get_score(self.logits[:0])[0].shape == (0, 1)

    def test_errors(self):
        with pytest.raises(SegDREError, match="labels"):
            CountLoss()(self.logits, self.labels[:2])
        with pytest.raises(SegDREError, match="logits"):
            CountLoss().get_label(torch.zeros(3, 97))


@pytest.mark.parametrize(
    ("a", "b", "y", "reduction", "message"),
    [
        ([0.0], [0.0], [1], "median", "median"),
        ([0.0, 0.0], [0.0] * 3, [1], "mean", "broadcast"),
        ([0.0], [0.0], [-1], "mean", "-1"),
        ([0.0], [0.0], [0.5], "mean", r"0\.5"),
        ([0.0], [0.0], [float("nan")], "mean", "nan"),
        ([0.0], [0.0], [float("inf")], "sum", "inf"),
        ([], [], [], "mean", "no element"),
        ([0], [0.0], [1], "mean", "floating point"),
    ],
)
def test_nll_errors(a, b, y, reduction, message):
    with pytest.raises(SegDREError, match=message):
        zip_nll(torch.tensor(a), torch.tensor(b), torch.tensor(y), reduction)


def test_empty_sum_and_mean_errors():
    empty = torch.zeros(0)
    assert zip_nll(empty, empty, empty, "sum").item() == 0
    with pytest.raises(SegDREError, match="broadcast"):
        zip_mean(torch.zeros(2), torch.zeros(3))

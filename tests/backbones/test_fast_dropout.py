"""Attention with dropout on a CPU: which weights are dropped, values and gradients."""

import pytest
import torch

from segdre_plugin.backbones.fast.dropout import attend, draw_kept


@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_drops_the_right_share(dropout):
    torch.manual_seed(0)
    kept, share = draw_kept(torch.Size((3, 5, 401, 7)), dropout)
    assert kept.shape == (3, 5, 401, 7)
    assert share == 1 - round(dropout * 2**16) / 2**16
    n = kept.numel()
    assert abs(kept.double().mean().item() - share) < 5 * (share * (1 - share) / n) ** 0.5
    lanes = kept.flatten()[: n // 4 * 4].view(-1, 4).double()  # four weights share a random number
    assert (lanes.mean(0) - share).abs().max().item() < 5 * (share * (1 - share) / (n // 4)) ** 0.5
    assert (lanes.T.corrcoef() - torch.eye(4)).abs().max() < 5 / (n // 4) ** 0.5  # and are independent of each other


def test_is_drawn_from_torchs_generator():
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append([draw_kept(torch.Size((50,)), 0.5)[0].tolist() for _ in range(2)])
    assert found[0] == found[1] != found[2]
    assert found[0][0] != found[0][1]


def slow(scores, value, kept, share):
    return torch.softmax(scores, dim=-1).mul(kept).div(share) @ value


def case(dropout=0.3):
    draw = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 5, 5, generator=draw, dtype=torch.float64).requires_grad_()
    value = torch.randn(2, 3, 5, 4, generator=draw, dtype=torch.float64).requires_grad_()
    torch.manual_seed(1)
    return scores, value, *draw_kept(scores.shape, dropout)


def test_values_and_gradients():
    inputs = case()
    grad = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    found = []
    for function in (attend, slow):
        for part in inputs[:2]:
            part.grad = None
        mixed = function(*inputs)
        mixed.backward(grad)
        found.append((mixed.detach(), inputs[0].grad.clone(), inputs[1].grad.clone()))
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(slow(*inputs[:2], ~inputs[2], inputs[3]), found[0][0])  # negative control
    assert torch.autograd.gradcheck(attend, inputs)


def test_trains_in_mixed_precision():
    """Under autocast the softmax is in 32 bits and the values in 16, and backward runs outside of it."""
    scores, value, kept, share = case()
    found = []
    for mixed in (False, True):
        leaves = [part.detach().float().requires_grad_() for part in (scores, value)]
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
            weight = torch.eye(4).requires_grad_()
            out = attend(leaves[0], leaves[1] @ weight, kept, share)
        assert out.dtype == (torch.bfloat16 if mixed else torch.float32)
        out.float().square().sum().backward()
        found.append([out.float().detach(), *(leaf.grad for leaf in leaves)])
    for due, near in zip(*found, strict=True):
        assert near.dtype == torch.float32
        torch.testing.assert_close(near, due, rtol=0.1, atol=0.05 * due.abs().max().item())
        assert not torch.equal(near, due)

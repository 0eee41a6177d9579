"""The fast path's stand-ins for tensors over pairs: products that are not made, and everything else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from segdre_plugin.backbones.fast.grouped import CHUNK, grouped_linear
from segdre_plugin.backbones.fast.pairs import PairRows, PairTensor, Products
from segdre_plugin.zip_head import CountHead


def slow_grouped(left, right, weight, bias):
    products = left.unsqueeze(3) * right.unsqueeze(2)
    return nn.functional.linear(products.flatten(1), weight, bias)


def embeddings(pairs, blocks, size, classes, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    shapes = ((pairs, blocks, size), (pairs, blocks, size), (classes, blocks * size * size), (classes,))
    return [torch.randn(shape, generator=draw, dtype=dtype).requires_grad_() for shape in shapes]


def gradients(function, inputs, grad):
    for part in inputs:
        part.grad = None
    found = function(*inputs)
    found.backward(grad)
    return found.detach(), [part.grad.clone() for part in inputs]


class TestGrouped:
    @given(
        pairs=st.integers(0, 9),
        blocks=st.integers(1, 3),
        size=st.integers(1, 6),
        classes=st.integers(1, 8),
        chunk=st.integers(1, 90),
        group=st.integers(1, 3),
    )
    def test_equals_the_linear_layer_on_all_products(self, pairs, blocks, size, classes, chunk, group):
        inputs = embeddings(pairs, blocks, size, classes)
        grad = torch.randn(pairs, classes, dtype=torch.float64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(CHUNK, "cpu", (chunk, group))  # parts of every size, and one that is not whole
            found = gradients(grouped_linear, inputs, grad)
        due = gradients(slow_grouped, inputs, grad)
        torch.testing.assert_close(found, due)

    @pytest.mark.parametrize("classes", [2, 5])  # both ways of contracting
    def test_gradcheck(self, classes):
        assert torch.autograd.gradcheck(grouped_linear, embeddings(3, 2, 4, classes))

    @pytest.mark.parametrize("classes", [2, 5])
    def test_a_wrong_kernel_is_seen(self, classes):
        left, right, weight, bias = embeddings(3, 2, 4, classes)
        assert not torch.allclose(grouped_linear(right, left, weight, bias), slow_grouped(left, right, weight, bias))

    @pytest.mark.parametrize("classes", [2, 40])
    def test_under_autocast_logits_have_32_bits(self, classes):
        inputs = embeddings(30, 2, 16, classes, dtype=torch.float32)
        due, due_grads = gradients(slow_grouped, inputs, torch.ones(30, classes))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = grouped_linear(*inputs)
        assert found.dtype == torch.float32
        assert not torch.equal(found, due)  # negative control: it did compute in bfloat16
        torch.testing.assert_close(found, due, atol=0.5, rtol=0.02)
        _, grads = gradients(
            lambda *parts: grouped_linear(*(p.bfloat16() for p in parts[:3]), parts[3]), inputs, torch.ones(30, classes)
        )
        for one, other in zip(grads, due_grads, strict=True):
            torch.testing.assert_close(one, other, atol=0.6, rtol=0.03)


def rows(seed=0):
    draw = torch.Generator().manual_seed(seed)
    tables = [torch.randn(4, 3, generator=draw), torch.randn(5, 2, generator=draw)]
    index = [torch.tensor([0, 3, 3, 1, 2, 0]), torch.tensor([4, 4, 0, 1, 2, 3])]
    return [PairRows(pair) for pair in zip(tables, index, strict=True)]


class TestPairs:
    """The words in which backbones write their head, and everything else."""

    def test_joined_rows_under_a_linear_layer(self):
        one, other = rows()
        layer = nn.Linear(5, 8)
        joined = torch.cat([one, other], dim=1)
        assert isinstance(joined, PairRows)
        assert joined.shape == (6, 5)
        found = layer(joined)
        assert isinstance(found, PairTensor)
        torch.testing.assert_close(found.as_subclass(torch.Tensor), layer(torch.cat([one.tensor(), other.tensor()], 1)))

    @pytest.mark.parametrize(
        "use",
        [
            lambda one, other: torch.cat([one, one], dim=0),
            lambda one, other: torch.cat([one, other * 2], dim=1),
            lambda one, other: torch.stack([one, one]),
            lambda one, other: one + 1,
            lambda one, other: torch.tanh(one),
            lambda one, other: one.view(-1, 3, 1),
            lambda one, other: one[2:, 1],
            lambda one, other: one.mean(0),
            lambda one, other: one.size(),
            lambda one, other: torch.einsum("pd,pe->pde", one, other),
            lambda one, other: len(one),
        ],
    )
    def test_anything_else_gets_the_tensor(self, use):
        one, other = rows()

        due = use(one.tensor(), other.tensor())
        found = use(one, other)
        assert type(found) is type(due)
        if isinstance(due, torch.Tensor):
            torch.testing.assert_close(found, due)
        else:
            assert found == due

    @pytest.mark.parametrize(
        "lay_out", [lambda x: x.view(-1, 2 * 9), lambda x: x.reshape(6, 18), lambda x: x.flatten(1)]
    )
    def test_products_meet_their_linear_layer(self, lay_out):
        left, right = (torch.randn(6, 6).as_subclass(PairTensor) for _ in range(2))
        layer = nn.Linear(18, 4)
        one, other = torch.tanh(left).view(-1, 2, 3), torch.tanh(right).view(-1, 2, 3)
        products = one.unsqueeze(3) * other.unsqueeze(2)
        assert isinstance(products, Products)
        assert products.shape == (6, 2, 3, 3)
        flat = lay_out(products)
        assert isinstance(flat, Products)
        due = layer(
            (one.as_subclass(torch.Tensor).unsqueeze(3) * other.as_subclass(torch.Tensor).unsqueeze(2)).flatten(1)
        )
        torch.testing.assert_close(layer(flat), due)
        torch.testing.assert_close(nn.functional.linear(flat, weight=layer.weight, bias=layer.bias), due)
        torch.testing.assert_close(nn.functional.linear(flat, layer.weight), due - layer.bias)

    def test_chosen_pairs_are_not_computed(self):
        left, right, weight, bias = embeddings(5, 2, 4, 3)
        chosen = torch.tensor([True, False, True, True, False])
        found = Products(left, right).flatten(1)[chosen]
        assert isinstance(found, Products)
        due = Products(left, right).flatten(1).tensor()[chosen]
        assert found.shape == due.shape
        assert torch.equal(found.tensor(), due)
        torch.testing.assert_close(nn.functional.linear(found, weight, bias), nn.functional.linear(due, weight, bias))
        assert torch.equal(Products(left, right)[2], Products(left, right).tensor()[2])

    def test_products_that_meet_something_else_are_computed(self):
        left, right = (torch.randn(6, 2, 3).as_subclass(PairTensor) for _ in range(2))
        products = left.unsqueeze(3) * right.unsqueeze(2)
        due = torch.einsum("pki,pkj->pkij", left.as_subclass(torch.Tensor), right.as_subclass(torch.Tensor))
        torch.testing.assert_close(products + 0, due)
        torch.testing.assert_close(products.view(6, 6, 3), due.reshape(6, 6, 3))
        torch.testing.assert_close(products.flatten(), due.flatten())
        torch.testing.assert_close(products.sum(dim=3), due.sum(dim=3))
        torch.testing.assert_close(nn.Dropout(0.0)(products.view(6, -1)), due.flatten(1))

    def test_other_products_are_ordinary(self):
        left, right = (torch.randn(6, 2, 3).as_subclass(PairTensor) for _ in range(2))
        for product in (left * right, left * 2.0, torch.mul(left, right), left.unsqueeze(3) * right.unsqueeze(3)):
            assert isinstance(product, torch.Tensor)


def test_the_count_head_takes_products():
    head = CountHead(18, hidden=5)
    left, right = (torch.randn(6, 2, 3).as_subclass(PairTensor) for _ in range(2))
    products = (left.unsqueeze(3) * right.unsqueeze(2)).view(6, -1)
    torch.testing.assert_close(head(products), head(products.tensor()))

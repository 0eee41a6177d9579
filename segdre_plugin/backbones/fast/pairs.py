"""Stand-ins for large tensors over pairs in a backbone's forward: the same numbers with less work and memory.

ATLOP's descendants write their head in the same words: join entity and context embeddings of every pair, apply a linear
layer, multiply head and tail block by block, apply the classifier. :class:`PairRows` and :class:`PairTensor` recognise
these words when torch meets them. A linear layer on joined rows is applied to the distinct rows, before they are
repeated for every pair; products meet their linear layer in :mod:`~segdre_plugin.backbones.fast.grouped`. Anything
else that a forward may do gets the ordinary tensor, so that the numbers are right for any forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from segdre_plugin.backbones.fast.grouped import grouped_linear


class _DeferredTensor:
    """A tensor that is not computed yet; :meth:`tensor` computes it."""

    def tensor(self) -> Tensor:
        raise NotImplementedError

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return function(*_computed(args), **_computed(dict(kwargs or {})))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.tensor(), name)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> Tensor:
        return self.tensor()[index]


def _operator(name: str) -> Callable[..., Any]:
    return lambda self, *others: getattr(self.tensor(), name)(*_computed(others))


for _name in ("add", "sub", "mul", "truediv", "matmul", "pow"):
    for _operation in (f"__{_name}__", f"__r{_name}__"):
        setattr(_DeferredTensor, _operation, _operator(_operation))
for _operation in ("__neg__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
    setattr(_DeferredTensor, _operation, _operator(_operation))


class PairRows(_DeferredTensor):
    """Rows of tables side by side, one of each table for each pair; a part is (table [rows, d], index [pairs])."""

    def __init__(self, *parts: tuple[Tensor, Tensor]) -> None:
        self.parts = parts

    def tensor(self) -> Tensor:
        """Return [pairs, sum of d]."""
        return torch.cat([F.embedding(index, table) for table, index in self.parts], dim=1)

    @property
    def shape(self) -> torch.Size:
        """Of the tensor."""
        return torch.Size((len(self.parts[0][1]), sum(table.shape[1] for table, _ in self.parts)))

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Join rows, apply a linear layer to them, or do anything else with the tensor."""
        given = dict(kwargs or {})
        if function is torch.cat and _joins(*args, **given):
            return cls(*(part for rows in args[0] for part in rows.parts))
        if function is F.linear and isinstance(args[0], cls):
            return args[0].linear(*args[1:], **given)
        return super().__torch_function__(function, types, args, given)

    def linear(self, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Apply a linear layer, weight [out, sum of d] and bias [out]; return a :class:`PairTensor` [pairs, out]."""
        total: Tensor | None = None
        widths = [table.shape[1] for table, _ in self.parts]
        for (table, index), columns in zip(self.parts, weight.split(widths, dim=1), strict=True):
            rows = F.linear(table, columns, bias if total is None else None)
            # 32 bits, under autocast, too; the gradient of an embedding adds pairs up in a fixed order, on a GPU, too
            rows = F.embedding(index, rows.to(table.dtype))
            total = rows if total is None else total + rows
        assert total is not None
        return total.as_subclass(PairTensor)


class PairTensor(Tensor):
    """An embedding of every pair; its products with another one are not computed until something needs them."""

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Defer products of blocks; do everything else as an ordinary tensor does."""
        if function in _PRODUCTS and _are_blocks(*args):
            left, right = (part.as_subclass(Tensor) for part in args)
            return Products(left.squeeze(3), right.squeeze(2))
        return super().__torch_function__(function, types, args, kwargs or {})


_PRODUCTS = frozenset({Tensor.mul, torch.mul, torch.multiply, Tensor.multiply, Tensor.__mul__})


class Products(_DeferredTensor):
    """All products of the blocks of two embeddings, each [pairs, blocks, size]."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.left, self.right = left, right
        pairs, blocks, size = left.shape
        self.shape = torch.Size((pairs, blocks, size, size))

    def tensor(self) -> Tensor:
        """Return them in the present shape."""
        return (self.left.unsqueeze(3) * self.right.unsqueeze(2)).view(self.shape)

    @property
    def ndim(self) -> int:
        """Of the tensor."""
        return len(self.shape)

    def __getitem__(self, index: Any) -> Any:
        """Choose pairs by a mask, or anything else of the tensor."""
        if not (isinstance(index, Tensor) and index.dtype == torch.bool and index.ndim == 1):
            return super().__getitem__(index)
        chosen = Products(self.left[index], self.right[index])
        chosen.shape = torch.Size((len(chosen.left), *self.shape[1:]))
        return chosen

    def view(self, *shape: Any) -> Any:
        """Lay the products of a pair out in one row, or return a tensor of any other shape."""
        pairs, blocks, size = self.left.shape
        width = blocks * size * size
        wanted = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
        if wanted not in ((-1, width), (pairs, width), (pairs, -1)):
            return self.tensor().view(*shape)
        flat = Products(self.left, self.right)
        flat.shape = torch.Size((pairs, width))
        return flat

    reshape = view

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Any:
        """Lay the products of a pair out in one row, or flatten the tensor otherwise."""
        if start_dim == 1 and end_dim in (-1, self.ndim - 1):
            return self.view(len(self.left), -1)
        return self.tensor().flatten(start_dim, end_dim)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Apply a linear layer without making the products, or do anything else with them made."""
        given = dict(kwargs or {})
        if function is F.linear and isinstance(args[0], cls) and args[0].ndim == 2:
            weight, bias = (*args[1:], *given.values(), None)[:2]
            return grouped_linear(args[0].left, args[0].right, weight, bias)
        return super().__torch_function__(function, types, args, given)


def _joins(tensors: Any = (), dim: int = 0, **rest: Any) -> bool:
    """Return whether ``torch.cat`` puts rows side by side, and nothing but rows."""
    return bool(tensors) and all(isinstance(t, PairRows) for t in tensors) and dim in (1, -1) and not rest


def _are_blocks(left: Any = None, right: Any = None, *rest: Any) -> bool:
    """Return whether a product is [pairs, blocks, size, 1] times [pairs, blocks, 1, size]."""
    return (
        not rest
        and isinstance(left, PairTensor)
        and isinstance(right, PairTensor)
        and left.ndim == right.ndim == 4
        and left.shape == (*right.shape[:2], right.shape[3], 1)
        and right.shape[2] == 1
    )


def _computed(value: Any) -> Any:
    """Compute the deferred tensors in a value."""
    if isinstance(value, _DeferredTensor):
        return value.tensor()
    if isinstance(value, tuple | list):
        return type(value)(_computed(part) for part in value)
    if isinstance(value, dict):
        return {name: _computed(part) for name, part in value.items()}
    return value

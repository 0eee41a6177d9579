"""Count what a step on a GPU computes and holds, without a GPU and without computing it.

    with PaperDevice() as paper:
        paper.hold(model)        # a model on the device "meta"
        step()
    paper.peak                   # bytes

Tensors of torch's device "meta" have a shape and a type but no numbers, so a step of any size takes seconds. What lies
on the host, integers and masks, is computed as ever: lengths and pairs of documents decide what a step does. A step
takes the way of a GPU, with torch's memory-efficient attention. Bytes are those of all storages alive at once, to the
byte; what an allocator rounds up or leaves unused, and CUDA's own (half a gigabyte), come on top.
"""

from __future__ import annotations

import weakref
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

META = torch.device("meta")
ALIGNED = 8  # numbers of a mask's row to whose multiple torch pads it


class PaperDevice(TorchDispatchMode):
    """Lets operators take tensors of the host and of the device "meta" together, and follows what is alive.

    Attributes:
        live: bytes of the storages that are alive.
        peak: the most bytes that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._storages: dict[int, weakref.ref[Any]] = {}
        self._attention = patch.object(F, "scaled_dot_product_attention", efficient_attention)

    def __enter__(self) -> PaperDevice:
        self._attention.start()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._attention.stop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator."""
        kwargs = dict(kwargs or {})
        on_meta = any(isinstance(x, Tensor) and x.device == META for x in tree_leaves((args, kwargs)))
        if on_meta:
            args, kwargs = tree_map_only(Tensor, _shape, (args, kwargs))
            if func is torch.ops.aten._to_copy.default:
                kwargs["device"] = META  # what is not known stays so
        elif func is torch.ops.aten._to_copy.default and kwargs.get("device") == META:
            kwargs["device"] = torch.device("cpu")  # what is known stays known
        found = func(*args, **kwargs)
        for tensor in tree_leaves(found):
            if isinstance(tensor, Tensor):
                self._follow(tensor)
        return found

    def hold(self, model: nn.Module) -> None:
        """Count a model's weights among what is alive."""
        for tensor in (*model.parameters(), *model.buffers()):
            self._follow(tensor)

    def _follow(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages and self._storages[key]() is not None:
            return

        def freed(_: Any) -> None:
            self.live -= size
            self._storages.pop(key, None)

        self._storages[key] = weakref.ref(storage, freed)
        self.live += size
        self.peak = max(self.peak, self.live)


def efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
) -> Tensor:
    """Attend by the operator that a GPU takes for a float mask, to which this one's rows are padded as there."""
    if attn_mask is not None:
        odd = attn_mask.shape[-1] % ALIGNED
        if odd:
            attn_mask = F.pad(attn_mask, (0, ALIGNED - odd))[..., : attn_mask.shape[-1]]
        attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, scale=scale)[0]


def _shape(tensor: Tensor) -> Tensor:
    """Return a tensor of the device "meta" in the place of one of the host."""
    if tensor.device == META:
        return tensor
    return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=META)

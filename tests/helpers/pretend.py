"""A device that only pretends to be one: tensors of torch's "meta" with numbers, so that a mix of devices shows.

Each storage of the device has a twin on the CPU, on which operators really compute. An operator that gets tensors of
both devices raises, as a GPU's would; copies from one to the other are legal, and so are numbers (tensors without
dimensions) and indices of the CPU.
"""

from functools import wraps
from unittest.mock import patch

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE, CPU = torch.device("meta"), torch.device("cpu")
aten = torch.ops.aten
INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}


class TwoDevicesError(RuntimeError):
    """Tensors of two devices in one operator."""


class PretendDevice(TorchDispatchMode):
    """The device, inside the context."""

    def __init__(self):
        super().__init__()
        self.twins = {}  # address of a storage -> (the storage, which keeps the address, and its twin)
        self.patches = [patch.object(torch, name, _from_data(getattr(torch, name))) for name in ("tensor", "as_tensor")]

    def __enter__(self):
        for one in self.patches:
            one.start()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        for one in self.patches:
            one.stop()

    def move(self, module: nn.Module) -> None:
        """Put a module's parameters and buffers on the device; the context need not be entered."""
        for part in module.modules():
            for name, value in part._parameters.items():
                if value is not None:
                    part._parameters[name] = nn.Parameter(self.wrap(value.detach().clone()), value.requires_grad)
            for name, value in part._buffers.items():
                if value is not None:
                    part._buffers[name] = self.wrap(value.clone())

    def wrap(self, real):
        """Return a tensor of the device with these numbers."""
        real = real.clone() if real._is_view() else real
        made = torch.empty_strided(real.size(), real.stride(), dtype=real.dtype, device=DEVICE)
        self.twins[made.untyped_storage()._cdata] = made.untyped_storage(), real.untyped_storage()
        return made

    def numbers(self, tensor):
        """Return the numbers of a tensor of the device, on the CPU; those of any other are itself."""
        if tensor.device != DEVICE:
            return tensor
        _, twin = self.twins[tensor.untyped_storage()._cdata]
        empty = torch.empty(0, dtype=tensor.dtype)
        return empty.set_(twin, tensor.storage_offset(), tensor.size(), tensor.stride())

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        target = kwargs.get("device")
        if target is not None:  # where the result is to be
            here, kwargs["device"] = torch.device(target) == DEVICE, CPU
        elif func is aten.copy_.default:
            here = args[0].device == DEVICE
        else:
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
            here = any(x.device == DEVICE for x in tensors)
            if here:
                self._check(func, args, tensors)
        real_args, real_kwargs = tree_map_only(torch.Tensor, self.numbers, (args, kwargs))
        found = func(*real_args, **real_kwargs)
        if not here:
            return found
        aliases = [part.alias_info for part in func._schema.returns if part.alias_info is not None]
        if any(alias.is_write for alias in aliases):
            return args[0]  # changed in place, as its twin was
        return func(*args, **kwargs) if aliases else tree_map_only(torch.Tensor, self.wrap, found)  # a view shares both

    def _check(self, func, args, tensors):
        """Refuse tensors of the CPU, but for what a GPU takes: numbers, and indices in brackets."""
        own = [args[0], *args[2:3]] if func in INDEXED else tensors
        other = [x for x in own if isinstance(x, torch.Tensor) and x.device != DEVICE and x.dim()]
        if other:
            raise TwoDevicesError(f"{func}: {[list(x.shape) for x in other]} on the CPU")


def _from_data(make):
    """Make a tensor of data as on a GPU: on the CPU first. torch leaves the data out where the device is "meta"."""

    @wraps(make)
    def made(data, *args, device=None, **kwargs):
        return make(data, *args, **kwargs) if device is None else make(data, *args, **kwargs).to(device)

    return made

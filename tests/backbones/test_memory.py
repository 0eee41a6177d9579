"""A device without enough memory: which errors say so, and what of the batch the message names."""

import numpy as np
import pytest
import tiny
import torch

from segdre_plugin import SegDREError
from segdre_plugin.backbones.memory import DeviceMemoryError, describe_batch, enough_memory, is_out_of_memory

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.99 GiB."


@pytest.mark.parametrize(
    "ask",
    [lambda: torch.empty(1 << 55, dtype=torch.uint8), lambda: np.empty(1 << 55, dtype=np.uint8)],
    ids=["torch", "numpy"],
)
def test_what_this_machine_has_not(ask):
    with pytest.raises(DeviceMemoryError, match=r"^reading: not enough memory: .*allocate") as caught:
        explained(ask)
    assert caught.value.hint == "lower it"


def explained(ask):
    with enough_memory(lambda: "reading", "lower it"):
        ask()


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError(CUDA),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("CUDA error: out of memory"),
        MemoryError(),
    ],
)
def test_messages_of_torch(error):
    assert is_out_of_memory(error)
    with pytest.raises(DeviceMemoryError, match="not enough memory: "), enough_memory(lambda: "x", ""):
        raise error


@pytest.mark.parametrize(
    "error",
    [RuntimeError("size mismatch"), SegDREError("not enough memory: out of memory"), KeyError("memory")],
)
def test_other_errors_stay(error):
    with pytest.raises(type(error)) as caught, enough_memory(lambda: "x", ""):
        raise error
    assert caught.value is error


def test_what_of_a_batch_decides_on_its_memory():
    features = [tiny.feature(40, seed=1), tiny.feature(61, seed=2)]
    assert describe_batch(features) == (
        "2 documents ('random 1', 'random 2'), 61 tokens the longest, 122 with padding, 24 pairs"
    )
    texts = tiny.branches(3, seed=3)
    tokens = sum(len(ids) for ids, _ in texts)
    assert f", {tokens} branch tokens in a window at most, 12 pairs" in describe_batch(
        [tiny.injected(features[0], texts)]
    )

"""A device without enough memory: one error that names the batch and what to lower, in training and in prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from segdre_plugin.backbones.features import FEATURE, Feature
from segdre_plugin.errors import SegDREError

# torch's messages where its error is a plain RuntimeError: a CPU, cuBLAS and cuDNN
SAYINGS = ("can't allocate memory", "not enough memory", "out of memory", "_STATUS_ALLOC_FAILED")
TRAINING_HINT = (
    "add --seg-checkpointing, with which finished stages stay valid; or lower --train_batch_size (gradients of several "
    "batches can be accumulated by the script) or, in stage sparse, --seg-branch-budget"
)
READING_HINT = "lower the batch size: --test_batch_size of a train script, --batch-size of segdre predict"
MACHINE_HINT = "free memory of the machine or the GPU, or take another GPU: CUDA_VISIBLE_DEVICES"


class DeviceMemoryError(SegDREError):
    """A device or the machine has too little memory for what was asked of it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory could not be had: torch's, of any device, or Python's own."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(saying in str(error) for saying in SAYINGS)


@contextmanager
def enough_memory(doing: Callable[[], str], hint: str) -> Iterator[None]:
    """Turn errors of too little memory inside the context into one message.

    Args:
        doing: returns what was being done; called when it failed.
        hint: what to do.

    Raises:
        DeviceMemoryError: with what was being done and torch's own words.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        words = (str(error).splitlines() or [""])[0]
        raise DeviceMemoryError(f"{doing()}: not enough memory: {words or type(error).__name__}", hint) from None


def describe_batch(features: Sequence[Feature]) -> str:
    """Describe what decides on the memory of a batch: its documents, tokens and pairs."""
    tokens = [len(feature["input_ids"]) for feature in features]
    pairs = sum(len(feature["hts"]) for feature in features)
    parts = [f"{len(features)} documents ({', '.join(repr(str(feature.get('title'))) for feature in features)})"]
    parts.append(f"{max(tokens, default=0)} tokens the longest, {len(tokens) * max(tokens, default=0)} with padding")
    windows = [window for feature in features for window in feature.get(FEATURE, ())]
    if windows:
        parts.append(f"{max(len(w.input_ids) - w.n_document for w in windows)} branch tokens in a window at most")
    return ", ".join([*parts, f"{pairs} pairs"])

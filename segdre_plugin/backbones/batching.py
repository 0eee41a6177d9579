"""Batches of features of like length: little is padded, and, in prediction, memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.features import Feature, keep_pairs

WINDOW = 16  # batches among which features are sorted by length: enough to pad little, few enough to mix well


class LengthBuckets:
    """Batches for training: shuffled features, sorted by length inside windows of some batches, in shuffled order.

    Takes the place of a data loader's ``batch_sampler``; draws from torch's generator, again each epoch. Lengths are in
    tokens. What is left over at the end of an epoch, less than a batch, is dropped, as the backbones do.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int) -> None:
        self.lengths = torch.tensor(lengths)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.lengths) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self.lengths))[: len(self) * self.batch_size]
        sorted_in_windows = [part[self.lengths[part].argsort()] for part in order.split(WINDOW * self.batch_size)]
        made = torch.cat(sorted_in_windows).split(self.batch_size)
        for i in torch.randperm(len(made)).tolist():
            yield made[i].tolist()


def batches(
    features: Sequence[Feature], backbone: Backbone, batch_size: int, max_pairs: int
) -> Iterator[tuple[list[Feature], list[int]]]:
    """Sort features into batches of like length, with at most ``batch_size`` features and ``max_pairs`` pairs each.

    A document with more than ``max_pairs`` is read in parts, unless the logits of a pair depend on the other pairs. One
    of more than two windows' tokens is read alone: attention takes memory by the square of the longest.

    Yields:
        The features of a batch, and for each its index in ``features``; parts of a feature come in order.
    """
    pieces = [(part, i) for i, feature in enumerate(features) for part in _parts(feature, backbone, max_pairs)]
    pieces.sort(key=lambda piece: len(piece[0]["input_ids"]))  # stable
    batch: list[tuple[Feature, int]] = []
    pairs = 0
    for piece in pieces:
        n = len(piece[0]["hts"])
        alone = len(piece[0]["input_ids"]) > 2 * backbone.window
        if batch and (alone or len(batch) == batch_size or pairs + n > max_pairs):
            yield [feature for feature, _ in batch], [i for _, i in batch]
            batch, pairs = [], 0
        batch.append(piece)
        pairs += n
    if batch:
        yield [feature for feature, _ in batch], [i for _, i in batch]


def _parts(feature: Feature, backbone: Backbone, max_pairs: int) -> Iterator[Feature]:
    n = len(feature["hts"])
    if n <= max_pairs or backbone.all_pairs or backbone.square_fields:
        yield feature
        return
    place = np.arange(n)
    for start in range(0, n, max_pairs):
        yield keep_pairs(feature, (place >= start) & (place < start + max_pairs), backbone)

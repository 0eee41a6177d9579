"""Batches of features of like length, for training."""

import torch
from torch.utils.data import DataLoader

from segdre_plugin.backbones.batching import LengthBuckets
from segdre_plugin.backbones.clones.stand_ins import progress_loader


def test_buckets_hold_every_document_once_and_documents_of_like_length():
    lengths = [7 * k % 101 for k in range(203)]
    sampler = LengthBuckets(lengths, 4)
    torch.manual_seed(0)
    first, second = list(sampler), list(sampler)
    assert first != second  # each epoch draws again
    for made in (first, second):
        assert len(made) == len(sampler) == 50
        assert all(len(batch) == 4 for batch in made)
        assert len({i for batch in made for i in batch}) == 200  # three are left over, others each time
    assert sorted(i for batch in first for i in batch) != sorted(i for batch in second for i in batch)
    padded = sum(4 * max(lengths[i] for i in batch) - sum(lengths[i] for i in batch) for batch in first)
    shuffled = torch.randperm(200).view(50, 4).tolist()
    assert padded < 0.25 * sum(4 * max(lengths[i] for i in b) - sum(lengths[i] for i in b) for b in shuffled)
    assert [max(lengths[i] for i in batch) for batch in first] != sorted(max(lengths[i] for i in b) for b in first)


def test_the_loader_takes_buckets_only_where_the_script_shuffles():
    features = [{"input_ids": [0] * n} for n in (9, 1, 9, 1, 9, 1)]
    how = {"collate_fn": lambda batch: [len(feature["input_ids"]) for feature in batch]}
    loader = progress_loader("x", buckets=True)
    shuffled = loader(features, batch_size=2, shuffle=True, drop_last=True, **how)
    assert sum(len(set(batch)) == 2 for batch in shuffled) <= 1
    assert len(shuffled) == 3
    assert list(loader(features, batch_size=2, shuffle=False, drop_last=False, **how)) == [[9, 1]] * 3
    epochs = []
    for plain in (progress_loader("x"), DataLoader):  # without buckets, the script's own batches
        torch.manual_seed(3)
        epochs.append(list(plain(features, batch_size=2, shuffle=True, drop_last=True, **how)))
    assert epochs[0] == epochs[1]

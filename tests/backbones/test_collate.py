"""wrap_collate: upstream's own batch without injections, refusals, and the workers of a data loader."""

import pickle

import pytest
import tiny
import torch
from torch.utils.data import DataLoader

from segdre_plugin import SegDREError, wrap_collate, wrap_model
from segdre_plugin.backbones.hooks import InjectedPositions
from segdre_plugin.backbones.reference import collate_fn


def documents():
    return [tiny.feature(n, seed=n) for n in (40, 61, 33)]


def prepared():
    return [tiny.injected(one, tiny.branches(k + 1, seed=k)) for k, one in enumerate(documents())]


def test_without_injections_it_is_upstreams_batch():
    batches = []

    def remember(features):
        batches.append(collate_fn(features))
        return batches[-1]

    assert wrap_collate(remember, adapter="atlop")(documents()) is batches[0]
    assert wrap_collate(remember, adapter=tiny.ATLOP)(documents()) is batches[1]


def test_with_injections_only_the_positions_change():
    plain, batch = collate_fn(documents()), wrap_collate(collate_fn, adapter="atlop")(prepared())
    assert len(batch) == 5
    assert torch.equal(batch[0], plain[0])
    assert torch.equal(batch[1], plain[1])
    assert [batch[2], batch[3], batch[4]] == [plain[2], plain[3], plain[4]]
    assert isinstance(batch[3], InjectedPositions)
    assert [len(injection.input_ids) > injection.n_document for injection in batch[3].injections] == [True] * 3


def test_partly_prepared_batch_is_refused():
    mixed = [prepared()[0], *documents()[1:]]
    with pytest.raises(SegDREError, match=r"2 of 3 documents of a batch have no injection: random 61, random 33"):
        wrap_collate(collate_fn, adapter="atlop")(mixed)


IDS, MASK = torch.zeros(2, 5, dtype=torch.long), torch.ones(2, 5)
BAD = {
    "too few parts": ((IDS, MASK, [], []), "has 5 parts .*, got 4 parts"),
    "too many parts": ((IDS, MASK, [], [], [], [], [], []), "got 8 parts"),
    "a dict": ({"input_ids": IDS}, "got dict"),
    "nothing": (None, "got NoneType"),
    "ids that are no tensor": (([[1]], MASK, [], [], []), r"got list and \[2, 5\]"),
    "a mask of another shape": ((IDS, MASK[:, :4], [], [], []), r"got \[2, 5\] and \[2, 4\]"),
    "one document only": ((IDS[0], MASK[0], [], [], []), r"got \[5\] and \[5\]"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_layout_is_refused(name):
    batch, message = BAD[name]
    with pytest.raises(SegDREError, match=message):
        wrap_collate(lambda _: batch, adapter="atlop")(documents())


def test_unknown_adapter_is_refused_at_once():
    with pytest.raises(SegDREError, match="unknown adapter 'nobody'"):
        wrap_collate(collate_fn, adapter="nobody")


def test_pickles():
    again = pickle.loads(pickle.dumps(wrap_collate(collate_fn, adapter="atlop")))
    batch, due = again(prepared()), wrap_collate(collate_fn, adapter="atlop")(prepared())
    assert torch.equal(batch[0], due[0])
    for mine, other in zip(batch[3].injections, due[3].injections, strict=True):
        assert mine.input_ids.tolist() == other.input_ids.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_worker_of_a_data_loader(context):
    model = wrap_model(tiny.model(), stage="sparse")
    collate = wrap_collate(collate_fn, adapter="atlop")
    here = [tiny.logits(model, batch) for batch in DataLoader(prepared(), batch_size=2, collate_fn=collate)]
    loader = DataLoader(prepared(), batch_size=2, collate_fn=collate, num_workers=1, multiprocessing_context=context)
    there = [tiny.logits(model, batch) for batch in loader]
    assert len(there) == 2
    for mine, other in zip(there, here, strict=True):
        assert torch.equal(mine, other)

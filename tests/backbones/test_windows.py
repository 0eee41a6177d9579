"""Sliding windows: where they are cut, and how their states and attention are merged, against slow versions."""

from itertools import pairwise

import pytest
import slow
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin import SegDREError, unwrap_model, wrap_model
from segdre_plugin.backbones.features import unread_tokens, visible_entities
from segdre_plugin.backbones.windows import SlidingEncode, capacity, cut, merge, sliding, split


@given(st.integers(1, 5000), st.sampled_from([32, 512]), st.sampled_from([1, 2]))
def test_windows_of_any_length(n, size, end):
    found = cut(n, size, 1, end, None)
    if n <= 2 * size:
        assert found == cut(n, size, 1, end)  # as the backbones cut
        return
    assert (found[0].document[0], found[-1].document[1]) == (0, n)
    assert [(w.before, w.after) for w in found] == [(0, end), *[(1, end)] * (len(found) - 2), (1, 0)]
    for one, other in pairwise(found):
        assert one.document[0] < other.document[0]
        assert one.document[1] - other.document[0] >= size // 4
    assert all(w.before + w.document[1] - w.document[0] + w.after == size for w in found)
    # one window less would not do
    assert len(found) == 3 or any(
        one.document[1] - other.document[0] < size // 4
        for less in [cut(n, size, 1, end, len(found) - 1)]
        for one, other in pairwise(less)
    )


@given(st.sampled_from([32, 512]), st.sampled_from([1, 2]), st.integers(3, 9), st.integers(0, 40))
def test_what_windows_hold_has_no_gap(size, end, most, less):
    def gaps(n):
        return sum(max(0, b.document[0] - a.document[1]) for a, b in pairwise(cut(n, size, 1, end, most)))

    held = capacity(size, 1, end, most)
    assert gaps(max(2 * size + 1, held - less)) == 0
    assert gaps(held + 1) > 0


def test_tokens_in_gaps_are_counted():
    feature = {"input_ids": [0] * 3000}
    counts = {most: unread_tokens(feature, sliding(tiny.ATLOP, most), "bert") for most in (2, 3, 7, None)}
    assert counts == {2: 2489 - 511, 3: 1244 - 511 + 2489 - 1754, 7: 0, None: 0}


def test_windows_by_hand():
    assert [w.document for w in cut(1025, 512, 1, 1, None)] == [(0, 511), (257, 767), (514, 1025)]
    assert [w.document for w in cut(3000, 512, 1, 1, 3)] == [(0, 511), (1244, 1754), (2489, 3000)]  # gaps
    assert [w.document for w in cut(3000, 512, 1, 1)] == [(0, 511), (2489, 3000)]


def test_entities_in_gaps_are_not_seen():
    feature = {"input_ids": [0] * 3000, "entity_pos": [[(600, 602)], [(10, 12), (600, 602)], [(1300, 1301)]]}
    seen = {most: visible_entities(feature, sliding(tiny.ATLOP, most), "bert") for most in (2, 3, None)}
    assert seen == {2: [False, True, False], 3: [False, True, True], None: [True, True, True]}


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_values_and_gradients_equal_slow_ones(kind):
    model, special, n_end = tiny.model(kind).double(), tiny.SPECIAL[kind], {"bert": 1, "roberta": 2}[kind]
    backbone = sliding(tiny.another(window=32))
    rows = [tiny.feature(n, kind=kind, mentions=[])["input_ids"] for n in (100, 20, 50)]
    plans = (slow.sliding((0, 17, 34, 51, 69), 32), slow.sliding((0,), 32), slow.sliding((0, 19), 32))
    ids = torch.tensor([[*row, *[special["pad"]] * (100 - len(row))] for row in rows])
    mask = (torch.arange(100) < torch.tensor([[100], [20], [50]])).double()
    states, attention = SlidingEncode(model.encode, model.config, backbone)(ids, mask)
    weights = [torch.randn_like(part) for part in (states, attention)]
    parameters = [p for name, p in model.model.named_parameters() if "pooler" not in name]

    def gradients(total):
        return torch.autograd.grad(total, parameters)

    total = 0.0
    for d, (row, plan) in enumerate(zip(rows, plans, strict=True)):
        parts = []
        for window, kept, offset in plan(row, special["cls"], special["sep"], n_end):
            output = model.model(torch.tensor([window]), output_attentions=True)
            parts.append((output.last_hidden_state[0], output.attentions[-1][0], kept, offset))
        n = len(row)
        own = slow.merge(parts, n)
        total = total + (own[0] * weights[0][d, :n]).sum() + (own[1] * weights[1][d, :, :n, :n]).sum()
        torch.testing.assert_close(states[d, :n], own[0])
        torch.testing.assert_close(attention[d, :, :n, :n], own[1])
    # tokens 0 and 99 are in no common window
    assert attention[0, :, 0, 99].abs().max() == 0 < attention[0, :, 0, 20].abs().max()
    present = [(part * weight).sum() for part, weight in zip(_present(states, attention, mask), weights, strict=True)]
    for ours, theirs in zip(gradients(sum(present)), gradients(total), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def _present(states, attention, mask):
    return states * mask[..., None], attention * mask[:, None, :, None] * mask[:, None, None, :]


@pytest.mark.slow
@torch.no_grad()
def test_two_windows_are_the_backbones_own():
    """To the bit, by its own encode and by windows without a limit."""
    model = tiny.model()
    rows = [tiny.feature(n, seed=n)["input_ids"] for n in (1024, 700, 40)]
    ids = torch.tensor([[*row, *[0] * (1024 - len(row))] for row in rows])
    mask = (torch.arange(1024) < torch.tensor([[1024], [700], [40]])).float()
    due = model.encode(ids, mask)
    for ours in (
        SlidingEncode(model.encode, model.config, sliding(tiny.ATLOP))(ids, mask),
        _unlimited(model, ids, mask),
    ):
        assert all(map(torch.equal, ours, due))


def _unlimited(model, ids, mask):
    rows, masks, documents = split(ids, mask, [2], [3], 512, None)
    return merge(*model.encode(rows, masks), documents, ids.shape[1])


def test_what_does_not_slide_is_refused():
    with pytest.raises(SegDREError, match="reads documents in two windows") as error:
        sliding(tiny.another(slides=False), 4)
    assert "1,024 tokens" in str(error.value)
    assert sliding(tiny.ATLOP, 2) is tiny.ATLOP
    with pytest.raises(SegDREError, match="at most 1 windows"):
        sliding(tiny.ATLOP, 1)

    def three(ids, mask):
        return torch.zeros(*ids.shape, 4), torch.zeros(len(ids), 2, 512, 512), None

    encode = SlidingEncode(three, tiny.configure(tiny.encoder().config), sliding(tiny.ATLOP))
    with pytest.raises(SegDREError, match=r"got \[\[3, 512, 4\], \[3, 2, 512, 512\], \[\]\]"):
        encode(torch.ones(1, 1100, dtype=torch.long), torch.ones(1, 1100))


def test_wrapping_is_undone():
    model = wrap_model(tiny.model(), adapter=sliding(tiny.ATLOP, 3))
    assert isinstance(model.encode, SlidingEncode)
    twin = tiny.twin(model)
    assert twin.encode.encode.__self__ is twin  # a copy reads with its own weights
    unwrap_model(model)
    assert "encode" not in vars(model)

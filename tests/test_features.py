"""Windows, pairs and branches of features, with positions spelled out."""

import copy

import numpy as np
import pytest
import tiny

from segdre_plugin import SegDREError
from segdre_plugin.features import FEATURE, keep_pairs, stage_pairs, visible_entities, windows

# tokens, kind: for each window the document's tokens that are read from it
WINDOWS = {
    (2, "bert"): [(0, 2)],
    (511, "bert"): [(0, 511)],
    (512, "bert"): [(0, 512)],
    (513, "bert"): [(0, 511), (2, 513)],
    (700, "bert"): [(0, 511), (189, 700)],
    (1024, "bert"): [(0, 511), (513, 1024)],
    (512, "roberta"): [(0, 512)],
    (513, "roberta"): [(0, 510), (2, 513)],
    (1024, "roberta"): [(0, 510), (513, 1024)],
}


@pytest.mark.parametrize(("n", "kind"), WINDOWS)
def test_windows(n, kind):
    found = windows(n, tiny.ATLOP, kind)
    assert [window.document for window in found] == WINDOWS[n, kind]
    for window in found:
        start, end = window.document
        assert window.locate((start, start + 1)) == (start - window.shift, start - window.shift + 1)
        assert window.locate((end - 1, end + 9)) == (end - 1 - window.shift, end - window.shift)  # cut at the end
        assert window.locate((end, end + 1)) is None
        assert window.locate((start - 1, end)) is None  # begins before the window


# the start of an entity's only mention, without the start token, in a document of n tokens -> is it read?
VISIBLE = [
    (30, "bert", 0, True),
    (30, "bert", 27, True),  # the last word
    (30, "bert", 28, False),  # where [SEP] stands
    (30, "roberta", 27, True),
    (30, "roberta", 28, False),
    (30, "bert", 500, False),  # truncated
    (1024, "bert", 509, True),  # the last token of the first window
    (1024, "bert", 510, False),  # in the gap between the windows
    (1024, "bert", 511, False),
    (1024, "bert", 512, True),
    (1024, "roberta", 508, True),
    (1024, "roberta", 509, False),
    (1024, "roberta", 512, True),
    (1000, "bert", 510, True),  # no gap here
]


@pytest.mark.parametrize(("n", "kind", "start", "due"), VISIBLE)
def test_visible_entities(n, kind, start, due):
    one = tiny.feature(n, kind=kind, mentions=[[(3, 6)], [(start, start + 2)], [(2000, 2002), (start, start + 2)]])
    assert visible_entities(one, tiny.ATLOP, kind) == [True, due, due]


class TestPairs:
    def test_keeps_the_fields_of_a_pair_together(self):
        one = tiny.feature(40)
        before = copy.deepcopy(one)
        keep = np.arange(12) % 3 == 0
        made = keep_pairs(one, keep, tiny.ATLOP)
        assert made["hts"] == [one["hts"][k] for k in (0, 3, 6, 9)]
        assert made["labels"] == [one["labels"][k] for k in (0, 3, 6, 9)]
        assert made["entity_pos"] is one["entity_pos"]
        assert one == before

    def test_fields_may_be_missing(self):
        one = tiny.feature(40)
        without = {name: value for name, value in one.items() if name != "labels"}
        assert "labels" not in keep_pairs(without, np.ones(12, dtype=bool), tiny.ATLOP)
        assert keep_pairs(one | {"labels": None}, np.ones(12, dtype=bool), tiny.ATLOP)["labels"] is None

    def test_refuses_a_field_of_another_length(self):
        one = tiny.feature(40)
        one["labels"].pop()
        with pytest.raises(SegDREError, match=r"document 'random 0': labels has 11 entries for 12 pairs"):
            keep_pairs(one, np.ones(12, dtype=bool), tiny.ATLOP)

    @pytest.mark.parametrize("salient", [0, 2, None])
    def test_stages(self, salient):
        one = tiny.feature(40)
        involved = [salient in pair for pair in one["hts"]]
        assert sum(involved) == (0 if salient is None else 6)  # 2 (n - 1) of n (n - 1)
        assert stage_pairs(one, "dense", salient).tolist() == involved
        assert stage_pairs(one, "sparse", salient).tolist() == [not yes for yes in involved]
        for stage in ("base", "identify"):
            assert stage_pairs(one, stage, salient).tolist() == [True] * 12


TEXTS = [([90, 91, 92], 1), ([93], 2)]


class TestBranches:
    def test_one_window(self):
        one = tiny.feature(40, mentions=[[(20, 24), (5, 8)], [(0, 2)], [(30, 33)]])
        before = copy.deepcopy(one)
        made = tiny.injected(one, TEXTS)
        assert one == before
        (injection,) = made[FEATURE]
        assert injection.n_document == 40
        assert injection.input_ids.tolist() == [*one["input_ids"], 90, 91, 92, 93]
        assert injection.position_ids[40:].tolist() == [9, 10, 11, 9]  # one after the first mention in the text
        sees = np.flatnonzero(injection.visibility[injection.node_ids[:40], injection.node_ids[40]])
        assert sees.tolist() == [6, 7, 8, 21, 22, 23, 24]  # one on, for [CLS]

    def test_link(self):
        one = tiny.feature(40, mentions=[[(5, 8)], [(0, 2)], [(30, 33)]])
        (injection,) = tiny.injected(one, TEXTS, link=True)[FEATURE]
        seen = injection.visibility[injection.node_ids[:40]]
        assert np.flatnonzero(seen[:, injection.node_ids[40]]).tolist() == [1, 2, 6, 7, 8]
        assert np.flatnonzero(seen[:, injection.node_ids[43]]).tolist() == [6, 7, 8, 31, 32, 33]

    @pytest.mark.parametrize(
        ("mentions", "branches_in"),
        [
            ([(20, 24)], (True, False)),
            ([(650, 654)], (False, True)),
            ([(300, 304)], (True, True)),
            ([(20, 24), (650, 654)], (True, True)),
            ([(1500, 1504)], (False, False)),
        ],
    )
    def test_branches_go_where_a_mention_is(self, mentions, branches_in):
        one = tiny.feature(700, mentions=[mentions, [(0, 2)], [(30, 33)]])
        injections = tiny.injected(one, TEXTS)[FEATURE]
        assert [injection.n_document for injection in injections] == [512, 512]
        assert tuple(len(injection.input_ids) == 516 for injection in injections) == branches_in

    def test_window_of_a_long_document_counts_its_own_positions(self):
        one = tiny.feature(700, mentions=[[(650, 654)], [(0, 2)], [(30, 33)]])
        _, injection = tiny.injected(one, TEXTS)[FEATURE]
        assert injection.position_ids[512:].tolist() == [467, 468, 469, 467]  # 650 + 1 - 188 + 4

    @pytest.mark.parametrize("kind", tiny.KINDS)
    def test_a_mention_cut_by_truncation_does_not_take_the_end_token(self, kind):
        one = tiny.feature(40, kind=kind, mentions=[[(36, 50), (38, 52)], [(0, 2)], [(30, 33)]])
        (injection,) = tiny.injected(one, TEXTS, kind=kind)[FEATURE]
        seen = injection.visibility[injection.node_ids[:40], injection.node_ids[40]]
        assert np.flatnonzero(seen).tolist() == [37, 38]

    @pytest.mark.parametrize("salient", [None, 0])
    def test_nothing_to_inject(self, salient):
        one = tiny.feature(40)
        (injection,) = tiny.injected(one, [] if salient == 0 else TEXTS, salient=salient)[FEATURE]
        assert injection.input_ids.tolist() == one["input_ids"]
        assert injection.visibility.tolist() == [[True]]

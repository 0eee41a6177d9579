"""Windows, pairs and branches of features, with positions spelled out."""

import copy

import numpy as np
import pytest
import tiny

from segdre_plugin import SegDREError
from segdre_plugin.backbones.features import FEATURE, keep_pairs, visible_entities, windows
from segdre_plugin.injection import inject
from segdre_plugin.salient import as_chain
from segdre_plugin.stages.prepare import stage_pairs

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
        with pytest.raises(SegDREError, match=r"'random 0': labels: expected 12 entries, one for each pair, got 11"):
            keep_pairs(one, np.ones(12, dtype=bool), tiny.ATLOP)

    @pytest.mark.parametrize("salient", [0, 2, None, (0,), (2, 0), ()])
    def test_stages(self, salient):
        one = tiny.feature(40)
        involved = [bool(set(pair) & set(as_chain(salient))) for pair in one["hts"]]
        assert sum(involved) == {0: 0, 1: 6, 2: 10}[len(as_chain(salient))]  # all but (n - k)(n - k - 1) of n (n - 1)
        assert stage_pairs(one, "dense", salient).tolist() == involved
        assert stage_pairs(one, "sparse", salient).tolist() == [not yes for yes in involved]
        for stage in ("base", "identify"):
            assert stage_pairs(one, stage, salient).tolist() == [True] * 12


TEXTS = [([90, 91, 92], 1), ([93], 2)]


def same(a, b):
    """Return whether two injections are the same, bit for bit."""
    pairs = [(getattr(a, name), getattr(b, name)) for name in vars(a)]
    return all(np.array_equal(x, y) and np.asarray(x).dtype == np.asarray(y).dtype for x, y in pairs)


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

    @pytest.mark.parametrize("link", [False, True])
    def test_one_salient_entity_is_injected_as_ever(self, link):
        one = tiny.feature(40, mentions=[[(20, 24), (5, 8)], [(0, 2)], [(30, 33)]])
        (injection,) = tiny.injected(one, TEXTS, salient=(0,), link=link)[FEATURE]
        linked = [[(1, 3)], [(31, 34)]] if link else None  # one on, for [CLS]
        due = inject(one["input_ids"], [(6, 9), (21, 25)], [[90, 91, 92], [93]], branch_anchors=linked)
        assert same(injection, due)
        assert same(injection, tiny.injected(one, TEXTS, salient=0, link=link)[FEATURE][0])

    def test_each_branch_hangs_on_its_entity(self):
        one = tiny.feature(40, mentions=[[(20, 24), (5, 8)], [(0, 2)], [(30, 33)]])
        (injection,) = tiny.injected(one, TEXTS, salient=(0, 2), owners=[2, 0])[FEATURE]
        assert injection.input_ids[40:].tolist() == [93, 90, 91, 92]  # by entity, in the chain's order
        assert injection.position_ids[40:].tolist() == [9, 34, 35, 36]
        sees = injection.visibility[injection.node_ids[:40]]
        assert np.flatnonzero(sees[:, injection.node_ids[40]]).tolist() == [6, 7, 8, 21, 22, 23, 24]
        assert np.flatnonzero(sees[:, injection.node_ids[41]]).tolist() == [31, 32, 33]
        # negative control: with all branches on the first entity, nobody else sees them
        (alone,) = tiny.injected(one, TEXTS, salient=(0, 2))[FEATURE]
        assert same(alone, tiny.injected(one, TEXTS)[FEATURE][0])
        assert not same(alone, injection)

    def test_in_two_windows_each_entity_stands_for_itself(self):
        # entity 0 is in the first window alone, 1 in the second, 2 in both
        one = tiny.feature(700, mentions=[[(20, 24)], [(650, 654)], [(300, 304), (5, 7)]])
        texts = [([90], 1), ([91, 92], 0), ([93], 0)]
        first, second = tiny.injected(one, texts, salient=(0, 1, 2), owners=[0, 1, 2])[FEATURE]
        assert first.input_ids[512:].tolist() == [90, 93]
        assert first.position_ids[512:].tolist() == [25, 8]
        assert second.input_ids[512:].tolist() == [91, 92, 93]
        assert second.position_ids[512:].tolist() == [467, 468, 117]  # 654 + 1 - 188, 304 + 1 - 188

    def test_refuses_branches_of_nobody(self):
        with pytest.raises(SegDREError, match=r"2 branches hang on \[0, 1\], salient are \(0, 2\)"):
            tiny.injected(tiny.feature(40), TEXTS, salient=(0, 2), owners=[0, 1])
        with pytest.raises(SegDREError, match=r"2 branches hang on \[0\]"):
            tiny.injected(tiny.feature(40), TEXTS, salient=(0, 2), owners=[0])

    @pytest.mark.parametrize("salient", [None, 0])
    def test_nothing_to_inject(self, salient):
        one = tiny.feature(40)
        (injection,) = tiny.injected(one, [] if salient == 0 else TEXTS, salient=salient)[FEATURE]
        assert injection.input_ids.tolist() == one["input_ids"]
        assert injection.visibility.tolist() == [[True]]

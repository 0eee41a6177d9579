"""inject and visible_matrix against the rule for pairs of tokens (eq. 9-10)."""

import sys

import numpy as np
import pytest
import slow
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin.errors import SegDREError
from segdre_plugin.injection import TEXT_NODE, Group, inject, inject_groups, visible_matrix


@st.composite
def cases(draw):
    """Random documents; spans may nest, overlap and repeat, positions may saturate."""
    n = draw(st.integers(1, 14))
    span = st.integers(0, n - 1).flatmap(lambda start: st.tuples(st.just(start), st.integers(start + 1, n)))
    token = st.integers(0, 999)
    branches = draw(st.lists(st.lists(token, min_size=1, max_size=4), max_size=4))
    linked = st.lists(st.lists(span, max_size=2), min_size=len(branches), max_size=len(branches))
    return {
        "input_ids": draw(st.lists(token, min_size=n, max_size=n)),
        "anchors": draw(st.lists(span, min_size=1 if branches else 0, max_size=4)),
        "branches": branches,
        "branch_anchors": draw(st.none() | linked),
        "max_positions": draw(st.integers(1, 20)),
        "position_offset": draw(st.integers(0, 3)),
    }


@given(cases())
def test_equals_the_rule_for_tokens(case):
    injection = inject(**case)
    tree = slow.tree(
        case["input_ids"], case["anchors"], case["branches"], case["max_positions"], case["position_offset"]
    )
    tokens = slow.appended(*tree, case["anchors"])
    assert injection.input_ids.tolist() == [token.id for token in tokens]
    assert injection.position_ids.tolist() == [token.position for token in tokens]
    assert injection.n_document == len(case["input_ids"])
    visible = visible_matrix(injection.node_ids, injection.visibility)
    assert visible.tolist() == slow.matrix(tokens, case["anchors"], case["branch_anchors"])


@given(cases())
def test_equals_the_loop_over_tokens(case):
    injection = inject(**case)
    group = (case["anchors"], case["branches"], case["branch_anchors"])
    node_ids, visibility = slow.nodes(len(case["input_ids"]), [group])
    assert injection.node_ids.tolist() == node_ids
    assert injection.visibility.tolist() == visibility


@st.composite
def several(draw):
    """Several salient entities in one document; their mentions may overlap."""
    first = draw(cases())
    n = len(first["input_ids"])
    groups = [first, *(draw(cases()) for _ in range(draw(st.integers(0, 2))))]

    def inside(spans):
        return [(min(start, n - 1), max(min(end, n), min(start, n - 1) + 1)) for start, end in spans]

    return first, [
        Group(
            inside(case["anchors"]),
            case["branches"],
            case["branch_anchors"] and [inside(spans) for spans in case["branch_anchors"]],
        )
        for case in groups
    ]


@given(several())
def test_groups_equal_the_rule_for_tokens(drawn):
    case, groups = drawn
    ids, size, offset = case["input_ids"], case["max_positions"], case["position_offset"]
    injection = inject_groups(ids, groups, max_positions=size, position_offset=offset)
    node_ids, visibility = slow.nodes(len(ids), [(g.anchors, g.branches, g.branch_anchors) for g in groups])
    assert injection.node_ids.tolist() == node_ids
    assert injection.visibility.tolist() == visibility
    visible = visible_matrix(injection.node_ids, injection.visibility)
    first = len(ids)
    for group in groups:  # each on its own sees what it would see alone, and no branch of another group
        tree = slow.tree(ids, group.anchors, group.branches, size, offset)
        tokens = slow.appended(*tree, group.anchors)
        last = first + len(tokens) - len(ids)
        own = [*range(len(ids)), *range(first, last)]
        assert injection.input_ids[own].tolist() == [token.id for token in tokens]
        assert injection.position_ids[own].tolist() == [token.position for token in tokens]
        assert visible[np.ix_(own, own)].tolist() == slow.matrix(tokens, group.anchors, group.branch_anchors or ())
        others = np.ones(len(visible), dtype=bool)
        others[own] = False
        assert not visible[first:last, others].any()
        first = last
    assert injection.n_document == len(ids)
    assert first == len(injection.input_ids)


@given(cases())
def test_travels_as_few_integers(case):
    injection = inject(**case)
    integers = (injection.input_ids, injection.position_ids, injection.node_ids)
    assert [array.dtype for array in integers] == [np.dtype(np.int64)] * 3
    assert len({len(array) for array in integers}) == 1
    assert injection.visibility.dtype == bool
    assert injection.visibility.shape == (injection.node_ids.max() + 1,) * 2
    if case["branch_anchors"] is None:  # plain text, the salient mentions and one node a branch
        assert len(injection.visibility) <= 2 + len(case["branches"])


CASE = {"input_ids": range(12), "anchors": [(3, 5), (8, 9)], "branches": [[90, 91], [92], [93, 94]]}


def branches_see_each_other(a, b, anchors, branch_anchors):
    return slow.sees(a, b, anchors, branch_anchors) or None not in (a.branch, b.branch)


def text_sees_branches(a, b, anchors, branch_anchors):
    return slow.sees(a, b, anchors, branch_anchors) or None in (a.branch, b.branch)


def only_the_first_mention_sees(a, b, anchors, branch_anchors):
    return slow.sees(a, b, anchors[:1], branch_anchors)


@pytest.mark.parametrize("wrong", [branches_see_each_other, text_sees_branches, only_the_first_mention_sees])
def test_wrong_rules_differ(wrong):
    # negative control: each part of the rule can be seen in the matrix
    injection = inject(**CASE)
    tokens = slow.appended(*slow.tree(**CASE), CASE["anchors"])
    visible = visible_matrix(injection.node_ids, injection.visibility).tolist()
    assert visible == slow.matrix(tokens, CASE["anchors"])
    assert visible != slow.matrix(tokens, CASE["anchors"], rule=wrong)


def test_hangs_on_the_first_anchor_given():
    later = inject(range(12), [(8, 9), (3, 5)], [[90, 91]])
    assert later.position_ids[12:].tolist() == [9, 10]


def test_saturates_at_the_last_position():
    injection = inject(range(6), [(4, 6)], [[90, 91, 92]], max_positions=7, position_offset=2)
    assert injection.position_ids.tolist() == [2, 3, 4, 5, 6, 7, 8, 8, 8]


def test_without_branches_all_is_text():
    injection = inject(range(6), [(1, 3)], [])
    assert injection.node_ids.tolist() == [TEXT_NODE] * 6
    assert visible_matrix(injection.node_ids, injection.visibility).all()


def test_each_group_hangs_on_its_own_entity():
    groups = [Group([(3, 5)], [[90, 91], [92]]), Group([(8, 9), (1, 2)], [[93, 94]])]
    injection = inject_groups(range(12), groups)
    assert injection.input_ids[12:].tolist() == [90, 91, 92, 93, 94]
    assert injection.position_ids[12:].tolist() == [5, 6, 5, 9, 10]
    visible = visible_matrix(injection.node_ids, injection.visibility)
    assert np.flatnonzero(visible[12, :12]).tolist() == [3, 4]
    assert np.flatnonzero(visible[15, :12]).tolist() == [1, 8]
    # negative control: all hung on the first entity is something else
    together = inject(range(12), [(3, 5)], [[90, 91], [92], [93, 94]])
    assert together.input_ids.tolist() == injection.input_ids.tolist()
    assert together.position_ids.tolist() != injection.position_ids.tolist()
    assert (visible_matrix(together.node_ids, together.visibility) != visible).any()


def test_no_loop_over_tokens():
    """As many lines of Python are gone through for a long document as for a short one."""
    case = {"anchors": [(3, 5), (8, 9)], "branches": [[90, 91]] * 20}

    def steps(n):
        counted = 0

        def count(frame, event, argument):
            nonlocal counted
            counted += event == "line"
            return count

        sys.settrace(count)
        try:
            inject(range(n), **case)
        finally:
            sys.settrace(None)
        return counted

    assert steps(5000) == steps(50)


BAD = [
    ({"max_positions": 0}, "max_positions is 0"),
    ({"anchors": []}, "3 branches but no anchor"),
    ({"branch_anchors": [[], []]}, "branch_anchors has 2 entries for 3 branches"),
    ({"anchors": [(3, 3)]}, r"span \(3, 3\) is empty or outside the document of 12 tokens"),
    ({"anchors": [(3, 5), (5, 4)]}, r"span \(5, 4\)"),
    ({"anchors": [(-1, 2)]}, r"span \(-1, 2\)"),
    ({"anchors": [(11, 13)]}, r"span \(11, 13\)"),
    ({"branch_anchors": [[], [(0, 99)], []]}, r"span \(0, 99\)"),
    ({"branches": [[90], [], [91]]}, "branch 1 has no tokens"),
]


@pytest.mark.parametrize(("change", "message"), BAD)
def test_refuses(change, message):
    with pytest.raises(SegDREError, match=message):
        inject(**(CASE | change))

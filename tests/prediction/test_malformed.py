"""Malformed documents, our own and hypothesis's: a message, never a crash; the table in docs/ is what the code says."""

import copy
import json

import malformed
import pytest
import torch
from bundles import bundle, run_folder  # noqa: F401 - fixtures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segdre_plugin import SegPipeline
from segdre_plugin.data.documents import find_problems
from segdre_plugin.prediction.features import Rejection

GOOD = malformed.TOWN | {
    "vertexSet": [*malformed.TOWN["vertexSet"], [{"name": "old", "sent_id": 0, "pos": [2, 3], "type": "MISC"}]]
}
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["\ud800", "\udfff", "", " ", "\x00", "[SEP]", "[CLS]", "*", "\u200b", "\n", "a" * 600])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """Every path into a value."""
    yield path
    if isinstance(value, (dict, list)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


@st.composite
def broken(draw):
    document = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([p for p in places(document) if p]))
        part = document
        for step in path[:-1]:
            part = part[step]
        how = draw(st.sampled_from(["replace", "remove", "double"]))
        if how == "replace":
            part[path[-1]] = draw(VALUES)
        elif how == "remove":
            del part[path[-1]]
        elif isinstance(part, list):
            part.append(copy.deepcopy(part[path[-1]]))
    return document


@pytest.fixture(scope="module")
def pipeline(bundle):  # noqa: F811
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield SegPipeline.from_pretrained(bundle)
    torch.set_num_threads(before)


def test_table_is_what_the_code_says():
    assert malformed.PAGE.read_text(encoding="utf-8") == malformed.page()
    assert sum(line.startswith("| ") for line in malformed.page().splitlines()) - 2 >= 30


def test_long_and_deep_values_are_cut_off():
    deep = json.loads("[" * 900 + "]" * 900)
    for value in ("a" * 10_000, deep):
        document = copy.deepcopy(GOOD)
        document["vertexSet"][0][0]["pos"] = value
        (problem,) = find_problems(document, 3)
        assert "vertexSet[0][0]: pos: " in problem
        assert len(problem) < 300


@given(value=broken() | VALUES)
def test_problems_are_lines_of_text(value):
    problems = find_problems(value, 3)
    assert all(isinstance(problem, str) and problem.startswith("document 3") for problem in problems)
    "\n".join(problems).encode()


@settings(suppress_health_check=list(HealthCheck))
@given(value=broken())
def test_what_has_no_problems_can_be_predicted(pipeline, value):
    result = pipeline.answer([value])[0]
    plain = {k: v for k, v in value.items() if k != "labels"}
    if find_problems(plain, 0):
        assert isinstance(result, Rejection)
        return
    assert isinstance(result, dict), result
    json.dumps(result, ensure_ascii=False, allow_nan=False).encode()

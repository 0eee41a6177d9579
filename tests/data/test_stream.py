"""Streaming equals reading the whole file at once; broken files are named."""

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin import SegDREError
from segdre_plugin.data import stream
from segdre_plugin.data.stream import Broken, count_lines, read_values

FLOATS = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | FLOATS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


def is_text(value):
    """Whether a value can be written as UTF-8 without escapes."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def write(folder, text):
    path = folder / "values.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@given(
    values=st.lists(VALUES, max_size=6),
    indent=st.sampled_from([None, 0, 3]),
    ascii_only=st.booleans(),
)
def test_list_equals_reading_it_at_once(tmp_path_factory, values, indent, ascii_only):
    if not is_text(values):
        ascii_only = True
    path = write(tmp_path_factory.mktemp("list"), json.dumps(values, indent=indent, ensure_ascii=ascii_only))
    assert list(read_values(path)) == values


@given(values=st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=4), min_size=1, max_size=6))
def test_lines_equal_reading_them_one_by_one(tmp_path_factory, values):
    path = write(tmp_path_factory.mktemp("lines"), "\n\n".join(json.dumps(value) for value in values))
    assert list(read_values(path)) == values
    assert count_lines(path) == len(values)


def test_byte_order_mark_and_windows_line_ends(tmp_path):
    assert list(read_values(write(tmp_path, b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n'))) == [{"a": 1}, {"a": 2}]
    assert list(read_values(write(tmp_path, b"\xef\xbb\xbf [1,\r\n2]\r\n"))) == [1, 2]


def test_broken_lines_are_one_bad_document_each(tmp_path):
    path = write(
        tmp_path, b'{"a": 1}\n{"a": \n{"a": "\xff"}\n' + b"[" * 200_000 + b"\n" + b"9" * 5000 + b'\n{"a": 2}\n'
    )
    first, *broken, last = read_values(path)
    assert (first, last) == ({"a": 1}, {"a": 2})
    assert [type(value) for value in broken] == [Broken] * 4
    for value, word in zip(broken, ("Expecting value", "UTF-8", "deeply", "digits"), strict=True):
        assert word in value.reason


BAD_LISTS = [
    (b"[1, 2", "element 2: parse error: premature EOF"),
    (b"[1 2]", "element 1: parse error: after array element, I expect ',' or ']'"),
    (b"[1, ]", "element 1: parse error: unallowed token"),
    (b"[", "element 0: parse error: premature EOF"),
    (b'[1, {"a": }, 3]', "element 1: parse error: unallowed token"),
    (b'[1, {"a": "b]', "element 1: parse error: premature EOF"),
    (b"[1, tru", "element 1: lexical error: invalid string in json text"),
    (b"[1, NaN]", "element 1: lexical error: invalid char in json text"),
    (b'["a", "\xff"]', "element 1: lexical error: invalid bytes in UTF8 string"),
    (b'["a", "\xed\xa0\x80"]', "element 1: 'utf-8' codec can't decode byte 0xed"),
    (b"[1] [2]", "element 1: parse error: trailing garbage"),
    (b"[[" + b"[" * 200_000, "element 0: nested too deeply"),
    (b"[" + b"9" * 5000 + b"]", "element 0: parse error: integer overflow"),
]


@pytest.mark.parametrize(("text", "message"), BAD_LISTS, ids=[message[:40] for _, message in BAD_LISTS])
def test_broken_list_ends_at_the_break(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(SegDREError) as caught:
        list(read_values(path))
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_elements_before_the_break_come_out(tmp_path):
    values = read_values(write(tmp_path, b"[1, 2, oops"))
    assert [next(values), next(values)] == [1, 2]
    with pytest.raises(SegDREError, match="element 2"):
        next(values)


def test_syntax_error_is_found_without_reading_on(tmp_path):
    path = write(tmp_path, b"[1, {oops: 3}, " + b'"text", ' * 100_000 + b"4]")
    with path.open("rb") as file:
        with pytest.raises(SegDREError, match="element 1"):
            list(stream._elements(file, path, "documents"))
        assert file.tell() < path.stat().st_size / 2


def test_empty_and_missing(tmp_path):
    for text in (b"", b" \n"):
        with pytest.raises(SegDREError, match="is empty"):
            list(read_values(write(tmp_path, text)))
    with pytest.raises(SegDREError, match="cannot read"):
        list(read_values(tmp_path / "nowhere.json"))


@pytest.mark.parametrize("lines", [True, False])
def test_memory_does_not_grow_with_the_file(tmp_path, lines):
    def peak(n):
        value = json.dumps({"text": "x" * 500})
        path = write(tmp_path, ("\n".join if lines else lambda v: f"[{','.join(v)}]")([value] * n))
        tracemalloc.start()
        assert sum(1 for _ in read_values(path)) == n
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(5000) < 2 * peak(500)

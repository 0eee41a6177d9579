"""Malformed documents and the message for each; ``python tests/helpers/malformed.py`` writes the table in docs/."""

import copy
import json
import tempfile
from functools import partial
from pathlib import Path

from segdre_plugin.data.convert import text_problems
from segdre_plugin.data.documents import check, find_problems
from segdre_plugin.data.stream import read_values

PAGE = Path(__file__).resolve().parents[2] / "docs" / "malformed.md"

TOWN = {
    "title": "A town",
    "sents": [["Varn", "is", "old", "."], ["Olo", "lives", "in", "Varn", "."]],
    "vertexSet": [
        [
            {"name": "Varn", "sent_id": 0, "pos": [0, 1], "type": "LOC"},
            {"name": "Varn", "sent_id": 1, "pos": [3, 4], "type": "LOC"},
        ],
        [{"name": "Olo", "sent_id": 1, "pos": [0, 1], "type": "PER"}],
    ],
    "labels": [{"h": 1, "t": 0, "r": "P1", "evidence": [1]}],
}
REL2ID = {"Na": 0, "P17": 1}
GONE = object()
OURS, FOUND = "us", "hypothesis"

DOCUMENT = {
    "title": "A town",
    "sents": [["Varn", "is", "old", "."], ["Olo", "lives", "in", "Varn", "."]],
    "vertexSet": [
        [{"name": "Varn", "sent_id": 0, "pos": [0, 1], "type": "LOC"}],
        [{"name": "Olo", "sent_id": 1, "pos": [0, 1], "type": "PER"}],
    ],
    "labels": [{"h": 1, "t": 0, "r": "P17", "evidence": [1]}],
}
TEXT = {"title": "A town", "text": "Varn is old.", "entities": [{"type": "LOC", "mentions": [[0, 4]]}]}
MENTION, LABEL, SPAN = ("vertexSet", 0, 0), ("labels", 0), ("entities", 0, "mentions", 0)

INTRODUCTION = """# Malformed documents

What `segdre validate` (and `--seg`, and the file of rejected documents of `segdre predict`) says of documents that are
not as they should be, and, rows that begin with *text*, what `segdre convert` says. `tests/helpers/malformed.py` writes
this page, and a test keeps it true. "hypothesis" marks what random documents brought up.

| | what is wrong | found by | message |
| --- | --- | --- | --- |
"""

# (place, what is there instead, who thought of it), and whole lines
DOCUMENTS = [
    (("title",), GONE, OURS),
    (("title",), 5, OURS),
    (("title",), "half \ud83d", FOUND),
    (("sents",), "Varn is old.", OURS),
    (("sents", 1), [], OURS),
    (("sents", 0, 1), 7, FOUND),
    (("sents", 0, 1), "\udfff", FOUND),
    (("vertexSet",), GONE, OURS),
    (("vertexSet", 1), [], OURS),
    (("vertexSet", 1), {"name": "Olo"}, FOUND),
    (MENTION, "Varn", OURS),
    ((*MENTION, "name"), GONE, OURS),
    ((*MENTION, "name"), "\ud800", FOUND),
    ((*MENTION, "sent_id"), 2, OURS),
    ((*MENTION, "sent_id"), False, FOUND),
    ((*MENTION, "sent_id"), 0.0, FOUND),
    ((*MENTION, "pos"), [3, 5], OURS),
    ((*MENTION, "pos"), [1, 1], OURS),
    ((*MENTION, "pos"), [-1, 1], OURS),
    ((*MENTION, "pos"), "01", FOUND),
    (("labels",), {}, OURS),
    ((*LABEL, "h"), 2, OURS),
    ((*LABEL, "t"), 1, OURS),
    ((*LABEL, "r"), "P9", OURS),
    ((*LABEL, "r"), ["P17"], FOUND),
    ((*LABEL, "evidence"), [2], OURS),
]
LINES = [
    ("a line that breaks off", b'{"title": "A town", "sents": [["Varn"', OURS),
    ("a list in place of an object", b'["A town"]', OURS),
    ("not UTF-8", b'{"title": "caf\xe9"}', OURS),
    ("200,000 opening brackets", b"[" * 200_000, OURS),
    ("a number of 5,000 digits", b'{"title": ' + b"9" * 5000 + b"}", OURS),
]
TEXTS = [
    (("text",), None, OURS),
    (("entities",), GONE, OURS),
    (("entities", 0, "mentions"), [], OURS),
    (SPAN, [8, 20], OURS),
    (SPAN, [4, 5], OURS),
    (SPAN, ["0", 4], OURS),
]


def changed(value, path, new):
    """Copy a value with the thing at ``path`` replaced, or removed."""
    value = copy.deepcopy(value)
    *way, last = path
    part = value
    for step in way:
        part = part[step]
    if new is GONE:
        del part[last]
    else:
        part[last] = new
    return value


def cases():
    """Return what is wrong, the message, and who thought of it."""
    for path, new, by in DOCUMENTS:
        yield describe(path, new), validated(json.dumps(changed(DOCUMENT, path, new)).encode()), by
    for what, line, by in LINES:
        yield what, validated(line), by
    same = json.dumps(DOCUMENT).encode()
    yield "the title of another document", validated(same + b"\n" + same, 1), OURS
    for path, new, by in TEXTS:
        (message,) = text_problems(changed(TEXT, path, new), 0)
        yield f"text: {describe(path, new)}", message, by


def validated(lines, last=0):
    """Return what ``segdre validate`` says of the last line of a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.jsonl"
        path.write_bytes(b"\n" * lines.startswith(b"[") + b'{"skip": 0}\n' * lines.startswith(b"[") + lines)
        ((message,),) = [
            problems for _, problems in list(check(read_values(path), partial(find_problems, rel2id=REL2ID)))[-1:]
        ]
    return message


def describe(path, new):
    """Return what stands where."""
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[1:]
    return f"`{place}` is missing" if new is GONE else f"`{place}` is `{json.dumps(new)}`"


def page():
    """Write the page."""
    rows = [
        f"| {n} | {what} | {by} | {message.replace('|', chr(92) + '|')} |"
        for n, (what, message, by) in enumerate(cases(), start=1)
    ]
    return INTRODUCTION + "\n".join([*rows, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

"""Malformed documents: every problem at once, each with the document's place, its title and the field."""

import json

import malformed
import pytest

from segdre_plugin import SegDREError
from segdre_plugin.data.documents import find_problems, load_documents

GOOD = malformed.TOWN
REL2ID = {"Na": 0, "P1": 1}
MISSING = malformed.GONE


def changed(path, value):
    """Copy the good document with the thing at ``path`` replaced, or removed."""
    return malformed.changed(GOOD, path, value)


def write(folder, documents):
    path = folder / "dev.json"
    path.write_text(json.dumps(documents))
    return path


FIRST = ("vertexSet", 0, 0)
LABEL = ("labels", 0)
BAD = [
    (("title",), MISSING, "document 7 None: title: expected text"),
    (("title",), 5, "document 7 5: title: expected text"),
    (("sents",), MISSING, "sents: expected sentences"),
    (("sents",), [], "sents: expected sentences"),
    (("sents",), "Varn is old .", "sents: expected sentences"),
    (("sents", 1), [], "sents: expected sentences, each a list of one word or more"),
    (("sents", 1, 2), None, "sents: expected sentences"),
    (("vertexSet",), MISSING, "vertexSet: expected a list of entities, got NoneType"),
    (("vertexSet",), {}, "vertexSet: expected a list of entities, got dict"),
    (("vertexSet", 1), [], "vertexSet[1]: expected one mention or more"),
    (("vertexSet", 1), None, "vertexSet[1]: expected one mention or more"),
    (FIRST, "Varn", "vertexSet[0][0]: expected an object, got str"),
    ((*FIRST, "name"), MISSING, "vertexSet[0][0]: name: expected text, got None"),
    ((*FIRST, "sent_id"), 2, "vertexSet[0][0]: sent_id: expected 0 to 1, got 2"),
    ((*FIRST, "sent_id"), -1, "vertexSet[0][0]: sent_id: expected 0 to 1, got -1"),
    ((*FIRST, "sent_id"), True, "vertexSet[0][0]: sent_id: expected 0 to 1, got True"),
    ((*FIRST, "sent_id"), "0", "vertexSet[0][0]: sent_id: expected 0 to 1, got '0'"),
    ((*FIRST, "pos"), MISSING, "vertexSet[0][0]: pos: None is not a [start, end) inside sentence 0 of 4 words"),
    ((*FIRST, "pos"), [3, 5], "vertexSet[0][0]: pos: [3, 5] is not a [start, end) inside sentence 0 of 4 words"),
    ((*FIRST, "pos"), [2, 2], "vertexSet[0][0]: pos: [2, 2] is not"),
    ((*FIRST, "pos"), [-1, 2], "vertexSet[0][0]: pos: [-1, 2] is not"),
    ((*FIRST, "pos"), [0], "vertexSet[0][0]: pos: [0] is not"),
    ((*FIRST, "pos"), [0.0, 1.0], "vertexSet[0][0]: pos: [0.0, 1.0] is not"),
    (("labels",), {}, "labels: expected a list, got dict"),
    (LABEL, [1, 0, "P1"], "labels[0]: expected an object, got list"),
    ((*LABEL, "h"), 2, "labels[0]: h: expected an entity from 0 to 1, got 2"),
    ((*LABEL, "t"), MISSING, "labels[0]: t: expected an entity from 0 to 1, got None"),
    ((*LABEL, "t"), 1, "labels[0]: h and t are the same entity 1"),
    ((*LABEL, "r"), "P9", "labels[0]: r: 'P9' is not a relation of rel2id.json"),
    ((*LABEL, "r"), "Na", "labels[0]: r: 'Na' is not a relation of rel2id.json"),
    ((*LABEL, "r"), 1, "labels[0]: r: 1 is not a relation of rel2id.json"),
    ((*LABEL, "r"), [], "labels[0]: r: [] is not a relation of rel2id.json"),
    ((*LABEL, "evidence"), [2], "labels[0]: evidence: expected sentences from 0 to 1, got [2]"),
    ((*LABEL, "evidence"), 1, "labels[0]: evidence: expected sentences from 0 to 1, got 1"),
]


@pytest.mark.parametrize(("path", "value", "message"), BAD)
def test_names_the_document_and_the_field(path, value, message):
    (problem,) = find_problems(changed(path, value), 7, REL2ID)
    assert problem.startswith("document 7 ")
    assert "'A town'" in problem or path == ("title",)
    assert message in problem


@pytest.mark.parametrize("thing", [None, [], "text", 3])
def test_what_is_no_document(thing):
    assert find_problems(thing, 3) == [f"document 3: expected an object, got {type(thing).__name__}"]


LEGAL = {
    "as it is": GOOD,
    "no labels": changed(("labels",), MISSING),
    "labels null": changed(("labels",), None),
    "no relation holds": changed(("labels",), []),
    "no evidence": changed((*LABEL, "evidence"), MISSING),
    "empty evidence": changed((*LABEL, "evidence"), []),
    "no type": changed((*FIRST, "type"), MISSING),
    "more fields": changed((*FIRST, "global_pos"), [0, 0]),
    "a mention up to the end of its sentence": changed((*FIRST, "pos"), [2, 4]),
    "no entity": GOOD | {"vertexSet": [], "labels": []},
}


@pytest.mark.parametrize("name", LEGAL)
def test_legal(tmp_path, name):
    assert find_problems(LEGAL[name], 0, REL2ID) == []
    assert load_documents(write(tmp_path, [LEGAL[name]]), REL2ID) == [LEGAL[name]]


def test_relations_are_left_alone_without_rel2id():
    assert find_problems(changed((*LABEL, "r"), "P9"), 0) == []


def test_file_lists_the_problems_of_all_documents(tmp_path):
    two = changed((*FIRST, "pos"), [9, 10])
    two["labels"][0]["h"] = 5
    documents = [GOOD, GOOD | {"title": "B", "sents": []}, two, None]
    with pytest.raises(SegDREError) as caught:
        load_documents(write(tmp_path, documents), REL2ID)
    message = str(caught.value)
    assert "dev.json: 5 problems:" in message
    for part in (
        "document 1 'B': sents",
        "document 2 'A town': vertexSet[0][0]: pos",
        "document 2 'A town': labels[0]: h",
        "document 3: expected an object",
        "document 2 'A town': has the same title as document 0",
    ):
        assert part in message


def test_many_problems_are_counted(tmp_path):
    documents = [changed(("title",), f"{i}") | {"sents": None} for i in range(50)]
    with pytest.raises(SegDREError, match=r"50 problems(.|\n)*document 19 (.|\n)*\.\.\. and 30 more"):
        load_documents(write(tmp_path, documents))


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"title": "A"}', "sents: expected sentences"), (b"[{]", "is not JSON"), (b"\xff\xfe[", "is UTF-16")],
)
def test_file_that_holds_no_documents(tmp_path, content, message):
    path = tmp_path / "dev.json"
    path.write_bytes(content)
    with pytest.raises(SegDREError, match=message):
        load_documents(path)


def test_missing_file(tmp_path):
    with pytest.raises(SegDREError, match=r"cannot read .*nowhere\.json: No such file"):
        load_documents(tmp_path / "nowhere.json")

"""What is made of the answers: DocRED's list, CSV and N-Triples, read back by other people's readers."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin.prediction.formats import FORMATS, LABEL, NAMESPACE

AWKWARD = 'a "b" \\ <c> & ünï\n\t\r\x85\u2028,;_:d0 .'


def triple(h, t, relation="P17", **more):
    names = {"head": f"name {h}", "relation": f"{relation} in words", "tail": f"name {t}"}
    return {"h_idx": h, "r": relation, "t_idx": t} | names | {"score": 1.5, "source": ["base", "dense"]} | more


def answer(index, *triples, title="same title"):
    return {"index": index, "title": title, "triples": list(triples), "injected": []}


ANSWERS = [
    answer(0, triple(0, 1), triple(1, 0, "P27", evidence=[0, 2])),
    answer(1, title="without a triple"),
    answer(7, triple(0, 1), triple(0, 1, "P 1>é")),  # of the same title as the first one
]


def made(form, answers):
    file = io.BytesIO()
    FORMATS[form](file, answers)
    return file.getvalue().decode()


def test_csv_has_a_row_a_triple():
    header, *rows = csv.reader(io.StringIO(made("csv", ANSWERS), newline=""))
    assert header[:3] == ["index", "title", "h_idx"]
    assert rows[1] == [
        *("0", "same title", "1", "name 1", "P27", "P27 in words", "0", "name 0", "1.5", "base dense", "0 2")
    ]
    assert [row[0] for row in rows] == ["0", "0", "7", "7"]
    assert rows[0][-1] == ""


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_csv_keeps_any_text(text):
    content = made("csv", [answer(0, triple(0, 1, head=text), title=text)])
    row = next(iter(csv.DictReader(io.StringIO(content, newline=""))))
    assert (row["title"], row["head"]) == (text, text)


def test_official_rows():
    rows = json.loads(made("official", ANSWERS))
    assert rows[1] == {"title": "same title", "h_idx": 1, "t_idx": 0, "r": "P27", "evidence": [0, 2]}
    assert len(rows) == 4
    assert made("official", []) == "[]\n"


def graph(text):
    rdflib = pytest.importorskip("rdflib", reason="pip install rdflib")
    return rdflib.Graph().parse(data=text, format="nt")


def label(found, node):
    (value,) = found.objects(node, _iri(LABEL[1:-1]))
    return str(value)


def _iri(text):
    import rdflib

    return rdflib.URIRef(text)


def test_rdf_by_another_reader():
    found = graph(made("rdf", ANSWERS))
    about = []
    for relation in ("P17", "P27", "P%201%3E%C3%A9"):
        predicate = _iri(f"{NAMESPACE}relation:{relation}")
        for head, tail in found.subject_objects(predicate):
            (document,) = found.objects(head, _iri(f"{NAMESPACE}document"))
            assert [*found.objects(tail, _iri(f"{NAMESPACE}document"))] == [document]
            about.append((label(found, head), label(found, predicate), label(found, tail), label(found, document)))
    expected = [("name 0", "P17 in words", "name 1"), ("name 1", "P27 in words", "name 0")]
    expected += [expected[0], ("name 0", "P 1>é in words", "name 1")]
    assert sorted(about) == sorted((*row, "same title") for row in expected)
    documents = set(found.objects(None, _iri(f"{NAMESPACE}document")))
    assert len(documents) == 2  # two of one title stay apart, one without a triple has no node
    assert len(found) == 4 + 4 + 4 + 3 + 2


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_rdf_keeps_any_text(text):
    content = made("rdf", [answer(0, triple(0, 1, head=text), title=text + AWKWARD)])
    assert len(content.removesuffix("\n").split("\n")) == 7  # a statement a line
    found = graph(content)
    labels = {str(value) for value in found.objects(None, _iri(LABEL[1:-1]))}
    assert {text, text + AWKWARD} <= labels

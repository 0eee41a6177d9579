"""Plain text with spans to DocRED's JSON: the grid fits the mentions, nothing is lost, problems are named."""

import json
import string
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin.cli import main
from segdre_plugin.data.convert import Converted, convert, text_problems
from segdre_plugin.data.documents import find_problems

TEXT = 'Dr. Olo Varn didn\'t leave Varnburg (e.g. in 1901).  "Why?" He stayed.\n\nMr. X-1 paid 3.5 euros! then left'


def spans(text, *names):
    return [[text.index(name), text.index(name) + len(name)] for name in names]


def test_by_hand():
    value = {
        "title": "A",
        "text": TEXT,
        "entities": [
            {"type": "PER", "mentions": [*spans(TEXT, "Olo Varn"), [TEXT.index("He"), TEXT.index("He") + 2]]},
            {"mentions": spans(TEXT, "Varnburg")},
        ],
    }
    assert convert(value) == {
        "title": "A",
        "sents": [
            ["Dr", "."],
            ["Olo", "Varn", "didn't", "leave", "Varnburg", "(", "e.g", ".", "in", "1901", ")", "."],
            ['"', "Why", "?", '"'],
            ["He", "stayed", "."],
            ["Mr", "."],
            ["X", "-", "1", "paid", "3.5", "euros", "!"],
            ["then", "left"],
        ],
        "vertexSet": [
            [
                {"name": "Olo Varn", "sent_id": 1, "pos": [0, 2], "type": "PER"},
                {"name": "He", "sent_id": 3, "pos": [0, 1], "type": "PER"},
            ],
            [{"name": "Varnburg", "sent_id": 1, "pos": [4, 5], "type": "MISC"}],
        ],
    }


def test_mentions_rule_over_sentences_and_words():
    text = "He met Dr. Olo. The Varnburgers left St.\n\nOlo"
    tally = Converted()
    mentions = [*spans(text, "Dr. Olo", "Varnburg", "St.\n\nOlo"), [6, 11]]  # the last with spaces at both ends
    document = convert({"title": "A", "text": text, "entities": [{"mentions": [m]} for m in mentions]}, tally)
    assert document["sents"] == [
        ["He", "met", "Dr", ".", "Olo", "."],
        ["The", "Varnburg", "ers", "left", "St", ".", "Olo"],
    ]
    names = [entity[0]["name"] for entity in document["vertexSet"]]
    assert names == ["Dr. Olo", "Varnburg", "St. Olo", "Dr."]
    assert [entity[0]["pos"] for entity in document["vertexSet"]] == [[2, 5], [1, 2], [4, 7], [2, 4]]
    assert (tally.documents, tally.cut_words, tally.joined_sentences) == (1, 1, 2)


@given(
    data=st.data(),
    text=st.text(alphabet=string.ascii_letters + " .!?'\"-\n\r\t5é中\u00a0\u0301।", min_size=1, max_size=60),
)
def test_every_text_and_mention_survives(data, text):
    ends = st.integers(0, len(text))
    drawn = data.draw(st.lists(st.tuples(ends, ends).map(sorted), max_size=6))
    mentions = [span for span in drawn if text[span[0] : span[1]].strip()]
    value = {"title": "A", "text": text, "entities": [{"mentions": [span]} for span in mentions]}
    if not text.strip():
        assert len(text_problems(value, 0)) == 1
        return
    assert text_problems(value, 0) == []
    document = convert(value)
    assert find_problems(document, 0) == []
    words = [word for sent in document["sents"] for word in sent]
    assert "".join(words) == "".join(text.split())
    assert all(word and not any(c.isspace() for c in word) for word in words)
    for entity, (start, end) in zip(document["vertexSet"], mentions, strict=True):
        (mention,) = entity
        found = document["sents"][mention["sent_id"]][slice(*mention["pos"])]
        assert "".join(found) == "".join(text[start:end].split()) == "".join(mention["name"].split())


LANGUAGES = {
    "Chinese": ("奥洛住在这里。他走了。", [["奥", "洛", "住", "在", "这", "里", "。"], ["他", "走", "了", "。"]]),
    "Hindi": ("वह गया। वह आया।", [["वह", "गया", "।"], ["वह", "आया", "।"]]),
    "Arabic": ("ما هذا؟ هذا كتاب.", [["ما", "هذا", "؟"], ["هذا", "كتاب", "."]]),
    "combining marks": ("Zoe\u0308 sah Jose\u0301.", [["Zoe\u0308", "sah", "Jose\u0301", "."]]),
    "wrapped lines": (
        "Olo left\r\nearly. He\nstayed.\r\n\r\nNow",
        [["Olo", "left", "early", "."], ["He", "stayed", "."], ["Now"]],
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_one_way_for_all_languages(language):
    text, sents = LANGUAGES[language]
    assert convert({"title": "A", "text": text, "entities": []})["sents"] == sents


def test_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uniseg.wordbreak", None)
    source = tmp_path / "texts.json"
    source.write_text(json.dumps([GOOD]))
    assert main(["convert", str(source), "--output", str(tmp_path / "out.json")]) == 2
    assert 'pip install "segdre-plugin[text]"' in capsys.readouterr().err


GOOD = {"title": "A", "text": "Olo left.", "entities": [{"mentions": [[0, 3]]}]}
BAD = [
    (3, "expected an object, got int"),
    (GOOD | {"title": None}, "title: expected text, got NoneType"),
    (GOOD | {"text": 5}, "text: expected text, got int"),
    (GOOD | {"text": " \n ", "entities": []}, "text: no word in it"),
    (GOOD | {"text": "Olo \ud800"}, "text: expected text"),
    (GOOD | {"entities": {}}, "entities: expected a list, got dict"),
    (GOOD | {"entities": [[[0, 3]]]}, "entities[0]: expected an object with one mention or more"),
    (GOOD | {"entities": [{"mentions": []}]}, "entities[0]: expected an object with one mention or more"),
    (GOOD | {"entities": [{"mentions": [[0, 3]], "type": 1}]}, "entities[0]: type: expected text, got 1"),
    (
        GOOD | {"entities": [{"mentions": [[0, 3]], "type": "\ud800"}]},
        "entities[0]: type: expected text, got '\\ud800'",
    ),
    (GOOD | {"entities": [{"mentions": [[0, 3], [0]]}]}, "entities[0].mentions[1]: expected [start, end)"),
    (GOOD | {"entities": [{"mentions": [[0, 3.0]]}]}, "entities[0].mentions[0]: expected [start, end)"),
    (GOOD | {"entities": [{"mentions": [[7, 12]]}]}, "mentions[0]: [7, 12] is not a [start, end) inside the text of 9"),
    (GOOD | {"entities": [{"mentions": [[3, 3]]}]}, "mentions[0]: [3, 3] is not a [start, end)"),
    (GOOD | {"entities": [{"mentions": [[3, 4]]}]}, "mentions[0]: [3, 4] holds only spaces"),
]


@pytest.mark.parametrize(("value", "message"), BAD, ids=[message[:40] for _, message in BAD])
def test_problems_have_their_place(value, message):
    (problem,) = text_problems(value, 4)
    assert problem.startswith("document 4")
    assert message in problem


def test_command_converts_or_names_all_problems(tmp_path, capsys):
    source, target = tmp_path / "texts.jsonl", tmp_path / "documents.json"
    source.write_text("\n".join(json.dumps(GOOD | {"title": f"{i}"}) for i in range(3)))
    assert main(["convert", str(source), "--output", str(target)]) == 0
    assert "3 documents" in capsys.readouterr().out
    documents = json.loads(target.read_text())
    assert [d["title"] for d in documents] == ["0", "1", "2"]
    assert main(["validate", str(target)]) == 0
    lines = tmp_path / "documents.jsonl"
    assert main(["convert", str(source), "--output", str(lines)]) == 0
    assert [json.loads(line) for line in lines.read_text().splitlines()] == documents
    capsys.readouterr()

    bad = [GOOD, GOOD, GOOD | {"title": "B", "text": ""}, "text"]
    source.write_text(json.dumps(bad))
    before = target.read_bytes()
    assert main(["convert", str(source), "--output", str(target)]) == 2
    message = capsys.readouterr().err
    for part in ("4 problems", "document 1 'A': has the same title", "document 2 'B': text", "document 3: expected"):
        assert part in message
    assert target.read_bytes() == before  # whole or not at all
    assert sorted(path.name for path in tmp_path.iterdir()) == ["documents.json", "documents.jsonl", "texts.jsonl"]
    source.write_text("[]")
    assert main(["convert", str(source), "--output", str(target)]) == 0
    assert json.loads(target.read_text()) == []


def test_an_output_that_cannot_be_written_is_refused(tmp_path, capsys):
    source = tmp_path / "texts.json"
    source.write_text(json.dumps([GOOD]))
    for output, words in (
        (tmp_path / "nowhere" / "documents.json", "no folder"),
        (tmp_path, "is not a file"),
        (source, "one of the files that are read"),
    ):
        assert main(["convert", str(source), "--output", str(output)]) == 2
        message = capsys.readouterr().err
        assert f"--output {output}" in message
        assert words in message
    assert json.loads(source.read_text()) == [GOOD]
    assert list(tmp_path.iterdir()) == [source]

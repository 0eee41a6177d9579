"""``segdre validate --fix``: what has one obvious answer is fixed and named, the rest stays a problem."""

import copy
import gzip
import json
import os
from pathlib import Path

import malformed
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdre_plugin.cli import main
from segdre_plugin.data.documents import find_problems, load_documents
from segdre_plugin.data.fixes import fix

GOOD = malformed.TOWN
TITLED = malformed.changed(GOOD, ("title",), "227508")
FIRST, LABEL = ("vertexSet", 0, 0), ("labels", 0)
WORDS = malformed.changed(GOOD, ("sents", 0, 2), "1901")

# path, what a foreign file has there, the document that was meant, and how the fix is named
FIXED = [
    ((*LABEL, "evidence"), [None], malformed.changed(GOOD, (*LABEL, "evidence"), []), "evidence: null dropped"),
    ((*LABEL, "evidence"), [None, 1, None], GOOD, "evidence: null dropped"),
    ((*LABEL, "evidence"), ["1"], GOOD, "evidence: text or float to whole number"),
    (("title",), 227508, TITLED, "title: number to text"),
    (("title",), 227508.0, TITLED, "title: number to text"),
    (("sents", 0, 2), 1901, WORDS, "sents: number to text"),
    ((*FIRST, "name"), 5, malformed.changed(GOOD, (*FIRST, "name"), "5"), "name: number to text"),
    ((*FIRST, "sent_id"), "0", GOOD, "sent_id: text or float to whole number"),
    ((*FIRST, "pos"), [0.0, " 1 "], GOOD, "pos: text or float to whole number"),
    ((*LABEL, "h"), "1", GOOD, "h: text or float to whole number"),
    ((*LABEL, "h"), "1.0", GOOD, "h: text or float to whole number"),
    ((*LABEL, "t"), 0.0, GOOD, "t: text or float to whole number"),
]


@pytest.mark.parametrize(("path", "value", "due", "kind"), FIXED)
def test_by_hand(path, value, due, kind):
    foreign = malformed.changed(GOOD, path, value)
    before = copy.deepcopy(foreign)
    assert find_problems(foreign, 0)  # negative control: it is needed
    fixed, fixes = fix(foreign)
    assert (fixed, [found.kind for found in fixes]) == (due, [kind])
    assert json.dumps(fixed) == json.dumps(due)  # 1.0 == 1
    assert foreign == before


# never a guess
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("title",), True),
        (("title",), 1.5),
        (("title",), None),
        (("title",), 1e300),
        (("sents", 0, 2), 1.5),
        (("sents", 1), []),
        ((*FIRST, "sent_id"), True),
        ((*FIRST, "sent_id"), "first"),
        ((*FIRST, "sent_id"), 0.5),
        ((*FIRST, "sent_id"), "-1"),
        ((*FIRST, "sent_id"), "9" * 5000),
        ((*FIRST, "pos"), [3, 5]),
        ((*FIRST, "pos"), "0 1"),
        ((*FIRST, "name"), None),
        ((*LABEL, "h"), "¹"),
        ((*LABEL, "t"), 1),
        ((*LABEL, "r"), 1),
        ((*LABEL, "evidence"), 1),
        ((*LABEL, "evidence"), ["", 1]),
        (LABEL, [1, 0, "P1"]),
        (("vertexSet", 1), None),
    ],
)
def test_what_stays_a_problem(path, value):
    foreign = malformed.changed(GOOD, path, value)
    fixed, fixes = fix(foreign)
    assert (fixed, fixes) == (foreign, [])
    assert find_problems(fixed, 0)


def test_what_is_fixed_and_still_a_problem():
    fixed, fixes = fix(malformed.changed(GOOD, (*LABEL, "t"), "1"))
    assert len(fixes) == 1
    assert "h and t are the same entity 1" in find_problems(fixed, 0)[0]


@pytest.mark.parametrize("thing", [None, [], "text", 3, {}])
def test_what_is_no_document_stays(thing):
    assert fix(thing) == (thing, [])


def spelled(number):
    """Ways in which foreign files write a whole number."""
    return st.sampled_from([number, str(number), float(number), f" {number} ", f"{number}.0"])


@st.composite
def documents(draw):
    """A valid document, and the same as a foreign file may spell it."""
    n = draw(st.integers(1, 4))
    sents = [draw(st.lists(st.sampled_from(["Varn", "12", "5"]), min_size=1, max_size=4)) for _ in range(n)]
    good = {"title": draw(st.sampled_from(["A", "12"])), "sents": sents, "vertexSet": [], "labels": []}
    bad = good | {
        "title": draw(st.sampled_from([12, 12.0, "12"] if good["title"] == "12" else ["A"])),
        "sents": [[int(w) if w.isdigit() and draw(st.booleans()) else w for w in sent] for sent in sents],
        "vertexSet": [],
        "labels": [],
    }
    for _ in range(draw(st.integers(2, 3))):
        sent = draw(st.integers(0, n - 1))
        end = draw(st.integers(1, len(sents[sent])))
        mention = {
            "name": "5",
            "sent_id": sent,
            "pos": [end - 1, end],
            "type": draw(st.sampled_from(["CHEM", 3, None])),
        }
        good["vertexSet"].append([mention])
        pos = [draw(spelled(p)) for p in mention["pos"]]
        foreign = {"name": draw(st.sampled_from(["5", 5])), "sent_id": draw(spelled(sent)), "pos": pos}
        bad["vertexSet"].append([mention | foreign])
    for _ in range(draw(st.integers(0, 3))):
        evidence = draw(st.lists(st.integers(0, n - 1), max_size=2))
        good["labels"].append({"h": 0, "t": 1, "r": "CID", "evidence": evidence})
        written = [draw(spelled(s)) for s in evidence] + [None] * draw(st.integers(0, 1))
        bad["labels"].append({"h": draw(spelled(0)), "t": draw(spelled(1)), "r": "CID", "evidence": written})
    return good, bad


@given(documents())
def test_properties(case):
    good, bad = case
    assert not find_problems(good, 0)
    assert fix(good) == (good, [])
    fixed, fixes = fix(bad)
    assert json.dumps(fixed) == json.dumps(good)
    assert bool(fixes) == (json.dumps(bad) != json.dumps(good))
    assert fix(fixed) == (fixed, [])


class TestCommand:
    def foreign(self):
        one = malformed.changed(GOOD, (*LABEL, "evidence"), [None])
        return [one | {"title": 1}, one | {"title": "two", "note": "ß"}]

    def run(self, folder, content, *more):
        (folder / "in.json").write_bytes(content)
        return main(["validate", str(folder / "in.json"), "--fix", *map(str, more or (folder / "out.json",))])

    @pytest.mark.parametrize("form", ["list", "lines", "gzip", "bom"])
    @pytest.mark.parametrize("name", ["out.json", "out.jsonl"])
    def test_every_form(self, tmp_path, capsys, form, name):
        lines = "\n".join(json.dumps(one) for one in self.foreign()).encode()
        content = {"lines": lines, "gzip": gzip.compress(lines), "bom": b"\xef\xbb\xbf" + lines}
        assert self.run(tmp_path, content.get(form, json.dumps(self.foreign()).encode()), tmp_path / name) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"{tmp_path / name}: 2 documents, 4 entities, 6 mentions, 2 triples",
            "fixed: title: number to text: 1 times, first in document 0 '1': title",
            "fixed: evidence: null dropped: 2 times, first in document 0 '1': labels[0]: evidence",
        ]
        assert [one["title"] for one in load_documents(tmp_path / name)] == ["1", "two"]
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text[0] == ("{" if name == "out.jsonl" else "[")
        assert text.count("\n") == (2 if name == "out.jsonl" else 4)
        assert '"ß"' in text

    def test_nothing_to_fix(self, tmp_path, capsys):
        assert self.run(tmp_path, json.dumps([GOOD]).encode()) == 0
        assert f"{tmp_path / 'in.json'} needs no fix" in capsys.readouterr().out
        assert load_documents(tmp_path / "out.json") == [GOOD]

    def test_standard_output_holds_the_documents_alone(self, tmp_path, capfd):
        assert self.run(tmp_path, json.dumps(self.foreign()).encode(), "-") == 0
        printed = capfd.readouterr()
        assert [one["title"] for one in json.loads(printed.out)] == ["1", "two"]
        assert "evidence: null dropped" in printed.err

    def test_problems_that_are_left_are_listed_and_nothing_is_written(self, tmp_path, capsys):
        bad = malformed.changed(GOOD, (*LABEL, "t"), "1")
        (tmp_path / "out.json").write_text("as it was")
        assert self.run(tmp_path, json.dumps([*self.foreign(), bad, bad | {"title": 1.0}, 3]).encode()) == 2
        message = capsys.readouterr().err
        for words in (
            "in.json: 4 problems",
            "document 2 'A town': labels[0]: h and t are the same entity 1",
            "document 3 '1': has the same title as document 0",
            "document 4: expected an object",
        ):
            assert words in message
        assert (tmp_path / "out.json").read_text() == "as it was"

    def test_relations(self, tmp_path, capsys):
        (tmp_path / "rel2id.json").write_text('{"Na": 0, "P9": 1}')
        content = json.dumps(self.foreign()).encode()
        assert self.run(tmp_path, content, tmp_path / "out.json", "--rel2id", tmp_path / "rel2id.json") == 2
        assert "r: 'P1' is not a relation of rel2id.json" in capsys.readouterr().err
        assert not (tmp_path / "out.json").exists()

    def test_what_json_does_not_have(self, tmp_path, capsys):
        lines = [json.dumps(GOOD | {"title": str(i), "note": note}) for i, note in enumerate([float("nan"), "\ud83d"])]
        assert self.run(tmp_path, "\n".join(lines).encode()) == 2
        message = capsys.readouterr().err
        assert "document 0 '0': holds NaN" in message
        assert "document 1 '1': holds half a character" in message

    def test_the_file_itself_is_not_replaced(self, tmp_path, capsys):
        assert self.run(tmp_path, json.dumps([GOOD]).encode(), tmp_path / "in.json") == 2
        assert "--fix" in capsys.readouterr().err


@pytest.mark.upstream
@pytest.mark.skipif("SEGDRE_CDR" not in os.environ, reason="no CDR: set SEGDRE_CDR to the folder of its files")
@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_real_cdr(tmp_path, capsys, name):
    folder = Path(os.environ["SEGDRE_CDR"])
    relations = ["--rel2id", str(folder / "rel2id.json")]
    assert main(["validate", str(folder / f"{name}.json"), *relations]) == 2
    assert main(["validate", str(folder / f"{name}.json"), "--fix", str(tmp_path / "out.json"), *relations]) == 0
    assert "evidence: null dropped" in capsys.readouterr().out
    assert main(["validate", str(tmp_path / "out.json"), *relations]) == 0

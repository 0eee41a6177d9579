"""``segdre stats``: table, JSON and figures of files; what it says of files that are not as they should be."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest
from locate import REPOSITORY

from segdre_plugin.cli import main
from segdre_plugin.data.synthetic.corpus import write_corpus

FIGURES = ("chain", "coverage", "relation_classes", "salient_share")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, train=30, dev=10, test=5, seed=3)
    return folder


@pytest.fixture
def unlabelled(corpus, tmp_path):
    path = tmp_path / "unlabelled.jsonl"
    documents = json.loads((corpus / "dev.json").read_text())
    path.write_text("\n".join(json.dumps({k: v for k, v in d.items() if k != "labels"}) for d in documents))
    return path


def cells(text, title):
    """What stands in a row of the table."""
    (row,) = [row for line in text.splitlines() if (row := re.split(r"\s{2,}", line, maxsplit=1))[0] == title]
    return row[1].split()


def test_table_and_json_agree(corpus, tmp_path, capsys):
    files = [str(corpus / "train_annotated.json"), str(corpus / "dev.json")]
    output = tmp_path / "numbers.json"
    assert main(["stats", *files, "--json", str(output), "--rel-info", str(corpus / "rel_info.json")]) == 0
    text = capsys.readouterr().out
    found = json.loads(output.read_text())
    assert list(found) == text.splitlines()[0].split() == ["train_annotated.json", "dev.json"]
    columns = list(found.values())
    assert cells(text, "documents") == ["30", "10"]
    labels = [column["labels"] for column in columns]
    for title, values in {
        "entities": [column["entities"] for column in columns],
        "ordered pairs": [column["pairs"] for column in columns],
        "triples": [s["triples"] for s in labels],
        "sentences": [column["sentences"] for column in columns],
        "relations": [s["relations"] for s in labels],
    }.items():
        assert cells(text, title) == [f"{value:.1f}" for value in values]
    assert cells(text, "with the salient entity") == [f"{100 * s['salient_share']:.2f}" for s in labels]
    for name in ("Max Relation", "Max Intra-relation", "Max Mention"):
        shares = [100 * s["coverage"][name][hop] for s in labels for hop in ("hop_1", "hop_2")]
        assert cells(text, name) == [f"{share:.2f}" for share in shares]
    links = [link for s in labels for link in (s["chain"][1]["covered"], f"{s['chain'][1]['log_ratio']:.2f}")]
    assert cells(text, "2") == [str(link) for link in links]
    first = labels[0]["classes"][0]
    assert cells(text, first["name"])[:2] == [str(first["dense"]), str(first["sparse"])]
    assert f"written: {output}" in text


def test_jsonl_says_the_same(corpus, tmp_path):
    documents = json.loads((corpus / "dev.json").read_text())
    lines = tmp_path / "dev.jsonl"
    lines.write_text("\n".join(map(json.dumps, documents)))
    numbers = []
    for path in (corpus / "dev.json", lines):
        assert main(["stats", str(path), "--json", str(tmp_path / "numbers.json")]) == 0
        numbers += json.loads((tmp_path / "numbers.json").read_text()).values()
    assert numbers[0] == numbers[1]


def test_files_of_the_same_name_go_by_their_paths(corpus, tmp_path, capsys):
    other = tmp_path / "dev.json"
    other.write_bytes((corpus / "test.json").read_bytes())
    assert main(["stats", str(corpus / "dev.json"), str(other)]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == [str(corpus / "dev.json"), str(other)]


def test_figures(corpus, tmp_path):
    files = [str(corpus / name) for name in ("dev.json", "test.json")]
    names = json.loads((corpus / "rel_info.json").read_text())
    folders = [tmp_path / name for name in ("figures", "again")]
    for folder in folders:
        command = ["stats", *files, "--figures", str(folder), "--rel-info", str(corpus / "rel_info.json")]
        assert main(command) == 0
    folder, again = folders
    due = sorted(f"{name}.{form}" for name in FIGURES for form in ("png", "svg"))
    assert sorted(path.name for path in folder.iterdir()) == due
    for path in folder.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
        assert path.suffix == ".svg" or path.read_bytes().startswith(b"\x89PNG")
    words = {name: texts(folder / f"{name}.svg") for name in FIGURES}
    assert set(names.values()) & words["relation_classes"]
    assert not set(names) & words["relation_classes"]  # names, no ids
    for found in words.values():
        assert {"dev.json", "test.json"} <= found


def texts(path):
    return {
        "".join(node.itertext()).strip() for node in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    }


def test_without_names_figures_show_ids(corpus, tmp_path):
    assert main(["stats", str(corpus / "dev.json"), "--figures", str(tmp_path / "figures")]) == 0
    found = texts(tmp_path / "figures" / "relation_classes.svg")
    assert {text for text in found if re.fullmatch(r"P\d+", text)}


class TestWithoutLabels:
    def test_says_so(self, unlabelled, tmp_path, capsys):
        output = tmp_path / "numbers.json"
        assert main(["stats", str(unlabelled), "--json", str(output)]) == 0
        text = capsys.readouterr().out
        assert "unlabelled.jsonl: no labels: no document has a triple, so there are no statistics of relations" in text
        assert "triples" not in text
        assert cells(text, "documents") == ["10"]
        assert json.loads(output.read_text())["unlabelled.jsonl"]["labels"] is None

    def test_beside_another_file(self, corpus, unlabelled, tmp_path, capsys):
        command = ["stats", str(unlabelled), str(corpus / "test.json"), "--figures", str(tmp_path / "figures")]
        assert main(command) == 0
        text = capsys.readouterr().out
        assert "unlabelled.jsonl: no labels" in text
        for title in ("triples", "without a triple", "with the salient entity", "Max Mention", "1"):
            assert cells(text, title)[0] == "-"
            assert "-" not in cells(text, title)[1:]
        assert "unlabelled.jsonl" not in texts(tmp_path / "figures" / "coverage.svg")

    def test_nothing_to_draw(self, unlabelled, tmp_path, capsys):
        assert main(["stats", str(unlabelled), "--figures", str(tmp_path / "figures")]) == 2
        assert "no document has a triple" in capsys.readouterr().err
        assert not (tmp_path / "figures").exists()


class TestErrors:
    def refused(self, capsys, *arguments):
        assert main(["stats", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    def test_files(self, corpus, tmp_path, capsys):
        assert "cannot read" in self.refused(capsys, tmp_path / "nowhere.json")
        empty = tmp_path / "empty.json"
        empty.write_text("[]")
        assert "expected documents, got none" in self.refused(capsys, corpus / "dev.json", empty)
        documents = json.loads((corpus / "dev.json").read_text())
        documents[1]["labels"][0]["h"] = 99
        documents[3]["vertexSet"][0] = []
        broken = tmp_path / "broken.json"
        broken.write_text(json.dumps(documents))
        message = self.refused(capsys, broken, "--json", tmp_path / "numbers.json")
        assert "2 problems" in message
        assert "labels[0]: h: expected an entity" in message
        assert "vertexSet[0]: expected one mention or more" in message
        assert not (tmp_path / "numbers.json").exists()
        broken.write_text('{"title": "A"\n')
        assert "not JSON" in self.refused(capsys, broken)
        assert "listed twice" in self.refused(capsys, corpus / "dev.json", corpus / ".." / corpus.name / "dev.json")

    def test_relation_names(self, corpus, tmp_path, capsys):
        names = tmp_path / "rel_info.json"
        assert "cannot read" in self.refused(capsys, corpus / "dev.json", "--rel-info", names)
        names.write_text('["P17"]')
        assert "expected relation id -> name" in self.refused(capsys, corpus / "dev.json", "--rel-info", names)
        names.write_text("{}")
        assert "relations without a name" in self.refused(capsys, corpus / "dev.json", "--rel-info", names)

    def test_outputs(self, corpus, tmp_path, capsys):
        dev, nowhere = corpus / "dev.json", tmp_path / "nowhere" / "out"
        before = dev.read_bytes()
        for option in ("--json", "--figures"):
            assert f"{option} {nowhere}: no folder" in self.refused(capsys, dev, option, nowhere)
        assert "is not a file" in self.refused(capsys, dev, "--json", tmp_path)
        for option in ("--json", "--figures"):
            assert "is one of the files that are read" in self.refused(capsys, dev, option, dev)
        assert "is not a folder" in self.refused(capsys, dev, "--figures", corpus / "rel_info.json")
        assert dev.read_bytes() == before
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "figures" / "chain.png").mkdir(parents=True)  # stands where a figure is due
        numbers = tmp_path / "numbers.json"
        assert "cannot write" in self.refused(capsys, dev, "--figures", tmp_path / "figures", "--json", numbers)
        assert not numbers.exists()


def test_page_says_what_the_command_prints(redocred, capsys):
    """The output in docs/statistics.md is the real one."""
    names = [str(redocred / f"{name}.json") for name in ("train", "dev", "test")]
    assert main(["stats", *names, "--rel-info", str(redocred / "rel_info.json")]) == 0
    page = (REPOSITORY / "docs" / "statistics.md").read_text(encoding="utf-8")
    assert capsys.readouterr().out.rstrip() in page

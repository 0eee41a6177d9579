"""The demo's example document: its text before, and what each stage found after, against sets made by hand."""

import re

import pytest
from finished import make_run

from segdre_plugin.salient import gold_salient, gold_triples
from segdre_plugin.seg.demo_example import after, before, choose_example
from segdre_plugin.seg.run_folder import RunFolder

DOCUMENT = {
    "title": "Lark",
    "sents": [["Lark", "is", "by", "The", "Owls", "."], ["The", "Owls", "signed", "with", "Nest", "."]],
    "vertexSet": [
        [{"name": "Lark", "pos": [0, 1], "sent_id": 0, "type": "MISC"}],
        [
            {"name": "The Owls", "pos": [3, 5], "sent_id": 0, "type": "ORG"},
            {"name": "The Owls", "pos": [0, 2], "sent_id": 1, "type": "ORG"},
        ],
        [{"name": "Nest", "pos": [4, 5], "sent_id": 1, "type": "ORG"}],
    ],
    "labels": [
        {"h": 0, "t": 1, "r": "P175", "evidence": [0]},
        {"h": 1, "t": 2, "r": "P264", "evidence": [1]},
        {"h": 0, "t": 2, "r": "P264", "evidence": [0, 1]},
    ],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunFolder(make_run(tmp_path_factory.mktemp("run")))


def test_before_marks_mentions_and_lists_entities():
    assert before(DOCUMENT).splitlines() == [
        "  [Lark] is by [The Owls] . [The Owls] signed with [Nest] .",
        "  entities: Lark (MISC), The Owls (ORG), Nest (ORG)",
    ]


def test_the_document_with_most_two_hop_triples_is_chosen():
    without = DOCUMENT | {"title": "Wren", "labels": DOCUMENT["labels"][:2]}
    longer = DOCUMENT | {"title": "Owl", "sents": [*DOCUMENT["sents"], ["It", "rained", "."]]}
    assert choose_example([without, longer, DOCUMENT]) == 2
    assert choose_example([without, longer]) == 1


def test_after_counts_right_and_wrong(run):
    for index, document in enumerate(run.documents["test"]):
        text, gold = after(run, index), gold_triples(document)
        fused = {(p["h_idx"], p["r"], p["t_idx"]) for p in run.result("test") if p["title"] == document["title"]}
        right = len(fused & gold)
        expected = f"{right} right, {len(fused) - right} wrong" if fused else "nothing"
        assert f"  fused: {expected}; base alone: " in text
        assert f"gold: {len(gold)} triples" in text
        assert ("(right)" in text) == (run.salient("test")[index][:1] == (gold_salient(document),))
        # the rows of every section are as many as its title says
        for title, rows in re.findall(r"^  (.*(?:finds|adds|leaves out).*)\n((?:    .*\n)*)", text, flags=re.MULTILINE):
            said = [int(number) for number in re.findall(r"(\d+) (?:right|wrong)", title)] or [0, 0]
            assert said == [rows.count("    right"), rows.count("    wrong")]
        injected = run.injected("test")[index]
        if injected:
            own = len(set(injected) & gold)
            assert f"that sparse reads: {own} right, {len(set(injected)) - own} wrong" in text

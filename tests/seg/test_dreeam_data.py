"""Data that only DREEAM reads: fields with a row for each pair, teacher attentions, sentences."""

import importlib.util
import pickle

import numpy as np
import pytest
import tiny

from segdre_plugin import SegDREError
from segdre_plugin.adapters import BACKBONES
from segdre_plugin.adapters.dreeam.teacher import teacher_problems
from segdre_plugin.backbones.attach import attach_features
from segdre_plugin.backbones.features import FEATURE, keep_pairs
from segdre_plugin.data.splits import Split, check_sentences
from segdre_plugin.seg.launch import prepare

DREEAM = BACKBONES["dreeam"]


def test_kept_pairs_of_lists_and_arrays():
    one = tiny.feature(30) | {"attns": np.arange(12 * 30.0).reshape(12, 30), "sent_labels": [[k] for k in range(12)]}
    keep = np.zeros(12, dtype=bool)
    keep[[1, 7]] = True
    kept = keep_pairs(one, keep, DREEAM)
    assert isinstance(kept["attns"], np.ndarray)
    assert kept["attns"].tolist() == one["attns"][[1, 7]].tolist()
    assert kept["sent_labels"] == [[1], [7]]
    assert FEATURE not in kept
    with pytest.raises(SegDREError, match="attns: expected 12 entries, one for each pair, got 11"):
        keep_pairs(one | {"attns": one["attns"][:11]}, keep, DREEAM)


BAD = {
    "pairs": (np.full((11, 30), 1 / 30), r"attns are \[11, 30\], expected \[12, 30\]"),
    "tokens": (np.full((12, 29), 1 / 29), r"attns are \[12, 29\], expected \[12, 30\]"),
    "of a longer document": (np.full((12, 30), 1 / 40), "attns of 12 pairs do not sum to 1"),
    "nan": (np.full((12, 30), np.nan), "attns of 12 pairs do not sum to 1"),
}


class TestTeacher:
    @staticmethod
    def attach(tmp_path, rows):
        one = tiny.feature(30)
        document = {"title": one["title"], "sents": [["x"]], "vertexSet": [[{"name": "x"}]] * 4}
        split = Split("train", tmp_path / "train.json", [document])
        attach_features(split, [one | {"attns": rows}], DREEAM, "bert", False)
        return split.features

    def test_distributions_over_the_documents_tokens_are_taken(self, tmp_path):
        rows = np.full((12, 30), 1 / 30, dtype=np.float16)
        rows[3] = 0  # a pair without common attention
        assert len(self.attach(tmp_path, rows)) == 1

    @pytest.mark.parametrize("name", BAD)
    def test_those_of_other_documents_are_refused(self, tmp_path, name):
        rows, message = BAD[name]
        with pytest.raises(SegDREError, match=rf"train\.json.*\n.*document 0 'random 0': {message}"):
            self.attach(tmp_path, rows)

    def test_files_that_the_reader_cannot_go_through(self, tmp_path):
        documents = [{"title": "first"}, {"title": "second"}]
        path = tmp_path / "train.attns"
        rows = np.ones((2, 3))
        for value, words in (
            ([rows], "1 documents; document 1 'second' has no attentions"),
            ([rows, None], "document 1 'second': expected an array"),
            ({"a": rows}, "expected a list with an array for each document, got dict"),
        ):
            path.write_bytes(pickle.dumps(value))
            (problem,) = teacher_problems(path, documents)
            assert words in problem
        path.write_bytes(b"not a pickle")
        assert "cannot be read" in teacher_problems(path, documents)[0]
        path.write_bytes(pickle.dumps([rows, rows]))
        assert teacher_problems(path, documents) == []


def test_a_module_that_the_script_needs_is_missing(monkeypatch, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pandas" else find(name))
    with pytest.raises(SystemExit) as stop:
        prepare("dreeam")
    assert stop.value.code == 2
    assert "run.py imports pandas\n  -> pip install pandas" in capsys.readouterr().err


def test_more_sentences_than_the_model_has_evidence_for(tmp_path):
    split = Split("dev", tmp_path / "dev.json", [{"title": "long", "sents": [["x"]] * 26}, {"title": "b", "sents": []}])
    check_sentences({"dev": split}, 26, "max_sent_num")
    with pytest.raises(SegDREError, match=r"dev\.json: document 0 'long': 26 sentences\n.*pass --max_sent_num 26"):
        check_sentences({"dev": split}, 25, "max_sent_num")

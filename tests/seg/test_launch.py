"""Before the script's main(): the relations that a backbone opens by itself, and the names of its script."""

import locale
from dataclasses import replace

import pytest

from segdre_plugin import SegDREError
from segdre_plugin.adapters import SCRIPTS
from segdre_plugin.backbones.script import Names
from segdre_plugin.seg.launch import _prepare, check_relations, entry, install

PLAIN = b'{"Na": 0, "P17": 1}'
ACCENTS = '{"Na": 0, "né à": 1}'.encode()


@pytest.mark.parametrize(("content", "encoding"), [(PLAIN, "ascii"), (ACCENTS, "utf-8"), (ACCENTS, "UTF8")])
def test_what_the_backbone_reads_right(tmp_path, monkeypatch, content, encoding):
    monkeypatch.setattr(locale, "getpreferredencoding", lambda _: encoding)
    (tmp_path / "rel2id.json").write_bytes(content)
    check_relations(tmp_path / "rel2id.json")


@pytest.mark.parametrize(
    ("content", "encoding", "words"),
    [
        (None, "utf-8", "not found"),
        (b"\xef\xbb\xbf" + PLAIN, "utf-8", "byte order mark"),
        (ACCENTS, "cp1252", "beyond ASCII.*cp1252(.|\n)*PYTHONUTF8=1"),
        (ACCENTS, "ANSI_X3.4-1968", "beyond ASCII"),
        (PLAIN[:-3], "utf-8", "is not JSON"),
    ],
)
def test_what_it_would_misread(tmp_path, monkeypatch, content, encoding, words):
    monkeypatch.setattr(locale, "getpreferredencoding", lambda _: encoding)
    if content is not None:
        (tmp_path / "rel2id.json").write_bytes(content)
    with pytest.raises(SegDREError, match=words):
        check_relations(tmp_path / "rel2id.json")


def test_missing_packages_are_named_with_what_installs_them():
    required = ("json", "no_such_package", "no_such_model")
    script = replace(SCRIPTS["atlop"], required=required, commands={"no_such_model": "get no_such_model"})
    with pytest.raises(SegDREError) as caught:
        _prepare(script)
    assert "train.py imports no_such_package, no_such_model\n" in str(caught.value)
    assert "pip install no_such_package && get no_such_model" in str(caught.value)


class TestNames:
    NAMES = ("DocREModel", "read_docred", "collate_fn", "DataLoader", "train", "evaluate", "main")

    def names(self, *left_out):
        return {name: print for name in self.NAMES if name not in left_out}

    def test_all_that_is_missing_is_said_at_once(self, capsys):
        with pytest.raises(SegDREError) as caught:
            install(self.names("DocREModel", "evaluate"), SCRIPTS["atlop"])
        for words in ("train.py: missing", "DocREModel (model)", "evaluate (evaluate)", "Script.names"):
            assert words in str(caught.value)
        with pytest.raises(SystemExit):
            entry(self.names("train"), "atlop")
        assert "train (train)" in capsys.readouterr().err

    def test_names_of_its_own(self):
        script = replace(SCRIPTS["atlop"], names=Names(model="DocREModel_KD", collate="collate_fn_kd"))
        with pytest.raises(SegDREError, match="DocREModel_KD"):
            install(self.names(), script)
        install(
            self.names("DocREModel", "collate_fn") | dict.fromkeys(("DocREModel_KD", "collate_fn_kd"), print), script
        )

    def test_a_sibling_that_reads_other_data_is_told_what_they_lack(self):
        names = self.names("read_docred") | {"read_cdr": print, "read_gda": print, "__file__": "a/train_bio.py"}
        with pytest.raises(SegDREError) as caught:
            install(names, SCRIPTS["atlop"])
        assert caught.value.problem.startswith("train_bio.py: reads CDR and GDA in a form that has no sentences")
        assert "segdre validate --fix" in caught.value.hint
        assert "train with train.py, --num_class" in caught.value.hint
        with pytest.raises(SegDREError, match="read_docred"):  # negative control: a script of the user's
            install(self.names("read_docred") | {"read_mine": print}, SCRIPTS["atlop"])

    def test_install_comes_before_main_is_taken(self):
        def give_main(names):
            names["main"] = names["run"]

        script = replace(SCRIPTS["atlop"], install=give_main)
        names = self.names("main") | {"run": print}
        assert entry(names, "atlop", script).segdre[0] is print
        with pytest.raises(SegDREError, match=r"train\.py: no run in it"):
            install(self.names(), script)

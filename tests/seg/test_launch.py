"""The file of relations that a backbone opens by itself, before any code of ours can help."""

import locale

import pytest

from segdre_plugin import SegDREError
from segdre_plugin.seg.launch import check_relations

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

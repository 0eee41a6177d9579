"""Pipes, devices and links as output; pipes, gzip, byte order marks and standard input as input."""

import gzip
import io
import json
import os
import sys
import threading
from contextlib import suppress

import pytest
from malformed import DOCUMENT

from segdre_plugin import SegDREError
from segdre_plugin.cli import main
from segdre_plugin.data.documents import load_documents, load_gold
from segdre_plugin.data.files import read_json, write, write_json
from segdre_plugin.data.pipes import rereadable, written_at_end
from segdre_plugin.data.stream import count_lines, read_values

SECOND = DOCUMENT | {"title": "Zweite Straße 中"}
BOTH = [DOCUMENT, SECOND]
LIST = json.dumps(BOTH, ensure_ascii=False).encode()
LINES = b"".join(json.dumps(document).encode() + b"\n" for document in BOTH)
FORMS = {
    "list": LIST,
    "indented list": json.dumps(BOTH, indent=1).encode(),
    "lines": LINES,
    "lines of Windows": LINES.replace(b"\n", b"\r\n"),
    "byte order mark": b"\xef\xbb\xbf" + LIST,
    "byte order mark, lines": b"\xef\xbb\xbf" + LINES,
    "gzip": gzip.compress(LIST),
    "gzip, byte order mark, lines": gzip.compress(b"\xef\xbb\xbf" + LINES),
    "gzip in two parts": gzip.compress(LINES[:100]) + gzip.compress(LINES[100:]),
}
ONE = {
    "a line": json.dumps(DOCUMENT).encode(),
    "indented": json.dumps(DOCUMENT, indent=1).encode(),
    "not indented": json.dumps(DOCUMENT, indent=0).encode(),
    "indented, byte order mark": b"\xef\xbb\xbf" + json.dumps(DOCUMENT, indent=4).encode(),
    "indented, gzip": gzip.compress(json.dumps(DOCUMENT, indent="\t").encode()),
}
FORMS = {name: (content, BOTH) for name, content in FORMS.items()}
FORMS |= {f"one document, {name}": (content, [DOCUMENT]) for name, content in ONE.items()}


@pytest.fixture
def piped():
    """Content -> path of a pipe that it comes out of, a few bytes at a time."""
    ends, writers = [], []

    def open_pipe(content):
        out, into = os.pipe()
        ends.append(out)

        def feed():
            with suppress(BrokenPipeError), os.fdopen(into, "wb", buffering=0) as file:
                for place in range(0, len(content), 7):
                    file.write(content[place : place + 7])

        writers.append(threading.Thread(target=feed))
        writers[-1].start()
        return f"/dev/fd/{out}"

    yield open_pipe
    for end in ends:
        os.close(end)
    for writer in writers:
        writer.join()


@pytest.fixture
def standard_input(monkeypatch):
    return lambda content: monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


class TestInput:
    @pytest.mark.parametrize(("content", "expected"), FORMS.values(), ids=FORMS)
    def test_every_form_from_a_file_a_pipe_and_standard_input(
        self, tmp_path, tmp_path_factory, piped, standard_input, content, expected
    ):
        path = tmp_path / "documents.json"
        path.write_bytes(content)
        standard_input(content)
        assert load_documents(path) == load_gold(path) == expected
        assert load_gold(type(path)(piped(content))) == expected
        assert load_documents(type(path)("-")) == expected
        if expected == BOTH:
            assert count_lines(path) in (None, 2)

    def test_command_lines(self, capsys, piped, standard_input):
        standard_input(gzip.compress(LINES))
        assert main(["validate", "-"]) == 0
        assert main(["stats", piped(LIST)]) == 0
        assert main(["validate", piped(gzip.compress(LIST))]) == 0
        assert capsys.readouterr().out.count("2 documents") == 2

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (json.dumps({"data": BOTH}).encode(), "the list is under the key 'data'"),
            (json.dumps({"version": 2, "train": BOTH}, indent=2).encode(), "the list is under the key 'train'"),
            (gzip.compress(LIST, mtime=0)[:-20], "is broken gzip"),
            (gzip.compress(LIST, mtime=0)[:20] + b"\xff" * 40, "gzip"),
            (LIST.decode().encode("utf-16"), "is UTF-16, expected UTF-8"),
            (b"PK\3\4" + LIST, "is zip"),
            (json.dumps(DOCUMENT, indent=1).encode()[:-20], "is not JSON"),
            (b"title,text\nA,B\n", "is not JSON: Expecting value: line 1"),
            (b"", "is empty"),
            (gzip.compress(b"", mtime=0), "is empty"),
        ],
    )
    def test_the_cause_is_named_once(self, tmp_path, piped, content, words):
        path = tmp_path / "documents.json"
        path.write_bytes(content)
        for load in (load_documents, load_gold):
            for source in (path, type(path)(piped(content))):
                with pytest.raises(SegDREError, match=words) as caught:
                    load(source)
                assert str(source) in str(caught.value)
                assert str(caught.value).count("\n") <= 1

    def test_a_broken_first_line_is_one_bad_document(self, tmp_path):
        path = tmp_path / "documents.jsonl"
        path.write_bytes(LINES[5:60] + b"\n" + LINES)
        broken, *rest = read_values(path)
        assert "not JSON" in broken.reason
        assert rest == BOTH

    def test_relations_with_a_byte_order_mark(self, tmp_path):
        (tmp_path / "rel2id.json").write_text('{"Na": 0}', encoding="utf-8-sig")
        assert read_json(tmp_path / "rel2id.json", "relations") == {"Na": 0}

    def test_a_pipe_can_be_read_twice_from_a_copy(self, tmp_path, piped):
        with rereadable(type(tmp_path)(piped(LINES)), "documents") as path:
            assert load_gold(path) == load_gold(path) == BOTH
        assert not path.exists()


class TestOutput:
    def test_a_link_stays_and_its_target_is_replaced_whole(self, tmp_path):
        (tmp_path / "disk").mkdir()
        real, link, chained = tmp_path / "disk" / "real.json", tmp_path / "link.json", tmp_path / "chained.json"
        link.symlink_to("disk/real.json")
        chained.symlink_to(link)
        write_json(chained, 1)  # the target is not there yet
        real.chmod(0o600)
        before = real.stat().st_ino
        with pytest.raises(ZeroDivisionError):
            write(chained, lambda file: file.write(b"half") / 0)
        assert json.loads(real.read_text()) == 1
        write_json(chained, 2)
        assert json.loads(real.read_text()) == 2
        assert link.is_symlink()
        assert chained.is_symlink()
        assert real.stat().st_mode & 0o777 == 0o600
        assert real.stat().st_ino != before
        assert os.listdir(tmp_path / "disk") == ["real.json"]

    def test_a_named_pipe_is_written_to(self, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        found = []
        reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
        reader.start()
        write_json(pipe, [1])
        reader.join()
        assert found == [b"[\n 1\n]\n"]
        assert pipe.is_fifo()

    @pytest.mark.parametrize("name", ["-", "stdout", "/dev/fd/1"])
    def test_standard_output_gets_the_file_alone(self, tmp_path, capfd, monkeypatch, name):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "stdout").symlink_to("/proc/self/fd/1")
        (tmp_path / "dev.json").write_bytes(LIST)
        assert main(["stats", "dev.json", "--json", name]) == 0
        printed = capfd.readouterr()
        assert list(json.loads(printed.out)) == ["dev.json"]
        assert "documents" in printed.err
        assert (tmp_path / "stdout").is_symlink()
        assert sorted(os.listdir(tmp_path)) == ["dev.json", "stdout"]

    def test_a_descriptor_goes_on_where_it_stands(self, tmp_path):
        with (tmp_path / "all").open("wb", buffering=0) as file:
            file.write(b"before\n")
            write(type(tmp_path)(f"/dev/fd/{file.fileno()}"), lambda target: target.write(b"it\n"))
            file.write(b"after\n")
        assert (tmp_path / "all").read_bytes() == b"before\nit\nafter\n"

    def test_devices_stay(self, tmp_path):
        null = tmp_path / "null"
        null.symlink_to("/dev/null")
        write_json(null, 1)
        with written_at_end(null) as path:
            path.write_text("it")
        assert null.is_symlink()
        assert null.is_char_device()

    def test_what_is_read_does_not_conflict_with_standard_output(self, capfd, standard_input):
        standard_input(LINES)
        assert main(["stats", "-", "--json", "-"]) == 0
        assert json.loads(capfd.readouterr().out)

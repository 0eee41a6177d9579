"""``segdre predict``: order, resuming after any kill, rejected documents, the official format."""

import gzip
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from contextlib import suppress
from functools import wraps

import pytest
import torch
from bundles import bundle, mixed, run_folder  # noqa: F401 - fixtures
from processes import start
from promises import same_files, same_text

from segdre_plugin import SegDREError, SegPipeline
from segdre_plugin.backbones.reference import ReferenceModel
from segdre_plugin.cli import main
from segdre_plugin.prediction import predict as module
from segdre_plugin.prediction.answers import official_rows
from segdre_plugin.prediction.output_file import repair
from segdre_plugin.prediction.predict import predict


@pytest.fixture(scope="module", autouse=True)
def small():
    """One thread, and windows of two batches, so that a few documents fill several."""
    threads, window = torch.get_num_threads(), module.WINDOW
    torch.set_num_threads(1)
    module.WINDOW = 2
    yield
    torch.set_num_threads(threads)
    module.WINDOW = window


@pytest.fixture(scope="module")
def documents(run_folder):  # noqa: F811
    return mixed(json.loads((run_folder.parent / "corpus" / "dev.json").read_text()))


@pytest.fixture(scope="module")
def source(documents, tmp_path_factory):
    path = tmp_path_factory.mktemp("input") / "documents.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


@pytest.fixture(scope="module")
def whole(bundle, source, tmp_path_factory):  # noqa: F811
    """The output of an uninterrupted run."""
    path = tmp_path_factory.mktemp("whole") / "out.jsonl"
    report = predict(bundle, source, path, batch_size=2)
    assert report["documents"] == len(lines(path)) == len(lines(source))
    return path


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def leave(whole, folder, n_bytes, state=True):
    """Leave what a run would that was killed after so many bytes."""
    path = folder / "out.jsonl"
    path.write_bytes(whole.read_bytes()[:n_bytes])
    (folder / "out.jsonl.rejected.jsonl").write_bytes(b"")
    if state:
        done = json.loads((whole.parent / "out.jsonl.run.json").read_text())
        (folder / "out.jsonl.run.json").write_text(json.dumps(done | {"done": False}))
    return path


def test_lines_are_the_answers_in_the_inputs_order(bundle, whole, documents):  # noqa: F811
    answers = SegPipeline.from_pretrained(bundle)(documents)
    found = lines(whole)
    assert [line.pop("index") for line in found] == list(range(len(documents)))
    assert [line["title"] for line in found] == [document["title"] for document in documents]
    plain = [[{k: v for k, v in t.items() if k != "score"} for t in a["triples"]] for a in (*found, *answers)]
    assert plain[: len(found)] == plain[len(found) :]
    assert sum(map(len, plain)) > 200
    assert sorted(path.name for path in whole.parent.iterdir()) == ["out.jsonl", "out.jsonl.run.json"]


def test_json_list_gives_the_same(bundle, whole, documents, tmp_path):  # noqa: F811
    (tmp_path / "documents.json").write_text(json.dumps(documents, indent=1))
    predict(bundle, tmp_path / "documents.json", tmp_path / "out.jsonl", batch_size=2)
    assert same_files(tmp_path / "out.jsonl", whole)


def test_official_format(bundle, whole, source, documents, tmp_path):  # noqa: F811
    path = tmp_path / "result.json"
    predict(bundle, source, path, batch_size=2, form="official")
    rows = json.loads(path.read_text())
    assert rows == official_rows(lines(whole))
    assert {"title", "h_idx", "t_idx", "r"} == set(rows[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result.json", "result.json.run.json"]
    (tmp_path / "gold.json").write_text(json.dumps(documents))
    assert main(["evaluate", str(path), "--gold", str(tmp_path / "gold.json")]) == 0


@pytest.mark.parametrize("form", ["official", "csv", "rdf"])
def test_other_formats_resume_too(bundle, whole, source, tmp_path, form):  # noqa: F811
    once, twice = tmp_path / "once", tmp_path / "twice"
    assert predict(bundle, source, once, batch_size=2, form=form)["triples"] > 150
    state = json.loads((tmp_path / "once.run.json").read_text())
    (tmp_path / "twice.lines").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])  # killed
    (tmp_path / "twice.run.json").write_text(json.dumps(state | {"done": False}))
    assert 0 < predict(bundle, source, twice, batch_size=2, form=form, resume=True)["documents"] < len(lines(whole))
    assert same_files(twice, once)
    assert predict(bundle, source, twice, batch_size=2, form=form, resume=True)["documents"] == 0
    twice.unlink()  # by the user: it is made again
    assert predict(bundle, source, twice, batch_size=2, form=form, resume=True)["documents"] == len(lines(whole))
    assert same_files(twice, once)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["once", "once.run.json", "twice", "twice.run.json"]


def test_official_format_refuses_two_documents_of_one_title(bundle, whole, documents, tmp_path):  # noqa: F811
    twice = [*documents[:5], documents[0] | {"vertexSet": documents[0]["vertexSet"][:2]}]
    source = tmp_path / "in.json"
    source.write_text(json.dumps(twice))
    with pytest.raises(SegDREError, match="--format official") as caught:
        predict(bundle, source, tmp_path / "out.json", form="official")
    assert f"document 5 {documents[0]['title']!r}: has the same title as document 0" in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]
    assert predict(bundle, source, tmp_path / "out.jsonl")["documents"] == 6  # lines have numbers


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--batch-size", "0", "--batch-size is 0"),
        ("--device", "nonsense", "device 'nonsense'"),
        ("--device", "meta:x", "device 'meta:x'"),
        ("--device", "meta", "device 'meta'"),
        ("--device", "cuda:77", "-> pass cpu"),
        ("--input", "", "--input: expected a path, got ''"),
    ],
)
def test_values_that_cannot_be(bundle, source, tmp_path, capsys, option, value, message):  # noqa: F811
    command = ["predict", str(bundle), "--input", str(source), "--output", str(tmp_path / "out")]
    with suppress(SystemExit):  # argparse's own
        assert main([*command, option, value]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_resumed_anywhere_it_is_the_uninterrupted_output(bundle, whole, source, tmp_path):  # noqa: F811
    content = whole.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    rng = random.Random(0)
    for case, n_bytes in enumerate([0, 1, ends[0], ends[3] - 1, ends[3], ends[4] + 5, rng.randrange(len(content))]):
        folder = tmp_path / str(case)
        folder.mkdir()
        path = leave(whole, folder, n_bytes)
        report = predict(bundle, source, path, batch_size=2, resume=True)
        assert same_files(path, whole)
        assert report["documents"] == len(ends) - sum(end <= n_bytes for end in ends)
    assert predict(bundle, source, path, batch_size=2, resume=True)["documents"] == 0  # complete


@pytest.mark.parametrize("seed", range(6))
def test_repair_keeps_the_longest_gapless_beginning(tmp_path, seed):
    rng = random.Random(seed)
    owners = [rng.random() < 0.3 for _ in range(12)]
    paths = [tmp_path / "lines", tmp_path / "rejected"]
    parts = [
        [f'{{"index": {i}, "x": {"y" * rng.randrange(9)!r}}}\n' for i in range(12) if owners[i] == k] for k in (0, 1)
    ]
    texts = ["".join(part) for part in parts]
    cuts = [rng.randrange(len(text) + 1) for text in texts]
    for path, text, cut in zip(paths, texts, cuts, strict=True):
        path.write_text(text[:cut])
    there = {
        json_index
        for text, cut in zip(texts, cuts, strict=True)
        for json_index in (
            int(line.split(",")[0].split(": ")[1]) for line in text[:cut].splitlines(True) if line.endswith("\n")
        )
    }
    expected = next(i for i in range(13) if i not in there)
    assert repair(*paths) == expected
    for k, path in enumerate(paths):
        kept = [
            line for line, i in zip(parts[k], [i for i in range(12) if owners[i] == k], strict=True) if i < expected
        ]
        assert path.read_text() == "".join(kept)


BAD = {
    2: '{"title": "no sentences", "sents": []}',
    3: "{oops",
    7: '{"title": "half \\ud800", "sents": [["a"]], "vertexSet": []}',
    8: "[]",
}


@pytest.fixture
def with_bad(source, tmp_path):
    path = tmp_path / "bad.jsonl"
    text = source.read_text().splitlines()
    path.write_text("\n".join(BAD.get(i, line) for i, line in enumerate(text)))
    return path


def test_rejected_documents_are_skipped_and_named(bundle, whole, with_bad, tmp_path):  # noqa: F811
    path = tmp_path / "out.jsonl"
    report = predict(bundle, with_bad, path, batch_size=2, on_error="skip")
    assert report["rejected"] == len(BAD)
    rejected = lines(tmp_path / "out.jsonl.rejected.jsonl")
    assert [line["index"] for line in rejected] == list(BAD)
    assert rejected[0]["title"] == "no sentences"
    for line, words in zip(rejected, ("sents: expected", "not JSON", "title: expected", "got list"), strict=True):
        assert words in line["reasons"][0]
        assert line["reasons"][0].startswith(f"document {line['index']}")
    expected = {line["index"]: line for line in lines(whole) if line["index"] not in BAD}
    for line in lines(path):
        other = expected.pop(line["index"])
        assert [t["r"] for t in line["triples"]] == [t["r"] for t in other["triples"]]
    assert not expected
    for n in (1, 4, 9):  # killed after so many lines of the output
        folder = tmp_path / str(n)
        folder.mkdir()
        before = path.read_bytes().splitlines(True)[:n]
        last = json.loads(before[-1])["index"]
        (folder / "out.jsonl").write_bytes(b"".join(before) + b'{"index": 5')
        names = (tmp_path / "out.jsonl.rejected.jsonl").read_bytes().splitlines(True)
        (folder / "out.jsonl.rejected.jsonl").write_bytes(
            b"".join(line for line in names if json.loads(line)["index"] <= last + 1)
        )
        state = json.loads((tmp_path / "out.jsonl.run.json").read_text())
        (folder / "out.jsonl.run.json").write_text(json.dumps(state | {"done": False}))
        predict(bundle, with_bad, folder / "out.jsonl", batch_size=2, on_error="skip", resume=True)
        for name in ("out.jsonl", "out.jsonl.rejected.jsonl"):
            assert same_files(folder / name, tmp_path / name)


def test_it_stops_at_a_bad_document_and_can_go_on_without_it(bundle, whole, with_bad, tmp_path, capsys):  # noqa: F811
    path = tmp_path / "out.jsonl"
    with pytest.raises(SegDREError, match=r"document 2 'no sentences': sents(.|\n)*--on-error skip"):
        predict(bundle, with_bad, path, batch_size=2)
    assert [line["index"] for line in lines(path)] == [0, 1]
    with pytest.raises(SegDREError, match="document 2"):
        predict(bundle, with_bad, path, batch_size=2, resume=True)
    assert main(command(bundle, with_bad, path, "--resume", "--on-error", "skip")) == 0
    assert f"{len(BAD)} rejected" in capsys.readouterr().out
    assert len(lines(path)) == len(lines(whole)) - len(BAD)


@pytest.fixture
def little_memory(monkeypatch):
    """A device on which two documents at once do not fit, nor one of those titles."""
    forward, titles = ReferenceModel.forward, set()

    @wraps(forward)
    def limited(self, input_ids, *args, **kwargs):
        if len(input_ids) > 1 or titles:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(ReferenceModel, "forward", limited)
    return titles


def test_a_device_without_enough_memory(bundle, whole, source, tmp_path, capsys, little_memory):  # noqa: F811
    path = tmp_path / "out.jsonl"
    assert main(command(bundle, source, path, "--on-error", "skip")) == 2  # no document is to blame
    message = capsys.readouterr().err
    assert re.search(
        r"stage base, reading 2 documents \('.*', '.*'\), \d+ tokens the longest, \d+ with padding, \d+ pairs", message
    )
    assert "CUDA out of memory. Tried to allocate 2.00 GiB." in message
    assert "-> lower the batch size: --test_batch_size of a train script, --batch-size of segdre predict" in message
    assert predict(bundle, source, tmp_path / "one.jsonl", batch_size=1)["documents"] == len(lines(whole))
    little_memory.add("every document")  # now each of them is
    report = predict(bundle, source, tmp_path / "none.jsonl", batch_size=1, on_error="skip")
    assert 0 < report["rejected"] < report["documents"] == len(lines(whole))  # without a pair none is read
    assert "not enough memory" in lines(tmp_path / "none.jsonl.rejected.jsonl")[0]["reasons"][0]


def command(bundle, source, output, *more):  # noqa: F811
    return ["predict", str(bundle), "--input", str(source), "--output", str(output), "--batch-size", "2", *more]


def test_a_list_that_breaks_off_keeps_what_came_before(bundle, whole, documents, tmp_path):  # noqa: F811
    (tmp_path / "documents.json").write_text(json.dumps(documents)[:-1])
    with pytest.raises(SegDREError, match="is not JSON"):
        predict(bundle, tmp_path / "documents.json", tmp_path / "out.jsonl", batch_size=2)
    assert same_files(tmp_path / "out.jsonl", whole)


def test_outputs_of_something_else_are_not_touched(bundle, whole, source, tmp_path, capsys):  # noqa: F811
    path = leave(whole, tmp_path, 2000)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    cases = [
        ((), "already exists"),
        (("--resume", "--batch-size", "3"), "batch_size: 2 there, 3 now"),
        (("--resume", "--format", "official"), "format: 'jsonl' there, 'official' now"),
    ]
    for more, words in cases:
        assert main(command(bundle, source, path, *more)) == 2
        assert words in capsys.readouterr().err
    other = tmp_path / "other.jsonl"
    other.write_text(source.read_text() + "\n")
    assert main(command(bundle, other, path, "--resume")) == 2
    assert "input: " in capsys.readouterr().err
    other.unlink()
    changed = shutil.copytree(bundle, tmp_path / "bundle")
    said = json.loads((changed / "bundle.json").read_text())
    (changed / "bundle.json").write_text(json.dumps(said | {"encoder": "another"}))
    assert main(command(changed, source, path, "--resume")) == 2
    assert "bundle: " in capsys.readouterr().err
    shutil.rmtree(changed)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    (tmp_path / "out.jsonl.run.json").unlink()
    assert main(command(bundle, source, path, "--resume")) == 2
    assert "not an output of segdre predict" in capsys.readouterr().err
    assert main(command(bundle, source, tmp_path / "nowhere" / "out.jsonl")) == 2
    assert "no folder" in capsys.readouterr().err
    assert main(command(bundle, source, source)) == 2
    assert "one of the files that are read" in capsys.readouterr().err
    assert main(command(bundle, tmp_path / "nowhere.jsonl", tmp_path / "o.jsonl")) == 2
    assert "No such file" in capsys.readouterr().err


SCRIPT = """
import sys
import torch
from segdre_plugin.prediction import predict
from segdre_plugin.cli import main
torch.set_num_threads(1)
predict.WINDOW = 2
sys.exit(main(sys.argv[1:]))
"""


def test_killed_processes_lose_and_double_nothing(bundle, whole, source, tmp_path):  # noqa: F811
    path = tmp_path / "out.jsonl"
    kills = 0
    for enough in (1, 7, 13):
        process = start(["-c", SCRIPT, *command(bundle, source, path, "--resume")], (os.devnull, os.devnull))
        while process.is_alive() and not (path.exists() and path.read_bytes().count(b"\n") >= enough):
            time.sleep(0.002)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills
    assert predict(bundle, source, path, batch_size=2, resume=True)["documents"] > 0
    assert same_files(path, whole)


def test_two_processes_do_not_write_one_output(bundle, source, tmp_path):  # noqa: F811
    from filelock import FileLock

    with FileLock(tmp_path / ".out.jsonl.lock"), pytest.raises(SegDREError, match="another process is writing it"):
        predict(bundle, source, tmp_path / "out.jsonl", batch_size=2)
    assert not (tmp_path / "out.jsonl").exists()


def test_memory_holds_a_window_only(bundle, documents, tmp_path, monkeypatch):  # noqa: F811
    held = []
    answer = SegPipeline.answer

    def watched(self, window, *how):
        held.append(len(window))
        return answer(self, window, *how)

    monkeypatch.setattr(SegPipeline, "answer", watched)
    path = tmp_path / "documents.jsonl"
    path.write_text("".join(json.dumps(document | {"vertexSet": []}) + "\n" for document in documents * 3))
    predict(bundle, path, tmp_path / "out.jsonl", batch_size=2)
    assert max(held) == module.WINDOW * 2
    assert sum(held) == 3 * len(documents)


def test_through_pipes(bundle, whole, source, tmp_path, capfd, monkeypatch):  # noqa: F811
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(source.read_bytes())), encoding="utf-8")
    )
    monkeypatch.chdir(tmp_path)
    assert main(command(bundle, "-", "-")) == 0
    printed = capfd.readouterr()
    assert same_text(printed.out, whole.read_text())
    assert "written: -: " in printed.err
    assert not list(tmp_path.iterdir())


def test_rejected_documents_are_printed_where_the_output_is_a_pipe(bundle, source, tmp_path, capfd):  # noqa: F811
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"title": "Bad"}\n' + source.read_text().splitlines()[0] + "\n")
    assert main(command(bundle, bad, "-")) == 2
    assert "-> correct it and start again, or continue without it: --on-error skip" in capfd.readouterr().err
    assert main(command(bundle, bad, "-", "--on-error", "skip")) == 0
    printed = capfd.readouterr()
    assert json.loads(printed.out)["index"] == 1
    assert '{"index": 0, "title": "Bad", "reasons": ["' in printed.err

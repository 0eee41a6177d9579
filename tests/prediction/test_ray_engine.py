"""``segdre predict --engine ray``: the local engine's answers, whatever dies; clear errors, and no process left."""

import gzip
import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from bundles import bundle, mixed, run_folder  # noqa: F401 - fixtures
from processes import SEGDRE, start

from segdre_plugin import SegDREError
from segdre_plugin.cli import main
from segdre_plugin.prediction.output_folder import OutputFolder
from segdre_plugin.prediction.predict import predict

BAD = {"title": "Poisoned \ud800", "sents": [["a"]], "vertexSet": []}
IN_TIME = {
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}  # at 15 workers wait for all else on a busy machine
ACTOR = b"ray::MapWorker"  # the name of its process
NO_RAY = 'no Ray Data: pip install "segdre-plugin[ray]"'


@pytest.fixture(scope="module")
def ray():
    """A Ray that all tests here share."""
    ray = pytest.importorskip("ray", reason=NO_RAY)
    os.environ |= IN_TIME
    ray.init(num_cpus=2, object_store_memory=200 << 20, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


def lines(path):
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def processes(mark):
    """Return the processes whose command line or environment holds a text."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (place / "cmdline").read_bytes() or mark in (place / "environ").read_bytes():
                found.append(int(place.name))
    return found


def write_shard(path, documents):
    """Write documents in the form that the name says; half of the Parquet files hold JSON."""
    if path.suffix == ".parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        texts = len(documents) % 2 or any(document == BAD for document in documents)
        rows = [{"document": json.dumps(d)} for d in documents] if texts else documents
        parquet.write_table(arrow.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(documents))
    else:
        text = "".join(json.dumps(document) + "\n" for document in documents).encode()
        path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)


@pytest.fixture(scope="module")
def shards(run_folder, tmp_path_factory):  # noqa: F811
    """A folder of 20 files, all documents in its order, and in which file each is."""
    folder = tmp_path_factory.mktemp("input") / "in"
    folder.mkdir()
    some = mixed(json.loads((run_folder.parent / "corpus" / "dev.json").read_text()))
    documents, places = [], []
    for i in range(20):
        own = some[i : i + 2] + some[i : i + 17] * (i == 3) + [BAD] * (i in (3, 7, 12))
        path = folder / f"shard-{i:02}{('.jsonl', '.json', '.jsonl.gz', '.parquet')[i % 4]}"
        write_shard(path, own)
        documents += own
        places += [{"index": k, "file": path.name} for k in range(len(own))]
    return folder, documents, places


def test_with_a_worker_killed_it_says_what_the_local_engine_says(ray, bundle, shards, tmp_path):  # noqa: F811
    source, documents, places = shards
    output, killed = tmp_path / "out", []

    def kill():
        while not list(output.glob("shard*")):
            time.sleep(0.005)
        os.kill(processes(ACTOR)[0], signal.SIGKILL)
        killed.append(json.loads((output / "_run.json").read_text())["done"])

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    how = ["--engine", "ray", "--actors", "2", "--batch-size", "2", "--on-error", "skip"]
    assert main(["predict", str(bundle), "--input", str(source), "--output", str(output), *how]) == 0
    killer.join()
    assert killed == [False]

    whole = tmp_path / "whole.jsonl"
    write_shard(whole, documents)
    report = predict(bundle, whole, tmp_path / "local", batch_size=2, on_error="skip")
    state = json.loads((output / "_run.json").read_text())
    assert state["done"]
    counts = ("documents", "triples", "rejected")
    assert [state["report"][name] for name in counts] == [report[name] for name in counts]
    for found, expected in ((output.glob("[!_]*"), "local"), (output.glob("_*.rejected.*"), "local.rejected.jsonl")):
        rows = [row for path in sorted(found) for row in lines(path)]
        others = lines(tmp_path / expected)
        assert [{key: row[key] for key in ("index", "file")} for row in rows] == [places[o["index"]] for o in others]
        for row, other in zip(rows, others, strict=True):
            assert row["title"] == other["title"]
            assert len(row.get("reasons", ())) == len(other.get("reasons", ()))
            for name in ("triples", "injected"):
                left, right = row.get(name, ()), other.get(name, ())
                assert [t | {"score": 0} for t in left] == [t | {"score": 0} for t in right]
                assert [t.get("score") for t in left] == pytest.approx([t.get("score") for t in right], abs=1e-5)
    # with the same windows the numbers are the same bits
    own = [place["index"] for place in places if place["file"] == "shard-03.parquet"]
    write_shard(tmp_path / "shard-03.jsonl", [documents[i] for i, p in enumerate(places) if "shard-03" in p["file"]])
    predict(bundle, tmp_path / "shard-03.jsonl", tmp_path / "alone", batch_size=2, on_error="skip")
    rows = lines(output / "shard-03.jsonl")
    assert [row.pop("file") for row in rows] == ["shard-03.parquet"] * (len(own) - 1)
    assert rows == lines(tmp_path / "alone")
    rejected = lines(output / "_shard-03.rejected.jsonl")
    assert [row.pop("file") for row in rejected] == ["shard-03.parquet"]
    assert rejected == lines(tmp_path / "alone.rejected.jsonl")


def test_a_broken_shard_ends_it_and_the_rest_follows_when_it_is_whole(ray, bundle, shards, tmp_path, capsys):  # noqa: F811
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    documents = shards[1][:6]
    for i in range(3):
        write_shard(source / f"{i}.json", documents[2 * i : 2 * i + 2])
    text = (source / "1.json").read_text()
    (source / "1.json").write_text(text[:-1])
    command = ["predict", str(bundle), "--input", str(source), "--output", str(output), "--format", "parquet"]
    command += ["--engine", "ray", "--actors", "1", "--threads", "2"]  # all cores: one that is left blocks the next
    assert main(command) == 2
    assert f"{source / '1.json'} is not JSON" in capsys.readouterr().err
    assert sorted(path.name for path in output.iterdir()) == ["0.parquet", "_run.json"]
    before = (output / "0.parquet").stat().st_mtime_ns
    assert main(command) == 2
    assert f"{output} already exists" in capsys.readouterr().err
    (source / "1.json").write_text(text)
    assert main([*command, "--resume"]) == 0
    assert ": 4 documents" in capsys.readouterr().out
    assert (output / "0.parquet").stat().st_mtime_ns == before
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(output).to_pylist()  # names with _ are no data
    write_shard(tmp_path / "whole.jsonl", documents)
    predict(bundle, tmp_path / "whole.jsonl", tmp_path / "local")
    others = lines(tmp_path / "local")
    assert sum(len(row["triples"]) for row in rows) > 20
    for k, (row, other) in enumerate(zip(rows, others, strict=True)):
        assert row | {"triples": 0, "salient": 0, "injected": 0} == {
            **other, "index": k % 2, "file": f"{k // 2}.json", "triples": 0, "salient": 0, "injected": 0,
        }  # fmt: skip
        assert [t["name"] for t in row["salient"]] == ([other["salient"]["name"]] if other["salient"] else [])
        for name in ("triples", "injected"):
            left = [{k: v for k, v in t.items() if v is not None and k != "score"} for t in row[name]]
            assert left == [{k: v for k, v in t.items() if k != "score"} for t in other[name]]
    assert main([*command, "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    write_shard(source / "2.json", documents[:1])
    assert main([*command, "--resume"]) == 2
    assert "have changed or are gone:\n  - 2" in capsys.readouterr().err
    command[command.index("1")], command[command.index(str(output))] = "3", str(tmp_path / "other")
    assert main(command) == 2
    assert "too few for 3 actors of 2 CPU cores" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_ctrl_c_leaves_no_process_and_no_folder(bundle, shards, tmp_path):  # noqa: F811
    pytest.importorskip("ray", reason=NO_RAY)
    output, mark = tmp_path / "out", f"SEGDRE_MARK={tmp_path}"
    command = [*SEGDRE, "predict", str(bundle), "--input", str(shards[0]), "--output", str(output), "--engine", "ray"]
    before = f"import os; os.environ |= {IN_TIME | {'SEGDRE_MARK': str(tmp_path)}!r}"
    process = start(command, (tmp_path / "stdout", tmp_path / "stderr"), before=before)
    deadline = time.monotonic() + 120
    while not (output / "_run.json").exists():  # Ray has started, and the actors are about to
        assert process.is_alive(), (tmp_path / "stderr").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert processes(mark.encode())
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 130, (tmp_path / "stderr").read_text()
    assert (tmp_path / "stderr").read_text().endswith("segdre: stopped\n")
    while processes(mark.encode()):  # the system removes what has ended
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not output.exists()


def row(file, first, n=1, **more):
    """A predicted window of ``n`` documents, none of them rejected."""
    answers = "".join(json.dumps({"index": first + i, "file": file}) + "\n" for i in range(n))
    counts = {"n_documents": n, "n_triples": n, "n_rejected": 0}
    return counts | {"file": file, "first": first, "problem": "", "answers": answers, "rejected": ""} | more


REJECTED = '{"index": 2, "file": "a.jsonl", "title": "Bad", "reasons": ["document 2: no sentences"]}\n'


WHOLE = [row("a.jsonl", 0, 2), row("a.jsonl", 2, 0), row("b.jsonl", 0), row("b.jsonl", 1, 0)]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row("a.jsonl", 0, 2), row("a.jsonl", 3)], "document 3 of a.jsonl, expected document 2 of a.jsonl"),
        ([row("a.jsonl", 0, 2), row("a.jsonl", 0, 2)], "document 0 of a.jsonl, expected document 2"),
        ([row("a.jsonl", 0, 2), row("b.jsonl", 0)], "document 0 of b.jsonl, expected document 2 of a.jsonl"),
        ([*WHOLE, row("b.jsonl", 1)], "more than all documents: document 1 of b.jsonl"),
        ([row("a.jsonl", 0, 2)], "ended before the end of a.jsonl"),
        ([row("a.jsonl", 0, 2), row("a.jsonl", 2, rejected=REJECTED)], "a.jsonl: stopped(.|\n)*document 2: no sent"),
        ([row("a.jsonl", 0, problem='["no weights", "train"]')], "no weights\n  -> train"),
    ],
)
def test_nothing_is_lost_or_doubled(tmp_path, rows, words):
    files = {"a": Path("a.jsonl"), "b": Path("b.jsonl")}
    target = OutputFolder(tmp_path / "out", "jsonl", {}, {"a": "", "b": ""})
    with pytest.raises(SegDREError, match=words):
        target.write(iter(rows), files, False)
    assert rows[-1]["file"] == "b.jsonl" or not list(tmp_path.iterdir())


def test_files_come_whole(tmp_path):
    files = {"a": Path("a.jsonl"), "b": Path("b.jsonl")}
    rows = [row("a.jsonl", 0, 2), row("a.jsonl", 2, rejected=REJECTED), row("a.jsonl", 3, 0), row("b.jsonl", 0)]
    target = OutputFolder(tmp_path / "out", "jsonl", {}, {"a": "", "b": ""})
    with pytest.raises(SegDREError, match=r"ended before the end of b.jsonl\n  -> .*--resume"):
        target.write(iter(rows), files, True)
    assert sorted(path.name for path in target.folder.iterdir()) == ["_a.rejected.jsonl", "_run.json", "a.jsonl"]
    assert target.missing(resume=True) == {"b"}
    stale = target.folder / "_b.rejected.jsonl"  # of a process that was killed, for a file that has changed since
    stale.write_text(REJECTED)
    report = target.write(iter([row("b.jsonl", 0), row("b.jsonl", 1, 0)]), {"b": Path("b.jsonl")}, True)
    assert report["documents"] == 1
    assert not stale.exists()
    assert target.missing(resume=True) == set()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"", "in: expected files that end in .*got"),
        ("a.json.gz", b"[]", "a.json.gz and a.jsonl have the same name"),
        ("b.json", b"", "b.json is empty"),
        ("b.jsonl", b"PK\3\4", "b.jsonl is zip"),
        ("b.jsonl.gz", b"\x1f\x8bnothing", "b.jsonl.gz"),
        ("b.parquet", b"PAR1 nothing", "b.parquet is not Parquet"),
    ],
)
def test_what_cannot_be_read_is_refused_before_ray_starts(bundle, tmp_path, capsys, name, content, words):  # noqa: F811
    pytest.importorskip("ray", reason=NO_RAY)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"title": "A"}\n')
    (tmp_path / "in" / name).write_bytes(content)
    command = ["predict", str(bundle), "--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    assert main([*command, "--engine", "ray", "--ray-address", "nowhere:1"]) == 2
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--actors", "2"], "--engine local: no --actors"),
        (["--format", "parquet"], "--engine local: no --format parquet"),
        (["--engine", "ray", "--format", "csv", "--html", "x.html"], "--engine ray: no --html, --format csv"),
        (["--engine", "ray", "--output", "-"], "--engine ray writes a folder"),
    ],
)
def test_options_of_the_other_engine(tmp_path, capsys, monkeypatch, more, words):
    monkeypatch.chdir(tmp_path)
    assert main(["predict", "bundle", "--input", "in", "--output", "out", *more]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--actors", "0"], "--actors is 0"),
        (["--threads", "-1"], "--threads is -1"),
        (["--device", "cuda:1"], "--device is 'cuda:1'"),
        (["--batch-size", "0"], "--batch-size is 0"),
        (["--input", "nowhere"], "nowhere"),
        (["--output", "file"], "--output file is not a folder"),
    ],
)
def test_values_that_cannot_be(bundle, shards, tmp_path, capsys, monkeypatch, more, words):  # noqa: F811
    pytest.importorskip("ray", reason=NO_RAY)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    command = ["predict", str(bundle), "--input", str(shards[0]), "--output", "out", "--engine", "ray"]
    assert main([*command, *more]) == 2
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cluster_that_is_not_there(bundle, shards, tmp_path, capsys):  # noqa: F811
    ray = pytest.importorskip("ray", reason=NO_RAY)
    command = ["predict", str(bundle), "--input", str(shards[0]), "--output", str(tmp_path / "out"), "--engine", "ray"]
    ray.shutdown()
    assert main([*command, "--ray-address", "127.0.0.1:9"]) == 2
    assert "Ray (127.0.0.1:9): ConnectionRefusedError" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_ray(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    assert main(["predict", "bundle", "--input", "in", "--output", "out", "--engine", "ray"]) == 2
    assert '--engine ray needs Ray Data\n  -> pip install "segdre-plugin[ray]"' in capsys.readouterr().err

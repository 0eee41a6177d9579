"""``--seg-check``: what it tries, what it says, and that it leaves nothing behind."""

import re

import pytest
import seg_objects
import torch

from segdre_plugin.data.synthetic.corpus import generate, rel2id, write_corpus
from segdre_plugin.seg.check_run import CheckRun, Clock, Cost, handful, longest_path
from segdre_plugin.seg.launch import run_reference


def words(document):
    return sum(map(len, document["sents"]))


def test_a_handful_has_the_shortest_the_longest_and_some_between():
    documents = generate(40, 3)
    found = handful(documents, 5)
    lengths = sorted(map(words, found))
    assert len(found) == 5
    assert (lengths[0], lengths[-1]) == (min(map(words, documents)), max(map(words, documents)))
    assert [documents.index(document) for document in found] == sorted(map(documents.index, found))
    assert handful(documents, 5, in_order=True) == documents[:5]
    assert handful(documents, 50) == documents


def test_the_first_step_does_not_count():
    assert Clock(steps=[9.0, 1.0, 2.0]).step == 1.5
    assert Clock(steps=[9.0]).step == 9.0
    assert (Clock().step, Clock().document) == (0.0, 0.0)


def test_the_estimate_by_hand(monkeypatch, tmp_path):
    data = seg_objects.corpus(tmp_path / "data")  # 4 train, 3 dev, 2 test documents
    more = ["--num_train_epochs", "6", "--train_batch_size", "2", "--seg-check", "--seg-sparse-epochs", "3"]
    own = ["--data_dir", str(data), "--num_class", str(len(rel2id())), "--seg-dir", str(tmp_path / "out"), *more]
    run = seg_objects.script_run(monkeypatch, *own, cls=CheckRun)
    assert run.sizes == {"train": 4, "dev": 3, "test": 2}
    run.sizes = {"train": 1001, "dev": 30, "test": 20}
    for stage in ("base", "sparse"):
        run.clocks[stage] = Clock(steps=[5.0, 0.5], reading=2.0, documents=4, kept=0.6 if stage == "sparse" else 1.0)
    lines = {line.split()[0]: re.split(r"\s{2,}", line) for line in run.estimate().splitlines()}
    # 500 steps an epoch, six epochs; six looks at 30 documents, then 50, at half a second each
    assert lines["base"][1:] == ["0.5 s", "0.5 s", "25 min", "2 min"]
    # of 600 documents 300 steps an epoch, three epochs; 3 x 30 + 50 documents
    assert lines["sparse"][1:] == ["0.5 s", "0.5 s", "8 min", "70 s"]
    assert lines["dense"][1:] == ["0 s", "0 s", "0 s", "0 s"]
    assert "threads:" not in lines
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    for single, more in ((0.2, ": set OMP_NUM_THREADS=1, which is faster"), (0.6, "")):
        run.clocks["base"].single = single
        said = f"threads: a step of base takes 0.5 s with 8, {single} s with one{more}"
        assert said in run.estimate().splitlines()
    run._folder.cleanup()


def test_the_longest_path_by_hand():
    costs = {
        "base": Cost(10, 0, 1, 0),  # until 11
        "identify": Cost(4, 1, 2, 0, ("base",)),  # until 18
        "dense": Cost(10, 2, 3, 0),  # trained at 12, until 18 + 3
        "sparse": Cost(30, 0, 4, 0),  # trained at 30, until 34
    }
    assert longest_path(costs) == 34
    assert longest_path(costs | {"sparse": Cost(20, 0, 4, 0)}) == 25
    assert longest_path(costs | {"sparse": Cost(20, 0, 4, 0, ("base",))}) == 35
    assert longest_path(costs | {"dense": Cost(10, 2, 3, 0, looks_later=True)}) == 34
    assert longest_path(costs | {"dense": Cost(10, 20, 3, 0, looks_later=True)}) == 45  # at 41, and sparse reads
    assert costs["dense"].seconds == 15


@pytest.mark.parametrize(("select", "longest", "looks"), [("predicted", "63 s", 4), ("gold", "51 s", 0)])
def test_the_estimate_side_by_side(monkeypatch, tmp_path, select, longest, looks):
    data = seg_objects.corpus(tmp_path / "data")
    more = ["--num_train_epochs", "2", "--train_batch_size", "2", "--seg-parallel", "--seg-identify-epochs", "1"]
    own = ["--data_dir", str(data), "--num_class", str(len(rel2id())), "--seg-dir", str(tmp_path / "out")]
    run = seg_objects.script_run(monkeypatch, *own, *more, "--seg-select", select, cls=CheckRun)
    run.sizes = {"train": 20, "dev": 6, "test": 0}
    # base: 20 steps of a second, 3 times 6 documents of half a second; identify: 10, 2 times; dense and sparse as base
    for stage in ("base", "identify", "dense", "sparse"):
        run.clocks[stage] = Clock(steps=[9.0, 1.0], reading=2.0, documents=4)
        run.store.folder(stage).mkdir()
        run.checkpoint(stage).write_bytes(bytes(10**7))
    printed = run.estimate()
    run._folder.cleanup()
    # base and identify end after 29 + 16 s; then dense reads for 3 or 9 s, and sparse after it
    assert f"\nside by side: about {longest} with a GPU for each of three stages" in printed
    assert f"{0.04 + looks * 0.01:.2f} GB" in printed


@pytest.mark.slow
def test_the_reference_is_tried_and_nothing_stays(tmp_path, capsys):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    write_corpus(tmp_path / "data", train=30, dev=9, test=5, seed=5)
    command = ["--data_dir", str(tmp_path / "data"), "--num_class", str(len(rel2id())), "--num_train_epochs", "50"]
    command += ["--save_path", str(tmp_path / "base.pt"), "--seg-hidden", "16"]
    try:
        run_reference([*command, "--seg", "--seg-check", "--seg-dir", str(tmp_path / "out")])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    printed = capsys.readouterr().out
    assert "\nthreads: a step of base takes" in printed
    assert printed.startswith("segdre: every stage runs")
    assert re.search(r"^sparse +[\d.]+ s", printed, re.MULTILINE)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.upstream
@pytest.mark.parametrize("name", ["atlop", "dreeam"])
def test_clones_are_tried(request, name):
    place = request.getfixturevalue(f"{name}_place")
    before = sorted(path.name for path in place.folder.iterdir())
    printed = place.run("--seg-dir", "nowhere", "--seg-check", "--seg-trainer", "own" if name == "atlop" else "script")
    assert "all stages: about" in printed
    assert sorted(path.name for path in place.folder.iterdir() if path.name != "__pycache__") == [
        path for path in before if path != "__pycache__"
    ]

"""``--seg-trainer own``: upstream's recipe, and stages that go on where they were cut off."""

import json
import shutil
from contextlib import suppress

import pytest
import torch

from segdre_plugin import SegDREError
from segdre_plugin.backbones import trainer
from segdre_plugin.data.files import read_arrays
from segdre_plugin.data.synthetic.corpus import rel2id, write_corpus
from segdre_plugin.seg.launch import run_reference
from segdre_plugin.seg.options import parse
from segdre_plugin.seg.store import Store

STAGES = ("base", "identify", "dense", "sparse")


def same_weights(one, other):
    one, other = (torch.load(path, weights_only=True) for path in (one, other))
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.upstream
@pytest.mark.parametrize("name", ["atlop", "dreeam"])
def test_every_stage_is_the_very_one_of_upstreams_loop(request, name):
    place = request.getfixturevalue(f"{name}_place")
    theirs, _ = place.finished
    place.run("--seg-dir", "own-loop", "--seg-trainer", "own")
    ours = place.folder / "own-loop"
    for stage in STAGES:
        assert same_weights(*(run / stage / place.upstream.checkpoint for run in (theirs, ours))), stage
    for stage in ("base", "dense", "sparse"):
        for split in ("dev", "test"):
            one, other = (read_arrays(run / stage / f"margins_{split}.npz") for run in (theirs, ours))
            assert all((one[key] == other[key]).all() for key in one)
    assert not list(ours.rglob("unfinished-*"))
    base, dense = (ours / stage / place.upstream.checkpoint for stage in ("base", "dense"))
    assert not same_weights(base, dense)  # negative control


# before a run: the value of every loss whose gradients are computed, and the epsilon, rates and norm of every step
RECORD = """
import json, torch
def noting(what, note):
    def noted(*given, **more):
        with open("recorded.jsonl", "a") as file:
            print(json.dumps(note(*given)), file=file)
        return what(*given, **more)
    return noted
torch.Tensor.backward = noting(torch.Tensor.backward, lambda loss, *_: loss.item().hex())
torch.nn.utils.clip_grad_norm_ = noting(torch.nn.utils.clip_grad_norm_, lambda parameters, norm: norm)
torch.optim.AdamW.step = noting(
    torch.optim.AdamW.step, lambda optimizer: [(group["lr"], group["eps"]) for group in optimizer.param_groups]
)
"""


@pytest.mark.upstream
@pytest.mark.parametrize("name", ["atlop", "dreeam"])
def test_step_by_step_it_has_the_losses_and_rates_of_upstreams_own_script(request, name):
    place = request.getfixturevalue(f"{name}_place")

    def recorded(*arguments):
        ended = place.python(place.upstream.script, *arguments, before=RECORD)
        assert ended.returncode == 0, ended.stderr[-3000:]
        path = place.folder / "recorded.jsonl"
        lines = path.read_text().splitlines()
        path.unlink()
        return [json.loads(line) for line in lines]

    own = ("--seg-stage", "base", "--seg-trainer", "own", "--no-seg-fast")  # or its last bits are other ones
    data = place.folder / "data"
    shutil.copy(data / "train_annotated.json", data / "train_distant.json")  # which upstream's Ign-F1 wants, too
    theirs = recorded(*place.arguments("--save_path", "step-by-step"))
    ours = recorded(*place.seg("--seg-dir", "step-by-step-own", *own))
    assert len(theirs) == 3 * 4  # loss, norm and rates of two steps in each of two epochs
    assert ours == theirs
    assert len({line for line in theirs if isinstance(line, str)}) == 4
    other = recorded(*place.seg("--seg-dir", "step-by-step-seed", "--seed", "7", *own))
    assert len(other) == len(ours)
    assert other != ours  # negative control


@pytest.mark.slow
def test_cut_off_again_and_again_the_run_has_the_same_files(tmp_path, monkeypatch, one_thread):
    data = tmp_path / "data"
    write_corpus(data, train=6, dev=3, test=2, seed=5)
    command = ["--data_dir", str(data), "--num_class", str(len(rel2id())), "--num_train_epochs", "2", "--seg"]
    command += ["--seg-trainer", "own", "--seg-checkpoint", "0", "--seg-hidden", "16", "--seg-identify-epochs", "1"]
    run_reference([*command, "--seg-dir", str(tmp_path / "whole")])

    writes, cuts = 0, 0
    write = trainer._write

    def cut(path, state):
        nonlocal writes
        write(path, state)
        writes += 1
        if writes % 4 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "_write", cut)
    while True:
        try:
            run_reference([*command, "--seg-dir", str(tmp_path / "cut")])
            break
        except KeyboardInterrupt:
            cuts += 1
            assert len(list((tmp_path / "cut").glob(".*.partial/unfinished-*.pt"))) == 1
    assert cuts > 3
    whole, again = tmp_path / "whole", tmp_path / "cut"
    names = [sorted(path.relative_to(root) for path in root.rglob("*") if path.is_file()) for root in (whole, again)]
    assert names[0] == names[1]
    differ = {name.name for name in names[0] if (whole / name).read_bytes() != (again / name).read_bytes()}
    assert differ <= {"provenance.json"}  # of other processes


def test_unfinished_training_of_other_settings_is_not_gone_on_with(tmp_path):
    store = Store(tmp_path)
    with suppress(KeyboardInterrupt), store.building("base", {"seed": 1}) as folder:
        store.resume(folder, {"seed": 1}).write_bytes(b"")
        (folder / ".unfinished-1.pt.x1.partial").write_bytes(b"")  # left where a process was killed while it wrote
        raise KeyboardInterrupt
    with suppress(KeyboardInterrupt), store.building("base", {"seed": 1}) as folder:
        assert list(folder.iterdir()) == [store.resume(folder, {"seed": 1})]
        raise KeyboardInterrupt
    with store.building("base", {"seed": 2}) as folder:
        assert list(folder.iterdir()) == []
    assert {path.name for path in store.folder("base").iterdir()} == {"settings.json", "provenance.json"}


@pytest.mark.parametrize("minutes", ["-1", "nan", "inf"])
def test_minutes_are_checked(minutes):
    with pytest.raises(SegDREError, match="--seg-checkpoint is"):
        parse(["--seg", "--seg-checkpoint", minutes])

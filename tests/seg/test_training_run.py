"""What a training run does around the stages: checks before anything is trained, stages skipped, reused, settings."""

import json
import re
from functools import wraps

import pytest
import seg_runs
import torch
from safetensors.torch import load_file, save_file
from seg_objects import corpus, training_run
from torch import nn

from segdre_plugin import SegDREError
from segdre_plugin.backbones.clones import stand_ins
from segdre_plugin.backbones.clones.compat import AdamW
from segdre_plugin.backbones.clones.stand_ins import with_fused_step, with_new_layer_lr
from segdre_plugin.backbones.reference import ReferenceModel
from segdre_plugin.data.synthetic.corpus import RELATIONS
from segdre_plugin.seg.store import Store
from segdre_plugin.stages.config import STAGES


@pytest.fixture
def data(tmp_path):
    return corpus(tmp_path / "data")


def done(run, *stages, root=None):
    """Make finished stages without training: their settings are right, and they hold nothing."""
    store = Store(root) if root else run.store
    store.root.mkdir(exist_ok=True)
    for stage in stages:
        with store.building(stage, run.settings.of(stage)):
            pass


class TestBeforeAnythingIsTrained:
    def test_less_than_a_batch_of_documents(self, monkeypatch, data, tmp_path):
        with pytest.raises(SegDREError, match="4 documents, less than one batch of 5"):
            training_run(monkeypatch, data, tmp_path / "out", "--train_batch_size", "5")

    @pytest.mark.parametrize(("stage", "missing"), [("dense", "identify"), ("sparse", "identify and dense")])
    def test_a_stage_needs_those_before_it(self, monkeypatch, data, tmp_path, stage, missing):
        run = training_run(monkeypatch, data, tmp_path / "out", "--seg-stage", stage)
        with pytest.raises(SegDREError, match=f"stage {stage} needs stage {missing}, not found"):
            run.run()

    def test_fuse_needs_all(self, monkeypatch, data, tmp_path):
        run = training_run(monkeypatch, data, tmp_path / "out", "--seg-stage", "fuse")
        done(run, "base", "dense")
        with pytest.raises(SegDREError, match="stage fuse needs stage identify and sparse"):
            run.run()

    def test_a_run_to_reuse_that_is_missing(self, monkeypatch, data, tmp_path):
        with pytest.raises(SegDREError, match="--seg-reuse: no folder"):
            training_run(monkeypatch, data, tmp_path / "out", "--seg-reuse", str(tmp_path / "no")).run()
        assert not (tmp_path / "out").exists()

    def test_weights_for_the_base_that_are_missing(self, monkeypatch, data, tmp_path):
        with pytest.raises(SegDREError, match=r"--load_path: .*no\.pt not found"):
            training_run(monkeypatch, data, tmp_path / "out", "--load_path", str(tmp_path / "no.pt"))

    def test_a_finished_stage_of_other_settings(self, monkeypatch, data, tmp_path):
        done(training_run(monkeypatch, data, tmp_path / "out", "--seed", "1"), "base")
        with pytest.raises(SegDREError, match="was made with other settings") as caught:
            training_run(monkeypatch, data, tmp_path / "out", "--seed", "2", "--seg-stage", "identify").run()
        assert "arguments.seed: 1 there, 2 now" in str(caught.value)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
class TestEncoder:
    @pytest.fixture
    def run(self, monkeypatch, data, tmp_path):
        documents = json.loads((data / "train_annotated.json").read_text())
        seg_runs.make_encoder(tmp_path / "encoder", documents, RELATIONS, "bert")
        more = ("--model_name_or_path", str(tmp_path / "encoder"), "--num_train_epochs", "1")
        more += ("--seg-identify-epochs", "1")
        return lambda *other: training_run(monkeypatch, data, tmp_path / "out", *more, *other)

    @pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
    def test_that_changes_between_runs(self, run, tmp_path, name):
        run("--seg-stage", "base").run()
        path = tmp_path / "encoder" / name
        if path.suffix == ".safetensors":
            save_file(load_file(path), path, {"format": "pt", "note": "another"})
        else:
            path.write_bytes(path.read_bytes() + b"\n")
        with pytest.raises(
            SegDREError, match=rf"out.base was made with other .*\n  - encoder\.\w+\.{name}: "
        ) as caught:
            run("--seg-stage", "identify").run()
        assert str(caught.value).count("  - ") == 1

    def test_that_changes_between_stages(self, run, tmp_path):
        training, path = run(), tmp_path / "encoder" / "config.json"
        once, make = [], training.run_main

        def then_change(*how):
            make(*how)
            once.append(path.write_text(path.read_text() + " "))

        training.run_main = then_change
        with pytest.raises(
            SegDREError, match=r"stage identify: the encoder's files have changed.*\n.*\.config\.json: "
        ):
            training.run()
        assert len(once) == 1
        assert training.store.is_done("base")
        assert not training.store.folder("identify").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("where", ["forward", "backward", "step"])
def test_memory_that_does_not_do_ends_the_stage_and_a_rerun_makes_it(monkeypatch, data, tmp_path, where):
    owner = {"forward": ReferenceModel, "backward": torch.Tensor, "step": torch.optim.AdamW}[where]

    def fails(*_, **__):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    def run():
        return training_run(monkeypatch, data, tmp_path / "out", "--seg-stage", "base", "--num_train_epochs", "1").run()

    with monkeypatch.context() as patched:
        patched.setattr(owner, where, wraps(getattr(owner, where))(fails))
        with pytest.raises(SegDREError, match="stage base, training on 2 documents") as caught:
            run()
    assert re.search(r"\d+ tokens the longest, \d+ with padding, \d+ pairs: not enough memory: CUDA", str(caught.value))
    assert all(word in caught.value.hint for word in ("--train_batch_size", "--seg-branch-budget"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name != ".lock"]
    run()
    assert (tmp_path / "out" / "base" / "metrics.json").is_file()


def test_a_gpu_without_bfloat16_is_refused_before_anything_is_trained(monkeypatch, data, tmp_path, old_gpu):
    run = training_run(monkeypatch, data, tmp_path / "out", "--seg-bf16")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SegDREError, match="bfloat16: Tesla V100 does not compute in it"):
        run.run()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
class TestNumbersThatAreNotFinite:
    def test_end_the_stage_and_nothing_is_kept(self, monkeypatch, data, tmp_path):
        def run():
            return training_run(monkeypatch, data, tmp_path / "out", "--learning_rate", "1e6").run()

        titles = {document["title"] for document in json.loads((data / "train_annotated.json").read_text())}
        saved = tmp_path / "saved.pt"
        for _ in range(2):  # a rerun trains again
            with pytest.raises(SegDREError, match=r"stage base, step \d+, learning rate .*a loss of nan") as caught:
                run()
            assert any(title in str(caught.value) for title in titles)
            assert not [path for path in (tmp_path / "out").rglob("*") if path.name != ".lock"]
            assert not saved.exists()

    @pytest.mark.parametrize("name", ["bilinear.weight", "model.embeddings.word_embeddings.weight"])
    def test_in_weights_that_are_loaded(self, monkeypatch, data, tmp_path, name):
        training_run(monkeypatch, data, tmp_path / "out", "--seg-stage", "base", "--num_train_epochs", "1").run()
        weights = torch.load(tmp_path / "out" / "base" / "checkpoint.pt", weights_only=True)
        weights[name].view(-1)[3] = torch.nan
        torch.save(weights, tmp_path / "broken.pt")
        more = ("--load_path", str(tmp_path / "broken.pt"), "--seg-stage", "base")
        with pytest.raises(SegDREError, match=rf"broken\.pt: weights that are not finite:\n  - {name}"):
            training_run(monkeypatch, data, tmp_path / "new", *more).run()
        assert not (tmp_path / "new" / "base").exists()


class TestFinishedStages:
    def test_are_skipped(self, monkeypatch, data, tmp_path, capsys):
        run = training_run(monkeypatch, data, tmp_path / "out", "--seg-stage", "base")
        done(run, "base")
        run.run()
        assert "segdre: stage base is done" in capsys.readouterr().out

    def test_of_another_run_are_taken_if_their_settings_are_the_same(self, monkeypatch, data, tmp_path, capsys):
        reuse = [part for name in ("first", "second") for part in ("--seg-reuse", str(tmp_path / name))]
        run = training_run(monkeypatch, data, tmp_path / "out", "--seg-stage", "base", *reuse)
        done(training_run(monkeypatch, data, tmp_path / "first", "--seed", "1"), "base")
        done(run, "base", root=tmp_path / "second")
        run.run()
        assert f"stage base is that of {tmp_path / 'second'}" in capsys.readouterr().out
        assert run.store.is_done("base")


# What changes -> the first stage whose result depends on it; the settings of all stages before stay the same.
FIRST = {
    "--seed=9": "base",
    "--learning_rate=1e-4": "base",
    "--seg-loss=hinge-abl": "base",
    "--no-seg-fast": "base",
    "--seg-identify-epochs=2": "identify",
    "--seg-hidden=8": "identify",
    "--seg-dense-epochs=2": "dense",
    "--seg-start=base": "dense",
    "--seg-alpha=0.5": "sparse",
    "--seg-template-to={head}": "sparse",
    "--seg-grid=redocred": None,
    "--seg-fusion=average": None,
    "--test_batch_size=1": None,
}


@pytest.mark.parametrize("change", FIRST)
def test_settings_change_from_the_stage_that_depends_on_an_option(monkeypatch, data, tmp_path, change):
    before, after = (training_run(monkeypatch, data, tmp_path, *more) for more in ((), (change,)))
    changed = [stage for stage in STAGES if before.settings.of(stage) != after.settings.of(stage)]
    assert changed == (list(STAGES[STAGES.index(FIRST[change]) :]) if FIRST[change] else [])


def test_settings_follow_the_data_and_not_their_place(monkeypatch, data, tmp_path):
    before = training_run(monkeypatch, data, tmp_path / "out").settings.of("base")
    data.rename(tmp_path / "moved")
    assert training_run(monkeypatch, tmp_path / "moved", tmp_path / "out").settings.of("base") == before
    documents = json.loads((tmp_path / "moved" / "dev.json").read_text())
    (tmp_path / "moved" / "dev.json").write_text(json.dumps(documents[:-1]))
    after = training_run(monkeypatch, tmp_path / "moved", tmp_path / "out").settings.of("base")
    assert {name for name in before["data"] if before["data"][name] != after["data"][name]} == {"dev"}


def test_new_layers_are_the_groups_without_the_encoders_parameters():
    """ATLOP gives the new layers' group a rate of its own, DocuNet the encoder's, too."""
    encoder, new, other = (torch.nn.Linear(1, 1) for _ in range(3))
    groups = [
        {"params": list(encoder.parameters()), "lr": 1e-5},
        {"params": list(new.parameters()), "lr": 1e-4},
        {"params": list(other.parameters())},
    ]
    optimizer = with_new_layer_lr(torch.optim.AdamW, 1e-3, encoder.parameters)(groups, lr=5e-5)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-5, 1e-3, 1e-3]


class TestFusedStep:
    def trained(self, build, steps=3):
        """Train the scripts' optimiser for some steps; return its groups and the weights."""
        torch.manual_seed(0)
        layers = nn.Linear(7, 5), nn.Linear(5, 3)
        groups = [{"params": layers[0].parameters()}, {"params": layers[1].parameters(), "lr": 1e-2}]
        made = build(groups, lr=1e-3, eps=1e-6)
        for _ in range(steps):
            made.zero_grad()
            layers[1](layers[0](torch.randn(4, 7))).square().sum().backward()
            made.step()
        return made.param_groups, [p.detach() for layer in layers for p in layer.parameters()]

    def test_a_cpu_keeps_its_numbers(self):
        due, found = self.trained(AdamW), self.trained(with_fused_step(AdamW))
        assert not any(group["fused"] for group in found[0])
        assert all(map(torch.equal, found[1], due[1]))

    def test_the_same_recipe_elsewhere(self, monkeypatch):
        due = self.trained(AdamW)
        monkeypatch.setattr(stand_ins, "fuses", lambda devices: bool(list(devices)))  # a CPU has the kernel, too
        groups, weights = self.trained(with_fused_step(AdamW))
        assert all(group["fused"] for group in groups)
        same = ("lr", "eps", "betas", "weight_decay")
        assert [[group[k] for k in same] for group in groups] == [[group[k] for k in same] for group in due[0]]
        torch.testing.assert_close(weights, due[1], rtol=0, atol=1e-6)
        assert not all(map(torch.equal, weights, due[1]))  # it is another kernel, though

    def test_where(self):
        cpu, gpu = torch.device("cpu"), torch.device("cuda:1")
        assert stand_ins.fuses([gpu, gpu])
        assert not stand_ins.fuses([gpu, cpu])
        assert not stand_ins.fuses([])

    def test_other_optimisers(self, monkeypatch):
        monkeypatch.setattr(stand_ins, "fuses", lambda devices: True)
        groups = [{"params": nn.Linear(2, 2).parameters()}]
        assert not with_fused_step(torch.optim.SGD)(groups, lr=1.0).param_groups[0]["fused"]

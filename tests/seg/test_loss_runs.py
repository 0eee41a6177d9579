"""``--seg-loss``: whole runs of the reference model, their settings, evaluation and bundles; real clones."""

import json
import re
import shutil

import bundles
import pytest
import seg_runs
import tiny
import torch
import upstream
from locate import REPOSITORY

from segdre_plugin import SegConfig, SegDREError, SegPipeline, unwrap_model, wrap_collate, wrap_model
from segdre_plugin.backbones import losses
from segdre_plugin.backbones.clones.compat import AutoTokenizer
from segdre_plugin.backbones.losses import HingeBalanceLoss, ThresholdLoss, register_loss
from segdre_plugin.backbones.reference import collate_fn
from segdre_plugin.backbones.registry import find_backbone
from segdre_plugin.seg.bundle import bundle_run, read_bundle

bundle, run_folder = bundles.bundle, bundles.run_folder
NEW = ("balanced-softmax", "hinge-abl")


def settings_of(folder, stage):
    return json.loads((folder / stage / "settings.json").read_text())["options"]


def weights(folder, stage):
    return torch.load(folder / stage / "checkpoint.pt", weights_only=True)["bilinear.weight"]


@pytest.mark.usefixtures("one_thread")
class TestReference:
    @pytest.fixture(autouse=True)
    def own(self, monkeypatch):
        monkeypatch.setattr(losses, "_FACTORIES", dict(losses._FACTORIES))

    @pytest.mark.parametrize("name", NEW)
    def test_a_run_with_each(self, run_folder, tmp_path, name):
        shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
        bundles._run(tmp_path / "run", "--seg-loss", name)
        for stage in ("base", "dense", "sparse"):
            assert settings_of(tmp_path / "run", stage)["loss"] == name
            assert settings_of(run_folder, stage)["loss"] == "atl"
            assert not torch.equal(weights(tmp_path / "run", stage), weights(run_folder, stage))
        assert "loss" not in settings_of(tmp_path / "run", "identify")
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["dev"]["fused"]["f1"] >= metrics["dev"]["base"]["f1"]
        with pytest.raises(SegDREError, match=rf"options\.loss: '{name}' there, 'atl' now"):
            bundles._run(tmp_path / "run")

    def test_losses_are_not_mixed(self, run_folder, capsys):
        assert bundles.repeat(run_folder, capsys, "--seg-loss", "atl").count("is done") == 4
        with pytest.raises(SegDREError, match=r"options\.loss: 'atl' there, 'hinge-abl' now"):
            bundles._run(run_folder, "--seg-loss", "hinge-abl")

    def test_a_loss_of_ones_own_is_needed_for_training_only(self, run_folder, tmp_path):
        documents = json.loads((run_folder.parent / "corpus" / "dev.json").read_text())
        shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
        register_loss("softer", lambda: HingeBalanceLoss(margin=2.0))
        bundles._run(tmp_path / "run", "--seg-loss", "softer")
        bundle_run(tmp_path / "run", tmp_path / "bundle")
        del losses._FACTORIES["softer"]
        assert read_bundle(tmp_path / "bundle").config.loss == "softer"
        predicted = SegPipeline.from_pretrained(tmp_path / "bundle")(documents)
        official = json.loads((tmp_path / "run" / "result_dev.json").read_text())
        assert sum(len(answer["triples"]) for answer in predicted) == len(official) > 0

    def test_an_unknown_loss_is_refused_before_any_work(self, run_folder):
        with pytest.raises(SegDREError, match="unknown loss 'afl'"):
            bundles._run(run_folder.parent / "new", "--seg-loss", "afl")
        assert not (run_folder.parent / "new").exists()


def test_the_page_s_own_loss(monkeypatch):
    monkeypatch.setattr(losses, "_FACTORIES", dict(losses._FACTORIES))
    page = (REPOSITORY / "docs" / "losses.md").read_text(encoding="utf-8")
    exec(re.search(r"<!-- own-loss:.*?-->\n```python\n(.*?)```", page, re.S)[1], {"__name__": "page"})
    model = wrap_model(tiny.model(), config=SegConfig(loss="plain"))
    assert type(model.loss_fnt).__name__ == "PlainLoss"
    loss, _ = model(*collate_fn([tiny.feature(40)]))
    loss.backward()
    assert 0 < loss < 5


@pytest.fixture(params=seg_runs.UPSTREAM)
def real(request, redocred, encoder_dir, tmp_path):
    """A real model around a tiny encoder with the real vocabulary, a batch of real documents, and the clone's loss."""
    clone = request.getfixturevalue(request.param)
    (tmp_path / "meta").mkdir()
    shutil.copy(redocred / "rel2id.json", tmp_path / "meta")
    modules = upstream.load(clone, ("model", "losses", "long_seq", "utils", "prepro"), tmp_path)
    documents = sorted(json.loads((redocred / "dev.json").read_text()), key=lambda d: sum(map(len, d["sents"])))[20:22]
    (tmp_path / "dev.json").write_text(json.dumps(documents))
    tokenizer = AutoTokenizer.from_pretrained(str(encoder_dir))
    features = modules.prepro.read_docred(str(tmp_path / "dev.json"), tokenizer)
    encoder = tiny.encoder(vocabulary=30522, num_hidden_layers=4)
    config = tiny.configure(encoder.config, classes=97)
    how = {"emb_size": 16, "block_size": 4, "num_labels": 4}
    more = {"max_sent_num": 25, "evi_thresh": 0.1} if request.param == "dreeam" else {}
    args = (config, encoder, None) if request.param == "dreeam" else (config, encoder)
    model = modules.model.DocREModel(*args, **how, **more)
    return model, wrap_collate(modules.utils.collate_fn, adapter=request.param)(features), modules.losses.ATLoss()


@pytest.mark.upstream
class TestClones:
    @pytest.mark.parametrize("name", NEW)
    def test_one_step_and_the_original_is_back(self, real, name):
        model, batch, _ = real
        own = model.loss_fnt
        wrap_model(model, config=SegConfig(loss=name))
        backbone = find_backbone(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = model.bilinear.weight.detach().clone()
        found = []
        for _ in range(2):
            output = model(**dict(zip(backbone.batch, batch, strict=True)))
            parts = list(output["loss"].values()) if isinstance(output, dict) else [output[0]]
            found.append(parts[0].item())
            optimizer.zero_grad()
            parts[0].backward()
            optimizer.step()
        assert found[1] < found[0]
        assert not torch.equal(model.bilinear.weight, before)
        assert unwrap_model(model).loss_fnt is own

    def test_decisions_are_the_clones_own(self, real):
        theirs = real[2]
        logits = torch.randn(50, 97, generator=torch.Generator().manual_seed(0))
        for num_labels in (-1, 1, 4):
            assert torch.equal(ThresholdLoss().get_label(logits, num_labels), theirs.get_label(logits, num_labels))
        if hasattr(theirs, "get_score"):
            pairs = zip(ThresholdLoss().get_score(logits, 4), theirs.get_score(logits, 4), strict=True)
            assert all(torch.equal(ours, due) for ours, due in pairs)

    def test_a_run_of_the_script(self, atlop_place):
        out, _ = atlop_place.finished
        atlop_place.run("--seg-dir", "balanced", "--seg-stage", "base", "--seg-loss", "balanced-softmax")
        other = atlop_place.folder / "balanced"
        assert settings_of(other, "base")["loss"] == "balanced-softmax"
        assert settings_of(out, "base")["loss"] == "atl"
        assert not torch.equal(weights(other, "base"), weights(out, "base"))

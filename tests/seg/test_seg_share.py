"""``--seg-share-encoder``: the reference model and real clones to their end, their bundles, what is refused."""

import json
import shutil

import bundles
import pytest
import torch
from seg_objects import SCRIPT, corpus, training_run
from seg_runs import contents

from segdre_plugin import SegDREError
from segdre_plugin.backbones.reference import train
from segdre_plugin.data.documents import load_documents
from segdre_plugin.data.synthetic.corpus import write_corpus
from segdre_plugin.prediction.answers import official_rows
from segdre_plugin.prediction.pipeline import SegPipeline
from segdre_plugin.seg.bundle import bundle_run
from segdre_plugin.seg.run_folder import RunFolder

SHARE = "--seg-share-encoder"
HEADS = ("bilinear_identify.", "bilinear_dense.")


def read(path):
    return json.loads(path.read_text())


def weights(folder):
    return torch.load(folder / "checkpoint.pt", weights_only=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run; its corpus lies beside it."""
    place = tmp_path_factory.mktemp("shared")
    write_corpus(place / "corpus", train=12, dev=7, test=4, seed=5)
    bundles._run(place / "run", SHARE)
    return place / "run"


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
class TestReference:
    @pytest.fixture
    def other(self, folder, tmp_path):
        """Another folder with the same corpus beside it."""
        shutil.copytree(folder.parent / "corpus", tmp_path / "corpus")
        return tmp_path / "run"

    def test_two_models_and_the_files_of_four_stages(self, folder):
        assert [path.parent.name for path in sorted(folder.rglob("checkpoint.pt"))] == ["base", "sparse"]
        assert {f"{name.split('.')[0]}." for name in weights(folder / "base")} > set(HEADS)
        run = RunFolder(folder)
        run.require_finished()
        assert (run.config.share_encoder, run.config.hidden) == (True, 16)
        for split in ("dev", "test"):
            documents = run.documents[split]
            own, n = run.margins("dense", split, documents), [len(document["vertexSet"]) for document in documents]
            pairs = set(zip(own.document.tolist(), own.head.tolist(), own.tail.tolist(), strict=True))
            due = {
                (d, *pair)
                for d, (salient,) in enumerate(run.salient(split, documents))
                for entity in set(range(n[d])) - {salient}
                for pair in ((salient, entity), (entity, salient))
            }
            assert pairs == due
            assert len(run.counts(split, documents)["count"]) == sum(k * (k - 1) for k in n)

    def test_a_bundle_reads_twice_and_predicts_what_the_run_did(self, folder):
        path = bundle_run(folder, folder.parent / "bundle")
        assert sorted(file.name for file in path.glob("*.safetensors")) == ["base.safetensors", "sparse.safetensors"]
        pipeline, read_by = SegPipeline.from_pretrained(path, device="cpu"), []
        for stage, model in pipeline.models.items():
            model.model.register_forward_pre_hook(lambda *_, stage=stage: read_by.append(stage))
        documents = load_documents(folder.parent / "corpus" / "dev.json")
        answers = pipeline(documents, batch_size=len(documents))
        assert official_rows(answers) == RunFolder(folder).result("dev")
        chosen = [[answer["salient"]["entity"]] for answer in answers]
        assert chosen == read(folder / "identify" / "salient.json")["dev"]
        assert read_by == ["base", "sparse"]
        alone = documents[0] | {"vertexSet": documents[0]["vertexSet"][:1], "labels": []}
        assert pipeline([alone, documents[1]])[0]["triples"] == pipeline(alone)["triples"] == []

    def test_again_nothing_is_done(self, folder, capsys):
        before = contents(folder)
        assert bundles.repeat(folder, capsys, SHARE).count("is done") == 4
        assert contents(folder) == before
        with pytest.raises(SegDREError, match="made with other settings"):
            bundles._run(folder)

    def test_sparse_starts_from_the_shared_base(self, folder, other, monkeypatch):
        begun = []

        def record(args, model, *rest):
            begun.append({name: weight.clone() for name, weight in model.state_dict().items()})
            return upstream(args, model, *rest)

        upstream = train.train
        monkeypatch.setattr(train, "train", record)
        bundles._run(other, SHARE, "--seg-start", "base", "--seg-reuse", str(folder))
        base, (sparse,) = weights(folder / "base"), begun  # the base does not depend on where others start
        assert sparse.keys() == {name for name in base if not name.startswith(HEADS)}
        assert all(torch.equal(base[name], weight) for name, weight in sparse.items())

    def test_a_strategy_without_a_head(self, other):
        bundles._run(other, SHARE, "--seg-salient", "aggregation")
        assert not any(name.startswith(HEADS[0]) for name in weights(other / "base"))
        assert not list(other.rglob("counts_*"))
        RunFolder(other).require_finished()

    def test_check_says_what_it_takes(self, other, capsys):
        bundles._run(other, SHARE, "--seg-check")
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        steps = {line[0]: line[1] for line in lines if line and line[0] in ("base", "identify", "dense", "sparse")}
        assert {stage for stage, step in steps.items() if step == "0"} == {"identify", "dense"}
        assert not other.exists()


class TestRefuses:
    @pytest.fixture
    def data(self, tmp_path):
        return corpus(tmp_path / "data")

    def test_weights_for_a_base_without_heads(self, monkeypatch, data, tmp_path):
        with pytest.raises(SegDREError, match="--seg-share-encoder: --load_path is a base without the heads"):
            training_run(monkeypatch, data, tmp_path / "out", SHARE, "--load_path", str(tmp_path / "base.pt"))

    def test_a_place_for_a_base_with_heads(self, monkeypatch, data, tmp_path):
        more = ("--save_path", str(tmp_path / "base.pt"))
        with pytest.raises(SegDREError, match=f"--save_path would get a base with heads that {SCRIPT.file} does not"):
            training_run(monkeypatch, data, tmp_path / "out", SHARE, *more)
        training_run(monkeypatch, data, tmp_path / "out", *more)  # negative control


@pytest.mark.upstream
@pytest.mark.slow
def test_atlop_side_by_side_gives_the_same_files(atlop_place):
    printed = atlop_place.run(SHARE, "--seg-dir", "shared")
    assert printed.count("its head was trained with the base") == 2
    together = atlop_place.run(SHARE, "--seg-parallel", "--seg-dir", "shared-together")
    assert "stage dense starts" not in together
    logs = {"base.log", "sparse.log"}
    found = contents(atlop_place.folder / "shared-together")
    assert {name: content for name, content in found.items() if name not in logs} == contents(
        atlop_place.folder / "shared"
    )


@pytest.mark.upstream
@pytest.mark.slow
def test_dreeam_evaluates_what_it_trained(dreeam_place):
    dreeam_place.run(SHARE, "--seg-dir", "shared")
    dreeam_place.evaluate("shared", "--test_file", "test.json")
    out = dreeam_place.folder / "shared"
    assert read(out / "eval" / "test" / "result.json") == read(out / "result.json")

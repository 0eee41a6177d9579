"""``--seg-select``: by which salient entities of dev the checkpoints of dense and sparse are chosen."""

import shutil

import bundles
import pytest

from segdre_plugin import SegDREError
from segdre_plugin.data.documents import load_documents
from segdre_plugin.salient import gold_chain
from segdre_plugin.seg import stage_training
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.branches import gold_dense_triples
from segdre_plugin.stages.config import STAGES

run_folder = bundles.run_folder
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def test_gold_decides_while_training_and_predictions_are_read(run_folder, tmp_path, monkeypatch):
    shutil.copytree(run_folder.parent / "corpus", tmp_path / "corpus")
    for stage in ("base", "identify"):
        shutil.copytree(run_folder / stage, tmp_path / "run" / stage)
    seen = []

    def judge(stage, split, found, train):
        seen.append((stage.name, split.name, list(found.salient), found.injected))
        return upstream(stage, split, found, train)

    upstream = stage_training.judge
    monkeypatch.setattr(stage_training, "judge", judge)
    bundles._run(tmp_path / "run", "--seg-select", "gold")
    documents, run = load_documents(tmp_path / "corpus" / "dev.json"), RunFolder(tmp_path / "run")
    gold, predicted = [gold_chain(document, 1) for document in documents], run.salient("dev")
    triples = [gold_dense_triples(document, chain) for document, chain in zip(documents, gold, strict=True)]
    assert list(map(tuple, gold)) != predicted

    order = [(stage, split) for stage in ("dense", "sparse") for split in ("dev", "dev", "test")]
    assert [call[:2] for call in seen] == order
    for look, last in (seen[0:2], seen[3:5]):
        assert list(map(tuple, look[2])) == list(map(tuple, gold))
        assert last[2] == predicted
    assert [list(own) for own in seen[3][3]] == triples
    assert [list(own) for own in seen[4][3]] == run.injected("dev")
    assert triples != run.injected("dev")

    # it is one of the settings of these two stages
    settings = {stage: run.settings(stage)["options"].get("select") for stage in STAGES}
    assert settings == {"base": None, "identify": None, "dense": "gold", "sparse": "gold"}
    with pytest.raises(SegDREError, match=r"options\.select: 'gold' there, 'predicted' now"):
        bundles._run(tmp_path / "run")

"""Descendants of ATLOP with other scripts, readers, checkpoints and models: ``segdre run`` on their real clones."""

import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from other_clones import CLONES, OTHERS, SEG, OtherPlace, equal
from seg_runs import contents

from segdre_plugin import SegPipeline, unwrap_model
from segdre_plugin.backbones.clones.compat import on_host
from segdre_plugin.prediction.answers import official_rows
from segdre_plugin.prediction.features import read_features
from segdre_plugin.seg.bundle import bundle_run
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.wrap import place_outputs

pytestmark = [pytest.mark.slow, pytest.mark.upstream]


@pytest.fixture(scope="module", params=OTHERS)
def place(request, tmp_path_factory):
    folder = CLONES / OTHERS[request.param].folder
    if not folder.is_dir():
        pytest.skip(f"no clone in {folder}")
    return OtherPlace(request.param, tmp_path_factory.mktemp(request.param) / "clone")


@pytest.fixture(scope="module")
def pipeline(place, tmp_path_factory):
    bundle = bundle_run(place.finished, tmp_path_factory.mktemp("bundle") / "bundle")
    return lambda: SegPipeline.from_pretrained(bundle, place.folder)


def test_a_whole_run_writes_its_folder_and_nothing_else(place):
    before = contents(place.folder)
    out = place.finished
    titles = {document["title"] for document in place.documents("test")}
    assert {triple["title"] for triple in json.loads((out / "result.json").read_text())} <= titles
    after = contents(place.folder)
    changed = {name for name in after if after[name] != before.get(name)}
    assert {name for name in changed if not (name.startswith("out/") or "__pycache__" in name)} == set()


def test_the_margins_of_the_base_decide_as_the_model_does(place, pipeline):
    documents, pipeline = place.documents("dev"), pipeline()
    margins = RunFolder(place.finished).margins("base", "dev", documents, len(pipeline.description.rel2id))
    chosen = margins.take(margins.margin > 0)
    ours = set(zip(*(getattr(chosen, name).tolist() for name in ("document", "head", "tail", "relation")), strict=True))
    model = place_outputs(unwrap_model(pipeline.models["base"]), place.backbone)  # in today's transformers
    args = Namespace(**pipeline.description.args)
    features = read_features(documents, pipeline.code, pipeline.tokenizer, pipeline.description.reading, args)
    with torch.no_grad(), on_host():
        output = model(**place.backbone.inputs(pipeline.code.collate(features), "cpu"))
    predicted = (output[0] if isinstance(output, tuple) else output).numpy()
    pairs = [(i, h, t) for i, feature in enumerate(features) for h, t in feature["hts"]]
    theirs = {(*pairs[k], r) for k, r in zip(*np.nonzero(predicted), strict=True) if r}
    assert ours == theirs
    assert theirs


def test_without_seg_nothing_changes(place):
    """Stage base trains as the script does alone: the same weights, from the same best epoch."""
    saved, out = place.folder / "plain.pt", place.folder / "base"
    place.finish(*place.arguments("--save_path", str(saved)))
    place.finish(*place.arguments(*SEG, "--seg-dir", str(out), "--seg-stage", "base", "--no-seg-fast"))
    assert equal(place.weights(saved), place.weights(place.script.checkpoint_in(out / "base")))


def test_a_bundle_predicts_what_the_run_did(place, pipeline):
    expected = json.loads((place.finished / "result_dev.json").read_text())
    assert official_rows(pipeline()(place.documents("dev"))) == expected


def test_load_path_takes_the_scripts_own_checkpoint(place):
    base = place.script.checkpoint_in(place.finished / "base")
    out = place.folder / "again"
    place.finish(*place.arguments(*SEG, "--seg-dir", str(out), "--seg-stage", "base", "--load_path", str(base)))
    assert equal(place.weights(place.script.checkpoint_in(out / "base")), place.weights(base))

"""Descendants of ATLOP with other scripts, readers, checkpoints and models: ``segdre run`` on their real clones."""

import json
import os
from argparse import Namespace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from other_clones import CLONES, OTHERS, SEG, SPACY_MODEL, OtherPlace, equal
from seg_runs import contents

from segdre_plugin import SegPipeline, unwrap_model
from segdre_plugin.adapters import SCRIPTS
from segdre_plugin.backbones.clones.compat import on_host
from segdre_plugin.prediction.answers import official_rows
from segdre_plugin.prediction.features import read_features
from segdre_plugin.seg.bundle import bundle_run
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.wrap import place_outputs

pytestmark = [pytest.mark.slow, pytest.mark.upstream]


# What takes two more runs is done for this one alone, as all read and train in the same ways, or for all of them.
THOROUGH = OTHERS.keys() if os.environ.get("SEGDRE_THOROUGH") else {"docunet"}


def thorough(place):
    if place.name not in THOROUGH:
        pytest.skip("SEGDRE_THOROUGH=1 runs it on all clones")


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in OTHERS])
def place(request, tmp_path_factory):
    folder = CLONES / OTHERS[request.param].folder
    if not folder.is_dir():
        pytest.skip(f"no clone in {folder}")
    needed = [name for name in SCRIPTS[request.param].required if name != SPACY_MODEL and find_spec(name) is None]
    if needed:
        pytest.skip(f"{folder} imports {', '.join(needed)}")
    place = OtherPlace(request.param, tmp_path_factory.mktemp(request.param) / "clone")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place.site)
        yield place


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
        output = model(**place.backbone.inputs(pipeline.code.collate(features), pipeline.device))
    key = place.backbone.predictions or 0
    predicted = (output[key] if isinstance(output, (tuple, dict)) else output).cpu().numpy()
    if place.backbone.loss is None:  # these are logits; their scripts compare with class 0's
        predicted = predicted > predicted[:, :1]
    pairs = [(i, h, t) for i, feature in enumerate(features) for h, t in feature["hts"]]
    theirs = {(*pairs[k], r) for k, r in zip(*np.nonzero(predicted), strict=True) if r}
    assert ours == theirs
    assert theirs


def test_without_seg_nothing_changes(place):
    """Stage base trains as the script does alone: the same weights, from the same best epoch."""
    thorough(place)
    out = place.folder / "base"
    place.finish(*place.arguments(*SEG, "--seg-dir", str(out), "--seg-stage", "base", "--no-seg-fast"))
    assert equal(place.weights(place.plain), place.weights(place.script.checkpoint_in(out / "base")))


def test_a_bundle_predicts_what_the_run_did(place, pipeline):
    expected = json.loads((place.finished / "result_dev.json").read_text())
    assert official_rows(pipeline()(place.documents("dev"))) == expected


def test_load_path_takes_the_scripts_own_checkpoint(place):
    thorough(place)
    if place.script.load_path_starts:
        pytest.skip("training starts from it: tests/seg/test_seg_dreeam.py")
    out = place.folder / "again"
    place.finish(*place.arguments(*SEG, "--seg-dir", str(out), "--seg-stage", "base", "--load_path", str(place.plain)))
    assert equal(place.weights(place.script.checkpoint_in(out / "base")), place.weights(place.plain))

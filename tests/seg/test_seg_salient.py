"""``--seg-salient`` and ``--seg-salient-k`` on real clones, from a finished run's base; a strategy of one's own."""

import json
import re
import shutil

import pytest
import torch
from locate import REPOSITORY
from seg_runs import contents

from segdre_plugin.metrics import evaluate
from segdre_plugin.salient import saliency
from segdre_plugin.stages.strategies import choose_salient, get_strategy

pytestmark = [pytest.mark.upstream, pytest.mark.slow]


def with_base(place, name):
    """Return a folder that holds the base of the finished run."""
    out, _ = place.finished
    shutil.copytree(out / "base", place.folder / name / "base")
    return place.folder / name


def read(path):
    return json.loads(path.read_text())


def test_linear_head_and_two_salient_entities_in_atlop(atlop_place):
    out = with_base(atlop_place, "linear")
    more = ("--seg-dir", "linear", "--seg-salient", "linear", "--seg-salient-k", "2")
    printed = atlop_place.run(*more)
    assert "2 salient entities" in printed
    weights = torch.load(out / "identify" / "checkpoint.pt", weights_only=True)
    assert weights["bilinear.output.weight"].shape == (1, 16)
    chains, dev = read(out / "identify" / "salient.json")["dev"], atlop_place.documents("dev")
    assert {len(chain) for chain in chains} == {2}
    metrics = read(out / "metrics.json")["dev"]
    assert metrics["strategies"]["linear"] == saliency(dev, chains, 2)
    assert metrics["dense"]["n_gold"] + metrics["sparse"]["n_gold"] == metrics["fused"]["n_gold"]
    assert metrics["dense"]["n_gold"] == sum(
        bool({x["h"], x["t"]} & set(chain))
        for document, chain in zip(dev, chains, strict=True)
        for x in document["labels"]
    )
    injected = read(out / "sparse" / "injected.json")["train"]["triples"]
    assert sum(map(len, injected)) > 0
    before = contents(out)
    assert atlop_place.run(*more).count("is done") == 4
    assert contents(out) == before


def test_max_mention_in_dreeam_trains_three_stages_and_evaluates(dreeam_place):
    out = with_base(dreeam_place, "mention")
    options = ("--seg-salient", "max-mention", "--seg-salient-k", "2", "--seg-train-salient", "same")
    printed = dreeam_place.run("--seg-dir", "mention", *options)
    assert "strategy max-mention trains nothing" in printed
    left = {"salient.json", "metrics.json", "settings.json", "provenance.json"}
    assert {path.name for path in (out / "identify").iterdir()} == left
    test = dreeam_place.documents("test")
    due = choose_salient(get_strategy("max-mention"), test, k=2)
    assert read(out / "identify" / "salient.json")["test"] == [list(chain) for chain in due]
    dreeam_place.evaluate("mention", "--test_file", "test.json")
    assert read(out / "eval" / "test" / "result.json") == read(out / "result.json")
    found = read(out / "eval" / "test" / "metrics.json")["test"]
    assert found["strategies"] == read(out / "metrics.json")["test"]["strategies"]
    assert evaluate(read(out / "result.json"), test, dreeam_place.documents("train_annotated")) == pytest.approx(
        found["fused"], abs=1e-12
    )


def test_own_strategy_of_the_documentation_runs(atlop_place):
    with_base(atlop_place, "own")
    page = (REPOSITORY / "docs" / "salient.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- own-strategy.*?-->\n```python\n(.*?)```", page, re.S)
    assert block
    (atlop_place.folder / "train_first.py").write_text(block[1])
    arguments = ("--seg-dir", "own", "--seg-stage", "identify", "--seg-salient", "first-entity")
    result = atlop_place.python("train_first.py", *atlop_place.seg(*arguments))
    assert result.returncode == 0, result.stderr[-3000:]
    chosen = read(atlop_place.folder / "own" / "identify" / "salient.json")["dev"]
    for document, (entity,) in zip(atlop_place.documents("dev"), chosen, strict=True):
        place = [min((m["sent_id"], m["pos"][0]) for m in mentions) for mentions in document["vertexSet"]]
        assert place[entity] == min(place)
    strange = atlop_place.python(atlop_place.upstream.script, *atlop_place.seg(*arguments))
    assert strange.returncode == 2
    assert "unknown strategy 'first-entity'" in strange.stderr

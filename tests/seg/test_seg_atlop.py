"""``--seg`` on a real clone of ATLOP: what only ATLOP has, and options that do not depend on the backbone."""

import json

import numpy as np
import pytest
from seg_runs import contents

from segdre_plugin.stages.margins import Margins

pytestmark = [pytest.mark.upstream, pytest.mark.slow]


def test_roberta(atlop_place):
    atlop_place.run("--seg-dir", "out-roberta", kind="roberta")
    metrics = json.loads((atlop_place.folder / "out-roberta" / "metrics.json").read_text())
    assert metrics["dev"]["fused"]["f1"] >= metrics["dev"]["base"]["f1"]


def test_load_path_takes_the_base_from_a_checkpoint(atlop_place):
    out, _ = atlop_place.finished
    more = ("--seg-dir", "loaded", "--seg-stage", "base", "--load_path", str(out / "base" / "checkpoint.pt"))
    assert "Total steps" not in atlop_place.run(*more)
    ours, theirs = contents(atlop_place.folder / "loaded" / "base"), contents(out / "base")
    assert ours["margins_test.npz"] == theirs["margins_test.npz"]
    assert ours["metrics.json"] == theirs["metrics.json"]


def test_documents_without_pairs_can_be_left_out(atlop_place):
    documents = atlop_place.documents("dev")
    lone = documents[0] | {"vertexSet": documents[0]["vertexSet"][:1], "labels": []}
    atlop_place.write("lone", [*documents[1:], lone])
    atlop_place.run("--seg-dir", "skipped", "--dev_file", "lone.json", "--seg-skip-unusable", "--seg-stage", "base")
    margins = Margins.load(atlop_place.folder / "skipped" / "base" / "margins_dev.npz")
    assert np.unique(margins.document).tolist() == [0, 1, 2, 3]  # the fifth has one entity

"""``--seg-fusion``: a finished run fused anew, and everything that reads it follows."""

import json
import shutil

import bundles
import numpy as np
import pytest

from segdre_plugin import SegPipeline
from segdre_plugin.analysis.report.run_cells import dev_grid, load_candidates
from segdre_plugin.seg.bundle import bundle_run
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.candidates import fusible
from segdre_plugin.stages.margins import Margins

run_folder = bundles.run_folder
pytestmark = pytest.mark.usefixtures("one_thread")
STAGES = ("base", "dense", "sparse")


LEARN = ("--learning_rate", "1e-3", "--new_layer_lr", "2e-3")  # or base, dense and sparse would be nearly the same


@pytest.fixture(scope="module")
def union(run_folder, tmp_path_factory):
    """A finished run."""
    place = tmp_path_factory.mktemp("union")
    shutil.copytree(run_folder.parent / "corpus", place / "corpus")
    bundles._run(place / "run", *LEARN)
    return place / "run"


@pytest.fixture(scope="module")
def fused(union, tmp_path_factory):
    """The same run, copied and fused by averaging."""
    place = tmp_path_factory.mktemp("average")
    shutil.copytree(union.parent, place, dirs_exist_ok=True)
    bundles._run(place / "run", *LEARN, "--seg-fusion", "average")
    return place / "run"


def read(path):
    return json.loads(path.read_text())


def tables(folder, split="dev"):
    return {stage: Margins.load(folder / stage / f"margins_{split}.npz") for stage in STAGES}


def cells(table):
    columns = (table.document, table.head, table.tail, table.relation, table.margin)
    return {tuple(cell): margin for *cell, margin in zip(*(c.tolist() for c in columns), strict=True)}


def test_nothing_is_trained_and_the_result_is_another(union, fused):
    for stage in (*STAGES, "identify"):
        times = [(folder / stage / "settings.json").stat().st_mtime_ns for folder in (union, fused)]
        assert times[0] == times[1]
    assert [read(folder / "metrics.json")["thresholds"]["fusion"] for folder in (union, fused)] == ["union", "average"]
    assert read(union / "result_dev.json") != read(fused / "result_dev.json")


def test_predictions_are_those_of_the_thresholds_on_means(fused):
    found, taus = tables(fused), read(fused / "metrics.json")["thresholds"]
    base, dense, sparse = (cells(found[stage]) for stage in STAGES)

    def lowest(table, pair):
        return min(margin for cell, margin in table.items() if cell[:3] == pair)

    predicted = {cell for cell, margin in base.items() if margin > taus["tau_base"]}
    for table, tau in ((dense, taus["tau_dense"]), (sparse, taus["tau_sparse"])):
        pairs = {cell[:3] for cell in table}
        low = {pair: (lowest(base, pair), lowest(table, pair)) for pair in pairs}
        for cell in {cell for cell in base.keys() | table.keys() if cell[:3] in pairs}:
            first, second = low[cell[:3]]
            if (base.get(cell, first) + table.get(cell, second)) / 2 > tau:
                predicted.add(cell)
    documents = read(fused.parent / "corpus" / "dev.json")
    names = {i: name for name, i in read(fused.parent / "corpus" / "rel2id.json").items()}
    due = {(documents[d]["title"], h, t, names[r]) for d, h, t, r in predicted}
    assert {(p["title"], p["h_idx"], p["t_idx"], p["r"]) for p in read(fused / "result_dev.json")} == due


def test_bundle_and_report_follow(fused):
    pipeline = SegPipeline.from_pretrained(bundle_run(fused, fused.parent / "bundle"))
    documents = read(fused.parent / "corpus" / "dev.json")
    found = [
        {"title": answer["title"], "h_idx": k["h_idx"], "t_idx": k["t_idx"], "r": k["r"]}
        for answer in pipeline(documents)
        for k in answer["triples"]
    ]
    due = [{key: row[key] for key in ("title", "h_idx", "t_idx", "r")} for row in read(fused / "result_dev.json")]
    assert sorted(found, key=str) == sorted(due, key=str)
    run = RunFolder(fused)
    dev_grid(run, load_candidates(run, "dev"))  # refuses margins that do not give the run's score


def test_union_leaves_margins_alone(fused):
    before = tables(fused)
    after = fusible(before, 100, "union")
    assert all(after[stage] is before[stage] for stage in STAGES)
    mean = fusible(before, 100, "average")
    assert mean["base"] is before["base"]
    assert np.isfinite(mean["dense"].margin).all()

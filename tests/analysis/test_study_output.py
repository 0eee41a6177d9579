"""Tables, comparisons and files of studies, on runs of random margins: nothing is trained."""

import csv
import io
import json
import statistics

import numpy as np
import pytest
import study_runs

from segdre_plugin.analysis.comparison import compare
from segdre_plugin.analysis.study import runs
from segdre_plugin.analysis.study.tables import Cell, Table
from segdre_plugin.cli import main

SEEDS = ("1", "2", "3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The study ``seeds`` of runs of random margins."""
    root = tmp_path_factory.mktemp("made-up")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "launch", study_runs.make_up(root))
        assert main(["study", "seeds", str(root / "out"), "--seeds", *SEEDS, *study_runs.TINY]) == 0
    return root / "out"


@pytest.fixture(scope="module")
def written(folder):
    return json.loads((folder / "seeds.json").read_text())


def test_cells_are_mean_and_deviation_of_the_sample():
    values = [61.0, 62.5, 60.2]
    assert str(Cell(values)) == f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"
    assert str(Cell([0.5], signed=True)) == "+0.50"
    assert str(Cell([], "failed")) == "failed"
    assert str(Cell([2.0], decimals=0)) == "2"


def test_table_in_three_forms():
    table = Table("(%)", ["F1", "a|b"], [("w/o, it", [Cell([1.0, 3.0]), Cell()]), ("x", [Cell([2.0]), Cell([1.5])])])
    assert table.text().splitlines() == [
        "(%)               F1   a|b",
        "w/o, it  2.00 ± 1.41     -",
        "x               2.00  1.50",
    ]
    assert table.markdown().splitlines()[:3] == [
        "| (%) | F1 | a\\|b |",
        "| --- | ---: | ---: |",
        "| w/o, it | 2.00 ± 1.41 | - |",
    ]
    rows = list(csv.reader(io.StringIO(table.csv())))
    assert rows[0] == ["(%)", "F1", "F1 sd", "F1 n", "a|b", "a|b sd", "a|b n"]
    assert rows[1] == ["w/o, it", "2.0", str(statistics.stdev([1, 3])), "2", "", "", "0"]


@pytest.mark.slow
def test_json_holds_every_row_and_seed_and_the_table_their_means(folder, written):
    metrics = [json.loads((folder / "runs" / f"full-{s}" / "metrics.json").read_text()) for s in SEEDS]
    for row, key in (("base", "base"), ("full", "fused"), ("base on sparse", "base_on_sparse")):
        for seed, known in zip(SEEDS, metrics, strict=True):
            assert written["rows"][row]["seeds"][seed]["test"].items() >= known["test"][key].items()
    values = [100 * known["dev"]["fused"]["f1"] for known in metrics]
    assert len(set(values)) == 3
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    page = (folder / "seeds.md").read_text()
    (line,) = [line for line in page.splitlines() if line.startswith("| fused |")]
    assert line.split(" | ")[2] == f"{mean:.2f} ± {deviation:.2f}"
    table = {row["(%)"]: row for row in csv.DictReader((folder / "seeds.csv").read_text().splitlines())}
    assert float(table["fused"]["dev F1"]) == pytest.approx(mean)
    assert float(table["fused"]["dev F1 sd"]) == pytest.approx(deviation)
    for word in ("segdre study seeds", "made-up", "seeds: 1, 2, 3: mean ± standard deviation", "torch", "12 documents"):
        assert word in page


@pytest.mark.slow
def test_comparisons_resample_documents_with_the_counts_of_all_seeds(written):
    found = {(c["first"], c["second"], c["split"]): c for c in written["comparisons"]}
    assert len(found) == 8
    one = found["full", "base", "dev"]
    f1 = {row: [written["rows"][row]["seeds"][s]["dev"] for s in SEEDS] for row in ("full", "base")}
    assert list(one["by_seed"].values()) == pytest.approx(
        [a["f1"] - b["f1"] for a, b in zip(*f1.values(), strict=True)]
    )
    pooled = [
        2 * sum(m["n_correct"] for m in part) / sum(m["n_predicted"] + m["n_gold"] for m in part)
        for part in f1.values()
    ]
    assert one["f1"] == pytest.approx(pooled)
    assert one["difference"] == pytest.approx(pooled[0] - pooled[1])
    assert one["documents"] == 12  # and not 36: the same document under three seeds is no new one
    assert one["low"] < one["difference"] < one["high"]


@pytest.mark.slow
def test_pooling_one_seed_changes_nothing(folder, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "launch", study_runs.make_up(folder.parent))
        assert main(["study", "seeds", str(tmp_path / "one"), "--seeds", "2", *study_runs.TINY]) == 0
    found = json.loads((tmp_path / "one" / "seeds.json").read_text())
    from segdre_plugin.analysis.study.finished_run import FinishedRun
    from segdre_plugin.analysis.study.score_row import score
    from segdre_plugin.analysis.study.studies import BASE, FULL

    run = FinishedRun(tmp_path / "one" / "runs" / "full-2")
    due = compare(*(score(row, run, None, ("dev",)).counts["dev"] for row in (FULL, BASE)))
    assert [found["comparisons"][0][key] for key in ("low", "high", "p_value")] == [due.low, due.high, due.p_value]
    assert "±" not in (tmp_path / "one" / "seeds.md").read_text()


@pytest.mark.slow
def test_shifts_are_thresholds_minus_anchor(folder, written):
    for stage, shifts in written["shifts"].items():
        taus = [written["rows"]["full"]["seeds"][s]["thresholds"][f"tau_{stage}"] for s in SEEDS]
        assert shifts == taus
    assert np.ptp(list(written["shifts"].values())) > 0
    for form in ("png", "svg"):
        assert (folder / f"seeds.{form}").stat().st_size > 1000
    assert "![seeds.png](seeds.png)" in (folder / "seeds.md").read_text()


@pytest.mark.slow
def test_written_anew_the_files_are_the_same(folder, capsys):
    names = ("seeds.md", "seeds.csv", "seeds.json", "seeds.png", "seeds.svg")
    before = [(folder / name).read_bytes() for name in names]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "launch", lambda *_: pytest.fail("nothing is to be trained"))
        assert main(["study", "seeds", str(folder), "--seeds", *SEEDS, *study_runs.TINY]) == 0
    assert [(folder / name).read_bytes() for name in names] == before
    printed = capsys.readouterr().out
    assert "naive ensemble, union" in printed
    assert "dev: fused - base, threshold tuned" in printed

"""``segdre study`` end to end on the reference model, small: sharing, resuming, failing rows, bad arguments."""

import json
import os
from pathlib import Path

import pytest
import study_runs
from promises import same_margins

from segdre_plugin.analysis.study import runs
from segdre_plugin.analysis.study.studies import STRATEGIES, STUDIES, selection_lines
from segdre_plugin.cli import main
from segdre_plugin.stages import strategies
from segdre_plugin.stages.margins import Margins

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def started(monkeypatch):
    """The command lines of all processes that were started; they run in this one."""
    calls = []

    def start(arguments, log, environment):
        calls.append(list(arguments))
        return study_runs.start_here(arguments, log, environment)

    monkeypatch.setattr(runs, "launch", start)
    return calls


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study ``injection``: two trainings that share three stages, two readings."""
    folder = tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "launch", study_runs.start_here)
        assert main(["study", "injection", str(folder), *study_runs.TINY]) == 0
    return folder


def files(folder):
    """Every file but locks and logs, by what it is and when it was written."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".lock", ".log")]
    return {path: path.stat().st_mtime_ns for path in paths if "injection" not in path.name}


def test_shared_stages_are_the_very_same_files(finished):
    full, plain = (finished / "runs" / f"{name}-66" for name in ("full", "plain"))
    for stage in ("base", "identify", "dense"):
        for path in (full / stage).rglob("*"):
            if path.is_file():
                assert os.path.samefile(path, plain / path.relative_to(full))
    assert not os.path.samefile(full / "sparse" / "checkpoint.pt", plain / "sparse" / "checkpoint.pt")
    assert "stage base is done" in (plain.with_suffix(".log")).read_text()


def test_readings_read_what_was_asked(finished):
    own = Margins.load(finished / "runs" / "full-66" / "sparse" / "margins_dev.npz")
    readings = finished / "runs" / "full-66" / "readings"
    assert {path.name for path in readings.iterdir()} == {"own-gold", "own-dense-0"}
    for path in readings.iterdir():
        found = Margins.load(path / "sparse" / "margins_dev.npz")
        assert (found.document == own.document).all()
        assert not (path / "dense").exists()
    injected = {path.name: json.loads((path / "injected.json").read_text())["dev"] for path in readings.iterdir()}
    assert injected["own-gold"]["triples"] > 0
    assert injected["own-dense-0"]["triples"] == 0
    gold, nothing = (Margins.load(readings / n / "sparse" / "margins_dev.npz") for n in injected)
    assert (gold.margin != nothing.margin).any()


def test_predicted_triples_are_compared_with_both_texts_and_with_gold_ones(finished):
    found = json.loads((finished / "injection.json").read_text())
    pairs = [("predicted", "plain"), ("predicted", "unread"), ("gold", "predicted")]
    assert [(c["first"], c["second"], c["split"]) for c in found["comparisons"]] == [(*pair, "dev") for pair in pairs]
    for compared in found["comparisons"]:
        of_rows = [found["rows"][compared[row]]["seeds"]["66"]["dev"] for row in ("first", "second")]
        assert compared["difference"] == pytest.approx(of_rows[0]["f1"] - of_rows[1]["f1"])
    page = (finished / "injection.md").read_text()
    assert "dev: dense inference - original text" in page
    assert "documents are resampled" in page


def test_what_training_printed_is_left_when_models_read_again(finished):
    trained, read = (finished / "runs" / f"full-66{suffix}" for suffix in (".log", ".readings.log"))
    assert "segdre: stage sparse" in trained.read_text()
    assert read.is_file()
    assert "segdre: stage sparse" not in read.read_text()


def test_second_time_nothing_is_started(finished, started):
    before = files(finished)
    assert main(["study", "injection", str(finished), *study_runs.TINY]) == 0
    assert started == []
    assert files(finished) == before


def test_another_study_takes_what_is_there(finished, started):
    assert main(["study", "alpha", str(finished), *study_runs.TINY]) == 0
    (reading,) = started  # one process for all readings, no training
    assert "--requests" in reading
    names = {path.name for path in (finished / "runs" / "full-66" / "readings").iterdir()}
    assert {"own-dense-0", "own-dense-0.5", "own-dense-1", "own-base-0.5", "own-base-1"} <= names
    assert "own-base-0" not in names
    own, read = (
        finished / "runs" / "full-66" / place / "sparse" / "margins_dev.npz" for place in (".", "readings/own-dense-1")
    )
    assert same_margins(own, read)
    for form in ("png", "svg", "md", "csv", "json"):
        assert (finished / f"alpha.{form}").is_file()


def test_ablations_train_what_they_take_out(finished, started):
    assert main(["study", "ablations", str(finished), *study_runs.TINY]) == 0
    made = [Path(arguments[arguments.index("--seg-dir") + 1]).name for arguments in started]
    assert made == ["random-66", "partner-1066"]  # full and plain are there
    places = {name.split("-")[0]: finished / "runs" / name for name in ("full-66", "random-66", "partner-1066")}
    first, shared, second = (places[name] / "base" / "checkpoint.pt" for name in places)
    assert first.samefile(shared)
    assert first.read_bytes() != second.read_bytes()
    random, full = (json.loads((places[n] / "identify" / "salient.json").read_text()) for n in ("random", "full"))
    assert random != full
    for stage, name, value in (("identify", "salient", "random"), ("dense", "train_salient", "same")):
        assert json.loads((places["random"] / stage / "settings.json").read_text())["options"][name] == value
    found = json.loads((finished / "ablations.json").read_text())
    assert found["rows"].keys() == STUDIES["ablations"].rows.keys()
    for row in found["rows"].values():
        assert row["errors"] == {}
        assert row["seeds"]["66"]["dev"]["f1"] >= 0
        assert row["seeds"]["66"]["test"]["n_gold"] > 0
    parts = {"random", "no dense", "no sparse", "no injection", "no search"}
    compared = {(c["first"], c["second"], c["split"]) for c in found["comparisons"]}
    assert compared == {("full", part, split) for part in parts for split in ("dev", "test")}
    for name, key in (("full", "fused"), ("base", "base"), ("base tuned", "base_tuned")):
        known = json.loads((places["full"] / "metrics.json").read_text())
        assert found["rows"][name]["seeds"]["66"]["test"].items() >= known["test"][key].items()


def test_diagnosis_reads_with_gold_entities_and_gold_triples(finished, started):
    assert main(["study", "diagnosis", str(finished), *study_runs.TINY]) == 0
    assert sum("--requests" in arguments for arguments in started) == 1
    found = json.loads((finished / "diagnosis.json").read_text())
    rows = {name: row["seeds"]["66"]["dev"] for name, row in found["rows"].items()}
    assert not any(row["errors"] for row in found["rows"].values())
    assert rows["gold salient"]["accuracy"] == rows["both gold"]["accuracy"] == 1
    assert rows["both gold"]["n_injected"] >= rows["gold injected"]["n_injected"] > 0
    readings = finished / "runs" / "full-66" / "readings"
    dense = [readings / name / "dense" / "margins_dev.npz" for name in ("gold-dense", "gold-gold")]
    assert same_margins(*dense)  # of gold entities' pairs, whatever is injected
    sparse = [readings / name / "sparse" / "margins_dev.npz" for name in ("gold-dense", "gold-gold")]
    assert not same_margins(*sparse)
    for pairs in ("dense", "sparse"):
        on = {name: row for name, row in rows.items() if name.endswith(f" on {pairs}")}
        (n_gold,) = {row["n_gold"] for row in on.values()}
        assert 0 < n_gold < rows["full"]["n_gold"]
        assert on[f"fused on {pairs}"]["f1"] >= max(on[f"{part} on {pairs}"]["f1"] for part in ("base tuned", "model"))
    n_pairs = [rows[f"fused on {pairs}"]["n_gold"] for pairs in ("dense", "sparse")]
    assert sum(n_pairs) == rows["full"]["n_gold"]
    for row in rows.values():
        if row["n_predicted"]:
            wrong = sum(row[f"wrong_{kind}"] for kind in ("direction", "relation", "pair"))
            assert row["precision"] + wrong == pytest.approx(1)


def test_another_studys_stages_and_the_next_seeds_base_are_taken(finished, started, tmp_path):
    out = tmp_path / "out"
    more = ("--seeds", "66", "67", "--partners", "next", "--reuse", str(finished))
    assert main(["study", "seeds", str(out), *study_runs.TINY, *more]) == 0
    assert len(started) == 2
    logs = {path.stem: path.read_text() for path in (out / "runs").glob("*.log")}
    assert logs.keys() == {"full-66", "full-67"}
    for stage in ("base", "identify", "dense", "sparse"):
        assert f"stage {stage} is that of {finished / 'runs' / 'full-66'}" in logs["full-66"]
    assert "is that of" not in logs["full-67"]
    found = json.loads((out / "seeds.json").read_text())
    assert not any(row["errors"] for row in found["rows"].values())
    averages = found["rows"]["ensemble average"]["seeds"]  # of the same two models, whichever comes first
    assert averages["66"]["dev"]["f1"] == pytest.approx(averages["67"]["dev"]["f1"])
    assert f"--partners next --reuse {finished}" in found["command"]


def test_selection_reads_with_the_entities_of_every_strategy(finished, started):
    assert main(["study", "selection", str(finished), *study_runs.TINY]) == 0
    assert ["--requests" in arguments for arguments in started] == [False, True]  # a linear head, then all readings
    full = finished / "runs" / "full-66"
    rows = json.loads((finished / "selection.json").read_text())["rows"]
    known = json.loads((full / "metrics.json").read_text())["dev"]
    # with the run's own strategy everything is as in the run
    assert rows["zip"]["seeds"]["66"]["dev"].items() >= known["fused"].items()
    for stage in ("dense", "sparse"):
        assert rows[f"zip {stage}"]["seeds"]["66"]["dev"].items() >= known[stage].items()
        own, same, other = (
            full / place / stage / "margins_dev.npz" for place in (".", "readings/zip-dense", "readings/gold-dense")
        )
        assert same_margins(same, own)
        assert not same_margins(other, own)
    gold = rows["gold"]["seeds"]["66"]["dev"]
    assert (gold["accuracy"], gold["saliency"]) == (1, 1)
    requests = {
        name: json.loads((full / "readings" / f"{name}-dense" / "request.json").read_text())["salient"]["dev"]
        for name in STRATEGIES
    }
    chosen = json.loads((finished / "runs" / "linear-66" / "identify" / "salient.json").read_text())
    assert requests["linear"] == chosen["dev"]
    assert not (finished / "runs" / "linear-66" / "dense").exists()
    documents = json.loads((finished / "corpus" / "dev.json").read_text())
    for document, (entity,) in zip(documents, requests["max-mention"], strict=True):
        assert len(document["vertexSet"][entity]) == max(map(len, document["vertexSet"]))


def test_selection_has_a_line_for_every_strategy(monkeypatch):
    lines = {line.title for line in STUDIES["selection"].lines}
    assert lines == {line.title for line in selection_lines()} == set(STRATEGIES.values())
    assert set(STRATEGIES) == set(strategies.strategy_names())
    monkeypatch.setattr(strategies, "_strategies", dict(strategies._strategies))
    strategies.register(strategies.Strategy("mine", lambda case, k: [0]))
    strategies.register(
        strategies.Strategy("with a head", lambda case, k: [0], head=strategies.CountHeadSpec(None, None))
    )
    assert {line.title for line in selection_lines()} == lines | {"mine"}


def test_selection_chooses_strategies_itself(finished, capsys):
    assert main(["study", "selection", str(finished), *study_runs.TINY, "--", "--seg-salient", "gold"]) == 2
    assert "--seg-salient is set by the study" in capsys.readouterr().err


def test_a_row_that_fails_leaves_the_others_and_is_made_up_for(finished, monkeypatch, capsys, tmp_path):
    folder = tmp_path / "out"
    calls = []

    def failing(arguments, log, environment):
        calls.append(arguments)
        if "--seg-alpha" in arguments:
            log.write_text("some progress\nsegdre: error: no memory left\n  -> take a smaller batch\n")
            return 2
        return study_runs.start_here(arguments, log, environment)

    monkeypatch.setattr(runs, "launch", failing)
    assert main(["study", "injection", str(folder), *study_runs.TINY]) == 2
    printed = capsys.readouterr()
    assert "1 of 4 rows failed" in printed.err
    for word in ("plain", "no memory left", "take a smaller batch", "plain-66.log"):
        assert word in printed.err
    page = (folder / "injection.md").read_text()
    assert "| original text | failed | failed |" in page
    assert "no memory left" in page
    assert "| original text, same model | 0." in page
    known = json.loads((finished / "injection.json").read_text())["rows"]
    found = json.loads((folder / "injection.json").read_text())["rows"]
    for row in ("gold", "predicted", "unread"):
        assert found[row]["seeds"] == known[row]["seeds"]
    assert found["plain"]["seeds"] == {}

    calls.clear()
    monkeypatch.setattr(runs, "launch", study_runs.start_here)
    assert main(["study", "injection", str(folder), *study_runs.TINY]) == 0
    assert json.loads((folder / "injection.json").read_text())["rows"] == known


def test_other_settings_in_the_same_folder_fail_with_the_reason(finished, started, capsys):
    before = files(finished)
    assert main(["study", "injection", str(finished), *study_runs.TINY, "--", "--learning_rate", "5e-4"]) == 2
    message = capsys.readouterr().err
    assert "made with other settings" in message
    assert "arguments.learning_rate: 0.001 there, 0.0005 now" in message
    assert files(finished) == before

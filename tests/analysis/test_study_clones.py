"""Studies on real clones: models that read once more give the run's own margins, and a whole study."""

import json
import shutil
from dataclasses import asdict, replace

import pytest
import seg_runs
from processes import FORKED_STUDY, SEGDRE

from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.rows import Reading
from segdre_plugin.stages.margins import Margins

pytestmark = [pytest.mark.slow, pytest.mark.upstream]

WORKER = "import sys; from segdre_plugin.analysis.study.worker import main; main(sys.argv[1:])"


@pytest.fixture(scope="module", params=seg_runs.UPSTREAM)
def place(request):
    return request.getfixturevalue(f"{request.param}_place")


def test_models_read_what_they_read_in_the_run(place):
    """With the run's own entities, triples and alpha the margins are the same bits; with others they are not."""
    finished, _ = place.finished
    out = place.folder / "read-again"
    shutil.copytree(finished, out)
    found = FinishedRun(out)
    own = found.request(Reading(), out)
    entities = [((e + 1) % len(d["vertexSet"]),) for (e,), d in zip(*own_entities(found), strict=True)]
    requests = {
        "same": own,
        "same, dense as well": replace(own, triples=None),
        "no triples": replace(own, alpha=0.0),
        "other entities": replace(own, salient={"dev": entities}, triples=None),
    }
    (place.folder / "requests.json").write_text(json.dumps({name: asdict(r) for name, r in requests.items()}))
    before = seg_runs.contents(out)
    worker = ["--script", place.upstream.script, "--requests", "requests.json"]
    result = place.python("-c", WORKER, *worker, "--", *place.seg("--seg-dir", "read-again"))
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Total steps" not in result.stdout  # nothing is trained
    after = seg_runs.contents(out)
    assert {name: after[name] for name in before} == before
    for name in requests:
        path = out / "readings" / name
        assert json.loads((path / "request.json").read_text()) == json.loads(json.dumps(asdict(requests[name])))
        for stage in ("dense", "sparse"):
            margins = path / stage / "margins_dev.npz"
            assert margins.exists() == (stage == "sparse" or requests[name].triples is None)
            if margins.exists():
                same = margins.read_bytes() == (out / stage / "margins_dev.npz").read_bytes()
                assert same == name.startswith("same")
    other = Margins.load(out / "readings" / "other entities" / "dense" / "margins_dev.npz")
    assert all(entities[d][0] in (h, t) for d, h, t in zip(other.document, other.head, other.tail, strict=True))


def own_entities(found):
    return found.salient("dev"), found.documents["dev"]


def test_readings_of_other_models_are_refused(place):
    finished, _ = place.finished
    out = place.folder / "read-otherwise"
    shutil.copytree(finished, out)
    requests = {"one": asdict(FinishedRun(out).request(Reading(), out))}
    (place.folder / "requests.json").write_text(json.dumps(requests))
    worker = ["--script", place.upstream.script, "--requests", "requests.json"]
    result = place.python("-c", WORKER, *worker, "--", *place.seg("--seg-dir", "read-otherwise", "--seed", "1"))
    assert result.returncode == 2
    assert "arguments.seed: 66 there, 1 now" in result.stderr
    assert not (out / "readings").exists()


def launch_study(place, name, *arguments):
    """Run a study on a clone without the patch."""
    clean = place.folder / "clean-study"
    if not clean.exists():
        shutil.copytree(place.original, clean, ignore=shutil.ignore_patterns(".git"))
    script = f"clean-study/{place.upstream.script}"
    study = [*SEGDRE, "study", name, "study", "--seeds", "7", "--", script, *arguments]
    return place.python(*study, before=FORKED_STUDY)


def test_a_study_on_a_clone_that_is_not_patched(atlop_place):
    result = launch_study(atlop_place, "injection", *(part for part in atlop_place.seg() if part != "--seg"))
    assert result.returncode == 0, result.stderr[-3000:]
    study = atlop_place.folder / "study"
    rows = json.loads((study / "injection.json").read_text())["rows"]
    known = json.loads((study / "runs" / "full-7" / "metrics.json").read_text())["dev"]["sparse"]
    assert rows["predicted"]["seeds"]["7"]["dev"].items() >= known.items()
    assert all(part["seeds"] for part in rows.values())
    for word in ("ground truth", "original text, same model"):
        assert word in result.stdout
    full, plain = (study / "runs" / f"{name}-7" / "base" / "checkpoint.pt" for name in ("full", "plain"))
    assert full.samefile(plain)


def test_a_script_that_is_not_told_to_train_is_refused(dreeam_place):
    result = launch_study(dreeam_place, "alpha", *(part for part in dreeam_place.seg() if part != "--do_train"))
    assert result.returncode == 2
    assert "--do_train is missing" in result.stderr
    assert not list((dreeam_place.folder / "study").rglob("checkpoint*"))

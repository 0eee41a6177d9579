"""An adapter of the user's own, a file: a train script of any name, from the command line to predictions."""

import json
import shutil

import pytest
import seg_runs
from processes import FORKED_STUDY, SEGDRE

from segdre_plugin import SegDREError, SegPipeline
from segdre_plugin.cli import main
from segdre_plugin.prediction.answers import official_rows

pytestmark = [pytest.mark.upstream, pytest.mark.slow]

ADAPTER = """
from dataclasses import replace
from segdre_plugin.adapters.atlop import BACKBONE, SCRIPT
BACKBONE = replace(BACKBONE, name="mine", repository="https://example.org/mine")
SCRIPT = replace(SCRIPT, file="other.py", patch="", versions={}, options=frozenset())
"""


@pytest.fixture(scope="module")
def place(atlop, tmp_path_factory):
    """A clone of ATLOP as another backbone: its train script is ``other.py``, and its adapter ``my.py``."""
    folder = tmp_path_factory.mktemp("own") / "clone"
    place = seg_runs.Place("atlop", folder, atlop)
    shutil.copy(atlop / "train.py", folder / "other.py")
    (folder / "train.py").unlink()
    (folder / "train_bio.py").unlink()
    (folder / "my.py").write_text(ADAPTER)
    return place


def segdre(place, command, *arguments, before=""):
    command = [*command.split(), "--", *arguments] if arguments else command.split()
    return place.python(*SEGDRE, *command, before=before)


@pytest.fixture(scope="module")
def bundle(place):
    result = segdre(place, "run other.py --adapter my.py", *place.seg("--seg-dir", "out"))
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((place.folder / "out" / "run.json").read_text())["adapter"] == "mine"
    assert segdre(place, "bundle out bundle").returncode == 0
    return place.folder / "bundle"


def test_predictions_are_those_of_the_run(place, bundle):
    own = place.folder / "my.py"
    pipeline = SegPipeline.from_pretrained(bundle, place.folder, adapter=own)
    expected = json.loads((place.folder / "out" / "result.json").read_text())
    assert official_rows(pipeline(place.documents("test"))) == expected
    command = f"predict bundle --input data/test.json --output answers.json --format official --clone . --adapter {own}"
    result = segdre(place, command)
    assert result.returncode == 0, result.stderr[-3000:]
    assert json.loads((place.folder / "answers.json").read_text()) == expected


def test_a_bundle_without_its_adapter(place, bundle, tmp_path):
    with pytest.raises(SegDREError, match=r"unknown adapter 'mine'\n.*pass --adapter FILE"):
        SegPipeline.from_pretrained(bundle, place.folder)
    with pytest.raises(SegDREError, match=r"a model of mine, and the adapter passed is that of atlop"):
        SegPipeline.from_pretrained(bundle, place.folder, adapter="atlop")
    other = tmp_path / "other.py"
    other.write_text(ADAPTER.replace('"mine"', '"yours"'))
    command = [
        "predict",
        str(bundle),
        "--input",
        str(place.folder / "data" / "test.json"),
        "--clone",
        str(place.folder),
    ]
    assert main([*command, "--output", str(tmp_path / "o.jsonl"), "--adapter", str(other)]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.py"]


def test_a_study_of_it(place, bundle):
    arguments = [part for part in place.seg("--seg-reuse", "out") if part != "--seg"]
    command = "study seeds study --seeds 66 --adapter my.py"
    result = segdre(place, command, "other.py", *arguments, before=FORKED_STUDY)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "--adapter my.py" in (place.folder / "study" / "seeds.md").read_text()


@pytest.mark.parametrize(
    ("adapter", "words"),
    [
        ("none.py", "none.py not found"),
        ("broken.py", "BACKBONE: missing"),
        ("nobody", "unknown adapter 'nobody'"),
    ],
)
def test_nothing_is_trained_with_a_wrong_one(place, adapter, words):
    (place.folder / "broken.py").write_text("SCRIPT = None\n")
    result = segdre(place, f"run other.py --adapter {adapter}", *place.seg("--seg-dir", "wrong"))
    assert result.returncode == 2
    assert words in result.stderr
    assert not (place.folder / "wrong").exists()
    result = segdre(place, f"study seeds wrong --adapter {adapter}", "other.py", *place.arguments())
    assert result.returncode == 2
    assert words in result.stderr
    assert not (place.folder / "wrong").exists()


def test_a_script_that_calls_itself_another_backbones(place):
    """Patched lines in another backbone's script: the run ends before anything is read."""
    script = (place.folder / "other.py").read_text()
    top = 'import segdre_plugin  # segdre-plugin\nsegdre_plugin.launch.prepare("dreeam")  # segdre-plugin\n'
    line = 'main = segdre_plugin.launch.entry(globals(), "dreeam")  # segdre-plugin\n'
    for more in ("", "# edited\n"):
        cut = script.index("if __name__")
        (place.folder / "claims.py").write_text(top + script[:cut] + line + more + script[cut:])
        result = place.python("claims.py", *place.seg("--seg-dir", "wrong"))
        assert result.returncode == 2
        assert "patched for dreeam, and it is the train script of atlop" in result.stderr
    assert not (place.folder / "wrong").exists()

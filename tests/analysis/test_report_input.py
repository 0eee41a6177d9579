"""``segdre report`` on runs and data that are broken, changed or not there: one message each, and no page."""

import shutil

import pytest
from finished import make_run, rewrite

from segdre_plugin.analysis.report.render import write_report
from segdre_plugin.cli import main
from segdre_plugin.errors import SegDREError


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def copied(out, tmp_path):
    """A copy of a run whose files may be broken; its data are where they were."""
    shutil.copytree(out, tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.slow
def test_triples_that_no_stage_scored(out, tmp_path):
    broken = copied(out, tmp_path)
    unheard = [[[0, "P17", 0]]] * 12
    rewrite(broken / "sparse" / "injected.json", lambda found: found | {"dev": found["dev"] | {"triples": unheard}})
    with pytest.raises(SegDREError, match="has no margins"):
        write_report(broken)


BROKEN = {
    "unfinished": ("run.json", None, "not a finished run"),
    "no metrics": ("metrics.json", None, "not a finished run"),
    "half metrics": ("metrics.json", "{}", "thresholds missing"),
    "torn": ("metrics.json", '{"dev"', "not JSON"),
    "no margins": ("dense/margins_dev.npz", None, "margins_dev.npz"),
    "torn margins": ("sparse/margins_dev.npz", "PK", "margins_dev.npz"),
    "no counts": ("identify/counts_dev.npz", None, "counts_dev.npz"),
    "no salient": ("identify/salient.json", None, "salient.json"),
    "short salient": ("identify/salient.json", '{"dev": [[0]], "test": [[0]]}', "does not fit the 12 documents"),
    "no result": ("result_dev.json", None, "result_dev.json"),
    "other result": (
        "result_dev.json",
        '[{"title": "unheard of", "h_idx": 0, "t_idx": 1, "r": "P17"}]',
        "predictions that dev does not have",
    ),
    "no settings": ("sparse/settings.json", None, "stage sparse"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_broken_run_ends_in_one_message(out, tmp_path, capsys, case):
    name, content, message = BROKEN[case]
    broken = copied(out, tmp_path)
    (broken / name).unlink()
    if content is not None:
        (broken / name).write_text(content)
    assert main(["report", str(broken)]) == 2
    printed = capsys.readouterr().err
    assert "segdre: error:" in printed
    assert message in printed
    assert "->" in printed
    assert not (broken / "report.html").exists()


def test_margins_of_another_run_are_noticed(out, tmp_path):
    broken = copied(out, tmp_path)
    shutil.copy(broken / "dense" / "margins_test.npz", broken / "dense" / "margins_dev.npz")
    with pytest.raises(SegDREError, match=r"margins_dev.npz|different runs|result_dev.json"):
        write_report(broken)


@pytest.mark.slow
def test_data_that_moved_or_changed(out, tmp_path):
    broken, data = copied(out, tmp_path), tmp_path / "elsewhere"
    shutil.copytree(out.parent / "data", data)
    gone = {name: str(tmp_path / "gone" / f"{name}.json") for name in ("train", "dev", "test", "rel2id", "rel_info")}
    rewrite(broken / "run.json", lambda run: run | {"files": gone})
    with pytest.raises(SegDREError, match=r"(?s)dev: .*gone.*not found.*rel_info.*--data-dir"):
        write_report(broken)
    assert main(["report", str(broken), "--data-dir", str(data)]) == 0
    rewrite(data / "dev.json", lambda documents: documents[::-1])
    with pytest.raises(SegDREError, match=r"dev: .*not the file of the run"):
        write_report(broken, data_dir=data)


@pytest.mark.slow
def test_unknown_title_and_bad_output(out, tmp_path):
    with pytest.raises(SegDREError, match="unheard of"):
        write_report(out, titles=["unheard of"])
    with pytest.raises(SegDREError, match="no folder"):
        write_report(out, tmp_path / "no" / "folder.html")
    for own in (out / "metrics.json", out / "dense" / "margins_dev.npz", out.parent / "data" / "dev.json"):
        before = own.read_bytes()
        with pytest.raises(SegDREError, match="one of the files that are read"):
            write_report(out, own)
        assert own.read_bytes() == before

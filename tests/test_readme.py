"""README and its pages say what is true: options exist, commands are CI's, code runs in a real clone."""

import json
import re
from pathlib import Path

import pytest
from locate import REPOSITORY, copy_clone

from segdre_plugin.data.synthetic.corpus import write_corpus
from segdre_plugin.seg.options import build_parser

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
OPTIONS, PYTHON = ((REPOSITORY / "docs" / name).read_text(encoding="utf-8") for name in ("options.md", "python.md"))


def test_every_option_is_in_the_table():
    options = {option for action in build_parser()._actions for option in action.option_strings} - {"--seg"}
    assert {option for option in options if f"`{option}" not in OPTIONS} == set()
    assert set(re.findall(r"--seg-[a-z0-9-]+", README + OPTIONS + PYTHON)) <= options


def test_readme_is_short():
    assert len(README.splitlines()) < 200


def test_links_point_to_files():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (REPOSITORY / link).exists()] == []


def test_ci_runs_the_test_command_of_the_readme():
    commands = [line for line in README.splitlines() if re.match(r"^pip install .*&& pytest$", line)]
    assert commands == ['pip install -c constraints.txt -e ".[test]" && pytest']
    assert "grep -m1 '^pip install .*&& pytest$' README.md" in (REPOSITORY / ".ci" / "run").read_text()


@pytest.mark.upstream
@pytest.mark.slow
def test_own_loop_runs_in_a_real_clone(atlop: Path, tmp_path: Path):
    from processes import python
    from seg_runs import make_encoder

    clone = tmp_path / "ATLOP"
    copy_clone(atlop, clone)
    write_corpus(clone / "data", train=8, dev=1, test=1, seed=4)
    relations = json.loads((clone / "data" / "rel2id.json").read_text())
    (clone / "meta").mkdir()
    padding = {f"unused-{i}": i for i in range(len(relations), 97)}  # the block is written for DocRED's 97 classes
    (clone / "meta" / "rel2id.json").write_text(json.dumps(relations | padding))
    documents = json.loads((clone / "data" / "train_annotated.json").read_text())
    make_encoder(clone / "bert", documents, json.loads((clone / "data" / "rel_info.json").read_text()), "bert")
    block = re.search(r"<!-- own-loop.*?-->\n```python\n(.*?)```", PYTHON, re.S)
    assert block
    (clone / "own_loop.py").write_text(block[1])
    result = python(["own_loop.py", "bert", "data"], cwd=clone)
    assert result.returncode == 0, result.stderr[-2000:]
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", result.stdout)]
    assert len(losses) == 2
    assert losses[1] != losses[0]

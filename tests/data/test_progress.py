"""Progress: a bar on a terminal; in a log no control characters, and a line only where it takes long."""

import io
import sys

from locate import REPOSITORY

from segdre_plugin.data import progress as module
from segdre_plugin.data.progress import progress, say


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_stays_empty_where_it_is_quick(capsys):
    assert list(progress(range(5), label="base: train")) == [0, 1, 2, 3, 4]
    with progress(label="predict", total=4, bar_format="{bar}") as bar:
        bar.update(2)
        bar.refresh()
    assert capsys.readouterr().err == ""


def test_a_log_has_whole_lines_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(module, "PERIOD", 0)
    for _ in progress(["a", "b", "c"], label="base: train"):
        pass
    lines = capsys.readouterr().err.splitlines(keepends=True)
    assert lines[0] == "segdre: base: train: 0 of 3, 00:00 so far\n"
    assert all(line.endswith("so far\n") and line[:-1].isprintable() for line in lines)


def test_a_terminal_has_a_bar(capsys, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(["a", "b"], label="runs") as bar:
        for name in bar:
            bar.set_postfix_str(name)
            say(f"run {name}")
    assert "\rruns" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()
    assert capsys.readouterr().out == "run a\nrun b\n"


def test_without_a_label_nothing_is_shown(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress([1, 2], label="")) == [1, 2]
    assert terminal.getvalue() == ""


def test_there_is_no_other_bar():
    files = [path for path in (REPOSITORY / "segdre_plugin").rglob("*.py") if "import tqdm" in path.read_text()]
    assert [path.name for path in files] == ["progress.py"]

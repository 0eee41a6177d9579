"""Folders replaced whole or not at all, also by killed processes; locks, litter, and copies that follow no links."""

import os
import subprocess
import sys
import threading

import pytest

from segdre_plugin import SegDREError
from segdre_plugin.data.files import remove_half_written, write_json
from segdre_plugin.data.folders import copy_files, locked, recover, regular_files, remove_litter, replacing


class TestReplacing:
    @staticmethod
    def fill(folder, text, fail=False):
        with replacing(folder) as new:
            (new / text).write_text(text)
            if fail:
                raise ZeroDivisionError

    def test_replaces_the_whole_folder(self, tmp_path):
        folder = tmp_path / "eval" / "dev"
        for text in ("first", "second"):
            self.fill(folder, text)
            assert [path.name for path in folder.iterdir()] == [text]
        assert list((tmp_path / "eval").iterdir()) == [folder]

    def test_a_failure_leaves_what_was_there(self, tmp_path):
        folder = tmp_path / "dev"
        self.fill(folder, "first")
        with pytest.raises(ZeroDivisionError):
            self.fill(folder, "second", fail=True)
        assert [path.name for path in tmp_path.iterdir()] == ["dev"]
        assert [path.name for path in folder.iterdir()] == ["first"]

    def test_what_a_killed_process_left_goes(self, tmp_path):
        (tmp_path / ".dev.partial").mkdir()
        (tmp_path / ".dev.partial" / "half").write_text("half")
        self.fill(tmp_path / "dev", "whole")
        assert [path.name for path in tmp_path.iterdir()] == ["dev"]
        assert [path.name for path in (tmp_path / "dev").iterdir()] == ["whole"]

    @pytest.mark.parametrize("moment", ["first", "second"])
    def test_a_process_killed_at_one_of_the_renames_loses_nothing(self, tmp_path, moment):
        folder = tmp_path / "dev"
        self.fill(folder, "first")
        status = subprocess.run([sys.executable, "-c", KILLED, str(folder), moment], check=False).returncode
        assert status == 9
        assert folder.exists() == (moment == "first")
        recover(folder)
        assert [path.name for path in folder.iterdir()] == ["first"]
        self.fill(folder, "third")
        assert [path.name for path in tmp_path.iterdir()] == ["dev"]
        assert [path.name for path in folder.iterdir()] == ["third"]

    def test_an_error_at_the_last_rename_leaves_what_was_there(self, tmp_path):
        folder = tmp_path / "dev"
        self.fill(folder, "first")
        with pytest.raises(SegDREError, match="cannot write"), replacing(folder) as new:
            new.rmdir()
        assert [path.name for path in tmp_path.iterdir()] == ["dev"]
        assert [path.name for path in folder.iterdir()] == ["first"]

    def test_two_at_once_do_not_meet(self, tmp_path):
        folder, inside, failed = tmp_path / "dev", threading.Event(), threading.Event()

        def first():
            with replacing(folder) as new:
                (new / "first").write_text("")
                inside.set()
                assert failed.wait(10)

        thread = threading.Thread(target=first)
        thread.start()
        assert inside.wait(10)
        with pytest.raises(SegDREError, match="another process is writing it"), replacing(folder):
            pass
        failed.set()
        thread.join()
        assert [path.name for path in tmp_path.iterdir()] == ["dev"]
        assert [path.name for path in folder.iterdir()] == ["first"]


KILLED = """
import os, sys
from pathlib import Path
from segdre_plugin.data.folders import replacing
folder, moment = Path(sys.argv[1]), sys.argv[2]
rename, calls = Path.rename, []
def killed(self, target):
    calls.append(target)
    if len(calls) == ["first", "second"].index(moment) + 1:
        os._exit(9)
    return rename(self, target)
Path.rename = killed
with replacing(folder) as new:
    (new / "second").write_text("second")
"""


class TestLocked:
    def test_the_file_goes_with_the_context(self, tmp_path):
        with locked(tmp_path / ".lock", "busy", "wait"):
            again = locked(tmp_path / ".lock", "busy", "wait")
            with pytest.raises(SegDREError, match="busy"), again:
                pass
        assert list(tmp_path.iterdir()) == []

    def test_what_a_killed_process_left_does_not_lock(self, tmp_path):
        (tmp_path / ".lock").write_text("")
        with locked(tmp_path / ".lock", "busy", "wait"):
            pass
        assert list(tmp_path.iterdir()) == []


def test_litter_goes_and_nothing_else(tmp_path):
    (tmp_path / ".base.partial").mkdir()
    (tmp_path / ".base.partial" / "half").write_text("")
    kept = ["base.partial", ".partial.json", ".hidden", "a.json"]
    for name in (".a.json.x1.partial", ".b.json.x2.partial", *kept):
        (tmp_path / name).write_text("")
    remove_litter(tmp_path, "a.json.")
    assert sorted(os.listdir(tmp_path)) == sorted([".base.partial", ".b.json.x2.partial", *kept])
    remove_litter(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


@pytest.mark.parametrize("name", ["a.json", "a" * 60, "link"])
def test_a_file_half_written_is_litter(tmp_path, monkeypatch, name):
    (tmp_path / "link").symlink_to(tmp_path / "a.json")
    monkeypatch.setattr(os, "replace", lambda *_: None)
    write_json(tmp_path / name, 1)
    assert len(os.listdir(tmp_path)) == 2
    remove_half_written(tmp_path / name)
    assert os.listdir(tmp_path) == ["link"]


@pytest.fixture
def tree(tmp_path):
    """A folder with a file and a folder with a file."""
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    (tmp_path / "tree" / "a").write_text("a")
    (tmp_path / "tree" / "inner" / "b").write_text("b")
    (tmp_path / "secret").write_text("secret")
    return tmp_path / "tree"


def test_files_are_copied(tree, tmp_path):
    assert list(regular_files(tree)) == ["a", "inner/b"]
    copy_files(tree, tmp_path / "copy")
    assert (tmp_path / "copy" / "inner" / "b").read_text() == "b"


@pytest.mark.parametrize("place", ["link", "inner/link", "inner/folder", "pipe", ""])
def test_links_and_pipes_are_refused(tree, tmp_path, place):
    if place == "pipe":
        os.mkfifo(tree / place)
    elif place:
        (tree / place).symlink_to(tmp_path / ("inner" if place == "inner/folder" else "secret"))
    else:
        tree.rename(tmp_path / "real")
        tree.symlink_to(tmp_path / "real")
    with pytest.raises(SegDREError, match=place or "a link to"):
        copy_files(tree, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()

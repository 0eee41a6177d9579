"""The folder of a --seg run: stages appear whole or not at all, one run at a time."""

import os
import subprocess
import sys
import textwrap

import pytest

from segdre_plugin import SegDREError
from segdre_plugin.data.files import read_json
from segdre_plugin.seg.store import Store, digest

SETTINGS = {"seed": 66, "files": {"train": "a1", "dev": "b2"}, "alpha": 1.0, "epochs": None, "sizes": (1, 2)}


def built(root, settings=SETTINGS):
    store = Store(root)
    with store.building("base", settings) as folder:
        (folder / "checkpoint.pt").write_text("weights")
    return store


class TestBuilding:
    def test_appears_when_it_is_whole(self, tmp_path):
        store = Store(tmp_path)
        with store.building("base", SETTINGS) as folder:
            (folder / "checkpoint.pt").write_text("weights")
            assert not store.is_done("base")
            assert not store.folder("base").exists()
        assert store.is_done("base")
        assert sorted(os.listdir(store.folder("base"))) == ["checkpoint.pt", "provenance.json", "settings.json"]
        assert os.listdir(tmp_path) == ["base"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_an_error_leaves_nothing(self, tmp_path, error):
        store = Store(tmp_path)

        def build():
            with store.building("base", SETTINGS) as folder:
                (folder / "half").write_text("half")
                raise error

        with pytest.raises(error):
            build()
        assert os.listdir(tmp_path) == []
        assert not store.is_done("base")

    def test_settings_that_cannot_be_written_leave_nothing(self, tmp_path):
        with pytest.raises(TypeError), Store(tmp_path).building("base", {"what": object()}):
            pass
        assert os.listdir(tmp_path) == []

    def test_what_a_killed_run_left_is_removed(self, tmp_path):
        (tmp_path / ".base.partial").mkdir()
        (tmp_path / ".base.partial" / "old").write_text("of a killed run")
        store = built(tmp_path)
        assert sorted(os.listdir(store.folder("base"))) == ["checkpoint.pt", "provenance.json", "settings.json"]
        assert os.listdir(tmp_path) == ["base"]

    def test_a_folder_of_someone_elses_is_refused_before_any_work(self, tmp_path):
        (tmp_path / "base").mkdir()
        (tmp_path / "base" / "notes.txt").write_text("mine")
        entered = []
        building = Store(tmp_path).building("base", SETTINGS)
        with pytest.raises(SegDREError, match="base exists, but is not a finished stage"), building:
            entered.append(True)
        assert not entered
        assert (tmp_path / "base" / "notes.txt").read_text() == "mine"


class TestCheck:
    def test_the_same_settings_pass(self, tmp_path):
        store = built(tmp_path)
        store.check("base", SETTINGS)
        assert read_json(store.folder("base") / "settings.json", "") == SETTINGS | {"sizes": [1, 2]}

    def test_lists_all_that_differ(self, tmp_path):
        store = built(tmp_path)
        now = {"seed": 67, "files": {"train": "a1", "dev": "c3"}, "epochs": 3, "sizes": (1, 2), "new": "x"}
        with pytest.raises(SegDREError) as caught:
            store.check("base", now)
        message = str(caught.value)
        for line in (
            "seed: 66 there, 67 now",
            "files.dev: 'b2' there, 'c3' now",
            "epochs: None there, 3 now",
            "alpha: 1.0 there, 'not set' now",
            "new: 'not set' there, 'x' now",
        ):
            assert line in message
        assert "files.train" not in message
        assert "sizes" not in message
        assert str(store.folder("base")) in message

    def test_broken_settings(self, tmp_path):
        store = built(tmp_path)
        (store.folder("base") / "settings.json").write_text("{")
        with pytest.raises(SegDREError, match=r"stage base: .* is not JSON"):
            store.check("base", SETTINGS)


HOLD = """
import sys, time
from pathlib import Path
from segdre_plugin.seg.store import Store
with Store(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(60)
"""


class TestLock:
    @pytest.mark.slow
    def test_keeps_another_process_out_until_it_is_killed(self, tmp_path):
        root = tmp_path / "runs" / "seg"
        other = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
        try:
            assert other.stdout.readline() == "locked\n"
            with pytest.raises(SegDREError, match="another run is using it"), Store(root).locked():
                pass
        finally:
            other.kill()
            other.communicate()
        with Store(root).locked():
            assert root.is_dir()

    def test_goes_with_an_error(self, tmp_path):
        store = Store(tmp_path)
        with pytest.raises(ZeroDivisionError), store.locked():
            raise ZeroDivisionError
        with store.locked():
            assert store.root.is_dir()

    def test_a_folder_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(SegDREError, match=r"--seg-dir .*file"), Store(tmp_path / "file" / "seg").locked():
            pass
        with pytest.raises(SegDREError, match=r"--seg-dir .*file"), Store(tmp_path / "file").locked():
            pass


@pytest.mark.slow
def test_a_killed_build_leaves_no_stage(tmp_path):
    script = textwrap.dedent("""
        import os, signal, sys
        from pathlib import Path
        from segdre_plugin.seg.store import Store
        with Store(Path(sys.argv[1])).building("base", {}) as folder:
            (folder / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    assert subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False).returncode != 0
    assert not Store(tmp_path).is_done("base")
    assert not Store(tmp_path).folder("base").exists()
    assert built(tmp_path).is_done("base")


def test_digest():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})

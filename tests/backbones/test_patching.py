"""Patches: insertions of ours and nothing else, reversible, and only into versions that they fit."""

import re
import shutil
import stat
import subprocess
from dataclasses import replace
from importlib import resources

import pytest
from scripts import declaring

from segdre_plugin import SegDREError
from segdre_plugin.adapters import SCRIPTS
from segdre_plugin.backbones import registry
from segdre_plugin.backbones.clones.patching import insert, patch, read_patch
from segdre_plugin.backbones.clones.recognition import blob_hash, remove

LINES = 600  # more than any script has


def patch_path(name):
    return resources.files("segdre_plugin.patches").joinpath(SCRIPTS[name].patch)


def patch_lines(name):
    return patch_path(name).read_text().splitlines()


@pytest.fixture(params=sorted(name for name, script in SCRIPTS.items() if script.patch))
def name(request):
    return request.param


@pytest.fixture
def clone(tmp_path, monkeypatch, name):
    """Return a folder with a script that the patch fits by its hash, in which no line is upstream's."""
    content = b"".join(b"line = %d\n" % i for i in range(LINES)) + declaring(SCRIPTS[name]).encode()
    script = replace(SCRIPTS[name], versions={blob_hash(content): "made up"})
    monkeypatch.setitem(SCRIPTS, name, script)
    registry._sources.cache_clear()
    (tmp_path / script.file).write_bytes(content)
    yield tmp_path
    registry._sources.cache_clear()


def script_of(folder, name):
    return folder / SCRIPTS[name].file


class TestPatchFiles:
    def test_only_insertions_of_ours(self, name):
        lines = patch_lines(name)
        assert lines[:2] == [f"--- a/{SCRIPTS[name].file}", f"+++ b/{SCRIPTS[name].file}"]
        for line in lines[2:]:
            assert re.fullmatch(r"@@ -\d+,0 \+\d+(,\d+)? @@", line) or re.fullmatch(r"\+.*# segdre-plugin", line)

    def test_headers_count_right(self, name):
        shift = 0
        inserted = read_patch(SCRIPTS[name])
        headers = [line for line in patch_lines(name) if line.startswith("@@")]
        assert len(headers) == len(inserted) >= 2
        for header, (after, new) in zip(headers, inserted, strict=True):
            old, place, count = map(int, re.match(r"@@ -(\d+),0 \+(\d+),(\d+) @@", header).groups())
            assert (old, count) == (after, len(new))
            assert place == after + shift + 1
            shift += count

    def test_one_for_each_script(self):
        patches = {
            entry.name for entry in resources.files("segdre_plugin.patches").iterdir() if entry.suffix == ".patch"
        }
        assert patches == {script.patch for script in SCRIPTS.values() if script.patch}

    @pytest.mark.upstream
    def test_hold_no_line_of_upstream(self, name, request):
        theirs = set(script_of(request.getfixturevalue(name), name).read_text().splitlines())
        ours = {line[1:] for line in patch_lines(name) if line.startswith("+") and not line.startswith("+++")}
        assert len(ours) >= 3
        assert not ours & theirs


class TestPatch:
    def test_there_and_back_is_bit_identical(self, clone, name):
        path = script_of(clone, name)
        original = path.read_bytes()
        assert patch(clone) == f"{path} is now patched"
        patched = path.read_bytes()
        assert patched != original
        assert [line for line in patched.splitlines() if b"segdre" not in line] == original.splitlines()
        assert patch(clone, reverse=True) == f"{path} is now not patched"
        assert path.read_bytes() == original

    def test_twice_is_once(self, clone, name):
        path = script_of(clone, name)
        assert patch(clone, reverse=True) == f"{path} is not patched already"
        patch(clone)
        once = path.read_bytes(), path.stat().st_mtime_ns
        assert patch(clone) == f"{path} is patched already"
        assert (path.read_bytes(), path.stat().st_mtime_ns) == once

    def test_line_ends_of_windows(self, clone, name):
        path = script_of(clone, name)
        patch(clone)
        patched = path.read_bytes()
        patch(clone, reverse=True)
        original = path.read_bytes().replace(b"\n", b"\r\n")
        path.write_bytes(original)
        assert patch(clone) == f"{path} is now patched"
        assert path.read_bytes() == patched.replace(b"\n", b"\r\n")
        assert patch(clone) == f"{path} is patched already"
        assert patch(clone, reverse=True) == f"{path} is now not patched"
        assert path.read_bytes() == original

    def test_keeps_the_mode(self, clone, name):
        path = script_of(clone, name)
        path.chmod(0o755)
        patch(clone)
        assert stat.S_IMODE(path.stat().st_mode) == 0o755

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize(
        "edit",
        [
            lambda content: content + b"# mine\n",
            lambda content: content.replace(b"line = 3\n", b""),
        ],
    )
    @pytest.mark.parametrize("patched", [False, True])
    def test_unknown_version_is_refused_untouched(self, clone, name, edit, patched, reverse):
        path = script_of(clone, name)
        if patched:
            patch(clone)
        path.write_bytes(edit(path.read_bytes()))
        before = path.read_bytes(), path.stat().st_mtime_ns
        with pytest.raises(SegDREError, match=r"not a version that the patch fits \(git blob [0-9a-f]{40}\).*made up"):
            patch(clone, reverse)
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before

    @pytest.mark.parametrize("reverse", [False, True])
    @pytest.mark.parametrize(
        "older",
        [
            lambda lines: lines[1:],  # half a patch
            lambda lines: [b"import segdre_plugin.launch  # segdre-plugin\n", *lines[1:]],  # of an older version
        ],
    )
    def test_older_patch_is_renewed(self, clone, name, older, reverse):
        path = script_of(clone, name)
        original = path.read_bytes()
        patch(clone)
        wanted = original if reverse else path.read_bytes()
        path.write_bytes(b"".join(older(path.read_bytes().splitlines(keepends=True))))
        patch(clone, reverse)
        assert path.read_bytes() == wanted

    def test_backbone_without_a_patch(self, clone, name, monkeypatch):
        (other,) = {"atlop.patch", "dreeam.patch"} - {SCRIPTS[name].patch}
        for wrong in ("", "none.patch", other):
            monkeypatch.setitem(SCRIPTS, name, replace(SCRIPTS[name], patch=wrong))
            registry._sources.cache_clear()
            with pytest.raises(SegDREError, match=rf"no patch for {name}\n.*segdre run"):
                patch(clone)

    @pytest.mark.parametrize("there", [True, False])
    def test_folder_without_a_script(self, tmp_path, there):
        folder = tmp_path if there else tmp_path / "nowhere"
        with pytest.raises(SegDREError, match=r"no known train script\n.*train\.py \(atlop\)"):
            patch(folder)


OURS = b"  # segdre-plugin\n"


@pytest.mark.parametrize(
    ("content", "insertions"),
    [
        (b"1\n2\n3\n", [(0, [b"a" + OURS])]),
        (b"1\n2\n3\n", [(0, [b"a" + OURS, b"b" + OURS]), (2, [b"c" + OURS]), (3, [b"d" + OURS])]),
        (b"1\n2\n3\n", [(3, [b"z" + OURS])]),
        (b"1\n2\n3", [(0, [b"a" + OURS]), (2, [b"c" + OURS])]),  # no newline at the end
        (b"1\r\n2\r\n", [(1, [b"a" + OURS])]),
        (b"1\n", []),
    ],
)
def test_insert_and_remove(content, insertions):
    patched = insert(content, insertions)
    ours = [line for _, new in insertions for line in new]
    assert len(patched) == len(content) + sum(map(len, ours)) + len(ours) * (b"\r\n" in content)
    assert remove(patched) == content
    if insertions:
        assert remove(content) == content  # nothing to take out


@pytest.mark.upstream
class TestRealClone:
    def test_as_git_applies_it(self, name, request, tmp_path):
        path = script_of(request.getfixturevalue(name), name)
        for folder in ("ours", "gits"):
            (tmp_path / folder).mkdir()
            shutil.copy(path, tmp_path / folder)
        patch(tmp_path / "ours")
        git = ["git", "apply", "--unidiff-zero", str(patch_path(name))]
        subprocess.run(["git", "init", "-q", "."], cwd=tmp_path / "gits", check=True)
        subprocess.run(git, cwd=tmp_path / "gits", check=True)
        ours, gits = (script_of(tmp_path / folder, name).read_bytes() for folder in ("ours", "gits"))
        assert ours == gits != path.read_bytes()
        patch(tmp_path / "gits", reverse=True)
        assert script_of(tmp_path / "gits", name).read_bytes() == path.read_bytes()

    def test_compiles(self, name, request, tmp_path):
        shutil.copy(script_of(request.getfixturevalue(name), name), tmp_path)
        patch(tmp_path)
        compile(script_of(tmp_path, name).read_text(), SCRIPTS[name].file, "exec")

    def test_hash_is_gits(self, name, request):
        path = script_of(request.getfixturevalue(name), name)
        due = subprocess.run(["git", "hash-object", str(path)], capture_output=True, text=True, check=True).stdout
        assert blob_hash(path.read_bytes()) == due.strip()
        assert blob_hash(path.read_bytes()) in SCRIPTS[name].versions

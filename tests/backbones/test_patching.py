"""Patches: insertions of ours and nothing else, reversible, and only where the script has a place for them."""

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


def patch_path(name):
    return resources.files("segdre_plugin.patches").joinpath(SCRIPTS[name].patch)


def patch_lines(name):
    return patch_path(name).read_text().splitlines()


@pytest.fixture(params=sorted(name for name, script in SCRIPTS.items() if script.patch))
def name(request):
    return request.param


@pytest.fixture
def clone(tmp_path, monkeypatch, name):
    """Return a folder with a script that is known by its hash, in which no line is upstream's."""
    content = b"line = 3\n" + declaring(SCRIPTS[name]).encode()
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
        for header, new in zip(headers, inserted, strict=True):
            after, place, count = map(int, re.match(r"@@ -(\d+),0 \+(\d+),(\d+) @@", header).groups())
            assert count == len(new)
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

    def test_an_edited_script(self, clone, name):
        path = script_of(clone, name)
        path.write_bytes(path.read_bytes().replace(b"line = 3\n", b'"""Mine."""\nfrom __future__ import annotations\n'))
        edited = path.read_bytes()
        patch(clone)
        assert path.read_bytes().splitlines()[2] == b"import segdre_plugin  # segdre-plugin"
        path.write_bytes(path.read_bytes() + b"# mine, too\n")  # edited again, with the patch in it
        patch(clone, reverse=True)
        assert path.read_bytes() == edited + b"# mine, too\n"

    @pytest.mark.parametrize("patched", [False, True])
    def test_a_script_without_a_place_is_refused_untouched(self, clone, name, patched):
        path = script_of(clone, name)
        if patched:
            patch(clone)
        path.write_bytes(path.read_bytes() + b"main()\n")
        before = path.read_bytes(), path.stat().st_mtime_ns
        if not patched:
            with pytest.raises(SegDREError, match=f"{path}: expected one main.* called 2 times.*\n.*add by hand"):
                patch(clone)
            assert (path.read_bytes(), path.stat().st_mtime_ns) == before
        patch(clone, reverse=True)  # lines of ours come out wherever they are
        assert b"segdre" not in path.read_bytes()

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


MAIN = "def main():\n    pass\n"
GUARD = 'if __name__ == "__main__":\n    main()\n'
HUNKS = [[b"import segdre_plugin  # segdre-plugin\n"], [b"main = segdre_plugin.launch.entry()  # segdre-plugin\n"]]


def placed(script):
    """Return the lines before which a script gets ours; taking them out gives the script back."""
    content = script if isinstance(script, bytes) else script.encode()
    patched = insert(content, HUNKS)
    assert remove(patched) == content
    assert remove(content) == content  # nothing to take out
    lines = patched.splitlines()
    ours = [i for i, line in enumerate(lines) if b"segdre_plugin" in line]
    return [lines[i + 1].decode() for i in ours]


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "# mine  # segdre-plugin\n", "x = 1  # segdre-plugin\n"])
@pytest.mark.parametrize(
    ("head", "first"),
    [
        ("import os\n", "import os"),
        ("#!/usr/bin/env python\n# -*- coding: utf-8 -*-\nimport os\n", "import os"),
        ('"""A script\nimport os\n"""\n\nimport os\n', "import os"),
        ("from __future__ import annotations\nimport os\n", "import os"),
        ('"""A script."""\nfrom __future__ import annotations\n@print\ndef f(): ...\n', "@print"),
        ("", "def main():"),
    ],
)
@pytest.mark.parametrize("main", [GUARD, "import sys\nsys.exit(main())\n", "try:\n    main()\nfinally:\n    pass\n"])
def test_where_the_lines_go(head, first, main, end):
    call = main.replace("import sys\n", "").splitlines()[0]
    assert placed(head + MAIN + main.removesuffix("\n") + "\n" * bool(end) + end) == [first, call]


def test_line_ends_are_those_of_the_neighbours():
    patched = insert(("import os\r\n" + MAIN + GUARD).encode(), HUNKS)
    assert patched.splitlines(keepends=True)[0].endswith(b"\r\n")
    assert patched.count(b"\r\n") == 2
    placed(("import os\r\n" + MAIN + GUARD).encode())


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        (MAIN, "got 1, called 0 times"),
        (GUARD, "got 0, called 1 times in lines 2"),
        (MAIN + MAIN + GUARD, "got 2, called 1 times"),
        (MAIN + GUARD + GUARD, "called 2 times in lines 4, 6"),
        (MAIN + "def other():\n    main()\nother()\n", "called 0 times"),
        (MAIN + GUARD.replace("main()", "main(1)"), r"line 4: main\(\) is called with arguments"),
        (MAIN + "x = 1; main()\n", "line 3 holds several statements"),
        ("import os; import sys\n" + MAIN + GUARD, "line 1 holds several statements"),
        ("\ufeff" + MAIN + GUARD, "the patch does not fit"),
        ("def main(:\n", "the patch does not fit"),
        ("", "got 0, called 0 times"),
    ],
)
def test_no_place_or_several(script, problem):
    with pytest.raises(SegDREError, match=problem) as error:
        insert(script.encode(), HUNKS)
    for line in (line.decode().strip() for hunk in HUNKS for line in hunk):
        assert line in error.value.hint


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

    def test_an_edited_one(self, name, request, tmp_path):
        for module in request.getfixturevalue(name).glob("*.py"):
            shutil.copy(module, tmp_path)
        path = script_of(tmp_path, name)
        option = b'    parser.add_argument("--mine", type=int, default=0)\n'
        before = b"    args = parser.parse_args()\n"
        edited = b"# mine\n" + path.read_bytes().replace(before, option + before)
        path.write_bytes(edited)
        patch(tmp_path)
        lines = path.read_bytes().splitlines()
        assert option.rstrip() in lines
        assert lines[1:3] == [line.rstrip() for line in read_patch(SCRIPTS[name])[0]]
        patch(tmp_path, reverse=True)
        assert path.read_bytes() == edited

    def test_hash_is_gits(self, name, request):
        path = script_of(request.getfixturevalue(name), name)
        due = subprocess.run(["git", "hash-object", str(path)], capture_output=True, text=True, check=True).stdout
        assert blob_hash(path.read_bytes()) == due.strip()
        assert blob_hash(path.read_bytes()) in SCRIPTS[name].versions

"""Train scripts are known by what is in them: made-up ones, and the real clones of a dozen descendants of ATLOP."""

import shutil
from pathlib import Path

import pytest
from scripts import declaring

from segdre_plugin import SegDREError
from segdre_plugin.adapters import BACKBONES, SCRIPTS
from segdre_plugin.backbones.clones.patching import insert, patch, read_patch
from segdre_plugin.backbones.clones.recognition import choose_adapter, declared, find_script, recognise

CLONES = Path.home() / ".cache" / "segdre"
OTHERS = {"GREP": "run.py", "HingeABL": "train.py", "TTM-RE": "train2.py"}  # descendants that have no adapter
PATCHED = sorted(name for name, script in SCRIPTS.items() if script.patch)


@pytest.fixture(params=sorted(SCRIPTS))
def name(request):
    return request.param


def write(folder, name, file="any.py", **more):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(declaring(SCRIPTS[name], **more))
    return path


def test_whatever_its_name(tmp_path, name):
    for file in ("train.py", "run.py", "other.py"):
        assert recognise(write(tmp_path, name, file)).name == name


def test_an_edited_script(tmp_path, name):
    assert recognise(write(tmp_path, name, options={"--wandb", "--note"}, attributes={"extra"})).name == name
    many = [f"more_{i}" for i in range(20)]
    for more in ({"options": {f"--{one}" for one in many}}, {"attributes": set(many)}):  # of another backbone, then
        with pytest.raises(SegDREError, match=rf"no known train script; compared with:(.|\n)*{name} \(\d\d% alike\)"):
            recognise(write(tmp_path, name, **more))


def test_declarations_in_modules_of_the_clone(tmp_path, name):
    whole = write(tmp_path, name).read_text()
    cut = whole.index("class DocREModel")
    (tmp_path / "args.py").write_text(whole[:cut])
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "model.py").write_text(whole[cut:])
    script = tmp_path / "any.py"
    script.write_text("import args\nfrom nets.model import DocREModel\n")
    assert recognise(script).name == name
    script.write_text("import args\n")
    assert not declared(script).attributes
    with pytest.raises(SegDREError, match=r"no known train script(.|\n)*without model attributes"):
        recognise(script)


def test_a_name_decides_nothing(tmp_path):
    script = tmp_path / "train.py"
    script.write_text("print('hello')\n")
    with pytest.raises(SegDREError, match="no known train script"):
        recognise(script)
    script.write_text("print('hello'\n")
    with pytest.raises(SegDREError, match=r"train\.py, line 1: not Python"):
        recognise(script)


def patched(path, name):
    path.write_bytes(insert(path.read_bytes(), read_patch(SCRIPTS[name])))
    return path


@pytest.mark.parametrize("name", PATCHED)
def test_patched_for_another_backbone(tmp_path, name):
    other = next(one for one in PATCHED if one != name)
    assert recognise(patched(write(tmp_path, name), name)).name == name
    with pytest.raises(SegDREError, match=f"patched for {other}, and it is the train script of {name}"):
        recognise(patched(write(tmp_path, name), other))


@pytest.mark.parametrize("name", PATCHED)
def test_an_adapter_that_the_user_names(tmp_path, name):
    script = write(tmp_path, name)
    other = next(one for one in PATCHED if one != name)
    assert choose_adapter(script, other).name == other
    patched(script, name)
    assert choose_adapter(script, name).name == name
    with pytest.raises(SegDREError, match=f"patched for {name}, and --adapter is {other}"):
        choose_adapter(script, other)


def test_the_script_of_a_folder(tmp_path, name):
    (tmp_path / "setup.py").write_text("print 'Python 2'\n")
    with pytest.raises(SegDREError, match="no known train script"):
        find_script(tmp_path)
    write(tmp_path, name, "mine.py")
    assert [part if isinstance(part, Path) else part.name for part in find_script(tmp_path)] == [
        tmp_path / "mine.py",
        name,
    ]
    write(tmp_path, name, "yours.py")
    with pytest.raises(SegDREError, match=rf"several train scripts: mine\.py \({name}\), yours\.py \({name}\)"):
        find_script(tmp_path)
    if "/" not in SCRIPTS[name].file:
        own = write(tmp_path, name, SCRIPTS[name].file)  # the name decides among the same
        assert find_script(tmp_path)[0] == find_script(tmp_path, name)[0] == own


def clone_of(name):
    """Return the folder of an adapter's clone: it is called as its repository."""
    folder = CLONES / BACKBONES[name].repository.rsplit("/", 1)[1]
    if not folder.is_dir():
        pytest.skip(f"no clone of {name} in {CLONES}")
    return folder


@pytest.mark.slow
@pytest.mark.upstream
class TestRealClones:
    def test_its_own(self, name):
        path, found = find_script((clone_of(name) / SCRIPTS[name].file).parent)
        assert (path.name, found.name) == (Path(SCRIPTS[name].file).name, name)
        assert declared(path).options == SCRIPTS[name].options
        assert declared(path).attributes == SCRIPTS[name].attributes

    def test_under_another_name_and_edited(self, name, tmp_path):
        own = clone_of(name) / SCRIPTS[name].file
        shutil.copytree(own.parent, tmp_path / "c", ignore=shutil.ignore_patterns(".git", "*.json"))
        for other in ("train_bio.py", "train_fully_supervised.py"):  # all but the same as train.py
            (tmp_path / "c" / other).unlink(missing_ok=True)
        script = (tmp_path / "c" / own.name).rename(tmp_path / "c" / "other.py")
        script.write_bytes(script.read_bytes() + b"# edited\n")
        assert recognise(script).name == find_script(tmp_path / "c")[1].name == name
        if name in PATCHED:
            assert patch(tmp_path / "c") == f"{script} is now patched"
        else:
            with pytest.raises(SegDREError, match="there is no patch for"):
                patch(tmp_path / "c")

    @pytest.mark.parametrize("clone", OTHERS)
    def test_others_are_not_taken_for_it(self, clone):
        script = CLONES / clone / OTHERS[clone]
        if not script.is_file():
            pytest.skip(f"no clone of {clone} in {CLONES}")
        with pytest.raises(SegDREError, match="no known train script; compared with"):
            recognise(script)
        with pytest.raises(SegDREError, match="no known train script"):
            patch(script.parent)

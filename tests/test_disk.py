"""Full disks, read-only and foreign folders, things in the way: one message, no traceback, no partial file."""

import errno
import io
import json
import os
import pathlib
import resource
import signal
import subprocess
import tempfile
from contextlib import contextmanager

import finished
import pytest
from bundles import bundle, run_folder  # noqa: F401 - fixtures

from segdre_plugin.adapters import SCRIPTS
from segdre_plugin.backbones.clones.recognition import blob_hash
from segdre_plugin.cli import main

pytestmark = pytest.mark.slow

TEXT = {"title": "T", "text": "Mora lives in Vib.", "entities": [{"mentions": [[0, 4]]}, {"mentions": [[14, 17]]}]}

# What writes a file, as a command line with OUT for it.
WRITERS = {
    "convert": "convert texts.jsonl --output OUT",
    "evaluate": "evaluate out/result_dev.json --gold data/dev.json --json OUT",
    "stats": "stats data/dev.json --json OUT",
    "validate": "validate data/dev.json --fix OUT",
}
SLOW_WRITERS = {
    "report": "report out --output OUT",
    "figures": "stats data/dev.json --figures OUT",
}
# What reads a file, as a command line with IN for it.
READERS = {
    "validate": "validate IN",
    "validate relations": "validate data/dev.json --rel2id IN",
    "validate and fix": "validate IN --fix new.json",
    "evaluate": "evaluate IN --gold data/dev.json",
    "evaluate gold": "evaluate out/result_dev.json --gold IN",
    "evaluate train": "evaluate out/result_dev.json --gold data/dev.json --train IN",
    "evaluate another": "evaluate out/result_dev.json --gold data/dev.json --compare IN",
    "stats": "stats IN",
    "stats names": "stats data/dev.json --rel-info IN",
    "convert": "convert IN --output new.json",
}
NUMBERS = ("ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS", "EIO")


def fails(number):
    """A function that raises an error of the operating system, with no path in it."""

    def function(*_, **__):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    return function


def file_that_fails(number):
    """An ``os.fdopen`` whose files take a few bytes, and then fail as on a full disk."""
    opened = os.fdopen

    class Full(io.BufferedIOBase):
        def __init__(self, handle):
            self.file = opened(handle, "wb")

        def writable(self):
            return True

        def write(self, block):
            self.file.write(block[:10])
            fails(number)()

        def close(self):
            self.file.close()
            super().close()

    return lambda handle, *_: Full(handle)


@contextmanager
def no_larger_than(size):
    """Let this process write no file of more bytes, as ``ulimit -f`` does."""
    before, signals = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signals)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("disk")
    finished.make_run(folder)
    (folder / "texts.jsonl").write_text(json.dumps(TEXT))
    return folder


@pytest.fixture
def place(original, tmp_path, monkeypatch):
    """A finished run in the working directory, with things in the way."""
    for name in ("data", "out", "texts.jsonl"):
        (tmp_path / name).symlink_to(original / name)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("as it was")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "astray").symlink_to("nowhere/file")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    """Everything in a folder: bytes of files, None for folders, and where links lead."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = os.readlink(path)
        elif path.is_file():
            with open(path, "rb") as file:  # pathlib's may be patched
                found[str(path)] = file.read()
        else:
            found[str(path)] = None
    return found


def check(capsys, command, path=""):
    """Run a command line, which has to end in one message with ``path`` and a remedy, and to change nothing."""
    here = pathlib.Path.cwd()
    before = contents(here)
    status = main(command.split())
    said = capsys.readouterr().err
    assert status == 2, (command, said)
    assert said.count("segdre: error: ") == 1, said
    assert "\n  -> " in said
    assert path in said
    assert "Traceback" not in said
    assert contents(here) == before


OUTPUTS = {
    "a folder in the way": "folder",
    "a folder that is not there": "nowhere/new.json",
    "a file for a folder": "file/new.json",
    "a long name": "n" * 300,
    "a link to itself": "loop",
    "a link astray": "astray",
    "a full device": "/dev/full",
}
OUTPUT_CASES = [(command, path) for command in WRITERS.values() for path in OUTPUTS.values()]
INPUTS = {
    "missing": "nowhere.json",
    "a folder": "folder",
    "a file for a folder": "file/new.json",
    "a long name": "n" * 300,
    "a link to itself": "loop",
}
INPUT_CASES = [(command, path) for command in READERS.values() for path in INPUTS.values()]
FAULT_CASES = [(command, number) for command in WRITERS.values() for number in NUMBERS]


@pytest.mark.parametrize(("command", "path"), OUTPUT_CASES)
def test_output_that_cannot_be_written(place, capsys, command, path):
    check(capsys, command.replace("OUT", path), path)


@pytest.mark.parametrize(("command", "path"), INPUT_CASES)
def test_input_that_cannot_be_read(place, capsys, command, path):
    check(capsys, command.replace("IN", path), path)


@pytest.mark.parametrize(("command", "number"), FAULT_CASES)
@pytest.mark.parametrize("name", ["new.json", "file"])
def test_disk_that_fails(place, capsys, monkeypatch, command, number, name):
    command = command.replace("OUT", name)
    for module, function, replacement in (
        (tempfile, "mkstemp", fails(number)),
        (os, "fdopen", file_that_fails(number)),
        (os, "replace", fails(number)),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(module, function, replacement)
            check(capsys, command, name)


@pytest.mark.parametrize("command", READERS.values())
def test_input_that_may_not_be_read(place, capsys, monkeypatch, command):
    opened = pathlib.Path.open

    def refuse(path, *how, **more):
        return fails("EACCES")() if path.name == "file" else opened(path, *how, **more)

    monkeypatch.setattr(pathlib.Path, "open", refuse)
    check(capsys, command.replace("IN", "file"), "file")


@pytest.mark.parametrize("command", WRITERS.values())
@pytest.mark.parametrize("size", [0, 100])
def test_file_size_limit(place, capsys, command, size):
    with no_larger_than(size):
        check(capsys, command.replace("OUT", "new.json"), "new.json")


def test_number_of_trials():
    assert len(OUTPUT_CASES) + len(INPUT_CASES) + 6 * len(FAULT_CASES) + len(READERS) + 2 * len(WRITERS) >= 180


def test_without_a_fault_the_commands_work(place, capsys):
    # negative control: it is the faults that end them
    for command in WRITERS.values():
        assert main(command.replace("OUT", "new.json").split()) == 0
        (place / "new.json").unlink()


@pytest.mark.parametrize("number", NUMBERS)
def test_patch_that_cannot_be_written(place, capsys, monkeypatch, number):
    script = place / "folder" / "train.py"
    script.write_text("".join(f"line {n}\n" for n in range(300)))
    versions = SCRIPTS["atlop"].versions
    monkeypatch.setitem(versions, blob_hash(script.read_bytes()), "made up")
    monkeypatch.setattr(tempfile, "mkstemp", fails(number))
    check(capsys, "patch folder", "train.py")


@pytest.mark.parametrize(
    ("command", "number"),
    [(command, number) for name, command in SLOW_WRITERS.items() for number in NUMBERS[: 1 if name == "report" else 6]],
)
def test_reports_and_figures(place, capsys, monkeypatch, command, number):
    module, function = (tempfile, "mkstemp") if "report" in command else (pathlib.Path, "mkdir")
    with monkeypatch.context() as patched:
        patched.setattr(module, function, fails(number))
        check(capsys, command.replace("OUT", "new"), "new")


@pytest.mark.parametrize("path", ["folder", "nowhere/new", "file/new", "n" * 300, "/dev/full"])
def test_reports_elsewhere(place, capsys, path):
    check(capsys, f"report out --output {path}", path)


class TestBundles:
    """``segdre bundle`` and ``segdre predict`` with a finished run of the reference model."""

    @pytest.fixture
    def folder(self, tmp_path, monkeypatch, bundle, run_folder):  # noqa: F811
        for name, target in {"bundle": bundle, "run": run_folder, "data": run_folder.parent / "corpus"}.items():
            (tmp_path / name).symlink_to(target)
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").write_text("as it was")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    @pytest.mark.parametrize("size", [0, 100, 10_000, 300_000])
    def test_a_bundle_under_a_limit(self, folder, capsys, size):
        with no_larger_than(size):
            check(capsys, "bundle run new", "new")

    @pytest.mark.parametrize("path", ["folder", "file", "file/new", "n" * 300])
    def test_a_bundle_elsewhere(self, folder, capsys, path):
        check(capsys, f"bundle run {path}", path)

    @pytest.mark.parametrize("path", ["folder", "file/new", "nowhere/new", "n" * 300, "/dev/full"])
    def test_predictions_elsewhere(self, folder, capsys, path):
        check(capsys, f"predict bundle --input data/test.json --output {path}", path)

    @pytest.mark.parametrize("path", ["folder", "file/new", "nowhere.json"])
    def test_documents_that_cannot_be_read(self, folder, capsys, path):
        check(capsys, f"predict bundle --input {path} --output new", path)

    @pytest.mark.parametrize("form", ["jsonl", "official"])
    def test_predictions_go_on_when_there_is_space(self, folder, capsys, form):
        command = f"predict bundle --input data/test.json --format {form} --batch-size 1 --output"
        assert main([*command.split(), "whole"]) == 0
        with no_larger_than(1500):
            assert main([*command.split(), "new"]) == 2
        said = capsys.readouterr().err
        assert "cannot write new" in said
        assert main([*command.split(), "new", "--resume"]) == 0
        assert (folder / "new").read_bytes() == (folder / "whole").read_bytes()


DEMO = "--train 8 --dev 3 --test 2 --epochs 1"


@contextmanager
def small_disk(kib, folder):
    """Mount a disk of its own, of a few KiB; skip where that is not allowed."""
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder], check=False)
    if made.returncode:
        pytest.skip("no right to mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def check_stopped(folder, capsys):
    """A run that could not write: one message, whole stages, nothing half."""
    said = capsys.readouterr().err
    assert said.count("segdre: error: ") == 1, said
    assert "\n  -> " in said
    assert "Traceback" not in said
    if folder.is_dir():
        left = {path.name for path in folder.iterdir()}
        assert not [name for name in left if name.startswith(".") and name != ".lock"]
        assert all((folder / name / "settings.json").is_file() for name in left & {"base", "identify", "dense"})
        assert "metrics.json" not in left


@pytest.mark.parametrize("size", [0, 20_000, 500_000, 1_000_000])
def test_a_run_under_a_limit(tmp_path, capsys, size):
    folder = tmp_path / "demo"
    with no_larger_than(size):
        assert main(f"demo {folder} {DEMO}".split()) == 2
    check_stopped(folder, capsys)


@pytest.mark.parametrize("kib", [16, 64, 256, 1024, 2048, 4096, 8192])
def test_a_run_on_a_full_disk(tmp_path, capsys, kib):
    with small_disk(kib, tmp_path / "disk"):
        assert main(f"demo {tmp_path / 'disk' / 'demo'} {DEMO}".split()) == 2
        check_stopped(tmp_path / "disk" / "demo", capsys)


def test_a_run_goes_on_when_there_is_space(tmp_path, capsys):
    assert main(f"demo {tmp_path / 'whole'} {DEMO}".split()) == 0
    with no_larger_than(1_000_000):
        assert main(f"demo {tmp_path / 'new'} {DEMO}".split()) == 2
    assert main(f"demo {tmp_path / 'new'} {DEMO}".split()) == 0
    whole, new = ({p.name: p.read_bytes() for p in (tmp_path / name).glob("*.json")} for name in ("whole", "new"))
    assert whole.pop("run.json") != new.pop("run.json")  # paths
    assert whole == new

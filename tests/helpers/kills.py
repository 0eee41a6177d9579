"""Kill a run at every moment at which it touches a file, run it again, and compare all files with an undisturbed run's.

    python tests/helpers/kills.py [--every N] [SCENARIO ...]
    python tests/helpers/kills.py [--every N] --script train.py -- ARGUMENTS (in a patched clone)

A moment is an operation on a file or folder of the run (just before it), or half of what is written into a file. Each
kill is a SIGKILL of a forked process: nothing is cleaned up, what was not written is lost. Moments are counted while
the run goes on, so that the n-th one is the same in each process. Prints a line of JSON for each scenario.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import bundles
import seg_runs
import torch
from tqdm import tqdm

from segdre_plugin.data.synthetic.corpus import write_corpus
from segdre_plugin.seg import bundle
from segdre_plugin.seg.launch import load_script
from segdre_plugin.seg.run_folder import RunFolder

CHANGES = {"os.rename": 2, "os.link": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.chmod": 1}  # event -> paths
FUSED = {"metrics.json", "result.json", "result_dev.json", "run.json"}
Contents = dict[str, bytes]


@dataclass(frozen=True)
class Scenario:
    """A command that changes a folder.

    Attributes:
        command: runs it on the folder ``out`` in the given one.
        prepare: makes what is there before.
    """

    command: Callable[[Path], object]
    prepare: Callable[[Path], object] = Path.mkdir


@dataclass
class Count:
    """What a sweep over the moments of a scenario found.

    Attributes:
        moments: at which the command can be killed.
        kills: how often it was.
        differ: files that differ after the command has run again, by moment.
        mixed: what a killed command left that counts as finished and is neither what was there nor what is to be.
    """

    moments: int = 0
    kills: int = 0
    differ: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)


class Moments:
    """Count the moments of this process, and kill it at one."""

    def __init__(self, root: Path, at: int | None) -> None:
        self.root, self.at, self.seen = str(root), at, 0

    def install(self) -> None:
        sys.addaudithook(self.on_event)
        torch.save = self.halved(torch.save)
        bundle.save_file = self.halved(bundle.save_file)
        opened = os.fdopen
        os.fdopen = lambda *args, **how: HalfWriter(opened(*args, **how), self)

    def pass_by(self) -> bool:
        """Return whether this is the moment."""
        self.seen += 1
        return self.seen == self.at

    def on_event(self, event: str, args: tuple) -> None:
        if event == "open":
            path, _, flags = args
            changes = [path] if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else []
        else:
            changes = args[: CHANGES.get(event, 0)]
        # paths relative to an open folder: shutil.rmtree's, which is asked for our folders only
        paths = [os.fsdecode(path) for path in changes if isinstance(path, (str, bytes, os.PathLike))]
        ours = any(path.startswith(self.root) or (os.sep not in path and -1 not in args) for path in paths)
        if ours and self.pass_by():
            kill()

    def halved(self, save: Callable) -> Callable:
        def saved(value, path, *args, **how):
            save(value, path, *args, **how)
            if self.pass_by():
                os.truncate(path, os.path.getsize(path) // 2)
                kill()

        return saved


class HalfWriter:
    """A file of which half of what is written stays at a moment."""

    def __init__(self, file, moments: Moments) -> None:
        self._file, self._moments = file, moments

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def write(self, content):
        if self._moments.pass_by():
            self._file.write(bytes(content)[: len(content) // 2])
            self._file.flush()
            kill()
        return self._file.write(content)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep a run's output to itself."""
    with (
        open(os.devnull, "w", encoding="utf-8") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        yield


def forked(command: Callable[[], object], root: Path, at: int | None = None) -> int | None:
    """Run a command in a process of its own; give how many moments it had, None if it was killed."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        moments = Moments(root, at)
        try:
            with quiet():
                moments.install()
                command()
            os.write(writer, str(moments.seen).encode())
            os._exit(0)
        except BaseException:
            os.write(writer, traceback.format_exc()[-4000:].encode())
            os._exit(1)
    os.close(writer)
    with open(reader, "rb") as file:
        said = file.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status == -signal.SIGKILL:
        return None
    if status:
        raise RuntimeError(said)
    return int(said)


def sweep(scenario: Scenario, every: int = 1, start: int = 1, stop: int | None = None) -> Count:
    """Kill a scenario's command at each ``every``-th of its moments from ``start`` to ``stop``."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        scenario.prepare(place / "before")
        before = seg_runs.contents(place / "before")
        here = place / "here"  # always the same path: some files hold it

        def again() -> None:
            shutil.rmtree(here, ignore_errors=True)
            shutil.copytree(place / "before", here)

        again()
        found = Count(moments=forked(lambda: scenario.command(here), here) or 0)
        due = seg_runs.contents(here)
        assert due != before
        for at in range(start, min(found.moments, stop or found.moments) + 1, every):
            again()
            assert forked(lambda: scenario.command(here), here, at) is None, at
            found.kills += 1
            found.mixed += [f"{at}: {name}" for name in mixed(here, before, due)]
            forked(lambda: scenario.command(here), here)
            left = seg_runs.contents(here)
            differ = {name for name in left.keys() | due.keys() if left.get(name) != due.get(name)}
            found.differ += [f"{at}: {name}" for name in sorted(differ)]
            counts = f"{found.kills} kills, {len(found.differ)} files differ, {len(found.mixed)} mixed"
            print(f"moment {at} of {found.moments}: {counts}", file=sys.stderr, flush=True)
    return found


def mixed(here: Path, before: Contents, due: Contents) -> Iterator[str]:
    """Name what counts as finished and is neither what was there before nor what is to be."""
    now = seg_runs.contents(here)

    def whole(part: Callable[[str], bool]) -> bool:
        mine, *others = ({k: v for k, v in some.items() if part(k)} for some in (now, before, due))
        return mine in others

    run = RunFolder(here / "out")
    for stage in seg_runs.STAGES:
        if run.is_done(stage) and not whole(lambda name: name.startswith(f"out/{stage}/")):  # noqa: B023
            yield stage
    if run.is_finished and not whole(lambda name: name.removeprefix("out/") in FUSED):
        yield "fused"
    if (here / "bundle" / bundle.DESCRIPTION).is_file() and not whole(lambda name: name.startswith("bundle/")):
        yield "bundle"


def reference(folder: Path) -> dict[str, Scenario]:
    """Make the scenarios of the reference model; a run is made once, and copied."""
    write_corpus(folder / "corpus", train=4, dev=3, test=2, seed=5)
    learn = ("--learning_rate", "1e-4", "--new_layer_lr", "1e-3")  # or both fusions would be nearly the same

    def run(here: Path, *more: str) -> None:
        bundles._run(here / "out", "--data_dir", str(folder / "corpus"), *learn, *more)

    def fresh(here: Path) -> None:
        run(here, "--save_path", str(here / "saved.pt"), "--seg-bundle", str(here / "bundle"))

    made = folder / "made"
    with quiet():
        run(made, "--seg-bundle", str(made / "bundle"))

    def stages_before(stage: str, here: Path) -> None:
        for done in seg_runs.STAGES[: seg_runs.STAGES.index(stage)]:
            shutil.copytree(made / "out" / done, here / "out" / done)
        here.mkdir(exist_ok=True)

    other = ("--seg-grid", "redocred", "--seg-fusion", "average")
    copy = partial(shutil.copytree, made)
    return {
        stage: Scenario(lambda here, stage=stage: run(here, "--seg-stage", stage), partial(stages_before, stage))
        for stage in seg_runs.STAGES
    } | {
        "run": Scenario(fresh),
        "reuse": Scenario(lambda here: run(here, "--seg-reuse", str(made / "out"))),
        "fuse again": Scenario(lambda here: run(here, *other), copy),
        "bundle again": Scenario(lambda here: run(here, *other, "--seg-bundle", str(here / "bundle")), copy),
        "careless": Scenario(careless),
    }


def careless(here: Path) -> None:
    """Write two files, and take them for whole once the first one is there: a control."""
    if not (here / "first").exists():
        for name in ("first", "second"):
            (here / name).write_text(name)


def script(path: Path, arguments: list[str], folder: Path) -> dict[str, Scenario]:
    """Make the scenario of a whole run of a clone's script, in its folder."""
    main = load_script(path, [])

    def run(here: Path) -> None:
        sys.argv = [str(path), *arguments, "--seg-dir", str(here / "out")]
        main()

    with quiet():
        run(folder / "warm")  # imports what it needs, once for all
    return {"script": Scenario(run)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", nargs="*", metavar="SCENARIO")
    parser.add_argument("--every", type=int, default=1, help="kill at each N-th moment (1)")
    parser.add_argument("--start", type=int, default=1, help="the first moment (1)")
    parser.add_argument("--stop", type=int, help="the last moment (that of the run)")
    parser.add_argument("--script", type=Path, help="a clone's train script; what follows -- are its arguments")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0  # no thread beside a process that is forked
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        known = script(asked.script, asked.given, place) if asked.script else reference(place)
        if not asked.script and (unknown := [name for name in asked.given if name not in known]):
            parser.error(f"expected some of {', '.join(known)}, got {', '.join(unknown)}")
        for name in known if asked.script else asked.given or known:
            found = sweep(known[name], asked.every, asked.start, asked.stop)
            print(json.dumps({"scenario": name} | vars(found)), flush=True)


if __name__ == "__main__":
    main()

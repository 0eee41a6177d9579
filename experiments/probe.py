"""What the scripts of plan.PROBES share: their command line, and a stage that is trained in another way."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from plan import BACKBONES
from run import Experiments, add_places, clone

from segdre_plugin.config import STAGES
from segdre_plugin.options import parse
from segdre_plugin.session import Session
from segdre_plugin.store import Store
from segdre_plugin.study.finished import Finished
from segdre_plugin.study.output import find_origin, write_results
from segdre_plugin.study.results import Results
from segdre_plugin.study.worker import open_script


def train(kind: type[Session], script: Path | None, arguments: list[str]) -> None:
    """Run a train script (None: the reference model's) in a session of another kind."""
    opened = open_script(script, arguments)
    options, sys.argv[1:] = parse(sys.argv[1:])
    kind(*opened, options).run()


def train_in(backbone: str, kind: type[Session], arguments: list[str]) -> None:
    """Run a backbone's train script in its clone's folder, in a session of another kind."""
    os.chdir(clone(backbone))
    train(kind, Path(BACKBONES[backbone].script), arguments)


def probe(
    experiments: Experiments,
    backbone: str,
    recipe: str,
    seed: int,
    *,
    name: str,
    kind: type[Session],
    stage: str,
    options: tuple[str, ...] = (),
    fused: bool = False,
) -> Store:
    """Train a stage, unless it is there.

    Args:
        experiments: where runs are.
        backbone: which one.
        recipe: which one; its run ``full`` must be finished.
        seed: the run's.
        name: of the probe.
        kind: the session that trains it.
        stage: what it trains; the stages before it are the run's.
        options: further options of ours.
        fused: train the stages after it, too, and fuse: the folder is that of a finished run.

    Returns:
        Its folder.
    """
    full = Store(experiments.runs(backbone, recipe).path("full", seed))
    target = Store(experiments.folder(backbone, recipe) / "probes" / f"{name}-{seed}")
    if (target.root / "metrics.json").is_file() if fused else target.is_done(stage):
        return target
    target.root.mkdir(parents=True, exist_ok=True)
    for before in STAGES[: STAGES.index(stage)]:
        if not target.is_done(before):
            target.adopt(before, full)
    last = "all" if fused else stage
    ours = ["--seed", str(seed), "--seg", "--seg-dir", str(target.root), "--seg-stage", last, *options]
    train_in(backbone, kind, [*experiments.arguments(backbone, recipe), *ours])
    return target


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Make a parser of what every one of them takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_places(parser)
    parser.add_argument("--backbone", default="atlop")
    parser.add_argument("--recipe", default="from-base")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    return parser


def command() -> str:
    """Say how the script was started; to be asked before anything is trained, which has an argv of its own."""
    return shlex.join(["python", f"experiments/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def keep_results(experiments: Experiments, options: argparse.Namespace, results: Results, started: str) -> None:
    """Print what a script found in the form of a study, and keep it under the script's name.

    Args:
        experiments: where runs are.
        options: the script's.
        results: what it found.
        started: the :func:`command`.
    """
    name = Path(shlex.split(started)[1]).stem
    run = Finished(experiments.runs(options.backbone, options.recipe).path("full", options.seeds[0]))
    folder = experiments.folder(options.backbone, options.recipe)
    print(write_results(folder, name, results, find_origin(started, options.seeds, run)))
    experiments.keep_study(options.backbone, options.recipe, name)

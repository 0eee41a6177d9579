"""What the scripts of plan.PROBES share: their command line, and a stage that is trained in another way."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from plan import BACKBONES
from run import Experiments, add_places, clone

from segdre_plugin.config import STAGES
from segdre_plugin.options import parse
from segdre_plugin.session import Session
from segdre_plugin.store import Store
from segdre_plugin.study.worker import open_script


def train(kind: type[Session], script: Path | None, arguments: list[str]) -> None:
    """Run a train script (None: the reference model's) in a session of another kind."""
    opened = open_script(script, arguments)
    options, sys.argv[1:] = parse(sys.argv[1:])
    kind(*opened, options).run()


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

    Returns:
        Its folder.
    """
    full = Store(experiments.runs(backbone, recipe).path("full", seed))
    target = Store(experiments.folder(backbone, recipe) / "probes" / f"{name}-{seed}")
    if target.is_done(stage):
        return target
    target.root.mkdir(parents=True, exist_ok=True)
    for before in STAGES[: STAGES.index(stage)]:
        if not target.is_done(before):
            target.adopt(before, full)
    ours = ["--seed", str(seed), "--seg", "--seg-dir", str(target.root), "--seg-stage", stage, *options]
    os.chdir(clone(backbone))
    train(kind, Path(BACKBONES[backbone].script), [*experiments.arguments(backbone, recipe), *ours])
    return target


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Make a parser of what every one of them takes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_places(parser)
    parser.add_argument("--backbone", default="atlop")
    parser.add_argument("--recipe", default="from-base")
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    return parser

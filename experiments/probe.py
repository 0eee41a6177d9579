"""What the scripts of plan.PROBES share: their command line, and a stage that is trained in another way."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from plan import BACKBONES, plan_of
from run import Experiments, add_places, clone

from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.results import Results
from segdre_plugin.analysis.study.worker import open_script
from segdre_plugin.analysis.study.write_results import find_provenance, write_results
from segdre_plugin.seg.launch import messages
from segdre_plugin.seg.options import parse
from segdre_plugin.seg.settings import RunSettings
from segdre_plugin.seg.store import Store
from segdre_plugin.seg.training_run import TrainingRun
from segdre_plugin.stages.config import STAGES

PLACES = ("out", "data", "encoder", "backbone", "recipe", "seeds")  # what every script is told


@dataclass(frozen=True)
class ProbeSettings(RunSettings):
    """Settings that tell a stage which is trained in another way from an ordinary one.

    Attributes:
        probed: the stage.
        way: what is written down besides its ordinary settings.
    """

    probed: str = ""
    way: Mapping[str, Any] = field(default_factory=dict)

    def of(self, stage: str) -> dict[str, Any]:
        """Return the settings of a stage."""
        return super().of(stage) | (dict(self.way) if stage == self.probed else {})


class ProbeRun(TrainingRun):
    """A run one of whose stages is trained in another way; see :class:`ProbeSettings`."""

    probed: str = ""
    way: Mapping[str, Any] = MappingProxyType({})

    @cached_property
    def settings(self) -> ProbeSettings:
        """Everything on which the results of the stages depend."""
        return ProbeSettings(**vars(super().settings), probed=self.probed, way=self.way)


def train(kind: type[TrainingRun], script: Path | None, arguments: list[str]) -> None:
    """Run a train script (None: the reference model's) as a run of another kind."""
    opened = open_script(script, arguments)
    options, sys.argv[1:] = parse(sys.argv[1:])
    kind(*opened, options).run()


def train_in(backbone: str, kind: type[TrainingRun], arguments: list[str]) -> None:
    """Run a backbone's train script in its clone's folder, as a run of another kind."""
    os.chdir(clone(BACKBONES[backbone]))
    train(kind, Path(BACKBONES[backbone].script), arguments)


def probe(
    experiments: Experiments,
    backbone: str,
    recipe: str,
    seed: int,
    *,
    name: str,
    kind: type[TrainingRun],
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
        kind: the run that trains it.
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


def main(
    description: str | None, measure: Callable[..., Results], parser: argparse.ArgumentParser | None = None
) -> None:
    """Read a script's command line, measure, print what it found as a study's tables, and keep it under its name.

    Args:
        description: of the script.
        measure: experiments, backbone, recipe, seeds and, by name, what else the parser has -> what was found.
        parser: of the command line, :func:`arguments` with more options; None: without.
    """
    options = vars((parser or arguments(description)).parse_args())
    out, data, encoder, backbone, recipe, seeds = (options.pop(name) for name in PLACES)
    script = Path(sys.argv[0])
    command = shlex.join(["python", f"experiments/{script.name}", *sys.argv[1:]])  # training has an argv of its own
    with messages():
        experiments = Experiments(out, data, encoder, plan=plan_of(recipe))
        results = measure(experiments, backbone, recipe, seeds, **options)
        run = FinishedRun(experiments.runs(backbone, recipe).path("full", seeds[0]))
        folder = experiments.folder(backbone, recipe)
        print(write_results(folder, script.stem, results, find_provenance(command, seeds, run)))
        experiments.keep_study(backbone, recipe, script.stem)

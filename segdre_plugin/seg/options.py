"""The options that ``--seg`` adds to a backbone's train script, derived from the fields of two dataclasses.

A new option is a field: of :class:`~segdre_plugin.stages.config.SegConfig` if it belongs to the method, else of
:class:`Options`. Parser, construction, checks and the stages that depend on it follow from the field.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.losses import check_loss
from segdre_plugin.data.files import named_path
from segdre_plugin.errors import SegDREError, did_you_mean
from segdre_plugin.fusion import FUSIONS, GRIDS
from segdre_plugin.stages.config import GROUPS, STAGES, SegConfig, check_settings, is_share, setting

ALL_STAGES = (*STAGES, "fuse")
OBJECTIVES = ("f1", "ign_f1")
TRAINERS = ("script", "own")
SELECTS = ("predicted", "gold")
FLAGS = {"directory": "--seg-dir"}  # where the flag is not the field's name


def _epochs(default: float | None, stage: str, help: str, group: str) -> Any:
    return setting(
        default,
        help,
        group,
        stages=(stage,),
        training=True,
        metavar="N",
        legal=lambda value: value >= 1,
        hint="pass one epoch or more",
    )


@dataclass(frozen=True)
class Options:
    """What the user asked for with ``--seg``, besides the settings of the method; each field has its help."""

    seg: bool = False
    config: SegConfig = field(default_factory=SegConfig)
    directory: Path = setting(Path("seg"), "folder of all stages and results", group="files", metavar="DIR")
    check: bool = setting(
        False, "try every stage on a handful of documents, and say what the run will take", group="stages"
    )
    stage: str = setting("all", "one stage only", group="stages", choices=lambda: ("all", *ALL_STAGES))
    grid: str = setting("docred", "range of the threshold search", group="paper", choices=lambda: sorted(GRIDS))
    objective: str = setting("f1", "what the search maximises on dev", group="paper", choices=lambda: OBJECTIVES)
    fusion: str = setting(
        "union",
        "what a stage's threshold cuts: the stage's margin, or its mean with the base's",
        group="beyond",
        choices=lambda: FUSIONS,
    )
    rel_info: Path | None = setting(
        None, "relation names (rel_info.json in meta/ or data_dir)", group="files", stages=("sparse",), metavar="FILE"
    )
    identify_epochs: float = _epochs(10.0, "identify", "epochs of stage identify", group="paper")
    identify_warmup: float = setting(
        0.3,
        "warm-up ratio of stage identify",
        group="paper",
        metavar="SHARE",
        stages=("identify",),
        training=True,
        legal=is_share,
        hint="pass a share from 0 to 1",
    )
    dense_epochs: float | None = _epochs(None, "dense", "epochs of stage dense (the base's)", group="stages")
    sparse_epochs: float | None = _epochs(None, "sparse", "epochs of stage sparse (the base's)", group="stages")
    new_layer_lr: float | None = setting(
        None,
        "learning rate of new layers, not of a base that dense and sparse start from (the script's own)",
        group="stages",
        stages=STAGES,
        training=True,
        metavar="LR",
        legal=lambda value: value > 0,
        hint="pass a positive learning rate",
    )
    select: str = setting(
        "predicted",
        "salient entities (and dense triples) of dev by which the checkpoints of dense and sparse are chosen",
        group="stages",
        stages=("dense", "sparse"),
        training=True,
        choices=lambda: SELECTS,
    )
    parallel: bool = setting(
        False, "train stages that need not wait for each other at the same time, on all GPUs", group="stages"
    )
    reuse: tuple[Path, ...] = setting(
        (),
        "another run's --seg-dir: its stages with the same settings are taken, not trained (repeat it for more)",
        group="stages",
        metavar="DIR",
    )
    bundle: Path | None = setting(
        None, "write a bundle for segdre predict when the run is finished", group="files", metavar="DIR"
    )
    trainer: str = setting(
        "script",
        "who trains: the script's own train(), or our loop, which goes on inside a stage that was cut off",
        group="stages",
        stages=STAGES,
        training=True,
        choices=lambda: TRAINERS,
    )
    checkpoint: float = setting(
        10.0,
        "minutes between two checkpoints of --seg-trainer own",
        group="stages",
        metavar="MINUTES",
        legal=lambda value: value >= 0,
        hint="pass minutes; 0 writes one after every step",
    )
    windows: int = setting(
        2,
        "most windows of a document, with a --max_seq_length that fills them; two are the backbone's own",
        group="beyond",
        stages=STAGES,
        metavar="N",
        legal=lambda value: value >= 2,
        hint="pass 2 or more",
    )
    fast: bool = setting(True, "the same numbers in less time and memory (on)", group="speed", stages=STAGES)
    bf16: bool = setting(False, "compute in bfloat16 where that is safe", group="speed", stages=STAGES)
    checkpointing: bool = setting(
        False, "the same numbers in less memory: the encoder's layers are computed again for gradients", group="speed"
    )
    buckets: bool = setting(False, "train on batches of documents of like length", group="speed", stages=STAGES)
    skip_unusable: bool = setting(
        False, "leave out documents without a pair and entities that truncation swallowed", group="files", stages=STAGES
    )

    def __post_init__(self) -> None:
        check_settings(self, vars(self), "--seg-")

    @property
    def speed(self) -> dict[str, bool]:
        """Return the arguments of :func:`segdre_plugin.stages.wrap.wrap_model` among the options."""
        return {"fast": self.fast, "bf16": self.bf16, "checkpointing": self.checkpointing}

    def epochs(self, stage: str) -> float | None:
        """Return the epochs of a stage; None: as many as the script has."""
        found: float | None = getattr(self, f"{stage}_epochs", None)
        return found


def flag(name: str) -> str:
    """Return the flag of a field: ``--seg-`` and its name."""
    return FLAGS.get(name, f"--seg-{name.replace('_', '-')}")


def _add(parser: Any, found: Field[Any]) -> None:
    """Add the option of a field to a parser."""
    known = found.metadata["setting"]
    words = {"help": known.help, "dest": found.name, "default": found.default}
    if found.type == "bool":
        switch = argparse.BooleanOptionalAction if found.default else "store_true"
        parser.add_argument(flag(found.name), action=switch, **words)
        return
    if found.default not in (None, ()):
        words["help"] += " (%(default)s)"
    if str(found.type).startswith("tuple"):
        words |= {"action": "append", "default": []}
    if found.type == "tuple[str, ...]":
        words |= {"action": "extend", "nargs": "+"}
    types = {"int": int, "float": float, "float | None": float, "str": str, "tuple[str, ...]": str}
    words |= {"type": types.get(str(found.type), named_path), "metavar": known.metavar}
    if known.choices and known.metavar:  # users register more of them: checked with the other values
        words["help"] = f"{known.help}: {', '.join(known.choices())} (%(default)s)"
    elif known.choices:
        words |= {"choices": known.choices()}
    parser.add_argument(flag(found.name), **words)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of our options; it knows none of the backbone's."""
    parser = argparse.ArgumentParser(
        add_help=False,
        allow_abbrev=False,
        usage="SCRIPT [the script's own options] --seg [options]",
        epilog="Add --seg-check first: it tries every stage, says what the run will take, and leaves nothing behind.",
    )
    group = parser.add_argument_group("SegDRE")
    group.add_argument("--seg", action="store_true", help="train all stages of SegDRE and fuse them")
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for found in (*fields(Options), *fields(SegConfig)):
        if "setting" in found.metadata:
            _add(groups[found.metadata["setting"].group], found)
    return parser


def flags() -> list[str]:
    """Return all options of ours but ``--seg``."""
    return sorted(option for action in build_parser()._actions for option in action.option_strings if option != "--seg")


def parse(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Return our options of a command line, and the arguments that are left for the backbone's own parser.

    Raises:
        SegDREError: if an option of ours is wrong, or stands without ``--seg``.
    """
    parser = build_parser()
    parser.error = _refuse  # type: ignore[method-assign, assignment]
    found, rest = parser.parse_known_args(list(arguments))
    ours = [a for a in arguments if a.startswith(("--seg-", "--no-seg-"))]
    unknown = [a for a in rest if a.startswith(("--seg-", "--no-seg-"))]
    if unknown:
        name = unknown[0].split("=")[0]
        raise SegDREError(f"unknown option {name}", did_you_mean(name, flags()))
    if ours and not found.seg:
        raise SegDREError(f"{ours[0].split('=')[0]} without --seg", "add --seg")
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in vars(found).items()
    }
    method = {f.name: values.pop(f.name) for f in fields(SegConfig)}
    check_settings(SegConfig, method, "--seg-")
    config = SegConfig(**method)
    check_loss(config.loss)  # not by SegConfig: to predict, a loss of the user's own need not be registered
    return Options(config=config, **values), rest


def _refuse(message: str) -> None:
    raise SegDREError(message, "see --help")

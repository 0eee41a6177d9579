"""The options that ``--seg`` adds to a backbone's train script."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segdre_plugin.backbones.losses import check_loss, loss_names
from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import FUSIONS, GRIDS
from segdre_plugin.stages.config import STAGES, STARTS, TRAIN_SALIENT, SegConfig
from segdre_plugin.stages.strategies import strategy_names

ALL_STAGES = (*STAGES, "fuse")


@dataclass(frozen=True)
class Options:
    """What the user asked for with ``--seg...``; see :func:`build_parser` for the meaning of each."""

    seg: bool
    directory: Path
    stage: str
    config: SegConfig
    grid: str
    objective: str
    fusion: str
    rel_info: Path | None
    identify_epochs: float
    identify_warmup: float
    dense_epochs: float | None
    sparse_epochs: float | None
    new_layer_lr: float | None
    reuse: tuple[Path, ...]
    skip_unusable: bool
    bundle: Path | None
    fast: bool
    bf16: bool
    buckets: bool

    @property
    def speed(self) -> dict[str, bool]:
        """Return what :func:`segdre_plugin.stages.wrap.wrap_model` takes of them."""
        return {"fast": self.fast, "bf16": self.bf16}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of our options; it knows none of the backbone's."""
    paper = SegConfig()
    losses = f"{', '.join(loss_names())} (%(default)s: the script's own)"
    parser = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, usage="<train script> <its own options> --seg [options]"
    )
    add = parser.add_argument_group("SegDRE").add_argument
    add("--seg", action="store_true", help="train all stages of SegDRE and fuse them")
    add("--seg-dir", default="seg", type=Path, metavar="DIR", help="folder of all stages and results (%(default)s)")
    add("--seg-stage", default="all", choices=("all", *ALL_STAGES), help="one stage only (%(default)s)")
    add("--seg-alpha", default=paper.alpha, type=float, help="share of dense triples injected (%(default)s)")
    add("--seg-link", action="store_true", help="mentions of the entity that a branch names see the branch")
    add("--seg-branch-budget", default=paper.branch_budget, type=int, help="most branch tokens (%(default)s)")
    add("--seg-template-from", default=paper.template_from, help="branch of (salient, r, tail) (%(default)s)")
    add("--seg-template-to", default=paper.template_to, help="branch of (head, r, salient) (%(default)s)")
    names = ", ".join(strategy_names())
    add("--seg-salient", default=paper.salient, metavar="NAME", help=f"who is salient: {names} (%(default)s)")
    add(
        "--seg-salient-k",
        default=paper.salient_k,
        type=int,
        metavar="K",
        help="salient entities a document (%(default)s)",
    )
    add(
        "--seg-train-salient",
        default=paper.train_salient,
        choices=TRAIN_SALIENT,
        help="salient entities of train: gold, or by the same strategy (%(default)s)",
    )
    add("--seg-hidden", default=paper.hidden, type=int, help="width of the count head (%(default)s)")
    add("--seg-loss", default=paper.loss, metavar="NAME", help=f"of base, dense and sparse: {losses}")
    add(
        "--seg-start",
        default=paper.start,
        choices=STARTS,
        help="what dense and sparse start from: the pretrained encoder, or the base model (%(default)s)",
    )
    add("--seg-grid", default="docred", choices=sorted(GRIDS), help="range of the threshold search (%(default)s)")
    add("--seg-objective", default="f1", choices=("f1", "ign_f1"), help="what the search maximises (%(default)s)")
    add(
        "--seg-fusion",
        default="union",
        choices=FUSIONS,
        help="what the stage threshold cuts: the stage's margin, or its mean with the base's (%(default)s)",
    )
    add("--seg-rel-info", type=Path, metavar="FILE", help="relation names (meta/ or data_dir/rel_info.json)")
    add("--seg-identify-epochs", default=10.0, type=float, help="epochs of stage identify (%(default)s)")
    add("--seg-identify-warmup", default=0.3, type=float, help="warm-up ratio of stage identify (%(default)s)")
    add("--seg-dense-epochs", type=float, help="epochs of stage dense (those of the base)")
    add("--seg-sparse-epochs", type=float, help="epochs of stage sparse (those of the base)")
    add(
        "--seg-new-layer-lr",
        type=float,
        metavar="LR",
        help="learning rate of new layers, not of a base that dense and sparse start from (the script's own)",
    )
    add(
        "--seg-reuse",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="another run's --seg-dir: its stages with the same settings are taken, not trained (again for more)",
    )
    add("--seg-bundle", type=Path, metavar="DIR", help="make a bundle for segdre predict of the finished run")
    switch = argparse.BooleanOptionalAction
    add("--seg-fast", default=True, action=switch, help="the same numbers in less time and memory (on)")
    add("--seg-bf16", action="store_true", help="compute in bfloat16 where that is safe")
    add("--seg-buckets", action="store_true", help="train on batches of documents of like length")
    add("--seg-skip-unusable", action="store_true", help="leave documents and entities without pairs or mentions out")
    return parser


def parse(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Take our options out of a command line.

    Args:
        arguments: the command line.

    Returns:
        Our options, and the arguments that are left for the backbone's own parser.

    Raises:
        SegDREError: if an option of ours is wrong, or stands without ``--seg``.
    """
    parser = build_parser()
    parser.error = _refuse  # type: ignore[method-assign, assignment]
    found, rest = parser.parse_known_args(list(arguments))
    ours = [a for a in arguments if a.startswith(("--seg-", "--no-seg-"))]
    unknown = [a for a in rest if a.startswith(("--seg-", "--no-seg-"))]
    if unknown:
        known = sorted(option for action in parser._actions for option in action.option_strings)
        raise SegDREError(f"unknown option {unknown[0].split('=')[0]}", f"options: {', '.join(known)}")
    if ours and not found.seg:
        raise SegDREError(f"{ours[0].split('=')[0]} without --seg", "add --seg")
    config = SegConfig(
        hidden=found.seg_hidden,
        alpha=found.seg_alpha,
        branch_budget=found.seg_branch_budget,
        link=found.seg_link,
        template_from=found.seg_template_from,
        template_to=found.seg_template_to,
        salient=found.seg_salient,
        salient_k=found.seg_salient_k,
        train_salient=found.seg_train_salient,
        loss=found.seg_loss,
        start=found.seg_start,
    )
    check_loss(config.loss)
    options = Options(
        seg=found.seg,
        directory=found.seg_dir,
        stage=found.seg_stage,
        config=config,
        grid=found.seg_grid,
        objective=found.seg_objective,
        fusion=found.seg_fusion,
        rel_info=found.seg_rel_info,
        identify_epochs=found.seg_identify_epochs,
        identify_warmup=found.seg_identify_warmup,
        dense_epochs=found.seg_dense_epochs,
        sparse_epochs=found.seg_sparse_epochs,
        new_layer_lr=found.seg_new_layer_lr,
        reuse=tuple(found.seg_reuse),
        skip_unusable=found.seg_skip_unusable,
        bundle=found.seg_bundle,
        fast=found.seg_fast,
        bf16=found.seg_bf16,
        buckets=found.seg_buckets,
    )
    for name in ("identify_epochs", "dense_epochs", "sparse_epochs"):
        value = getattr(options, name)
        if value is not None and not 1 <= value < math.inf:
            raise SegDREError(f"--seg-{name.replace('_', '-')} is {value}", "give one epoch or more")
    if options.new_layer_lr is not None and not options.new_layer_lr > 0:
        raise SegDREError(f"--seg-new-layer-lr is {options.new_layer_lr}", "give a positive learning rate")
    if not 0 <= options.identify_warmup <= 1:
        raise SegDREError(f"--seg-identify-warmup is {options.identify_warmup}", "give a share from 0 to 1")
    return options, rest


def _refuse(message: str) -> None:
    raise SegDREError(message, "see --help")

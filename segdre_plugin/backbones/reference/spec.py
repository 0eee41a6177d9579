"""Run the reference model's train script, with ``--seg`` or without."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from segdre_plugin.adapters.atlop import BACKBONE as ATLOP
from segdre_plugin.backbones.clones.stand_ins import swapped
from segdre_plugin.backbones.reference import train
from segdre_plugin.backbones.script import Script
from segdre_plugin.seg.options import parse
from segdre_plugin.seg.training_run import TrainingRun

BACKBONE = replace(ATLOP, name="reference", repository="segdre_plugin.backbones.reference")

SCRIPT = Script(
    file="segdre_plugin.backbones.reference.train",
    patch="",
    versions={},
    checkpoint="{folder}/checkpoint.pt",
    save_path="{folder}/checkpoint.pt",
    scores=lambda score, metrics: (score, {f"dev_{name}": 100 * value for name, value in metrics.items()}),
    rel2id="{data_dir}/rel2id.json",
)


def run(arguments: Sequence[str]) -> None:
    """Run the script.

    Args:
        arguments: its command line, options of ours included.
    """
    options, rest = parse(arguments)
    with swapped(vars(sys), {"argv": [SCRIPT.file, *rest]}):
        if options.seg:
            TrainingRun(vars(train), train.main, BACKBONE, SCRIPT, options).run()
        else:
            train.main()

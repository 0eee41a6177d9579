"""The reference model's description and its train script's.

:func:`segdre_plugin.seg.launch.run_reference` runs the script.
"""

from __future__ import annotations

from dataclasses import replace

from segdre_plugin.adapters import atlop
from segdre_plugin.backbones.trainer import Recipe

BACKBONE = replace(atlop.BACKBONE, name="reference", repository="segdre_plugin.backbones.reference")

SCRIPT = replace(
    atlop.SCRIPT,
    file="segdre_plugin.backbones.reference.train",
    patch="",
    versions={},
    recipe=lambda args: Recipe.of(args, new_layer_lr=args.new_layer_lr),
    report=None,  # the script predicts no test split
    rel2id="{data_dir}/rel2id.json",
    reading={"rel2id": dict, "max_seq_length": int},
)

"""The reference model's description and its train script's.

:func:`segdre_plugin.seg.launch.run_reference` runs the script.
"""

from __future__ import annotations

from dataclasses import replace

from segdre_plugin.adapters.atlop import BACKBONE as ATLOP
from segdre_plugin.backbones.script import Script

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

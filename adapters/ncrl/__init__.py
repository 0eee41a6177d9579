"""NCRL (https://github.com/yangzhou12/NCRL): descriptions of its model, its batches and its train script.

They are in its history alone (commit bce70d4, folder DocRED). The newest commit has the loss, to be put into a clone of
ATLOP; that is a changed ATLOP, for ATLOP's adapter. The script declares just what ATLOP's does, so without ``options``
and ``attributes``: its hash tells it apart.
"""

from segdre_plugin.backbones.backbone import Backbone, Pooling
from segdre_plugin.backbones.script import Script

BACKBONE = Backbone(
    name="ncrl",
    repository="https://github.com/yangzhou12/NCRL",
    batch=("input_ids", "attention_mask", "labels", "entity_pos", "hts"),
    not_for_prediction=frozenset({"labels"}),
    pooling=Pooling(epsilon=1e-5),
)

SCRIPT = Script(
    file="DocRED/train.py",
    patch="",
    versions={"4c8484f29e27f5f75845d2fa0331d2f04d7f17b7": "bce70d4 (Update README.md)"},
    checkpoint="{folder}/checkpoint.pt",
    save_path="{folder}/checkpoint.pt",
    report="report",
    scores=lambda score, metrics: (score, {f"dev_{name}": 100 * value for name, value in metrics.items()}),
)

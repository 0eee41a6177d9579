"""ATLOP (https://github.com/wzhouad/ATLOP): descriptions of its model, its batches and its train script."""

from segdre_plugin.backbones.backbone import Backbone, Pooling
from segdre_plugin.backbones.script import ATTRIBUTES, OPTIONS, Script
from segdre_plugin.backbones.trainer import Recipe

BACKBONE = Backbone(
    name="atlop",
    repository="https://github.com/wzhouad/ATLOP",
    batch=("input_ids", "attention_mask", "labels", "entity_pos", "hts"),
    not_for_prediction=frozenset({"labels"}),
    label_arrays=True,
    slides=True,
    pooling=Pooling(epsilon=1e-5),
)

SCRIPT = Script(
    file="train.py",
    patch="atlop.patch",
    # git blob of each version that was tried -> the commit that has it
    versions={"35ab94b92603aa7735f526f1adad327c06eb63bb": "2540f44 (Remove multi-gpu) and later"},
    options=OPTIONS | {"--learning_rate", "--num_labels"},
    attributes=ATTRIBUTES | {"loss_fnt", "model", "num_labels"},
    checkpoint="{folder}/checkpoint.pt",
    save_path="{folder}/checkpoint.pt",
    report="report",
    recipe=lambda args: Recipe.of(args, new_layer_lr=1e-4, before_last_step=True),
)

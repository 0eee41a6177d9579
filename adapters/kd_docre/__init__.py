"""KD-DocRE (https://github.com/tonytan48/KD-DocRE): descriptions of its model, its batches and its train script.

What it needs: the packages ``axial_attention`` and ``pandas``; in ``meta/``, ``rel2id.json`` and ``ner2id.json``; in
the data folder ``wikidata-properties.csv`` (these three are in its repository), and DocRED's
``DocRED_baseline_metadata/rel2id.json``; names and types of mentions, also in prediction. A document has at most 42
entities, and any document's pairs fill 0.5 GB several times over. The script's further steps (a teacher's logits for
distantly supervised documents, training with them, continued training) go without ``--seg``.
"""

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.script import ATTRIBUTES, OPTIONS, Names, Script

BACKBONE = Backbone(
    name="kd_docre",
    repository="https://github.com/tonytan48/KD-DocRE",
    batch=(
        *("input_ids", "attention_mask", "labels", "entity_pos", "hts", "mention_pos", "mention_hts"),
        *("padded_mention", "padded_mention_mask", "sentid_mask", "teacher_logits", "entity_types"),
        *("segment_spans", "negative_mask"),
    ),
    not_for_prediction=frozenset({"labels", "teacher_logits", "negative_mask"}),
    classifier="classifier",
    logits="loss",
    all_pairs=True,  # as a square of entities
    trained=lambda loss, output: loss,
)

STEPS = "make that checkpoint without --seg, and pass it with --load_path as the base"

SCRIPT = Script(
    file="train.py",
    patch="",
    versions={"8b1254e9e43e5ef6c0ff3a1beb3344af324ef596": "daeae55 (First commit) and later"},
    options=OPTIONS
    | {"--classifier_lr", "--drop_FN", "--drop_FP", "--drop_prob", "--gamma_neg", "--gamma_pos", "--knowledge_distil"}
    | {"--learning_rate", "--load_pretrained", "--num_labels", "--output_name", "--save_last", "--start_steps"}
    | {"--teacher_path"},
    attributes=ATTRIBUTES
    | {"axial_transformer", "bin_criterion", "classifier", "entity_criterion", "loss_fnt", "model", "mse_criterion"}
    | {"num_labels", "projection", "teacher_model", "threshold"},
    checkpoint="{folder}/checkpoint.pt",
    save_path="{folder}/checkpoint.pt",
    names=Names(model="DocREModel_KD", collate="collate_fn_kd"),
    report="report",
    reported=([], []),
    required=("axial_attention", "pandas"),
    caches=("{file}.{model_name_or_path}.pt",),
    places=frozenset({"output_name"}),
    refused={
        "load_pretrained": STEPS,
        "knowledge_distil": STEPS,
        "teacher_path": "infer a teacher's logits without --seg",
        "save_last": "leave it out: a stage keeps its best checkpoint",
    },
    values={"drop_prob": (0.0,)},  # it draws pairs by labels, which are counts in stage identify
    args={"gamma_pos": float, "gamma_neg": float},
    max_entities=42,
)

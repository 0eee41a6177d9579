"""Eider (https://github.com/Veronicium/Eider): descriptions of its model, its batches and its train script.

Its folder ``dataset/meta/`` needs DocRED's ``rel2id.json`` and ``rel_info.json``. Ablations ``atlop`` and ``eider`` go
with ``--seg``; ``eider_rule`` and inference-stage fusion need files of a coreference model. Evidence is predicted where
``--evi_eval_mode`` asks for it, as in the script; it takes as much memory as ``--max_sen_num`` times the pairs.
"""

from argparse import Namespace
from collections.abc import MutableMapping
from functools import wraps
from typing import Any

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.script import ATTRIBUTES, OPTIONS, Script, dev_scores
from segdre_plugin.errors import SegDREError

BACKBONE = Backbone(
    name="eider",
    repository="https://github.com/Veronicium/Eider",
    batch=("input_ids", "attention_mask", "labels", "entity_pos", "hts", "sen_labels", "sen_pos"),
    optional=frozenset({"sen_labels", "sen_pos"}),
    optional_constants={"return_senatt": True},  # where batches have the sentences, evidence
    not_for_prediction=frozenset({"labels", "sen_labels"}),
    positive_fields=("sen_labels",),
    evidence=1,
    evidence_labels="sen_labels",
)
ABLATIONS = ("atlop", "eider")
FILES = ("feature_path", "rel2htype_file", "evi_pred_file")  # arguments that name files of the reader's own


def install(names: MutableMapping[str, Any]) -> None:
    """Make the reader work without file names, which a bundle does not have; keep sentences only if they are used."""
    original = names["read_docred"]

    @wraps(original)
    def read_docred(
        args: Namespace, file_in: str, tokenizer: Any, ablation: Any = None, if_inference: Any = True
    ) -> Any:
        if args.ablation not in (*ABLATIONS, "eider_rule"):  # of a bundle: others read files
            raise SegDREError(f"ablation {args.ablation!r}: expected {' or '.join(ABLATIONS)}", "make the bundle again")
        known = Namespace(**dict.fromkeys(FILES, "") | vars(args))
        features = original(known, file_in, tokenizer, ablation, if_inference)
        if if_inference and args.evi_eval_mode == "none":
            unused = ("sen_pos", "sen_labels")
            return [{name: value for name, value in one.items() if name not in unused} for one in features]
        return features

    names["read_docred"] = read_docred


SCRIPT = Script(
    file="train.py",
    patch="",
    versions={"8a70b57abc734a349146afe02d3668bbe57e07da": "c81e9b3 (save features and chkpt) and later"},
    options=OPTIONS
    | {"--ablation", "--coref_method", "--ensemble_ablation", "--ensemble_mode", "--eval_mode", "--evi_eval_mode"}
    | {"--evi_pred_file", "--feature_path", "--grouped_learning_rate", "--learning_rate", "--max_sen_num", "--name"}
    | {"--num_labels", "--rel2htype_file"},
    attributes=ATTRIBUTES
    | {"ablation", "b_hid_size", "loss_fnt", "max_sen_num", "model", "num_labels", "num_rels", "sr_bilinear"},
    checkpoint="{folder}/checkpoint.pt",
    save_path="{folder}/checkpoint.pt",
    scores=lambda score, metrics: (*dev_scores(score, metrics), [], None),
    install=install,
    rel2id="dataset/meta/rel2id.json",
    report="report",
    supplied={"IPython": {"embed": lambda *_, **__: None}},
    without_gpu={"autoRun": {"choose_gpu": lambda *_, **__: None}},  # it asks nvidia-smi
    places=frozenset({"name", "eval_mode", "rel2htype_file", "evi_pred_file"}),
    refused={"feature_path": "leave it out: features that were pickled once are not read again"},
    values={"ablation": ABLATIONS, "coref_method": ("none",), "ensemble_mode": ("none",)},
    reads=("args", "path", "tokenizer"),
    reading={},
    train_only=("if_inference",),
    args={
        "max_seq_length": int,
        "max_sen_num": int,
        "ablation": str,
        "coref_method": str,
        "transformer_type": str,
        "evi_eval_mode": str,
    },
    max_sentences="max_sen_num",
)

"""DREEAM (https://github.com/YoumiMa/dreeam): descriptions of its model, its batches and its train script."""

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segdre_plugin.adapters.dreeam.teacher import teacher_problems
from segdre_plugin.backbones.backbone import Backbone, Pooling
from segdre_plugin.backbones.script import ATTRIBUTES, OPTIONS, Script, dev_scores
from segdre_plugin.backbones.trainer import Recipe

BACKBONE = Backbone(
    name="dreeam",
    repository="https://github.com/YoumiMa/dreeam",
    batch=(
        "input_ids",
        "attention_mask",
        "labels",
        "entity_pos",
        "hts",
        "sent_pos",
        "sent_labels",
        "teacher_attns",
    ),
    constants={"tag": "infer"},  # predictions without losses
    not_for_prediction=frozenset({"labels", "teacher_attns"}),
    pair_fields=("labels", "sent_labels", "attns"),
    label_arrays=True,
    token_fields=("attns",),
    copied=("teacher_attns",),
    predictions="rel_pred",
    evidence="evi_pred",
    evidence_labels="sent_labels",
    evidence_loss="loss_fnt_evi",
    slides=True,
    pooling=Pooling(epsilon=1e-30, layers=3, with_attention=True),
)


def _scores(score: float, metrics: Mapping[str, float]) -> tuple[Any, ...]:
    """Return scores, printed scores and no predictions.

    The script keeps the best ``dev_F1_ign``, whatever that is: stage identify is judged by saliency, and only the
    printed scores have its name.
    """
    kept, printed = (dev_scores(score, part)[1] for part in ({"F1_ign": score} | dict(metrics), metrics))
    return kept, {name: round(value, 2) for name, value in printed.items()}, [], []


def _not_below_zero(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """Score a model that predicts nothing with 0: at the script's own -100 it would keep no checkpoint."""

    def evaluated(*args: Any, **kwargs: Any) -> Any:
        scores, *rest = evaluate(*args, **kwargs)
        return {name: max(value, 0.0) for name, value in scores.items()}, *rest

    return evaluated


def _with_lists(to_official: Callable[..., Any]) -> Callable[..., Any]:
    """Pass lists of rows in place of arrays, which the script compares to ``[]``: NumPy 1.25 and later refuse that."""

    def converted(preds: Any, features: Any, **arrays: Any) -> Any:
        return to_official(preds, features, **{name: list(rows) for name, rows in arrays.items()})

    return converted


def _inputs(args: Namespace, train_file: Path) -> dict[str, Path]:
    if not args.teacher_sig_path:
        return {}
    return {"teacher_attentions": Path(args.teacher_sig_path) / f"{train_file.stem}.attns"}


def _explain(files: Mapping[str, Path], documents: Sequence[Mapping[str, Any]]) -> list[str]:
    return [problem for path in files.values() for problem in teacher_problems(path, documents)]


def _loss(args: Namespace, output: Mapping[str, Any]) -> dict[str, Any]:
    """Return the loss of relations and, where there are such, those of evidence and attention with their weights."""
    found = output["loss"]
    terms = {"pairs": found["rel_loss"]}
    if "evi_loss" in found:
        terms["positive"] = args.evi_lambda * found["evi_loss"]
    if "attn_loss" in found:
        terms["pairs"] = terms["pairs"] + args.attn_lambda * found["attn_loss"]
    return terms


def _feed(inputs: dict[str, Any]) -> dict[str, Any]:
    """Leave gold evidence out where there is a teacher's."""
    return inputs if inputs["teacher_attns"] is None else inputs | {"sent_labels": None}


SCRIPT = Script(
    file="run.py",
    patch="dreeam.patch",
    # git blob of each version that was tried -> the commit that has it
    versions={"704506a342ce9d79671c1d026d76addf83ac33b1": "476a700 (Update run_finetune_roberta.sh)"},
    options=OPTIONS
    | {"--attn_lambda", "--display_name", "--do_train", "--eval_mode", "--evi_lambda", "--evi_thresh", "--lr_added"}
    | {"--lr_transformer", "--max_sent_num", "--num_labels", "--pred_file", "--save_attn", "--teacher_sig_path"},
    attributes=ATTRIBUTES
    | {"evi_thresh", "loss_fnt", "loss_fnt_evi", "max_sent_num", "model", "num_labels", "tokenizer", "total_labels"},
    checkpoint="{folder}/best.ckpt",
    save_path="{folder}",
    scores=_scores,
    recipe=lambda args: Recipe.of(args, learning_rate=args.lr_transformer, new_layer_lr=args.lr_added),
    loss=_loss,
    feed=_feed,
    selects="F1_ign",
    required=("pandas",),
    silent=("dump_to_file", "create_directory"),
    leftovers=("last.ckpt",),
    fixes={"evaluate": _not_below_zero, "to_official": _with_lists},
    trains="do_train",
    predicts={"do_train": False, "eval_mode": "single", "load_path": ""},
    fuses=lambda args: args.eval_mode == "fushion",
    load_path_starts=True,
    places=frozenset({"do_train", "eval_mode", "save_attn", "teacher_sig_path"}),
    refused={"save_attn": "store the teacher's attentions without --seg: --load_path SEG_DIR/base --save_attn"},
    inputs=_inputs,
    reading={"transformer_type": str, "max_seq_length": int},
    train_only=("teacher_sig_path",),
    explain=_explain,
    max_sentences="max_sent_num",
)

"""The reference model's train script, in the shape of the backbones' own, so that ``--seg`` drives it like theirs.

:func:`segdre_plugin.seg.launch.run_reference` runs it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch.optim import AdamW

from segdre_plugin.backbones.clones.compat import AutoConfig, AutoModel, AutoTokenizer
from segdre_plugin.backbones.clones.stand_ins import progress_loader
from segdre_plugin.backbones.reference.features import build_features, collate_fn
from segdre_plugin.backbones.reference.model import ReferenceModel as DocREModel
from segdre_plugin.backbones.reference.tokenizer import build_encoder, build_tokenizer, prepare_config
from segdre_plugin.backbones.trainer import Recipe, set_seed
from segdre_plugin.backbones.trainer import train as run
from segdre_plugin.data.documents import load_documents
from segdre_plugin.data.files import read_json
from segdre_plugin.metrics import evaluate as official_scores

DataLoader = progress_loader("documents")

# Looked up when main() runs, so that --seg can swap them, as it does in the backbones' scripts.
__all__ = ["AdamW", "DataLoader", "DocREModel", "collate_fn", "evaluate", "main", "read_docred", "train"]


def read_docred(path: str, tokenizer: Any, rel2id: dict[str, int], max_seq_length: int = 1024) -> list[dict[str, Any]]:
    """Read a file of documents and make their features."""
    documents = load_documents(Path(path), rel2id)
    return [build_features(document, tokenizer, rel2id, max_seq_length=max_seq_length) for document in documents]


def train(args: argparse.Namespace, model: Any, train_features: Any, dev_features: Any, test_features: Any) -> None:
    """Train by :mod:`segdre_plugin.backbones.trainer`, and keep the best checkpoint at ``args.save_path``.

    A smaller last batch is dropped. The model is on ``args.device``; ``test_features`` are not read; the backbones'
    scripts predict them here.
    """
    recipe = Recipe.of(args, new_layer_lr=args.new_layer_lr)
    loader = DataLoader(
        train_features, batch_size=args.train_batch_size, shuffle=True, drop_last=True, collate_fn=collate_fn
    )

    def loss(batch: Any) -> list[tuple[torch.Tensor, int]]:
        ids, mask, labels, entity_pos, hts = batch
        output = model(ids.to(args.device), mask.to(args.device), labels, entity_pos, hts)
        return [(output[0], sum(map(len, hts)))]

    def look(_: int) -> float:
        score, scores = evaluate(args, model, dev_features, tag="dev")
        print(", ".join(f"{name} {value:.2f}" for name, value in scores.items()), flush=True)
        return score

    def keep() -> None:
        if args.save_path:
            torch.save(model.state_dict(), args.save_path)

    run(model, loader, recipe, loss=loss, evaluate=look, keep=keep, adamw=AdamW)


def evaluate(args: argparse.Namespace, model: Any, features: Any, tag: str = "dev") -> tuple[float, dict[str, float]]:
    """Score dev with the official metrics."""
    documents = load_documents(Path(args.data_dir) / args.dev_file)
    relations = {i: name for name, i in _relations(args).items()}
    pairs = [(feature["title"], h, t) for feature in features for h, t in feature["hts"]]
    predicted = []
    model.eval()
    with torch.no_grad():
        for ids, mask, _, entity_pos, hts in DataLoader(features, args.test_batch_size, collate_fn=collate_fn):
            predicted += model(ids.to(args.device), mask.to(args.device), None, entity_pos, hts)
    found = []
    for row, relation in torch.cat(predicted)[:, 1:].nonzero().tolist():
        title, h, t = pairs[row]
        found.append({"title": title, "h_idx": h, "t_idx": t, "r": relations[relation + 1]})
    scores = official_scores(found, documents, load_documents(Path(args.data_dir) / args.train_file))
    return scores["f1"], {f"{tag}_F1": 100 * scores["f1"], f"{tag}_F1_ign": 100 * scores["ign_f1"]}


def main() -> None:
    """Parse arguments, read the data, build the model and train it."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--data_dir", required=True)
    add("--train_file", default="train_annotated.json")
    add("--dev_file", default="dev.json")
    add("--test_file", default="test.json")
    add("--save_path", default="")
    add("--load_path", default="", help="with --seg: take the base from this checkpoint")
    add("--model_name_or_path", default="", help="an encoder; without it, a tiny one is trained from scratch")
    add("--transformer_type", default="bert", choices=("bert", "roberta"))
    add("--max_seq_length", type=int, default=1024)
    add("--emb_size", type=int, default=128)
    add("--block_size", type=int, default=16)
    add("--num_class", type=int, default=97)
    add("--num_labels", type=int, default=4)
    add("--train_batch_size", type=int, default=2)
    add("--gradient_accumulation_steps", type=int, default=1)
    add("--test_batch_size", type=int, default=16)
    add("--num_train_epochs", type=float, default=5)
    add("--learning_rate", type=float, default=1e-3)
    add("--new_layer_lr", type=float, default=2e-3)
    add("--warmup_ratio", type=float, default=0.06)
    add("--max_grad_norm", type=float, default=1.0)
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    args.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    set_seed(args.seed)
    # data
    rel2id = _relations(args)
    files = [str(Path(args.data_dir) / name) for name in (args.train_file, args.dev_file, args.test_file)]
    # encoder: a pretrained one, or a tiny one with a tokenizer made from the training documents
    if args.model_name_or_path:
        tokenizer = AutoTokenizer.from_pretrained(args.model_name_or_path)
        config = AutoConfig.from_pretrained(args.model_name_or_path)
        encoder = AutoModel.from_pretrained(args.model_name_or_path, config=config)
    else:
        names = read_json(Path(args.data_dir) / "rel_info.json", "relation names")
        tokenizer = build_tokenizer(load_documents(Path(files[0]), rel2id), list(names.values()))
        encoder = build_encoder(len(tokenizer))
        config = encoder.config
    # features, model, training
    prepare_config(config, tokenizer, args.num_class, args.transformer_type)
    features = [read_docred(path, tokenizer, rel2id=rel2id, max_seq_length=args.max_seq_length) for path in files]
    model = DocREModel(config, encoder, args.emb_size, args.block_size, num_labels=args.num_labels)
    model.to(args.device)
    train(args, model, *features)


def _relations(args: argparse.Namespace) -> dict[str, int]:
    relations: dict[str, int] = read_json(Path(args.data_dir) / "rel2id.json", "relations")
    return relations

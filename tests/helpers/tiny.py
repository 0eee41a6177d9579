"""Tiny models and documents with random weights and tokens: two layers, width 32, BERT- and RoBERTa-shaped."""

import copy
import random
from dataclasses import replace

import torch
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from segdre_plugin import SegConfig, unwrap_model, wrap_model
from segdre_plugin.adapters import BACKBONES
from segdre_plugin.backbones.features import add_branches
from segdre_plugin.backbones.reference import ReferenceModel

torch.set_num_threads(1)  # threads only get into each other's way on matrices as small as these

KINDS = ("bert", "roberta")
ATLOP = BACKBONES["atlop"]
VOCABULARY = 120
DOCUMENT_IDS = range(5, 90)  # special tokens lie below
BRANCH_IDS = range(90, VOCABULARY)  # no document has these
CLASSES = 6

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.25,  # attention far from flat, so that a wrong mask shows
    "attn_implementation": "eager",
}
SPECIAL = {"bert": {"cls": 2, "sep": 3, "pad": 0}, "roberta": {"cls": 0, "sep": 2, "pad": 1}}
OFFSET = {"bert": 0, "roberta": 2}  # the first position id


def encoder(kind="bert", *, seed=0, positions=512, vocabulary=VOCABULARY, **shape):
    torch.manual_seed(seed)
    special = SPECIAL[kind]
    config_class, model_class = {"bert": (BertConfig, BertModel), "roberta": (RobertaConfig, RobertaModel)}[kind]
    config = config_class(
        vocab_size=vocabulary,
        max_position_embeddings=positions + OFFSET[kind],
        pad_token_id=special["pad"],
        type_vocab_size=2 if kind == "bert" else 1,
        **(SHAPE | shape),
    )
    return model_class(config).eval()


def configure(config, kind="bert", classes=CLASSES):
    """Set what the backbones' main() sets on the configuration."""
    config.num_labels, config.transformer_type = classes, kind
    config.cls_token_id, config.sep_token_id = SPECIAL[kind]["cls"], SPECIAL[kind]["sep"]
    return config


def model(kind="bert", *, cls=ReferenceModel, **shape):
    made = encoder(kind, **shape)
    return cls(configure(made.config, kind), made, emb_size=16, block_size=4, num_labels=4).eval()


def feature(n_tokens, *, kind="bert", mentions=None, seed=0, n_entities=4):
    """Make a feature of random tokens.

    ``mentions``: the mention spans of each entity, without the start token; None scatters two for each entity.
    """
    rng = random.Random(f"{n_tokens} {seed}")
    special = SPECIAL[kind]
    ids = [special["cls"], *(rng.choice(DOCUMENT_IDS) for _ in range(n_tokens - 2)), special["sep"]]
    if mentions is None:
        starts = rng.sample(range(0, n_tokens - 5, 3), 2 * n_entities)
        spans = [(start, start + 3) for start in starts]
        mentions = [sorted(spans[2 * e : 2 * e + 2]) for e in range(n_entities)]
    pairs = [[h, t] for h in range(len(mentions)) for t in range(len(mentions)) if h != t]
    labels = [[0] * CLASSES for _ in pairs]
    for row in labels:
        row[rng.randrange(CLASSES)] = 1
    return {"input_ids": ids, "entity_pos": mentions, "hts": pairs, "labels": labels, "title": f"random {seed}"}


def branches(n, *, seed=0, longest=4, n_entities=4):
    """Make ``n`` branches: random tokens, and the entity that each names."""
    rng = random.Random(f"{n} {seed}")
    return [
        ([rng.choice(BRANCH_IDS) for _ in range(rng.randint(1, longest))], rng.randrange(1, n_entities))
        for _ in range(n)
    ]


def injected(one, texts, *, kind="bert", salient=0, owners=None, backbone=ATLOP, link=False):
    return add_branches(
        one,
        salient,
        texts,
        owners,
        backbone=backbone,
        transformer_type=kind,
        max_positions=512,
        position_offset=OFFSET[kind],
        link=link,
    )


def logits(model, batch):
    """Return the classifier's output for a collated batch, labels left out."""
    seen = []
    handle = getattr(model, ATLOP.classifier).register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        model(**ATLOP.inputs(batch, "cpu"))
    finally:
        handle.remove()
    return torch.cat(seen)


def another(backbone=ATLOP, **changes):
    return replace(backbone, **changes)


def twin(model):
    return copy.deepcopy(model)


def two_windows(model, features):
    """Make the first of some features as long as two windows; the model gets the tokenizer's special tokens."""
    ids = features[0]["input_ids"]
    model.config.cls_token_id, model.config.sep_token_id = ids[0], ids[-1]
    return [features[0] | {"input_ids": [*(ids[:-1] * 8)[:699], ids[-1]]}, *features[1:]]


def compared(model, stage, run, *ways):
    """Return what ``run(model)`` gives for each of some arguments of ``wrap_model``."""
    found = []
    for how in ways:
        torch.manual_seed(1)  # of the count head
        wrap_model(model, stage=stage, config=SegConfig(hidden=8), **how)
        model.zero_grad()
        found.append(run(model))
        unwrap_model(model)
    return found


def plain_and_fast(model, stage, run):
    """Return what ``run(model)`` gives on the plain and on the fast path of a stage."""

    def on_its_path(model):
        paths.append("get_hrt" in vars(model))
        return run(model)

    paths = []
    found = compared(model, stage, on_its_path, {"fast": False}, {"fast": True})
    assert paths == [False, True]
    return found


def plain_and_checkpointed(model, stage, run, **how):
    """Return what ``run(model)`` gives in training without and with gradient checkpointing, with the same dropout."""

    def trains(model):
        torch.manual_seed(7)
        return run(model.train())

    return compared(model, stage, trains, how, how | {"checkpointing": True})

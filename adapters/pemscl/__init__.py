"""PEMSCL (https://github.com/guojiapub/PEMSCL): descriptions of its model, its batches and its train script."""

import logging
from collections.abc import MutableMapping
from typing import Any

import torch

from segdre_plugin.backbones.backbone import Backbone, Pooling
from segdre_plugin.backbones.clones.stand_ins import swapped
from segdre_plugin.backbones.script import ATTRIBUTES, OPTIONS, Names, Script, dev_scores

BACKBONE = Backbone(
    name="pemscl",
    repository="https://github.com/guojiapub/PEMSCL",
    batch=("input_ids", "attention_mask", "labels", "entity_pos", "hts", "titles"),
    ignored=frozenset({"titles"}),
    not_for_prediction=frozenset({"labels"}),
    pooling=Pooling(epsilon=1e-5),
)


def install(names: MutableMapping[str, Any]) -> None:
    """Pass ``train``, which builds the model itself, one that is already built."""
    if "train" not in names:  # in prediction
        return
    original, create, set_seed = names["train"], names["create_model"], names["set_seed"]

    def train_model(args: Any, model: Any, train: Any, dev: Any, test: Any, *, logger: Any, config: Any) -> Any:
        with swapped(names, {"create_model": lambda *_: model}):
            return original(args, logger, config, train, dev, test)

    def train(args: Any, logger: Any, config: Any, *features: Any) -> Any:
        set_seed(args)
        return names["train_model"](args, create(args, config), *features, logger=logger, config=config)

    names["train_model"], names["train"] = train_model, train


class _Logging:
    """``logging`` with a logger for each call and no file: a stage is one of several in a process."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def getLogger(self) -> logging.Logger:  # noqa: N802 - logging's name
        return logging.Logger("segdre")

    def FileHandler(self, *_: Any, **__: Any) -> logging.Handler:  # noqa: N802 - logging's name
        return logging.NullHandler()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)


SCRIPT = Script(
    file="codes/train.py",
    patch="",
    versions={"203118ed6e99b64b0037e0eb247adb39a4092be2": "fffe504 (Update README.md)"},
    options=OPTIONS
    | {"--gpu", "--lambda_1", "--lambda_2", "--lambda_3", "--learning_rate"}
    | {"--num_labels", "--output_dir", "--sample_ratio", "--tau", "--tau_base"},
    attributes=ATTRIBUTES | {"SCL_loss", "lambda_3", "loss_fnt", "model", "num_labels"},
    checkpoint="{folder}/checkpoint.pt",
    save_path="{folder}/checkpoint.pt",
    scores=lambda score, metrics: (*dev_scores(score, metrics), torch.zeros(())),
    names=Names(train="train_model"),
    install=install,
    rel2id="../meta/rel2id.json",
    stand_ins={"logging": _Logging},
    places=frozenset({"gpu", "output_dir"}),
    args={"lambda_1": float, "lambda_2": float, "lambda_3": float, "tau": float, "tau_base": float, "seed": int},
)

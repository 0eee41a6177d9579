"""Checkpoints of a run: weights into a model, and what is kept to build a model without the encoder's folder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.data.files import read_json, read_weights, write_json
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.stages.artifacts import EACH, check_form

ARRAYS = (np.ndarray, Tensor)
ENCODER = "encoder"  # the encoder's configuration and the tokenizer, as transformers saves them
MODEL = "model.json"  # how the model is constructed and how features are read
VALUES = {EACH: (bool, int, float, str)}
MODEL_FORM = {"repository": str, "arguments": VALUES, "arrays": {EACH: [(int, float)]}, "args": VALUES, "reading": dict}


PREFIXES = ("module.", "_orig_mod.")  # of names, by DataParallel and torch.compile
GONE = "embeddings.position_ids"  # a constant that transformers wrote into checkpoints before 4.31


def save_checkpoint(model: nn.Module, path: Path, key: str | None = None) -> None:
    """Write a model's weights as its script does: as a state dict, or one under a key."""
    state = model.state_dict()
    torch.save(state if key is None else {key: state}, path)


def load_all(model: nn.Module, path: Path, key: str | None = None) -> None:
    """Load a checkpoint into a model, one of DataParallel, torch.compile or an old transformers too.

    ``key`` is that of the state dict in the checkpoint; None: the checkpoint is one.

    Raises:
        SegDREError: if it is missing, broken, or of another model.
    """
    model.load_state_dict(_fitting(path, key, model.state_dict()))


def load_shared(model: nn.Module, path: Path, heads: Sequence[str], key: str | None = None) -> None:
    """Load the base's checkpoint into another model, all but ``heads``, which both, or one of them, may have.

    For identify that is its count head (section 3.3).

    Raises:
        SegDREError: if it is missing, broken, or of another model.
    """
    own = tuple(f"{head}." for head in heads)
    shared = {name: weight for name, weight in model.state_dict().items() if not name.startswith(own)}
    weights = _fitting(path, key, shared, lambda name: name.startswith(own))
    model.load_state_dict(weights, strict=False)


def _fitting(
    path: Path, key: str | None, expected: Mapping[str, Tensor], left_out: Callable[[str], bool] = lambda name: False
) -> dict[str, Tensor]:
    """Return the weights of a checkpoint under the names that a model ``expected``, those that are ``left_out`` not.

    Raises:
        SegDREError: if it is missing or broken, or listing the names and shapes that differ.
    """
    weights = read_weights(path, "checkpoint", key)
    for prefix in PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    weights = {
        name: weight
        for name, weight in weights.items()
        if not left_out(name) and (name in expected or not name.endswith(GONE))
    }
    there, here = ({name: list(w.shape) for name, w in found.items()} for found in (weights, expected))
    problems = [
        f"{name}: {there.get(name, 'missing')} in the checkpoint, {here.get(name, 'missing')} in the model"
        for name in here | there
        if there.get(name) != here.get(name)
    ]
    raise_all(
        problems,
        f"{path} does not fit the model; {len(problems)} of {len(here | there)} weights differ",
        "use the encoder, the --num_class (the classifier's first number) and the clone that it was trained with",
        limit=5,
    )
    return weights


def keep_model(
    folder: Path,
    model: Any,
    tokenizer: Any,
    backbone: Backbone,
    reading: Mapping[str, Any],
    args: Mapping[str, Any] | None = None,
) -> None:
    """Write what is needed to build a model again but its weights.

    ``reading`` are more arguments of the reader, ``args`` those of the script that the model or the reader looks up.
    """
    model.config.save_pretrained(folder / ENCODER)  # not the encoder's, which may be a copy without the backbone's
    tokenizer.save_pretrained(folder / ENCODER)
    given = _arguments(model)
    arrays = {name: np.asarray(value).tolist() for name, value in given.items() if isinstance(value, ARRAYS)}
    content = {"repository": backbone.repository, "arguments": {k: v for k, v in given.items() if k not in arrays}}
    write_json(folder / MODEL, content | {"arrays": arrays, "args": dict(args or {}), "reading": dict(reading)})


def read_model(folder: Path) -> dict[str, Any]:
    """Return what :func:`keep_model` wrote: repository, arguments and arrays (of the constructor), args, reading.

    Raises:
        SegDREError: if it is missing.
    """
    if not (folder / MODEL).is_file() or not (folder / ENCODER).is_dir():
        raise SegDREError(
            f"{folder / MODEL} or {ENCODER}/ not found, without which the model cannot be built again",
            "remove that stage's folder and run it again",
        )
    found: dict[str, Any] = read_json(folder / MODEL, "model of the run")
    check_form(folder / MODEL, found, MODEL_FORM)
    return found


def _arguments(model: Any) -> dict[str, Any]:
    """Return the numbers, texts and arrays [n] that a model was constructed with; all keep them by their names."""
    classes = [cls for cls in type(model).__mro__ if issubclass(cls, nn.Module) and cls is not nn.Module]
    names = dict.fromkeys(name for cls in classes for name in inspect.signature(cls.__init__).parameters)
    values = {name: vars(model).get(name) for name in names}
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, (bool, int, float, str)) or (isinstance(value, ARRAYS) and value.ndim == 1)
    }

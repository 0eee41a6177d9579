"""Checkpoints of a run: weights into a model, and what is kept to build a model without the encoder's folder."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.data.files import read_json, read_weights, write_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.artifacts import EACH, check_form

ENCODER = "encoder"  # the encoder's configuration and the tokenizer, as transformers saves them
MODEL = "model.json"  # how the model is constructed and how features are read
MODEL_FORM = {"repository": str, "arguments": {EACH: (bool, int, float, str)}, "reading": dict}


def load_all(model: nn.Module, path: Path) -> None:
    """Load a checkpoint into a model.

    Raises:
        SegDREError: if it is missing, broken, or of another model.
    """
    weights = read_weights(path, "checkpoint")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise SegDREError(f"{path} does not fit the model: {error}", "use the encoder it was made with") from None


def load_shared(model: nn.Module, path: Path, classifier: str) -> None:
    """Load the base's checkpoint into identify's model, all but its count head, the ``classifier`` (section 3.3).

    Raises:
        SegDREError: if it is missing, broken, or of another model.
    """
    shared = {k: v for k, v in read_weights(path, "base").items() if not k.startswith(f"{classifier}.")}
    missing, unexpected = model.load_state_dict(shared, strict=False)
    strange = [name for name in missing if not name.startswith(f"{classifier}.")] + list(unexpected)
    if strange:
        raise SegDREError(f"{path} does not fit the model: {', '.join(strange[:5])}", "train the base stage again")


def keep_model(folder: Path, model: Any, tokenizer: Any, backbone: Backbone, reading: Mapping[str, Any]) -> None:
    """Write what is needed to build a model again but its weights; ``reading`` are more arguments of the reader."""
    model.config.save_pretrained(folder / ENCODER)  # not the encoder's, which may be a copy without the backbone's
    tokenizer.save_pretrained(folder / ENCODER)
    content = {"repository": backbone.repository, "arguments": _arguments(model), "reading": dict(reading)}
    write_json(folder / MODEL, content)


def read_model(folder: Path) -> dict[str, Any]:
    """Return what :func:`keep_model` wrote: repository, arguments (of the model's constructor) and reading.

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
    """Return the numbers and texts that a model was constructed with; all backbones keep them under the same names."""
    classes = [cls for cls in type(model).__mro__ if issubclass(cls, nn.Module) and cls is not nn.Module]
    names = dict.fromkeys(name for cls in classes for name in inspect.signature(cls.__init__).parameters)
    values = {name: vars(model).get(name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}

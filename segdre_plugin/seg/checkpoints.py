"""What a run keeps beside the base's checkpoint, so that its models can be built again without the encoder's folder."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.clones.patching import blob_hash
from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.errors import SegDREError

ENCODER = "encoder"  # the encoder's configuration and the tokenizer, as transformers saves them
MODEL = "model.json"  # how the model is constructed, how features are read, and by which modules of the clone


def keep_model(
    folder: Path, model: Any, tokenizer: Any, backbone: Backbone, reading: Mapping[str, Any], script: str | None
) -> None:
    """Write what is needed to build a model again, its weights excepted: less than a megabyte for BERT.

    Args:
        folder: a stage's folder.
        model: the backbone's model.
        tokenizer: the encoder's.
        backbone: what the model looks like.
        reading: arguments of the backbone's reader besides the file and the tokenizer.
        script: the train script's file; the modules beside it are noted, to recognise the clone later.
    """
    model.config.save_pretrained(folder / ENCODER)  # not the encoder's, which may be a copy without the backbone's
    tokenizer.save_pretrained(folder / ENCODER)
    write_json(
        folder / MODEL,
        {
            "repository": backbone.repository,
            "arguments": _arguments(model),
            "reading": dict(reading),
            "modules": _modules(script) if script else {},
        },
    )


def read_model(folder: Path) -> dict[str, Any]:
    """Read what :func:`keep_model` wrote.

    Args:
        folder: the stage's folder.

    Returns:
        repository, arguments (of the model's constructor), reading and modules.

    Raises:
        SegDREError: if it is not there: the run is older than this function, or no run.
    """
    if not (folder / MODEL).is_file() or not (folder / ENCODER).is_dir():
        raise SegDREError(
            f"{folder}: no {MODEL} and {ENCODER}/, without which the model cannot be built again",
            "train the run again with this version (finished stages of older versions do not have them)",
        )
    found: dict[str, Any] = read_json(folder / MODEL, "model of the run")
    return found


def _arguments(model: Any) -> dict[str, Any]:
    """Return the numbers and texts that a model was constructed with; all backbones keep them under the same names."""
    classes = [cls for cls in type(model).__mro__ if issubclass(cls, nn.Module) and cls is not nn.Module]
    names = dict.fromkeys(name for cls in classes for name in inspect.signature(cls.__init__).parameters)
    values = {name: vars(model).get(name) for name in names}
    return {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}


def _modules(script: str) -> dict[str, str]:
    """Hash the imported modules that lie beside a script, as git does."""
    path = Path(script).resolve()
    files = {Path(file).resolve() for module in list(sys.modules.values()) if (file := _file(module))}
    beside = sorted(file for file in files if file.parent == path.parent and file != path and file.is_file())
    return {file.name: blob_hash(file.read_bytes()) for file in beside}


def _file(module: Any) -> str | None:
    file = vars(module).get("__file__") if hasattr(module, "__dict__") else None
    return file if isinstance(file, str) and file.endswith(".py") else None

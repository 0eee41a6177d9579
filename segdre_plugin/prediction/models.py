"""Models from a bundle: the encoder from its configuration, the backbone's model around it, wrapped for its stage."""

from __future__ import annotations

import inspect
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE
from transformers.utils import CONFIG_NAME

from segdre_plugin.backbones.clones.compat import AutoTokenizer
from segdre_plugin.backbones.losses import UPSTREAM
from segdre_plugin.data.files import read_json
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.prediction.clone_code import BackboneCode
from segdre_plugin.seg.bundle import AGAIN, DESCRIPTION, Description, State
from segdre_plugin.stages.artifacts import check_form
from segdre_plugin.stages.wrap import wrap_model

UNSUPPORTED = "make the bundle again; encoders with code of their own are not supported"
LOCAL = {"local_files_only": True, "trust_remote_code": False}  # nothing is downloaded, no code is run from the folder


def load_encoder(folder: Path) -> tuple[Any, Any]:
    """Return the encoder's configuration and the tokenizer; no weights, which are in the stages'.

    Raises:
        SegDREError: if it is damaged, wants code of its own or files elsewhere, or is not an encoder of text.
    """
    _check_encoder(folder)
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), **LOCAL)
        tokenizer.tokenize("a")  # whether its settings are of the right types
        return config, tokenizer
    except Exception as error:  # transformers raises all sorts of types for a damaged folder
        raise SegDREError(
            f"{folder}: cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            UNSUPPORTED,
        ) from error


def _check_encoder(folder: Path) -> None:
    """Refuse what would lead transformers out of a stranger's folder: to code, to other files, to a model hub."""
    for name in (CONFIG_NAME, TOKENIZER_CONFIG_FILE):
        path = folder / name
        found = read_json(path, "encoder")
        check_form(path, found, dict, hint=AGAIN)
        outside = [key for key in _keys(found) if key == "auto_map" or key.endswith(("_file", "_files"))]
        raise_all(outside, f"{path}: code, or files outside the bundle", UNSUPPORTED)
        kind = found.get("model_type")
        if name == CONFIG_NAME and not (isinstance(kind, str) and kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES):
            raise SegDREError(f"{path}: model_type: {kind!r:.80} is not an encoder of text", UNSUPPORTED)


def _keys(value: Any) -> Iterator[str]:
    """Yield the keys of nested JSON."""
    left = [value]
    while left:
        inner = left.pop()
        if isinstance(inner, dict):
            yield from inner
        left += inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()


def build_model(
    code: BackboneCode, config: Any, tokenizer: Any, description: Description, stage: str, state: State
) -> Any:
    """Return a stage's wrapped model, its weights still to be loaded; they say whether the encoder has a pooler."""
    prefix = f"{code.backbone.encoder}.pooler."
    pooler = {} if any(name.startswith(prefix) for name in state) else {"add_pooling_layer": False}
    with torch.random.fork_rng(devices=[]):  # it draws weights that are replaced at once
        encoder = transformers.AutoModel.from_config(config, attn_implementation="eager", **pooler)
        own = (weight for name, weight in state.items() if name.startswith(f"{code.backbone.encoder}."))
        # not the type in which the encoder had been saved before it was trained
        encoder.to(next((weight.dtype for weight in own if weight.is_floating_point()), torch.float32))
        arrays = {name: np.asarray(values) for name, values in description.arrays.items()}
        parts = {"config": config, "model": encoder, "tokenizer": tokenizer}
        parts["args"] = Namespace(n_gpu=0, **description.args)  # main() counts the GPUs
        given = description.arguments | arrays | parts
        names = inspect.signature(code.model.__init__).parameters
        # the types of the defaults; inspect has a class where there is none
        forms = {name: (int, float) if isinstance(p.default, float) else type(p.default) for name, p in names.items()}
        known = {k: v for k, v in forms.items() if k in description.arguments and v not in (type, type(None))}
        check_form(Path(DESCRIPTION), description.arguments, known, "arguments", AGAIN)
        model = code.model(**{name: value for name, value in given.items() if name in names})
        settings = replace(description.config, loss=UPSTREAM)  # one of the user's own need not be registered here
        return wrap_model(model, stage=stage, adapter=code.backbone, config=settings)

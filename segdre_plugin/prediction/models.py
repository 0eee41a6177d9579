"""Models from a bundle: the encoder from its configuration, the backbone's model around it, wrapped for its stage."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig

from segdre_plugin.backbones.clones.compat import AutoTokenizer
from segdre_plugin.backbones.losses import UPSTREAM
from segdre_plugin.errors import SegDREError
from segdre_plugin.prediction.clone_code import BackboneCode
from segdre_plugin.seg.bundle import Description, State
from segdre_plugin.stages.wrap import wrap_model

LOCAL = {"local_files_only": True, "trust_remote_code": False}  # nothing is downloaded, no code is run from the folder


def load_encoder(folder: Path) -> tuple[Any, Any]:
    """Return the encoder's configuration and the tokenizer; no weights, which are in the stages'.

    Raises:
        SegDREError: if it is damaged, or wants code of its own.
    """
    try:
        config = AutoConfig.from_pretrained(folder, **LOCAL)
        return config, AutoTokenizer.from_pretrained(str(folder), **LOCAL)
    except Exception as error:  # transformers raises all sorts of types for a damaged folder
        raise SegDREError(
            f"{folder}: cannot be loaded: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            "make the bundle again; encoders with code of their own are not supported",
        ) from error


def build_model(
    code: BackboneCode, config: Any, tokenizer: Any, description: Description, stage: str, state: State
) -> Any:
    """Return a stage's wrapped model, its weights still to be loaded; they say whether the encoder has a pooler."""
    prefix = f"{code.backbone.encoder}.pooler."
    pooler = {} if any(name.startswith(prefix) for name in state) else {"add_pooling_layer": False}
    with torch.random.fork_rng(devices=[]):  # it draws weights that are replaced at once
        encoder = transformers.AutoModel.from_config(config, attn_implementation="eager", **pooler)
        given = {"config": config, "model": encoder, "tokenizer": tokenizer} | description.arguments
        names = inspect.signature(code.model.__init__).parameters
        model = code.model(**{name: value for name, value in given.items() if name in names})
        settings = replace(description.config, loss=UPSTREAM)  # one of the user's own need not be registered here
        return wrap_model(model, stage=stage, adapter=code.backbone, config=settings)

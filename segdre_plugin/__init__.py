"""SegDRE as a plugin for document-level relation extraction backbones.

Public names are imported when they are first used (PEP 562), so that ``segdre --help`` and the numpy modules
(:mod:`segdre_plugin.fusion`, :mod:`segdre_plugin.injection`, :mod:`segdre_plugin.metrics`) load neither torch nor
transformers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdre_plugin.backbones.backbone import Backbone
    from segdre_plugin.backbones.clones.compat import AutoModel, AutoTokenizer
    from segdre_plugin.errors import SegDREError
    from segdre_plugin.prediction.pipeline import SegPipeline
    from segdre_plugin.salient import gold_salient
    from segdre_plugin.seg import launch
    from segdre_plugin.stages.branches import Verbaliser, gold_dense_triples
    from segdre_plugin.stages.config import SegConfig
    from segdre_plugin.stages.prepare import StageFeatures, prepare_features
    from segdre_plugin.stages.wrap import unwrap_model, wrap_collate, wrap_model

__version__ = "0.1.0"

_MODULES = {
    "AutoModel": "backbones.clones.compat",  # transformers' own, with what the clones expect of old versions
    "AutoTokenizer": "backbones.clones.compat",
    "Backbone": "backbones.backbone",
    "StageFeatures": "stages.prepare",
    "SegConfig": "stages.config",
    "SegDREError": "errors",
    "SegPipeline": "prediction.pipeline",
    "Verbaliser": "stages.branches",
    "gold_dense_triples": "stages.branches",
    "gold_salient": "salient",
    "launch": "seg",  # what a patched train script calls
    "prepare_features": "stages.prepare",
    "unwrap_model": "stages.wrap",
    "wrap_collate": "stages.wrap",
    "wrap_model": "stages.wrap",
}

__all__ = [
    "AutoModel",
    "AutoTokenizer",
    "Backbone",
    "SegConfig",
    "SegDREError",
    "SegPipeline",
    "StageFeatures",
    "Verbaliser",
    "gold_dense_triples",
    "gold_salient",
    "launch",
    "prepare_features",
    "unwrap_model",
    "wrap_collate",
    "wrap_model",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use.

    Args:
        name: the name.

    Returns:
        What it names.

    Raises:
        AttributeError: if there is no such name.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "launch":
        return importlib.import_module(f"{__name__}.seg.launch")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})

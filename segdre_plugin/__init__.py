"""SegDRE as a plugin for document-level relation extraction backbones.

Public names are imported when they are first used (PEP 562), so that ``segdre --help`` and the numpy modules
(:mod:`segdre_plugin.fusion`, :mod:`segdre_plugin.injection`, :mod:`segdre_plugin.metrics`) load neither torch nor
transformers.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segdre_plugin.backbones.backbone import Backbone as Backbone
    from segdre_plugin.backbones.clones.compat import AutoModel as AutoModel
    from segdre_plugin.backbones.clones.compat import AutoTokenizer as AutoTokenizer
    from segdre_plugin.backbones.clones.compat import on_host as on_host
    from segdre_plugin.backbones.inputs import encoder_inputs as encoder_inputs
    from segdre_plugin.errors import SegDREError as SegDREError
    from segdre_plugin.fusion import search_thresholds as search_thresholds
    from segdre_plugin.injection import inject as inject
    from segdre_plugin.prediction.pipeline import SegPipeline as SegPipeline
    from segdre_plugin.salient import gold_salient as gold_salient
    from segdre_plugin.seg import launch as launch
    from segdre_plugin.stages.branches import Verbaliser as Verbaliser
    from segdre_plugin.stages.branches import gold_dense_triples as gold_dense_triples
    from segdre_plugin.stages.config import SegConfig as SegConfig
    from segdre_plugin.stages.prepare import StageFeatures as StageFeatures
    from segdre_plugin.stages.prepare import prepare_features as prepare_features
    from segdre_plugin.stages.wrap import unwrap_model as unwrap_model
    from segdre_plugin.stages.wrap import wrap_collate as wrap_collate
    from segdre_plugin.stages.wrap import wrap_model as wrap_model
    from segdre_plugin.zip_head import CountHead as CountHead
    from segdre_plugin.zip_head import CountLoss as CountLoss

__version__ = "0.1.0"

_MODULES = {
    "AutoModel": "backbones.clones.compat",  # transformers' own, with what the clones expect of old versions
    "AutoTokenizer": "backbones.clones.compat",
    "Backbone": "backbones.backbone",
    "CountHead": "zip_head",
    "CountLoss": "zip_head",
    "StageFeatures": "stages.prepare",
    "SegConfig": "stages.config",
    "SegDREError": "errors",
    "SegPipeline": "prediction.pipeline",
    "Verbaliser": "stages.branches",
    "encoder_inputs": "backbones.inputs",
    "gold_dense_triples": "stages.branches",
    "gold_salient": "salient",
    "inject": "injection",
    "launch": "seg",  # what a patched train script calls
    "on_host": "backbones.clones.compat",  # .cuda() and .to(0) mean the CPU where there is no GPU
    "prepare_features": "stages.prepare",
    "search_thresholds": "fusion",
    "unwrap_model": "stages.wrap",
    "wrap_collate": "stages.wrap",
    "wrap_model": "stages.wrap",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "launch":
        return importlib.import_module(f"{__name__}.seg.launch")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    modules = {name for name, value in globals().items() if isinstance(value, ModuleType)} - {"importlib"}
    return sorted({*_MODULES, "__version__", *modules})

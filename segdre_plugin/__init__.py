"""SegDRE as a plugin for document-level relation extraction backbones."""

from segdre_plugin.backbone import Backbone
from segdre_plugin.branches import Verbaliser, gold_dense_triples
from segdre_plugin.config import SegConfig
from segdre_plugin.errors import SegDREError
from segdre_plugin.pipeline import SegPipeline
from segdre_plugin.prepare import Prepared, prepare_features
from segdre_plugin.salient import gold_salient
from segdre_plugin.wrap import unwrap_model, wrap_collate, wrap_model

__version__ = "0.1.0"

__all__ = [
    "Backbone",
    "Prepared",
    "SegConfig",
    "SegDREError",
    "SegPipeline",
    "Verbaliser",
    "gold_dense_triples",
    "gold_salient",
    "prepare_features",
    "unwrap_model",
    "wrap_collate",
    "wrap_model",
]

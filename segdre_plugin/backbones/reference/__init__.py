"""A reference backbone: the published ATLOP architecture (Zhou et al. 2021), with a feature builder and a tiny encoder.

It has the interface of the upstream models, so it goes through the same :func:`segdre_plugin.wrap_model` and the same
stages, needs no clone and no download, and is the model of the fast tests and of ``segdre demo``.
"""

from segdre_plugin.backbones.losses import AdaptiveThresholdLoss
from segdre_plugin.backbones.reference.features import build_features, collate_fn
from segdre_plugin.backbones.reference.model import ReferenceModel
from segdre_plugin.backbones.reference.tokenizer import build_encoder, build_tokenizer, prepare_config

__all__ = [
    "AdaptiveThresholdLoss",
    "ReferenceModel",
    "build_encoder",
    "build_features",
    "build_tokenizer",
    "collate_fn",
    "prepare_config",
]

"""The adapters of the package. A new one is a folder here and a line in NAMES (and its package in setup.cfg)."""

from importlib import import_module

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.script import Script

NAMES = (
    "atlop",
    "dreeam",
    "docunet",
    "pemscl",
    "ncrl",
)

_modules = {name: import_module(f"{__name__}.{name}") for name in NAMES}
BACKBONES: dict[str, Backbone] = {name: module.BACKBONE for name, module in _modules.items()}
SCRIPTS: dict[str, Script] = {name: module.SCRIPT for name, module in _modules.items()}

"""The backbones that segdre-plugin knows, by name."""

from segdre_plugin.adapters import atlop, dreeam
from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.script import Script

BACKBONES: dict[str, Backbone] = {module.BACKBONE.name: module.BACKBONE for module in (atlop, dreeam)}
SCRIPTS: dict[str, Script] = {module.BACKBONE.name: module.SCRIPT for module in (atlop, dreeam)}

"""The backbones that segdre-plugin knows, by name."""

from segdre_plugin.adapters import atlop, docunet, dreeam, pemscl
from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.script import Script

ADAPTERS = (atlop, dreeam, docunet, pemscl)
BACKBONES: dict[str, Backbone] = {module.BACKBONE.name: module.BACKBONE for module in ADAPTERS}
SCRIPTS: dict[str, Script] = {module.BACKBONE.name: module.SCRIPT for module in ADAPTERS}

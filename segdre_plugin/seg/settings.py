"""Everything on which the results of a stage depend; it is written into the stage's folder and compared on a rerun."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.clones.patching import blob_hash
from segdre_plugin.seg.options import Options
from segdre_plugin.seg.store import digest
from segdre_plugin.stages.config import NEEDS, settings_of


@dataclass(frozen=True)
class RunSettings:
    """The settings of all stages of a run.

    Attributes:
        adapter: the backbone's name.
        arguments: the script's own arguments, without those that only say where things are.
        data: name -> SHA-256 of the files that training reads.
        modules: file -> git blob hash of the clone's modules that the script imported.
        rel_info: SHA-256 of the relation names, which become the text of branches.
        load_path: SHA-256 of the weights that ``--load_path`` gives the base; None without.
        options: our options.
    """

    adapter: str
    arguments: Mapping[str, Any]
    data: Mapping[str, str]
    modules: Mapping[str, str]
    rel_info: str
    load_path: str | None
    options: Options

    def of(self, stage: str) -> dict[str, Any]:
        """Return the settings of a stage, those of the stages before it as digests."""
        trains = stage in self.options.config.models
        known = settings_of(self.options) | settings_of(self.options.config)
        values = vars(self.options) | vars(self.options.config) | {"new_layer_lr": self.new_layer_lr(stage)}
        values["rel_info"] = self.rel_info
        own = {
            name: values[name]
            for name, setting in known.items()
            if stage in setting.stages and (trains or not setting.training)
        }
        if not NEEDS[stage]:
            own["load_path"] = self.load_path
        return {
            "stage": stage,
            "adapter": self.adapter,
            "arguments": dict(self.arguments),
            "data": dict(self.data),
            "modules": dict(self.modules),
            "options": own,
            "before": {name: digest(self.of(name)) for name in NEEDS[stage]},
        }

    def new_layer_lr(self, stage: str) -> float | None:
        """Return the learning rate of a stage's new layers (None: the script's own); a trained base has none."""
        from_base = self.options.config.start == "base" and "identify" in NEEDS[stage]
        return None if from_base else self.options.new_layer_lr


def clone_modules(script: str | None) -> dict[str, str]:
    """Return file -> git blob hash of the imported modules that lie beside a train script.

    None, or the file of a package, has no clone around it.
    """
    if script is None:
        return {}
    path = Path(script).resolve()
    own = sys.modules["__main__"]  # it may be a user's own script; multiprocessing gives it a second name
    modules = [module for module in list(sys.modules.values()) if module is not own]
    files = {Path(file).resolve() for module in modules if (file := _file(module))}
    beside = sorted(file for file in files if file.parent == path.parent and file != path and file.is_file())
    return {file.name: blob_hash(file.read_bytes()) for file in beside}


def _file(module: Any) -> str | None:
    file = vars(module).get("__file__") if hasattr(module, "__dict__") else None
    return file if isinstance(file, str) and file.endswith(".py") else None

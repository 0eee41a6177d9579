"""Everything on which the results of a stage depend; it is written into the stage's folder and compared on a rerun."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from segdre_plugin.backbones.clones.recognition import blob_hash, remove
from segdre_plugin.data.files import fingerprint
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.options import Options
from segdre_plugin.seg.store import digest
from segdre_plugin.stages.config import NEEDS, settings_of

# arguments of the train scripts that name what from_pretrained reads -> a file that is always among it
PRETRAINED = {
    "model_name_or_path": "config.json",
    "config_name": "config.json",
    "tokenizer_name": "tokenizer_config.json",
}
OURS, INSTALLED = "segdre_plugin", {"site-packages", "dist-packages"}  # no part of a clone, even in its folder
READ = (".json", ".txt", ".model", ".safetensors", ".bin")  # suffixes of weights, configuration and tokenizer


@dataclass(frozen=True)
class RunSettings:
    """The settings of all stages of a run.

    Attributes:
        adapter: the backbone's name.
        arguments: the script's own arguments, without those that only say where things are.
        data: name -> SHA-256 of the files that training reads.
        modules: file -> git blob hash of the clone's script, and of its modules that the script imported.
        encoder: what :func:`encoder_files` finds.
        rel_info: SHA-256 of the relation names, which become the text of branches.
        load_path: SHA-256 of the weights that ``--load_path`` gives the base; None without.
        options: our options.
        mixed_precision: that of Accelerate's settings; "no" without.
    """

    adapter: str
    arguments: Mapping[str, Any]
    data: Mapping[str, str]
    modules: Mapping[str, str]
    encoder: Mapping[str, Mapping[str, str]]
    rel_info: str
    load_path: str | None
    options: Options
    mixed_precision: str = "no"

    def of(self, stage: str) -> dict[str, Any]:
        """Return the settings of a stage, those of the stages before it as digests."""
        trains = stage in self.options.config.models
        shares = self.options.config.share_encoder and not NEEDS[stage]
        known = settings_of(self.options) | settings_of(self.options.config)
        values = vars(self.options) | vars(self.options.config) | {"new_layer_lr": self.new_layer_lr(stage)}
        values["rel_info"] = self.rel_info
        own = {
            name: values[name]
            for name, setting in known.items()
            if (stage in setting.stages or (shares and setting.shared)) and (trains or not setting.training)
        }
        if not NEEDS[stage]:
            own["load_path"] = self.load_path
        if self.mixed_precision != "no":
            own["mixed_precision"] = self.mixed_precision
        return {
            "stage": stage,
            "adapter": self.adapter,
            "arguments": dict(self.arguments),
            "data": dict(self.data),
            "modules": dict(self.modules),
            "encoder": {argument: dict(files) for argument, files in self.encoder.items()},
            "options": own,
            "before": {name: digest(self.of(name)) for name in NEEDS[stage]},
        }

    def new_layer_lr(self, stage: str) -> float | None:
        """Return the learning rate of a stage's new layers (None: the script's own); a trained base has none."""
        from_base = self.options.config.start == "base" and "identify" in NEEDS[stage]
        return None if from_base else self.options.new_layer_lr


def clone_modules(script: str | None) -> dict[str, str]:
    """Return file -> git blob hash of a train script, lines of ours left out, and of the modules of its folder.

    Those are the modules that are imported; installed packages, even if they lie there, and a user's own script are
    none of them. None has no clone around it.
    """
    if script is None:
        return {}
    path = Path(script).resolve()
    own = sys.modules["__main__"]  # it may be a user's own script; multiprocessing gives it a second name
    modules = [m for name, m in list(sys.modules.items()) if m is not own and name.split(".")[0] != OURS]
    files = {Path(file).resolve() for module in modules if (file := _file(module))}
    beside = {
        file.relative_to(path.parent) for file in files | {path} if path.parent in file.parents and file.is_file()
    }
    return {
        file.as_posix(): blob_hash(remove((path.parent / file).read_bytes()))
        for file in sorted(beside)
        if not INSTALLED & set(file.parts)
    }


def encoder_files(args: Namespace) -> dict[str, dict[str, str]]:
    """Return argument of the script -> file -> SHA-256 of the weights, configuration and tokenizer that it names.

    A name on the Hugging Face hub stands for the files of a commit; its hash is under ``commit``.

    Raises:
        SegDREError: if an argument names neither files nor anything on the hub or in its cache.
    """
    found = {}
    for argument, always in PRETRAINED.items():
        name = vars(args).get(argument)
        path = Path(name or "")
        if name and path.is_file():
            found[argument] = {path.name: fingerprint(path)}
        elif name and path.is_dir():
            files = [file for file in sorted(path.iterdir()) if file.suffix in READ and file.is_file()]
            found[argument] = {file.name: fingerprint(file) for file in files}
        elif name:
            found[argument] = {"commit": _commit(argument, name, always)}
    return found


def _commit(argument: str, name: str, file: str) -> str:
    """Return the commit of a model on the hub, in whose folder of the cache its files lie."""
    try:
        return Path(str(cached_file(name, file))).parent.name
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SegDREError(
            f"--{argument} {name}: not a folder, and not found on the Hugging Face hub: {reason}",
            "pass the folder of an encoder, or the name of one that is downloaded or can be",
        ) from None


def _file(module: Any) -> str | None:
    file = vars(module).get("__file__") if hasattr(module, "__dict__") else None
    return file if isinstance(file, str) and file.endswith(".py") else None

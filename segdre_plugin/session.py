"""A ``--seg`` run: the backbone's own ``main()`` once a stage, with some of the names it looks up swapped."""

from __future__ import annotations

import random
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segdre_plugin import data
from segdre_plugin.backbone import Backbone
from segdre_plugin.branches import Verbaliser
from segdre_plugin.config import STAGES
from segdre_plugin.errors import SegDREError
from segdre_plugin.files import fingerprint, read_json, write_json
from segdre_plugin.fuse import fuse
from segdre_plugin.margins import Margins
from segdre_plugin.options import Options
from segdre_plugin.script import Script
from segdre_plugin.stages import SALIENT, Stage, margins_file, train_salient
from segdre_plugin.store import Store, digest
from segdre_plugin.swapping import ArgparseProxy, Parsed, open_outside, progress_loader, swapped, with_new_layer_lr
from segdre_plugin.training import Training
from segdre_plugin.wrap import wrap_collate

RUN = "run.json"  # where the data of a run are
BEFORE = {"base": (), "identify": ("base",), "dense": ("identify",), "sparse": ("identify", "dense")}
# Arguments that say where things are, not what is computed; the data are known by their hashes.
PLACES = {
    "test_batch_size",
    "data_dir",
    "train_file",
    "dev_file",
    "test_file",
    "save_path",
    "load_path",
    "display_name",
    "pred_file",
}


class Session:
    """One run of ``--seg``.

    Args:
        names: the globals of the train script.
        main: its ``main``.
        backbone: what its model looks like.
        script: what the script looks like.
        options: what the user asked for.
    """

    def __init__(
        self,
        names: MutableMapping[str, Any],
        main: Callable[[], Any],
        backbone: Backbone,
        script: Script,
        options: Options,
    ) -> None:
        self.names, self.main = names, main
        self.backbone, self.script, self.options = backbone, script, options
        self.store = Store(options.directory)
        self.args = self._peek()
        self.rel2id = data.load_rel2id(self.args.num_class)
        folder = Path(self.args.data_dir)
        files = {name: getattr(self.args, f"{name}_file") for name in ("train", "dev", "test")}
        paths = {name: folder / file for name, file in files.items() if file}
        candidates = [options.rel_info] if options.rel_info else [Path("meta/rel_info.json"), folder / "rel_info.json"]
        self.rel_info, self.relation_names = data.load_relation_names(candidates, self.rel2id)
        self.splits = data.load_splits(paths, self.rel2id, options.skip_unusable)
        self.hashes = data.fingerprints(self.splits)
        if len(self.splits["train"].documents) < self.args.train_batch_size:
            raise SegDREError(
                f"{paths['train']}: {len(self.splits['train'].documents)} documents, less than one batch of "
                f"{self.args.train_batch_size} (the backbone drops the last, smaller batch)",
                "pass a smaller --train_batch_size",
            )
        self.tokenizer: Any = None
        self.read_arguments: dict[str, Any] = {}

    def run(self) -> None:
        """Run the stages that were asked for and are not done, then fuse."""
        asked = STAGES if self.options.stage == "all" else (self.options.stage,)
        wanted = [stage for stage in STAGES if stage in asked]
        with self.store.locked():
            for stage in STAGES:
                if self.store.is_done(stage):
                    self.store.check(stage, self.settings(stage))
            for stage in wanted:
                if self.store.is_done(stage):
                    print(f"segdre: stage {stage} is done: {self.store.folder(stage)}")
                    continue
                self._require(stage, BEFORE[stage])
                self._train(stage)
            if self.options.stage in ("all", "fuse"):
                self._require("fuse", STAGES)
                fuse(self.store, self.splits, self.rel2id, self.options)
                write_json(self.store.root / RUN, self.sources())

    def settings(self, stage: str) -> dict[str, Any]:
        """Give everything on which a stage's result depends."""
        arguments = {k: v for k, v in vars(self.args).items() if k not in PLACES}
        options, config = self.options, self.options.config
        own: dict[str, Any] = {}
        if stage == "base" and self.args.load_path:
            own = {"load_path": fingerprint(Path(self.args.load_path))}
        elif stage == "identify":
            own = {"epochs": options.identify_epochs, "warmup": options.identify_warmup, "hidden": config.hidden}
        elif stage == "dense":
            own = {"epochs": options.dense_epochs}
        elif stage == "sparse":
            own = {"epochs": options.sparse_epochs, "rel_info": fingerprint(self.rel_info)}
            own |= {name: value for name, value in vars(config).items() if name != "hidden"}
        return {
            "stage": stage,
            "adapter": self.backbone.name,
            "arguments": arguments,
            "data": self.hashes,
            "skip_unusable": options.skip_unusable,
            "new_layer_lr": options.new_layer_lr,
            "options": own,
            "before": {name: digest(self.settings(name)) for name in BEFORE[stage]},
        }

    def sources(self) -> dict[str, Any]:
        """Say where the run's data are and what they were, for commands that look at the run later."""
        files = {name: split.path for name, split in self.splits.items()}
        files |= {"rel2id": data.REL2ID, "rel_info": self.rel_info}
        return {
            "adapter": self.backbone.name,
            "files": {name: str(path.resolve()) for name, path in files.items()},
            "hashes": self.hashes | {"rel_info": fingerprint(self.rel_info)},
        }

    def _require(self, stage: str, before: tuple[str, ...]) -> None:
        missing = [name for name in before if not self.store.is_done(name)]
        if missing:
            raise SegDREError(
                f"stage {stage} needs stage {' and '.join(missing)}, not found in {self.store.root}",
                f"run with --seg-stage {missing[0]}, or without --seg-stage",
            )

    def _peek(self) -> Namespace:
        """Parse the command line with the script's own parser, and stop its ``main()`` there."""
        with swapped(self.names, {"argparse": ArgparseProxy(stop=True)}):
            try:
                self.main()
            except Parsed as parsed:
                return parsed.arguments
        raise SegDREError(
            f"{self.script.file}: main() parsed no arguments", f"is it the original script of {self.backbone.name}?"
        )

    def _train(self, stage: str) -> None:
        """Run the backbone's ``main()`` for one stage."""
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(self.args.seed)
        settings = self.settings(stage)
        overrides: dict[str, Any] = {"save_path": "", "load_path": ""}
        if settings["options"].get("epochs"):
            overrides["num_train_epochs"] = settings["options"]["epochs"]
        if stage == "identify":
            overrides["warmup_ratio"] = self.options.identify_warmup
        print(f"segdre: stage {stage}", flush=True)
        with self.store.building(stage, settings) as folder:
            work = Training(self, stage, folder, self.names["train"])
            names = {
                "argparse": ArgparseProxy(overrides=overrides),
                "train": work.train,
                "evaluate": work.evaluate,
                "read_docred": self._reader(self.names["read_docred"]),
                "collate_fn": wrap_collate(self.names["collate_fn"], adapter=self.backbone),
                "DataLoader": progress_loader(f"{stage}: train"),
                "open": open_outside(folder),
            }
            if self.options.new_layer_lr:
                names["AdamW"] = with_new_layer_lr(self.names["AdamW"], self.options.new_layer_lr)
            if self.script.report:
                names[self.script.report] = lambda *_: []  # the test split is predicted once, with the best checkpoint
            with swapped(self.names, names):
                self.main()
            if not work.finished:
                raise SegDREError(
                    f"{self.script.file}: main() ended without training",
                    "leave out the options by which the script only evaluates",
                )
        if stage == "base" and self.args.save_path and not self.args.load_path:
            shutil.copyfile(self.checkpoint("base"), self.args.save_path)

    def checkpoint(self, stage: str) -> Path:
        """Give the best checkpoint of a finished stage."""
        return Path(self.script.checkpoint.format(folder=self.store.folder(stage)))

    def _reader(self, read: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the backbone's reader: checked documents in, features kept for the stages to come."""

        def wrapped(path: Any, tokenizer: Any, **kwargs: Any) -> Any:
            self.tokenizer, self.read_arguments = tokenizer, kwargs
            split = next((s for s in self.splits.values() if s.path == Path(path)), None)
            if split is None:
                return read(path, tokenizer, **kwargs)
            if not split.features:
                with tempfile.TemporaryDirectory() as folder:
                    features = read(str(data.readable(split, Path(folder))), tokenizer, **kwargs)
                kind = self.args.transformer_type
                data.attach_features(split, features, self.backbone, kind, self.options.skip_unusable)
            return split.features

        return wrapped

    def prepare(self, name: str) -> Stage:
        """Gather what a stage needs of the stages before it."""
        stage = Stage(name, self.rel2id, self.splits)
        if name in ("dense", "sparse"):
            predicted = read_json(self.store.folder("identify") / SALIENT, "salient entities")
            stage.salient = {"train": train_salient(self.splits["train"])} | predicted
        if name == "sparse":
            folder = self.store.folder("dense")
            stage.dense = {
                split: Margins.load(margins_file(folder, split)) for split in self.splits if split != "train"
            }
            stage.verbaliser = Verbaliser(self.tokenizer, self.relation_names, self.options.config)
        return stage

"""A ``--seg`` run: the backbone's own ``main()`` once a stage, with some of the names it looks up swapped."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segdre_plugin.backbones.clones.stand_ins import no_report, open_outside, progress_loader, with_new_layer_lr
from segdre_plugin.data import splits as data
from segdre_plugin.data.files import fingerprint, write_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.bundle import check_target, offer
from segdre_plugin.seg.fuse import fuse
from segdre_plugin.seg.script_run import Driver
from segdre_plugin.seg.stage_training import Training
from segdre_plugin.seg.store import Store, digest
from segdre_plugin.stages.artifacts import margins_file, read_salient
from segdre_plugin.stages.branches import Verbaliser
from segdre_plugin.stages.config import LATER, STAGES
from segdre_plugin.stages.identify import identify
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.stage import Stage, train_salient
from segdre_plugin.stages.strategies import check_labels

RUN = "run.json"  # where the data of a run are
BEFORE = {"base": (), "identify": ("base",), "dense": ("identify",), "sparse": ("identify", "dense")}


class Session(Driver):
    """A run that trains."""

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        files = {name: getattr(self.args, f"{name}_file") for name in ("train", "dev", "test")}
        self.load(files, self.options.skip_unusable)
        self.hashes = data.fingerprints(self.splits, self.rel2id_file) | self._inputs()
        train = self.splits["train"]
        if len(train.documents) < self.args.train_batch_size:
            raise SegDREError(
                f"{train.path}: {len(train.documents)} documents, less than one batch of "
                f"{self.args.train_batch_size} (the backbone drops the last, smaller batch)",
                "pass a smaller --train_batch_size",
            )

    def _inputs(self) -> dict[str, str]:
        """Return the hashes of what training reads besides the splits."""
        files = self.script.inputs(self.args, self.splits["train"].path)
        for name, path in files.items():
            if not path.is_file():
                raise SegDREError(f"{name}: {path} not found", "check the path")
        return {name: fingerprint(path) for name, path in files.items()}

    def run(self) -> None:
        """Run the stages that were asked for and are not done, then fuse."""
        asked = STAGES if self.options.stage == "all" else (self.options.stage,)
        wanted = [stage for stage in STAGES if stage in asked]
        if self.options.bundle:
            check_target(self.options.bundle)
        for split in self.splits.values():
            check_labels(self.options.config.strategy, split.documents, str(split.path))
        others = [Store(path) for path in self.options.reuse]
        for other in others:
            if not other.root.is_dir():
                raise SegDREError(f"--seg-reuse: no folder {other.root}", "give the --seg-dir of another run")
        with self.store.locked():
            for stage in STAGES:
                if self.store.is_done(stage):
                    self.store.check(stage, self.settings(stage))
            for stage in wanted:
                if self.store.is_done(stage):
                    print(f"segdre: stage {stage} is done: {self.store.folder(stage)}")
                    continue
                self._require(stage, BEFORE[stage])
                same = next((other for other in others if other.matches(stage, self.settings(stage))), None)
                if same:
                    print(f"segdre: stage {stage} is that of {same.root}", flush=True)
                    self.store.adopt(stage, same)
                elif stage in self.options.config.models:
                    self._train(stage)
                else:
                    self._choose(stage)
            if self.options.stage in ("all", "fuse"):
                self._require("fuse", STAGES)
                fuse(self.store, self.splits, self.rel2id, self.options, self.args.seed)
                write_json(self.store.root / RUN, self.sources())
                offer(self.store.root, self.options.bundle)

    def settings(self, stage: str) -> dict[str, Any]:
        """Return everything on which a stage's result depends."""
        arguments = {k: v for k, v in vars(self.args).items() if k not in self.places}
        options, config = self.options, self.options.config
        own: dict[str, Any] = {}
        if stage == "base":
            own = {"loss": config.loss} if "loss" in config.later else {}
            if self.args.load_path:
                own["load_path"] = fingerprint(self.given_weights())
        elif stage == "identify":
            if stage in config.models:
                own = {"epochs": options.identify_epochs, "warmup": options.identify_warmup, "hidden": config.hidden}
            own |= {name: value for name, value in config.later.items() if name in ("salient", "salient_k")}
        elif stage == "dense":
            own = {"epochs": options.dense_epochs} | config.later
        elif stage == "sparse":
            own = {"epochs": options.sparse_epochs, "rel_info": fingerprint(self.rel_info)}
            own |= {name: value for name, value in vars(config).items() if name not in ("hidden", *LATER)}
            own |= config.later
        return {
            "stage": stage,
            "adapter": self.backbone.name,
            "arguments": arguments,
            "data": self.hashes,
            "skip_unusable": options.skip_unusable,
            "new_layer_lr": self.new_layer_lr(stage),
            "fast": options.fast,
            "bf16": options.bf16,
            "buckets": options.buckets,
            "options": own,
            "before": {name: digest(self.settings(name)) for name in BEFORE[stage]},
        }

    def new_layer_lr(self, stage: str) -> float | None:
        """Return the learning rate of a stage's new layers (None: the script's own); a trained base has none."""
        trained = stage in ("dense", "sparse") and self.options.config.start == "base"
        return None if trained else self.options.new_layer_lr

    def sources(self) -> dict[str, Any]:
        """Return where the run's data are and what they were, for commands that look at the run later."""
        files = {name: split.path for name, split in self.splits.items()}
        files |= {"rel2id": self.rel2id_file, "rel_info": self.rel_info}
        return {
            "adapter": self.backbone.name,
            "checkpoint": self.script.checkpoint,
            "files": {name: str(path.resolve()) for name, path in files.items()},
            "hashes": self.hashes | {"rel_info": fingerprint(self.rel_info)},
            "rel2id": self.rel2id,
            "relation_names": {name: self.relation_names[name] for name in self.rel2id if self.rel2id[name]},
        }

    def given_weights(self) -> Path:
        """Return the checkpoint that ``--load_path`` names.

        Returns:
            The file.

        Raises:
            SegDREError: if it is not there.
        """
        path = self.script.checkpoint_at(self.args.load_path)
        if not path.is_file():
            raise SegDREError(f"--load_path: {path} not found", "check the path")
        return path

    def _require(self, stage: str, before: tuple[str, ...]) -> None:
        missing = [name for name in before if not self.store.is_done(name)]
        if missing:
            raise SegDREError(
                f"stage {stage} needs stage {' and '.join(missing)}, not found in {self.store.root}",
                f"run with --seg-stage {missing[0]}, or without --seg-stage",
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
                "train": work.train,
                "evaluate": work.evaluate,
                "collate_fn": self.collate(),
                "DataLoader": progress_loader(f"{stage}: train", self.options.buckets),
                "open": open_outside(folder),
            }
            rate = self.new_layer_lr(stage)
            if rate:
                names["AdamW"] = with_new_layer_lr(self.names["AdamW"], rate)
            if self.script.report:
                names[self.script.report] = no_report
            self.run_main(overrides, names)
            if not work.finished:
                raise SegDREError(
                    f"{self.script.file}: main() ended without training",
                    "leave out the options by which the script only evaluates",
                )
        if stage == "base" and self.args.save_path and not self.args.load_path:
            target = self.script.checkpoint_at(self.args.save_path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.checkpoint("base"), target)

    def _choose(self, stage: str) -> None:
        """Make stage identify where there is nothing to train."""
        config = self.options.config
        print(f"segdre: stage {stage}: strategy {config.salient} trains nothing", flush=True)
        with self.store.building(stage, self.settings(stage)) as folder:
            identify(folder, self.splits, config, self.args.seed, lambda split: self._margins("base", split))

    def _margins(self, stage: str, split: str) -> Margins:
        return Margins.load(margins_file(self.store.folder(stage), split))

    def checkpoint(self, stage: str) -> Path:
        """Return the best checkpoint of a finished stage."""
        return Path(self.script.checkpoint.format(folder=self.store.folder(stage)))

    def prepare(self, name: str) -> Stage:
        """Gather what a stage needs of the stages before it."""
        config = self.options.config
        stage = Stage(name, self.rel2id, self.splits, config=config, seed=self.args.seed)
        if name in ("dense", "sparse"):
            train = train_salient(self.splits["train"], config, self.args.seed)
            stage.salient = {"train": train} | read_salient(self.store.folder("identify"))
        if name == "sparse":
            stage.dense = {split: self._margins("dense", split) for split in self.splits if split != "train"}
            stage.verbaliser = Verbaliser(self.reader.tokenizer, self.relation_names, self.options.config)
        return stage

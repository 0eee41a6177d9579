"""A ``--seg`` run: the backbone's own ``main()`` once a stage, with some of the names it looks up swapped."""

from __future__ import annotations

import random
import shutil
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segdre_plugin.backbones.attention import check_encoder
from segdre_plugin.backbones.clones.compat import AutoConfig, AutoModel, AutoTokenizer
from segdre_plugin.backbones.clones.stand_ins import (
    no_report,
    open_outside,
    progress_loader,
    with_fused_step,
    with_new_layer_lr,
)
from segdre_plugin.backbones.guards import check_bf16
from segdre_plugin.backbones.trainer import Resume
from segdre_plugin.data.files import check_output, fingerprint, remove_half_written, write, write_json
from segdre_plugin.data.splits import fingerprints
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.seg.bundle import check_target, offer
from segdre_plugin.seg.fuse import fuse
from segdre_plugin.seg.options import flag
from segdre_plugin.seg.parallel import Children, check_command_line, own_stage
from segdre_plugin.seg.provenance import versions
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.seg.script_run import ScriptRun
from segdre_plugin.seg.settings import RunSettings, encoder_files
from segdre_plugin.seg.stage_training import StageTraining
from segdre_plugin.seg.store import Store, differences, flat
from segdre_plugin.stages.artifacts import METRICS, UNCHOSEN, save_result
from segdre_plugin.stages.branches import Verbaliser
from segdre_plugin.stages.config import NEEDS, STAGES, TRAINED
from segdre_plugin.stages.scored import judge
from segdre_plugin.stages.shared_encoder import check_shared
from segdre_plugin.stages.stage import ChainResult, Stage, training_inputs
from segdre_plugin.stages.strategies import check_labels


class TrainingRun(ScriptRun):
    """A run that trains."""

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        files = {name: getattr(self.args, f"{name}_file") for name in ("train", "dev", "test")}
        self.load(files, self.options.skip_unusable)
        self.hashes = fingerprints(self.splits, self.rel2id_file) | self._inputs()
        self._check_processes()
        train = self.splits["train"]
        if len(train.documents) < self.args.train_batch_size:
            raise SegDREError(
                f"{train.path}: {len(train.documents)} documents, less than one batch of "
                f"{self.args.train_batch_size} (the backbone drops the last, smaller batch)",
                "pass a smaller --train_batch_size",
            )
        self.script.kept(self.args)  # else its bundle could not be read
        epochs = {stage: self.options.epochs(stage) for stage in self.options.config.models}
        raise_all(
            [f"{flag(f'{stage}_epochs')} {n:g}" for stage, n in epochs.items() if n and n % 1 and self._whole_epochs],
            f"{self.script.file} trains whole epochs",
            "pass whole numbers",
        )
        if self.config.share_encoder:
            self._check_shared()
        if self.args.load_path:
            self.given_weights()
        elif self.args.save_path:
            check_output("--save_path", self.script.checkpoint_at(self.args.save_path, self.args), parents=True)

    def _check_processes(self) -> None:
        """Check that each of several processes has a part of a batch, and take Accelerate's settings.

        Raises:
            SegDREError: if one has none, or the settings contradict the script's arguments.
        """
        n, size = self.workers.size, self.args.train_batch_size
        if n > size:
            raise SegDREError(
                f"{n} processes share batches of --train_batch_size {size}: {n - size} of them have no document",
                f"start {size} or fewer, or pass a larger --train_batch_size",
            )
        accumulation = self.workers.accumulation
        if accumulation:
            own = getattr(self.args, "gradient_accumulation_steps", 1)
            if own not in (1, accumulation):
                raise SegDREError(
                    f"--gradient_accumulation_steps {own}, and {accumulation} in Accelerate's settings",
                    "set one of them",
                )
            self.args.gradient_accumulation_steps = accumulation

    def _check_shared(self) -> None:
        """Refuse what does not go with one encoder for three stages.

        Raises:
            SegDREError: if the backbone cannot share one, or its script would meet a base with heads that it lacks.
        """
        check_shared(self.backbone)
        name = flag("share_encoder")
        if self.args.load_path and not self.script.load_path_starts:
            raise SegDREError(
                f"{name}: --load_path is a base without the heads of identify and dense", "leave one of the two out"
            )
        if self.args.save_path:
            raise SegDREError(
                f"{name}: --save_path would get a base with heads that {self.script.file} does not have",
                "leave --save_path out",
            )

    @property
    def _whole_epochs(self) -> bool:
        return isinstance(self.args.num_train_epochs, int)

    def check_encoder(self) -> None:
        """Load the encoder before anything is trained or read; the reference model has none but one that it trains.

        It is tried on the CPU: on which GPU the script computes is known only when its ``main()`` runs.

        Raises:
            SegDREError: if it or its tokenizer cannot be loaded, or it does not fit the stages.
        """
        given = vars(self.args)
        path = given.get("model_name_or_path")
        if path:
            AutoTokenizer.from_pretrained(given.get("tokenizer_name") or path)
            config = AutoConfig.from_pretrained(given.get("config_name") or path)
            encoder = AutoModel.from_pretrained(path, config=config)
            check_encoder(encoder, self.args.transformer_type, self.backbone.window)

    def _inputs(self) -> dict[str, str]:
        """Return the hashes of what training reads besides the splits."""
        files = self.script.inputs(self.args, self.splits["train"].path)
        for name, path in files.items():
            if not path.is_file():
                raise SegDREError(f"{name}: {path} not found", "check the path")
        return {name: fingerprint(path) for name, path in files.items()}

    @cached_property
    def settings(self) -> RunSettings:
        """Everything on which the results of the stages depend."""
        return RunSettings(
            adapter=self.backbone.name,
            arguments={k: v for k, v in vars(self.args).items() if k not in self.places},
            data=self.hashes,
            **self.code_and_encoder(),
            rel_info=fingerprint(self.rel_info),
            load_path=fingerprint(self.given_weights()) if self.args.load_path else None,
            options=self.options,
            mixed_precision=self.workers.mixed_precision,
        )

    def run(self) -> None:
        """Run the stages that were asked for and are not done, then fuse; in a stage's own process, only that one.

        Of several processes that train together the main one does all this, and the others train with it.

        Raises:
            KeyboardInterrupt: at Ctrl-C, with how to go on.
        """
        stage = own_stage()
        if stage:
            self._train(stage, self.settings.of(stage))
            return
        self._agree()
        if not self.workers.is_main:
            while stage := self.workers.share(None):
                self._train(stage, self.settings.of(stage))
            return
        try:
            self._run()
            self.workers.share(None)
        except KeyboardInterrupt:
            left = next((stage for stage in STAGES if not self.store.is_done(stage)), "fuse")
            raise KeyboardInterrupt(f"the same command goes on from stage {left}") from None

    def _agree(self) -> None:
        """Check in the main process that all have the same settings: each trains with its own.

        Raises:
            SegDREError: with all that differ.
        """
        if self.workers.size == 1:
            return
        own: dict[str, Any] = {"arguments.test_batch_size": self.args.test_batch_size}
        own |= flat({"versions": versions()})
        for stage in self.options.config.models:
            settings = self.settings.of(stage)
            own |= flat({name: settings[name] for name in settings.keys() - {"stage", "before"}})
        found = self.workers.gather(own)
        problems = [
            line
            for k, other in enumerate(found)
            for line in differences(own, other, ("in the main process", f"in process {k}"))
        ]
        if self.workers.is_main:
            raise_all(
                problems, "the processes have different settings", "start all with the same command, data and clone"
            )

    def _run(self) -> None:
        if self.options.trainer == "own" and self.script.recipe is None:
            raise SegDREError(f"--seg-trainer own: no recipe for {self.script.file}", "give its Script a recipe")
        asked = STAGES if self.options.stage == "all" else (self.options.stage,)
        parallel = self.options.parallel and asked == STAGES
        if parallel:
            check_command_line(flag("parallel"))
        elif self.options.parallel:
            print(f"segdre: {flag('parallel')}: --seg-stage {asked[0]} is alone", flush=True)
        if self.options.bundle:
            check_target(self.options.bundle, self.store.root)
        for split in self.splits.values():
            check_labels(self.options.config.strategy, split.documents, str(split.path))
        others = [Store(path) for path in self.options.reuse]
        for other in others:
            if not other.root.is_dir():
                raise SegDREError(f"--seg-reuse: no folder {other.root}", "pass the --seg-dir of another run")
        if any(stage in asked and not self.store.is_done(stage) for stage in self.options.config.models):
            if self.options.bf16 and torch.cuda.is_available():
                check_bf16(torch.device("cuda"))
            self.check_encoder()
        with self.store.locked():
            for stage in STAGES:
                if self.store.is_done(stage):
                    self.store.check(stage, self.settings.of(stage))
            if parallel:
                self._run_side_by_side(others)
            else:
                for stage in STAGES:
                    if stage in asked:
                        self._run_stage(stage, others)
                    if stage in asked and not NEEDS[stage]:
                        self._save_base(stage)
            if self.options.stage in ("all", "fuse"):
                self.require("fuse", STAGES)
                fuse(RunFolder(self.store.root), self.splits, self.rel2id, self.options, self.args.seed)
                write_json(RunFolder(self.store.root).sources_file, self.sources())
                offer(self.store.root, self.options.bundle)

    def _run_stage(self, name: str, others: list[Store]) -> None:
        """Skip a finished stage, take it from another run, or make it."""
        if not self.store.is_done(name):
            self.require(name, NEEDS[name])
        if self._has(name, others):
            return
        if name in self.options.config.models:
            self._train(name, self.settings.of(name))
        else:
            self._choose(name, self.settings.of(name))

    def _has(self, name: str, others: list[Store]) -> bool:
        """Return whether a stage is finished, or can be taken from another run."""
        settings = self.settings.of(name)
        same = next((other for other in others if other.matches(name, settings)), None)
        if self.store.is_done(name):
            print(f"segdre: stage {name} is done: {self.store.folder(name)}")
        elif same:
            print(f"segdre: stage {name} is that of {same.root}", flush=True)
            self.store.adopt(name, same)
        return self.store.is_done(name)

    def _run_side_by_side(self, others: list[Store]) -> None:
        """Make each stage in a process of its own, as soon as those are finished without which it cannot begin."""
        left = [stage for stage in STAGES if not self._has(stage, others)]
        if "base" not in left:
            self._save_base("base")
        trained = [self._stage(stage) for stage in left if stage in self.options.config.models]
        later = [stage.name for stage in trained if stage.has_own_pairs and self._lacks(stage.name)]
        if later and self.options.select != "gold":
            kept = f"{' and '.join(later)} keep a checkpoint of every look at dev until they can be judged"
            print(f"segdre: {kept} ({flag('select')} gold: one)", flush=True)
        try:
            with Children(self.store) as children:
                while left or children.running:
                    unfinished = {*left, *children.running}
                    for stage in [name for name in left if not unfinished.intersection(self._begins_after(name))]:
                        left.remove(stage)
                        if stage in self.options.config.models:
                            children.start(stage)
                        else:
                            self._choose(stage, self.settings.of(stage))
                    if "base" in children.finished():
                        self._save_base("base")
        finally:
            self.store.tidy()

    def _begins_after(self, name: str) -> tuple[str, ...]:
        """Return the stages before one without which its training cannot begin; the others say how dev is judged."""
        stage = self._stage(name)
        if stage.has_own_pairs and stage.has_model:
            return ("base",) if stage.starts_from_base else ()
        return NEEDS[name]

    def _lacks(self, name: str) -> bool:
        """Return whether a stage before one is not finished yet, which is so only in a process of its own."""
        return self.workers.size == 1 and not all(map(self.store.is_done, NEEDS[name]))

    def sources(self) -> dict[str, Any]:
        """Return the paths and hashes of the run's data, for commands that look at the run later."""
        files = {name: split.path for name, split in self.splits.items()}
        files |= {"rel2id": self.rel2id_file, "rel_info": self.rel_info}
        return {
            "adapter": self.backbone.name,
            "checkpoint": self.script.checkpoint,
            "checkpoint_key": self.script.checkpoint_key,
            "files": {name: str(path.resolve()) for name, path in files.items()},
            "hashes": self.hashes | {"rel_info": fingerprint(self.rel_info)},
            "rel2id": self.rel2id,
            "relation_names": {name: self.relation_names[name] for name in self.rel2id if self.rel2id[name]},
        }

    def require(self, stage: str, before: tuple[str, ...]) -> None:
        """Refuse to go on with a stage (or to fuse) before others are done.

        Raises:
            SegDREError: with those that are missing.
        """
        missing = [name for name in before if not self.store.is_done(name)]
        if missing:
            raise SegDREError(
                f"stage {stage} needs stage {' and '.join(missing)}, not found in {self.store.root}",
                f"run with --seg-stage {missing[0]}, or without --seg-stage",
            )

    def _train(self, name: str, settings: dict[str, Any]) -> None:
        """Run the backbone's ``main()`` for one stage."""
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(self.args.seed)
        own = self.script.names
        # what is swapped: arguments of the script, and names in its globals
        overrides: dict[str, Any] = {"save_path": self.script.no_save_path, "load_path": ""}
        if self.workers.accumulation:
            overrides["gradient_accumulation_steps"] = self.workers.accumulation
        if self.options.epochs(name):
            overrides["num_train_epochs"] = type(self.args.num_train_epochs)(self.options.epochs(name))
        if "identify_warmup" in settings["options"]:
            overrides["warmup_ratio"] = self.options.identify_warmup
        is_base = not NEEDS[name]
        raise_all(
            differences(flat(self.settings.encoder), flat(encoder_files(self.args))),
            f"stage {name}: the encoder's files have changed since this run began",
            "restore them; stages of different encoders are not mixed",
        )
        print(f"segdre: stage {name}", flush=True)
        if self.workers.is_main:
            self.workers.share(name)
        with self._building(name, settings) as folder:
            collate_fn = self.collate()
            loader = self.loader(name)
            rate = self.settings.new_layer_lr(name)
            training = self.training(
                name,
                self,
                partial(self.prepare, name),
                folder,
                self.names[own.train],
                collate_fn,
                loader,
                Resume(self.store.resume(folder, settings), 60 * self.options.checkpoint),
                rate,
                base=None if is_base else self.checkpoint("base"),
                given=self.given_weights() if is_base and self.args.load_path else None,
                lacks=partial(self._lacks, name),
            )
            names = {
                own.train: training.train,
                own.evaluate: training.evaluate,
                own.collate: collate_fn,
                own.loader: loader,
                "open": open_outside(folder),
            }
            if self.options.fast and "AdamW" in self.names:
                names["AdamW"] = with_fused_step(self.names["AdamW"])
            if rate:
                adamw = names.get("AdamW", self.names["AdamW"])
                names["AdamW"] = with_new_layer_lr(adamw, rate, training.encoder_parameters)
            if self.script.report:
                names[self.script.report] = no_report(self.script.reported, not self._stage(name).has_own_pairs)
            self.run_main(overrides, names)
            if not training.finished:
                raise SegDREError(
                    f"{self.script.file}: main() ended without training",
                    "leave out the options by which the script only evaluates",
                )

    def _building(self, name: str, settings: dict[str, Any]) -> AbstractContextManager[Path]:
        """Return the folder to write a stage into; only the main process writes."""
        if self.workers.is_main:
            return self.store.building(name, settings, self.workers.size)
        return nullcontext(self.store.folder(name))

    def _save_base(self, name: str) -> None:
        """Copy the base's checkpoint to ``--save_path``, also where the run that trained it did not come to that."""
        source, target = self.checkpoint(name), self.script.checkpoint_at(self.args.save_path, self.args)
        wanted = self.args.save_path and not self.args.load_path
        if wanted:
            remove_half_written(target)
        if wanted and not (target.is_file() and fingerprint(target) == fingerprint(source)):
            target.parent.mkdir(parents=True, exist_ok=True)
            with source.open("rb") as weights:
                write(target, lambda file: shutil.copyfileobj(weights, file))

    def loader(self, stage: str) -> Any:
        """Return the class of a stage's data loaders."""
        return progress_loader(f"{stage}: train", self.options.buckets, self.workers)

    def training(self, stage: str, *parts: Any, **more: Any) -> StageTraining:
        """Return what trains a stage, of these parts."""
        return StageTraining(*parts, **more)

    def _choose(self, name: str, settings: dict[str, Any]) -> None:
        """Make a stage that trains nothing: its strategy chooses (section 6.1), or its head has read with the base."""
        stage = self._stage(name)
        print(f"segdre: stage {name}: {stage.without_model}", flush=True)
        with self.store.building(name, settings) as folder:
            scores, known = {}, self.known(name)
            for split in self.splits.values():
                if split.name != "train":
                    found = stage.read(None, split, known[split.name])
                    save_result(folder, stage, split.name, found)
                    scores[split.name] = judge(stage, split, found, self.splits["train"].documents)
            write_json(folder / METRICS, scores)

    def prepare(self, name: str) -> tuple[Stage, dict[str, ChainResult]]:
        """Make a stage, and gather what those before it found; the script has made the tokenizer."""
        verbaliser = Verbaliser(self.reader.tokenizer, self.relation_names, self.options.config)
        known = self.known(name) if self.workers.is_main else {}
        return replace(self._stage(name), verbaliser=verbaliser), self.workers.share(known)

    def _stage(self, name: str) -> Stage:
        """Return a stage, which has no words for branches before the script has made the tokenizer."""
        return Stage(name, self.options.config, self.rel2id, seed=self.args.seed)

    def known(self, name: str) -> dict[str, ChainResult]:
        """Read what the stages before one found in each split, once they are finished; in train, what it learns."""
        folder, tables = RunFolder(self.store.root), [stage for stage in NEEDS[name] if stage in TRAINED]
        chosen = "identify" in NEEDS[name]
        config, seed = self.options.config, self.args.seed
        learns = chosen or self._stage(name).shares_encoder
        found = {"train": training_inputs(self.splits["train"], config, seed) if learns else ChainResult()}
        if self._lacks(name):
            return found
        for split, documents in ((key, part.documents) for key, part in self.splits.items() if key != "train"):
            read = partial(folder.margins, split=split, documents=documents, n_classes=len(self.rel2id))
            found[split] = ChainResult(
                {stage: read(stage) for stage in tables}, folder.salient(split, documents) if chosen else None
            )
            if config.share_encoder and name in ("identify", "dense"):
                counts = folder.counts(split, documents, "base") if config.strategy.head else None
                found[split] = replace(found[split], counts=counts, unchosen=read(f"base/{UNCHOSEN}"))
        return found

    def checkpoint(self, stage: str) -> Path:
        """Return the best checkpoint of a finished stage."""
        return self.script.checkpoint_in(self.store.folder(stage))

    def given_weights(self) -> Path:
        """Return the checkpoint that ``--load_path`` names.

        Raises:
            SegDREError: if it is missing.
        """
        path = self.script.checkpoint_at(self.args.load_path, self.args)
        if not path.is_file():
            raise SegDREError(f"--load_path: {path} not found", "check the path")
        return path

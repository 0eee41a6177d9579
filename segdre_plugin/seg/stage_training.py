"""One stage's training, inside the backbone's own ``main()``, by its own ``train()`` or by ours."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from segdre_plugin.backbones.clones.stand_ins import no_report
from segdre_plugin.backbones.features import Feature, chosen_pairs
from segdre_plugin.backbones.hooks import wrap_state
from segdre_plugin.backbones.memory import TRAINING_HINT, describe_batch, enough_memory
from segdre_plugin.backbones.trainer import Resume, Terms, train
from segdre_plugin.backbones.watch import watch_finite
from segdre_plugin.data.files import write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.checkpoints import keep_model, load_all, load_shared, save_checkpoint
from segdre_plugin.seg.later_looks import LaterLooks
from segdre_plugin.seg.script_run import ScriptRun
from segdre_plugin.stages.artifacts import INJECTED, METRICS, save_result
from segdre_plugin.stages.prepare import StageFeatures
from segdre_plugin.stages.scored import judge
from segdre_plugin.stages.shared_encoder import head_names
from segdre_plugin.stages.stage import ChainResult, Stage, training_inputs
from segdre_plugin.stages.wrap import wrap_model

# The scores of dev that the script logs, under the backbones' names; the first one decides which checkpoint is kept.
SCORES = {"F1": "f1", "F1_ign": "ign_f1"}
EVIDENCE_SCORES = {"evi_F1": "evidence_f1"}
IDENTIFY_SCORES = {"saliency": "saliency", "accuracy": "accuracy"}
PERIOD = 0.2  # seconds between two questions whether the stages before are finished
GOLD = "gold"  # dev with its gold salient entities and gold dense triples (--seg-select gold)


@dataclass
class StageTraining:
    """Stands in for the script's ``train`` and ``evaluate`` during one stage.

    Attributes:
        run: the script, its data and its reader.
        make_stage: makes the stage and split name -> what the stages before it found (train alone, while one of them
            is under way); called when the script has made the tokenizer and the features.
        folder: the stage's folder.
        upstream_train: the script's own ``train``.
        collate_fn: the script's collate function, wrapped.
        loader: makes a data loader.
        resume: where our own loop keeps unfinished training.
        new_layer_lr: of our own loop; None: the script's.
        base: checkpoint of the trained base; None in stage base.
        given: weights that ``--load_path`` names for the base; None without.
        lacks: whether a stage before it, of which only dev and test have to know, is under way still.
        finished: whether the script has called :meth:`train`, and it came to its end.
    """

    run: ScriptRun
    make_stage: Callable[[], tuple[Stage, Mapping[str, ChainResult]]]
    folder: Path
    upstream_train: Callable[..., Any]
    collate_fn: Any
    loader: Callable[..., Any]
    resume: Resume
    new_layer_lr: float | None = None
    base: Path | None = None
    given: Path | None = None
    lacks: Callable[[], bool] = lambda: False
    finished: bool = False
    _model: Any = None
    _stage: Stage | None = None
    _known: Mapping[str, ChainResult] = field(default_factory=dict)
    _later: LaterLooks | None = None
    _prepared: dict[str, StageFeatures] = field(default_factory=dict)

    @property
    def stage(self) -> Stage:
        """The stage that is trained, once the script has called :meth:`train`."""
        assert self._stage is not None
        return self._stage

    def train(
        self, args: Namespace, model: Any, train_features: Any, dev_features: Any, *rest: Any, **more: Any
    ) -> None:
        """Train with the script's own loop, then keep the best checkpoint's scores."""
        run, key = self.run, self.run.script.checkpoint_key
        model = model.module if isinstance(model, nn.DataParallel) else model  # copies of a model have no hooks
        self._model = model
        run.reader.fill_missing()
        self._stage, self._known = self.make_stage()
        stage, splits, options = self._stage, run.splits, run.options
        if self._judged_by_gold:
            config = replace(options.config, train_salient="gold")
            self._known = {**self._known, GOLD: training_inputs(splits["dev"], config, stage.seed)}
        wrap_model(model, stage=stage.name, adapter=run.backbone, config=options.config, **options.speed)

        # where the stage starts from
        heads = [*head_names(run.backbone).values()] if options.config.share_encoder else []
        if stage.finds_salient:  # the base but for its head (section 3.3)
            assert self.base is not None
            self._load(load_shared, model, self.base, [str(wrap_state(model).head)], key)
        elif stage.starts_from_base:
            assert self.base is not None
            self._load(load_shared, model, self.base, heads, key)
        elif self.given:
            self._load(load_shared, model, self.given, heads, key)

        # training, unless the given weights are the stage's result
        checkpoint = run.script.checkpoint_in(self.folder)
        args.save_path = run.script.save_path.format(folder=self.folder)
        if self.given and not run.script.load_path_starts:
            self._save(model, checkpoint)
        else:
            features = self._prepare(splits["train"], model).features
            if len(features) < args.train_batch_size:
                raise SegDREError(
                    f"stage {stage.name}: {len(features)} train documents have pairs of this stage, less than one "
                    f"batch of {args.train_batch_size}",
                    "pass a smaller --train_batch_size, or more documents",
                )
            if run.workers.size > 1:
                self._refuse_later_looks()
            self._later = self._looks_later(checkpoint)
            if not self._trained.is_file():
                with (
                    watch_finite(model, stage.name, lambda: self.collate_fn.titles),
                    enough_memory(self._training_batch, TRAINING_HINT),
                ):
                    if options.trainer == "own":
                        self._train_ourselves(args, model, features)
                    else:
                        self.upstream_train(args, model, features, splits["dev"].features, *rest, **more)
                if not checkpoint.exists() and not (self._later and self._later.paths):
                    self._save(model, checkpoint)  # some scripts never evaluate an epoch of a single step
                if self._later:
                    self._later.put_aside()
                for name in run.script.leftovers:
                    (checkpoint.parent / name).unlink(missing_ok=True)
                if self.lacks():
                    self._trained.touch()  # a process that is killed while it waits has not trained in vain
            self._choose(args, model)

        # what the best checkpoint finds in dev and test
        self._load(load_all, model, checkpoint, key)
        read = {split.name: self._read(args, model, split) for split in splits.values() if split.name != "train"}
        if run.workers.is_main:
            self._write(args, model, read)
        self.finished = True

    def _load(self, load: Callable[..., None], model: Any, *how: Any) -> None:
        """Load weights in the main process, and give them to the others."""
        if self.run.workers.is_main:
            load(model, *how)
        self.run.workers.synchronise(model)

    def _save(self, model: Any, checkpoint: Path) -> None:
        """Write a checkpoint in the main process."""
        if self.run.workers.is_main:
            save_checkpoint(model, checkpoint, self.run.script.checkpoint_key)

    def _write(self, args: Namespace, model: Any, read: Mapping[str, ChainResult]) -> None:
        """Write the stage's files but its checkpoint; ``read`` is what it finds in dev and test."""
        run, stage, splits = self.run, self.stage, self.run.splits
        scores = {}
        for name, found in read.items():
            save_result(self.folder, stage, name, found)
            scores[name] = self._judge(splits[name], found)
        if self.base is None:
            keep_model(
                self.folder, model, run.reader.tokenizer, run.backbone, run.reader.arguments, run.script.kept(args)
            )
        if stage.injects:
            made = {name: self._prepared[name] for name in splits}
            injected = {name: {"left_out": part.left_out, "triples": part.injected} for name, part in made.items()}
            write_json(self.folder / INJECTED, injected)
        write_json(self.folder / METRICS, scores)

    @property
    def _trained(self) -> Path:
        """The file that says that training has ended and dev has to wait for the stages before."""
        return self.resume.path.with_suffix(".trained")

    def _looks_later(self, checkpoint: Path) -> LaterLooks | None:
        """Return what keeps the looks at dev while a stage before is under way; None where dev is judged at once."""
        folder = self.folder / "looks"
        fresh = not self.resume.path.is_file() and not self._trained.is_file()
        later = folder.is_dir() or (fresh and self.lacks() and not self._judged_by_gold)
        return LaterLooks(folder, checkpoint) if later else None

    def _refuse_later_looks(self) -> None:
        """Refuse to go on in several processes where ``--seg-parallel`` was cut off, which judges dev later.

        Raises:
            SegDREError: if it was.
        """
        if self._trained.is_file() or (self.folder / "looks").is_dir():
            raise SegDREError(
                f"{self.folder}: begun with --seg-parallel", "go on with --seg-parallel, or remove that folder"
            )

    def _choose(self, args: Namespace, model: Any) -> None:
        """Wait for the stages before, and choose the best checkpoint where dev could not be judged until now."""
        self._inputs("dev")
        best = self._later.best(lambda path: self._score(args, model, path)) if self._later else None
        if self._trained.is_file():
            self._trained.unlink()
        if self._later and best:
            self._later.settle(best)

    def _training_batch(self) -> str:
        return f"stage {self.stage.name}, training on {describe_batch(self.collate_fn.features)}"

    def encoder_parameters(self) -> Iterator[Any]:
        """Yield the parameters of the encoder of the model that is trained."""
        yield from getattr(self._model, self.run.backbone.encoder).parameters()

    def evaluate(self, args: Namespace, model: Any, *_: Any, **__: Any) -> Any:
        """Judge the stage on dev, in the form that the script expects; after training, nothing is left to judge."""
        if self.finished:
            return self.run.script.scores(0.0, {})
        scores = self._look(args, model)
        return self.run.script.scores(next(iter(scores.values())), scores)

    @property
    def _judged_by_gold(self) -> bool:
        return self.run.options.select == "gold" and self.stage.has_own_pairs

    def _look(self, args: Namespace, model: Any, number: int | None = None) -> dict[str, float]:
        """Return the scores of dev, or what stands for them until the stages before are finished."""
        if self._later:
            return dict.fromkeys(self._shown, self._later.put_off(number))
        return self._scores(args, model)

    @property
    def _shown(self) -> Mapping[str, str]:
        if self.stage.finds_salient:
            return IDENTIFY_SCORES
        return SCORES | (EVIDENCE_SCORES if self.run.backbone.evidence else {})

    def _scores(self, args: Namespace, model: Any) -> dict[str, float]:
        dev = self.run.splits["dev"]
        metrics = self._judge(dev, self._read(args, model, dev, GOLD if self._judged_by_gold else ""))
        return {title: metrics.get(name, 0.0) for title, name in self._shown.items()}

    def _score(self, args: Namespace, model: Any, path: Path) -> float:
        """Return the score of a checkpoint, by which the script would have kept it."""
        load_all(model, path, self.run.script.checkpoint_key)
        return self._say(self._scores(args, model))

    def _say(self, scores: Mapping[str, float]) -> float:
        """Print the scores of dev; return the one that decides which checkpoint is kept."""
        print(", ".join(f"dev {name} {100 * value:.2f}" for name, value in scores.items()), flush=True)
        return scores.get(self.run.script.selects, next(iter(scores.values())))

    def _train_ourselves(self, args: Namespace, model: Any, features: Any) -> None:
        """Train with our own loop, by the script's recipe."""
        run, script = self.run, self.run.script
        assert script.recipe is not None
        recipe = script.recipe(args)
        if self.new_layer_lr:
            recipe = replace(recipe, new_layer_lr=self.new_layer_lr)
        loader = self.loader(
            features, batch_size=args.train_batch_size, shuffle=True, drop_last=True, collate_fn=self.collate_fn
        )

        def loss(batch: Any) -> Terms:
            terms = script.terms(args, model(**script.feed(run.backbone.arguments(batch, args.device))))
            return [(mean, n_rows(rows, self.collate_fn.features)) for rows, mean in terms.items()]

        def look(steps: int) -> float:
            return run.workers.share(self._say(self._look(args, model, steps)))

        def keep() -> None:
            save_checkpoint(model, script.checkpoint_in(self.folder), script.checkpoint_key)
            if self._later:
                self._later.put_aside()
            if script.report:
                no_report(draws=not self.stage.has_own_pairs)()  # the script would predict test now

        adamw = run.names["AdamW"]  # the script's: that of older transformers has another epsilon than torch's
        how: dict[str, Any] = {"resume": self.resume, "adamw": adamw, "workers": run.workers}
        train(model, loader, recipe, loss=loss, evaluate=look, keep=keep, **how)

    def _inputs(self, name: str) -> ChainResult:
        """Return what is known of a split, under a name; wait for the stages before where they have to say it."""
        if name not in self._known:
            while self.lacks():
                time.sleep(PERIOD)
            self._known = {**self._known, **self.make_stage()[1]}
        return self._known[name]

    def _prepare(self, split: Split, model: Any, known: str = "") -> StageFeatures:
        """Make the stage's features of a split; once, though dev is judged every epoch."""
        name = known or split.name
        if name not in self._prepared:
            self._prepared[name] = self.stage.prepare(split, model, self._inputs(name))
        return self._prepared[name]

    def _read(self, args: Namespace, model: Any, split: Split, known: str = "") -> ChainResult:
        """Read a split by what is ``known`` of it under its own name or another one."""
        return self.stage.read(
            model,
            split,
            self._inputs(known or split.name),
            self._prepare(split, model, known),
            collate_fn=self.collate_fn,
            batch_size=args.test_batch_size,
            device=args.device,
            label=f"{self.stage.name}: {split.name}",
            workers=self.run.workers,
        )

    def _judge(self, split: Split, found: ChainResult) -> dict[str, float]:
        return judge(self.stage, split, found, self.run.splits["train"].documents)


def n_rows(rows: str, features: Sequence[Feature]) -> int:
    """Return the number of rows of a batch's loss: ``pairs`` of the stage, or those with a relation (``positive``)."""
    chosen = [chosen_pairs(feature) for feature in features]
    if rows == "pairs":
        return int(sum(part.sum() for part in chosen))
    labels = [np.asarray(feature["labels"])[:, 1:].any(axis=1) for feature in features]
    return int(sum((part & own).sum() for part, own in zip(chosen, labels, strict=True)))

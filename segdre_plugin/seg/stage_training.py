"""One stage's training, inside the backbone's own ``main()``, by its own ``train()`` or by ours."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from segdre_plugin.backbones.clones.stand_ins import no_report
from segdre_plugin.backbones.hooks import wrap_state
from segdre_plugin.backbones.memory import TRAINING_HINT, describe_batch, enough_memory
from segdre_plugin.backbones.trainer import Resume, train
from segdre_plugin.backbones.watch import watch_finite
from segdre_plugin.data.files import write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.checkpoints import keep_model, load_all, load_shared, save_checkpoint
from segdre_plugin.seg.script_run import ScriptRun
from segdre_plugin.stages.artifacts import INJECTED, METRICS, save_result
from segdre_plugin.stages.prepare import StageFeatures
from segdre_plugin.stages.scored import judge
from segdre_plugin.stages.stage import ChainResult, Stage
from segdre_plugin.stages.wrap import wrap_model

# The scores of dev that the script logs, under the backbones' names; the first one decides which checkpoint is kept.
SCORES = {"F1": "f1", "F1_ign": "ign_f1"}
EVIDENCE_SCORES = {"evi_F1": "evidence_f1"}
IDENTIFY_SCORES = {"saliency": "saliency", "accuracy": "accuracy"}


@dataclass
class StageTraining:
    """Stands in for the script's ``train`` and ``evaluate`` during one stage.

    Attributes:
        run: the script, its data and its reader.
        make_stage: makes the stage and split name -> what the stages before it found; called when the script has made
            the tokenizer and the features.
        folder: the stage's folder.
        upstream_train: the script's own ``train``.
        collate_fn: the script's collate function, wrapped.
        loader: makes a data loader.
        resume: where our own loop keeps unfinished training.
        new_layer_lr: of our own loop; None: the script's.
        base: checkpoint of the trained base; None in stage base.
        given: weights that ``--load_path`` names for the base; None without.
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
    finished: bool = False
    _model: Any = None
    _stage: Stage | None = None
    _known: Mapping[str, ChainResult] = field(default_factory=dict)
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
        wrap_model(model, stage=stage.name, adapter=run.backbone, config=options.config, **options.speed)

        # where the stage starts from
        if stage.finds_salient:  # the base but for its head (section 3.3)
            assert self.base is not None
            load_shared(model, self.base, str(wrap_state(model).head), key)
        elif stage.starts_from_base:
            assert self.base is not None
            load_all(model, self.base, key)
        elif self.given:
            load_all(model, self.given, key)

        # training, unless the given weights are the stage's result
        checkpoint = run.script.checkpoint_in(self.folder)
        args.save_path = run.script.save_path.format(folder=self.folder)
        if self.given and not run.script.load_path_starts:
            save_checkpoint(model, checkpoint, key)
        else:
            features = self._prepare(splits["train"], model).features
            if len(features) < args.train_batch_size:
                raise SegDREError(
                    f"stage {stage.name}: {len(features)} train documents have pairs of this stage, less than one "
                    f"batch of {args.train_batch_size}",
                    "pass a smaller --train_batch_size, or more documents",
                )
            with (
                watch_finite(model, stage.name, lambda: self.collate_fn.titles),
                enough_memory(self._training_batch, TRAINING_HINT),
            ):
                if options.trainer == "own":
                    self._train_ourselves(args, model, features)
                else:
                    self.upstream_train(args, model, features, splits["dev"].features, *rest, **more)
            if not checkpoint.exists():  # some scripts never evaluate an epoch of a single step
                save_checkpoint(model, checkpoint, key)
            for name in run.script.leftovers:
                (checkpoint.parent / name).unlink(missing_ok=True)

        # what the best checkpoint finds in dev and test
        load_all(model, checkpoint, key)
        scores = {}
        for split in splits.values():
            if split.name != "train":
                found = self._read(args, model, split)
                save_result(self.folder, stage, split.name, found)
                scores[split.name] = self._judge(split, found)
        if self.base is None:
            keep_model(
                self.folder, model, run.reader.tokenizer, run.backbone, run.reader.arguments, run.script.kept(args)
            )
        if stage.injects:
            injected = {
                name: {"left_out": made.left_out, "triples": made.injected} for name, made in self._prepared.items()
            }
            write_json(self.folder / INJECTED, injected)
        write_json(self.folder / METRICS, scores)
        self.finished = True

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

    def _look(self, args: Namespace, model: Any) -> dict[str, float]:
        dev = self.run.splits["dev"]
        metrics = self._judge(dev, self._read(args, model, dev))
        if self.stage.finds_salient:
            shown = IDENTIFY_SCORES
        else:
            shown = SCORES | (EVIDENCE_SCORES if self.run.backbone.evidence else {})
        return {title: metrics.get(name, 0.0) for title, name in shown.items()}

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

        def loss(batch: Any) -> Any:
            return script.loss(args, model(**script.feed(run.backbone.arguments(batch, args.device))))

        def look() -> float:
            scores = self._look(args, model)
            print(", ".join(f"dev {name} {100 * value:.2f}" for name, value in scores.items()), flush=True)
            return scores.get(script.selects, next(iter(scores.values())))

        def keep() -> None:
            save_checkpoint(model, script.checkpoint_in(self.folder), script.checkpoint_key)
            if script.report:
                no_report()()  # the script would predict test now

        adamw = run.names["AdamW"]  # the script's: that of older transformers has another epsilon than torch's
        train(model, loader, recipe, loss=loss, evaluate=look, keep=keep, resume=self.resume, adamw=adamw)

    def _prepare(self, split: Split, model: Any) -> StageFeatures:
        """Make the stage's features of a split; once, though dev is judged every epoch."""
        if split.name not in self._prepared:
            self._prepared[split.name] = self.stage.prepare(split, model, self._known[split.name])
        return self._prepared[split.name]

    def _read(self, args: Namespace, model: Any, split: Split) -> ChainResult:
        return self.stage.read(
            model,
            split,
            self._known[split.name],
            self._prepare(split, model),
            collate_fn=self.collate_fn,
            batch_size=args.test_batch_size,
            device=args.device,
            label=f"{self.stage.name}: {split.name}",
        )

    def _judge(self, split: Split, found: ChainResult) -> dict[str, float]:
        return judge(self.stage, split, found, self.run.splits["train"].documents)

"""``segdre backbone check``: a new backbone's description, checked on a few documents, a line a check.

The train script builds model and features as in any run. Then each stage is walked by hand (wrap, one step, prediction,
unwrap), the whole of ``--seg`` runs, and a bundle of it predicts what it predicted.
"""

from __future__ import annotations

import shutil
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

import torch

from segdre_plugin.backbones.hooks import wrap_state
from segdre_plugin.backbones.registry import Adapter
from segdre_plugin.errors import SegDREError
from segdre_plugin.prediction.answers import official_rows
from segdre_plugin.prediction.clone_code import load_backbone_code
from segdre_plugin.prediction.pipeline import SegPipeline
from segdre_plugin.seg.bundle import bundle_run, read_bundle
from segdre_plugin.seg.check_run import CheckRun
from segdre_plugin.seg.launch import load_script
from segdre_plugin.seg.options import parse
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.seg.training_run import TrainingRun
from segdre_plugin.stages.branches import Verbaliser
from segdre_plugin.stages.config import STAGES
from segdre_plugin.stages.stage import ChainResult, Stage, training_inputs
from segdre_plugin.stages.wrap import unwrap_model, wrap_model


def check_backbone(path: Path, arguments: Sequence[str], adapter: str | None = None) -> None:
    """Check the description of a backbone.

    Args:
        path: the train script in the clone.
        arguments: its command line, as for a run; what is trained and written is not kept.
        adapter: a name, or the path of a Python file; None recognises the script.

    Raises:
        SegDREError: if a check failed.
    """
    main: Any = load_script(path, list(arguments), adapter)
    upstream, backbone, script = main.segdre
    options, sys.argv[1:] = parse(["--seg", *(part for part in arguments if part != "--seg")])
    check = BackboneCheck(vars(sys.modules[upstream.__module__]), upstream, backbone, script, options)
    check.clone = path.resolve().parents[len(Path(script.file).parts) - 1]
    check.run()


BATCH = 2  # documents


class Captured(Exception):  # noqa: N818 - no error
    """What ``main()`` passes to ``train()``, on its way out."""


class BackboneCheck(CheckRun):
    """A run that checks a backbone's description."""

    documents, batches = 2, 2
    clone: Path
    started: Namespace  # the script's arguments when it calls train(), with a device
    model: Any

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        trains = self.script.trains
        if trains and not getattr(self.args, trains):
            raise SegDREError(f"--{trains} is missing", "pass the command line of a run that trains")

    def load(self, files: Mapping[str, str], skip_unusable: bool) -> None:
        """Read and check all of the data, and keep two documents of dev and test, and two batches of train."""
        self.args.train_batch_size = BATCH
        super().load(files, skip_unusable)

    def run_main(self, overrides: Mapping[str, Any], names: Mapping[str, Any]) -> None:
        """Run the script's ``main()`` with the smallest batches."""
        super().run_main({**overrides, "train_batch_size": BATCH}, names)

    def run(self) -> None:
        """Make all checks, print a line for each, and leave nothing behind.

        Raises:
            SegDREError: if one of them failed.
        """
        failed: list[str] = []
        walks = [(f"stage {stage}", partial(self.walk, stage)) for stage in STAGES]
        checks: list[tuple[str, Callable[[], str]]]
        checks = [("data and model of main()", self.build), *walks, ("--seg", self.train), ("a bundle", self.bundle)]
        needed = {name for name, check in checks if check in (self.build, self.train)}
        try:
            for name, check in checks:
                with self.check(name, failed) as say:
                    say(check())
                if name in failed and name in needed:
                    break
        finally:
            self._folder.cleanup()
        if failed:
            raise SegDREError(f"{self.backbone.name}: failed: {', '.join(failed)}", "correct the description")
        print(f"{self.backbone.name}: all checks passed")

    @contextmanager
    def check(self, name: str, failed: list[str]) -> Iterator[Callable[[str], None]]:
        """Print whether what is done inside works, with what is said of it."""
        said: list[str] = []
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                yield said.append
        except (Exception, SystemExit) as error:  # whatever a wrong description makes foreign code do
            failed.append(name)
            said = [f"{name}: {error}"]
            if not isinstance(error, SegDREError):
                said = [f"{name}: {type(error).__name__}: {error}", *self.calls(error)]
            print("FAILED ", "\n        ".join(said), flush=True)
        else:
            print(f"ok      {name}: {'; '.join(said)}", flush=True)

    def calls(self, error: BaseException) -> Iterator[str]:
        """Say which calls in the clone led to an error."""
        clone = self.clone.resolve()
        for frame in traceback.extract_tb(error.__traceback__):
            path = Path(frame.filename).resolve()
            if path.is_relative_to(clone):
                yield f"in {frame.name}, {path.relative_to(clone)}, line {frame.lineno}"

    def train(self) -> str:
        """Run all stages and fuse; say what is predicted."""
        TrainingRun.run(self)
        return f"result.json, {len(RunFolder(self.store.root).result('dev'))} triples predicted in dev"

    def bundle(self) -> str:
        """Make a bundle of the run and predict dev with it: the run's own triples, or it is an error."""
        path = bundle_run(self.store.root, self.store.root.parent / f"{self.store.root.name}-bundle")
        try:
            found = read_bundle(path)
            own = Adapter(self.backbone, self.script, "")
            code = load_backbone_code(found.adapter, self.clone, found.rel2id, found.modules, own)
            answers = SegPipeline.from_pretrained(path, code=code, device=self.started.device)(
                self.splits["dev"].documents
            )
        finally:
            shutil.rmtree(path)
        run, dev = RunFolder(self.store.root), self.splits["dev"].documents
        mine, due = official_rows(answers), run.result("dev")
        chosen = [_entities(answer["salient"]) for answer in answers]
        if mine != due or chosen != [list(chain) for chain in run.salient("dev", dev)]:
            raise SegDREError(
                f"the bundle predicts {len(mine)} triples in dev, the run {len(due)}; triples, evidence or salient "
                "entities differ",
                "the reader or the model needs more than the bundle keeps: Script.args, Script.reading",
            )
        return f"{len(mine)} triples and {len(chosen)} salient entities in dev, those of the run"

    def build(self) -> str:
        """Let ``main()`` read the data and build the model; say what there is."""

        def train(args: Namespace, model: Any, *_: Any, **__: Any) -> None:
            self.started, self.model = args, model
            raise Captured

        try:
            self.run_main({"save_path": self.script.no_save_path, "load_path": ""}, {self.script.names.train: train})
        except Captured:
            pass
        else:
            raise SegDREError("main() ended without a call of train()", "say in Script.names what it is called")
        self.reader.fill_missing()
        features = self.splits["train"].features
        n, pairs = len(features), sum(len(feature["hts"]) for feature in features)
        return f"{type(self.model).__name__}, {n} train documents with {pairs} pairs"

    def walk(self, name: str) -> str:
        """Take one step of a stage and predict with it, on train documents; the model is then as it was."""
        split, config = self.splits["train"], self.options.config
        stage = Stage(name, config, self.rel2id, Verbaliser(self.reader.tokenizer, self.relation_names, config))
        if not stage.has_model:
            return stage.without_model
        before = {key: weight.clone() for key, weight in self.model.state_dict().items()}
        buffers = {key for key, _ in self.model.named_buffers()}  # running means change in training
        model = wrap_model(self.model, stage=name, adapter=self.backbone, config=config, **self.options.speed)
        try:
            known = training_inputs(split, config, self.args.seed)
            prepared = stage.prepare(split, model, known)
            if not prepared.features:
                raise SegDREError("these documents have no pair of this stage", "pass documents with more entities")
            collate = self.collate()
            how = {"collate_fn": collate, "batch_size": BATCH, "device": self.started.device, "label": ""}
            said = [f"{len(prepared.features)} documents", self.step(model, prepared.features, collate)]
            found = stage.read(model, split, ChainResult(salient=known.salient), prepared, **how)
            if stage.finds_salient:
                said.append(f"{len((found.counts or {})['count'])} pairs counted")
            else:
                above = int((found.tables[name].margin > 0).sum())
                said.append(f"{above} relations predicted, as by the model itself")
        finally:
            unwrap_model(model)
        after = model.state_dict()
        changed = [key for key in before.keys() | after.keys() if key not in before or key not in after]
        changed += [key for key in before.keys() & after.keys() - buffers if not torch.equal(before[key], after[key])]
        if changed:
            raise SegDREError(f"unwrapped, the model differs: {', '.join(sorted(changed)[:3])}", "report this")
        return ", ".join(said)

    def step(self, model: Any, features: list[Any], collate: Any) -> str:
        """Compute a loss and its gradients; say what it is."""
        model.train()
        model.zero_grad()
        batch = self.backbone.arguments(collate(features[:BATCH]), self.started.device)
        terms = self.script.terms(self.started, model(**self.script.feed(batch)))
        loss = torch.stack([term.reshape(()) for term in terms.values()]).sum()
        loss.backward()
        head = getattr(model, wrap_state(model).head or self.backbone.classifier)
        for part, module in (("encoder", getattr(model, self.backbone.encoder)), ("classifier", head)):
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            if not any(float(gradient.abs().sum()) > 0 for gradient in gradients):
                raise SegDREError(f"no gradient reaches the {part}", "is it the part that forward computes with?")
            if not all(bool(gradient.isfinite().all()) for gradient in gradients):
                raise SegDREError(f"gradients of the {part} are not finite")
        return f"loss {float(loss):.3g}"


def _entities(salient: Any) -> list[int]:
    """Return the entities that an answer calls salient: one, several or none."""
    chain = salient if isinstance(salient, list) else [salient] if salient else []
    return [one["entity"] for one in chain]

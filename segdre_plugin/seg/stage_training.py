"""One stage's training, inside the backbone's own ``main()`` and by its own ``train()``."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from segdre_plugin.data.files import read_weights, write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.checkpoints import keep_model
from segdre_plugin.stages.artifacts import INJECTED
from segdre_plugin.stages.stage import Stage
from segdre_plugin.stages.wrap import wrap_model

if TYPE_CHECKING:
    from segdre_plugin.seg.training_run import Session

# What the script logs of dev, under the names that the backbones use; the first decides which checkpoint is kept.
SCORES = {"F1": "f1", "F1_ign": "ign_f1"}
EVIDENCE_SCORES = {"evi_F1": "evidence_f1"}
IDENTIFY_SCORES = {"saliency": "saliency", "accuracy": "accuracy"}


class Training:
    """What stands in for the script's ``train`` and ``evaluate`` during one stage."""

    def __init__(self, session: Session, name: str, folder: Path, train: Callable[..., Any]) -> None:
        self.session, self.name, self.folder, self.upstream_train = session, name, folder, train
        self.stage: Stage | None = None  # needs the tokenizer and the features, which main() makes first
        self.collate_fn: Any = None
        self.finished = False

    def train(self, args: Namespace, model: Any, train_features: Any, dev_features: Any, *rest: Any) -> None:
        """Train with the script's own loop, then keep the best checkpoint's scores."""
        session = self.session
        session.reader.fill_missing()
        self.stage = session.prepare(self.name)
        options = session.options
        wrap_model(model, stage=self.name, adapter=session.backbone, config=options.config, **options.speed)
        self.collate_fn = session.names["collate_fn"]
        checkpoint = Path(session.script.checkpoint.format(folder=self.folder))
        args.save_path = session.script.save_path.format(folder=self.folder)
        if self.name == "identify":
            _load_shared(model, session.checkpoint("base"), session.backbone.classifier)
        elif self.name in ("dense", "sparse") and options.config.start == "base":
            load_all(model, session.checkpoint("base"))
        splits = session.splits
        given = self.name == "base" and bool(session.args.load_path)
        if given:
            load_all(model, session.given_weights())
        if given and not session.script.load_path_starts:
            torch.save(model.state_dict(), checkpoint)
        else:
            features = self.stage.prepare(splits["train"], model).features
            if len(features) < args.train_batch_size:
                raise SegDREError(
                    f"stage {self.name}: {len(features)} train documents have pairs of this stage, less than one "
                    f"batch of {args.train_batch_size}",
                    "pass a smaller --train_batch_size, or more documents",
                )
            self.upstream_train(args, model, features, splits["dev"].features, *(splits["test"].features for _ in rest))
            if not checkpoint.exists():  # some scripts never evaluate an epoch of a single step
                torch.save(model.state_dict(), checkpoint)
            for name in session.script.leftovers:
                (checkpoint.parent / name).unlink(missing_ok=True)
        load_all(model, checkpoint)
        scores = {
            split.name: self._judge(args, model, split, self.folder)
            for split in splits.values()
            if split.name != "train"
        }
        if self.name == "base":
            script = session.names.get("__file__") if session.script.versions else None
            reader = session.reader
            keep_model(self.folder, model, reader.tokenizer, session.backbone, reader.arguments, script)
        if self.name == "sparse":
            write_json(self.folder / INJECTED, self.stage.injected)
        write_json(self.folder / "metrics.json", scores)
        self.finished = True

    def evaluate(self, args: Namespace, model: Any, features: Any, tag: str = "dev") -> Any:
        """Judge the stage on dev, in the form that the script expects."""
        metrics = self._judge(args, model, self.session.splits["dev"], None)
        shown = IDENTIFY_SCORES if self.name == "identify" else SCORES
        if self.session.backbone.evidence and self.name != "identify":
            shown = SCORES | EVIDENCE_SCORES
        scores = {title: metrics.get(name, 0.0) for title, name in shown.items()}
        return self.session.script.scores(next(iter(scores.values())), scores)

    def _judge(self, args: Namespace, model: Any, split: Split, folder: Path | None) -> dict[str, float]:
        assert self.stage is not None
        return self.stage.judge(
            model,
            split,
            self.collate_fn,
            self.session.splits["train"].documents,
            folder,
            batch_size=args.test_batch_size,
            device=args.device,
            label=f"{self.name}: {split.name}",
        )


def load_all(model: torch.nn.Module, path: Path) -> None:
    """Load a checkpoint into a model.

    Args:
        model: the model.
        path: the checkpoint.

    Raises:
        SegDREError: if it is missing, broken, or of another model.
    """
    weights = read_weights(path, "checkpoint")
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise SegDREError(f"{path} does not fit the model: {error}", "use the encoder it was made with") from None


def _load_shared(model: torch.nn.Module, path: Path, classifier: str) -> None:
    """Initialise all but the count head from the base model (section 3.3)."""
    shared = {k: v for k, v in read_weights(path, "base").items() if not k.startswith(f"{classifier}.")}
    missing, unexpected = model.load_state_dict(shared, strict=False)
    strange = [name for name in missing if not name.startswith(f"{classifier}.")] + list(unexpected)
    if strange:
        raise SegDREError(f"{path} does not fit the model: {', '.join(strange[:5])}", "train the base stage again")

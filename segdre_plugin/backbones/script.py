"""Descriptions of the backbones' train scripts, as data, so that ``--seg`` can drive them.

The scripts of ATLOP's descendants have the same shape: ``main()`` parses arguments, reads the data, builds the model
and calls ``train()``, which calls ``evaluate()`` now and then and keeps the best checkpoint. All of these names are
looked up in the module when ``main()`` runs, so they can be swapped.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from segdre_plugin.backbones.trainer import Recipe

from segdre_plugin.errors import raise_all

REL2ID = "meta/rel2id.json"  # where the published scripts read it, relative to the working directory
# Options that the scripts of all descendants of ATLOP declare, and attributes that all of their models have.
OPTIONS = frozenset(
    {"--adam_epsilon", "--config_name", "--data_dir", "--dev_file", "--evaluation_steps", "--load_path", "--seed"}
    | {"--gradient_accumulation_steps", "--max_grad_norm", "--max_seq_length", "--model_name_or_path", "--save_path"}
    | {"--num_class", "--num_train_epochs", "--test_batch_size", "--test_file", "--tokenizer_name", "--train_file"}
    | {"--train_batch_size", "--transformer_type", "--warmup_ratio"}
)
ATTRIBUTES = frozenset(
    {"bilinear", "block_size", "config", "emb_size", "head_extractor", "hidden_size", "tail_extractor"}
)


@dataclass(frozen=True)
class Script:
    """A train script.

    Attributes:
        file: its name in the clone.
        patch: the name of our patch in ``segdre_plugin.patches``.
        versions: git blob hash of each version of the file that the patch fits -> a name for it.
        options: options of the original's parser, and ...
        attributes: ... attributes that its model assigns to itself, by which a changed script is recognised.
        checkpoint: path of the best checkpoint, with ``{folder}`` for a stage's folder.
        save_path: the ``args.save_path`` that leads there.
        scores: (dev score, dev metrics) -> what the script's ``evaluate()`` returns; the score decides what is kept.
        rel2id: path of its relations, with ``{data_dir}`` for the data folder.
        report: name of the function that predicts the test split, if the script has one.
        required: modules that the script imports besides torch, transformers and this package's own dependencies.
        silent: names of functions that write files of the script's own; with ``--seg`` they do nothing.
        leftovers: files that ``train()`` leaves beside the checkpoint and that are deleted.
        fixes: name of a function of the script -> (function) -> one that works with today's libraries.
        trains: the argument without which ``main()`` evaluates a saved model; None if it always trains.
        predicts: arguments with which ``main()`` reads ``--test_file`` and calls ``evaluate()`` once.
        fuses: (arguments) -> whether they ask for inference-stage fusion; None if the script has none.
        load_path_starts: ``--load_path`` names the weights that training starts from (otherwise the base itself).
        places: arguments for paths and for evaluation, which do not change what is trained.
        refused: arguments that do not go with ``--seg`` -> a hint.
        inputs: (arguments, train file) -> further files that training reads, by name.
        reading: arguments of the reader -> type; the other ones of a bundle or a run are refused.
        train_only: further arguments of the reader, which concern the train split only.
        explain: (further files, train documents) -> the problems of those files; called when the reader fails.
        max_sentences: the argument with the largest number of sentences of a document.
        recipe: (arguments) -> how ``train()`` trains, for our own loop; None: it cannot take its place.
        loss: (arguments, output of the training model's ``forward``) -> the loss that ``train()`` minimises.
        feed: (batch as arguments of ``forward``) -> those that ``train()`` passes.
        selects: the dev score by which ``train()`` keeps a checkpoint.
    """

    file: str
    patch: str
    versions: Mapping[str, str]
    checkpoint: str
    save_path: str
    scores: Callable[[float, Mapping[str, float]], Any]
    options: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    rel2id: str = REL2ID
    report: str | None = None
    required: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    fixes: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = field(default_factory=dict)
    trains: str | None = None
    predicts: Mapping[str, Any] = field(default_factory=dict)
    fuses: Callable[[Namespace], bool] | None = None
    load_path_starts: bool = False
    places: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    inputs: Callable[[Namespace, Path], Mapping[str, Path]] = lambda args, train_file: {}
    reading: Mapping[str, type] = field(default_factory=lambda: {"max_seq_length": int})
    train_only: tuple[str, ...] = ()
    explain: Callable[[Mapping[str, Path], Sequence[Mapping[str, Any]]], list[str]] = lambda files, documents: []
    max_sentences: str | None = None
    recipe: Callable[[Namespace], Recipe] | None = None
    loss: Callable[[Namespace, Any], Tensor] = lambda args, output: output[0]
    feed: Callable[[dict[str, Any]], dict[str, Any]] = lambda inputs: inputs
    selects: str = "F1"

    def check_reading(self, found: Mapping[str, Any], where: str) -> None:
        """Refuse arguments of the reader that are not in ``reading``: they may name files that it trusts.

        Raises:
            SegDREError: with all that are not; ``where`` begins the message.
        """
        problems = []
        for name, value in found.items():
            expected = self.reading[name].__name__ if name in self.reading else f"only {', '.join(self.reading)}"
            if type(value) is not self.reading.get(name):
                problems.append(f"{name}: expected {expected}, got {value!r:.80}")
        hint = "do not use what a stranger made; for a backbone of your own, add the argument to Script.reading"
        raise_all(problems, f"{where}: arguments of the reader", hint)

    def checkpoint_in(self, folder: Path) -> Path:
        """Return the checkpoint in a stage's folder."""
        return Path(self.checkpoint.format(folder=folder))

    def checkpoint_at(self, path: str) -> Path:
        """Return the checkpoint that a ``--save_path`` or ``--load_path`` means: a file, or one in a folder."""
        return Path(path) / relpath(self.checkpoint.format(folder="x"), self.save_path.format(folder="x"))

"""Descriptions of the backbones' train scripts, as data, so that ``--seg`` can drive them.

The scripts of ATLOP's descendants have the same shape: ``main()`` parses arguments, reads the data, builds the model
and calls ``train()``, which calls ``evaluate()`` now and then and keeps the best checkpoint. All of these names are
looked up in the module when ``main()`` runs, so they can be swapped. What no field can say is done by ``install``.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from segdre_plugin.backbones.trainer import Recipe

from segdre_plugin.errors import SegDREError, raise_all

ROWS = ("pairs", "positive")  # of which a term of a loss may be the mean: those of a batch, those with a relation
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


def dev_scores(score: float, metrics: Mapping[str, float]) -> tuple[float, dict[str, float]]:
    """Return a dev score and, to be printed, its metrics in percent, as ATLOP's ``evaluate()`` does."""
    return score, {f"dev_{name}": 100 * value for name, value in metrics.items()}


@dataclass(frozen=True)
class Names:
    """The names that a train script has for what is swapped.

    Attributes:
        model: the model's class.
        reader: (file, tokenizer, further arguments, in the order of ``Script.reads``) -> features, or a tuple that
            begins with them.
        collate: (features) -> batch.
        loader: the class of data loaders.
        train: (args, model, train features, dev features, anything) -> anything.
        evaluate: (args, model, anything) -> what ``Script.scores`` makes.
    """

    model: str = "DocREModel"
    reader: str = "read_docred"
    collate: str = "collate_fn"
    loader: str = "DataLoader"
    train: str = "train"
    evaluate: str = "evaluate"


@dataclass(frozen=True)
class Script:
    """A train script.

    Attributes:
        file: its path in the clone.
        patch: the name of our patch in ``segdre_plugin.patches``; empty: ``segdre run`` does without one.
        versions: git blob hash of each version of the file that was tried -> a name for it.
        options: options of the original's parser, and ...
        attributes: ... attributes that its model assigns to itself, by which a changed script is recognised.
        checkpoint: path of the best checkpoint, with ``{folder}`` for a stage's folder.
        save_path: the ``args.save_path`` that leads there.
        no_save_path: the ``args.save_path`` with which ``main()`` starts.
        saved: (arguments) -> name of the checkpoint in ``--save_path``, where the script makes one up.
        checkpoint_key: key of the state dict in the checkpoint; None: it is the checkpoint.
        scores: (dev score, dev metrics) -> what the script's ``evaluate()`` returns; the score decides what is kept.
        names: what it calls the model, the reader and others.
        modules: the modules beside it that define the model, the reader and the collate function, for prediction.
        install: (globals of the script) -> None, before its ``main`` is taken: the last resort, for what has another
            form than that of ``names``. In prediction it gets the globals of ``modules``.
        rel2id: path of its relations, with ``{data_dir}`` for the data folder.
        report: name of the function that predicts the test split or looks at dev otherwise, if the script has one.
        reported: what that function returns where it predicts nothing.
        required: modules that the script imports besides torch, transformers and this package's own dependencies.
        commands: those of ``required`` that pip does not install by their names -> the command that does.
        supplied: modules that it imports and hardly uses -> the names in them; they stand in where there are none.
        without_gpu: the same for modules, of the clone too, that work with a GPU only.
        silent: names of functions that write files of the script's own; with ``--seg`` they do nothing.
        stand_ins: further names -> (what the script has) -> what stands in for it while a stage runs.
        caches: files of features that ``main()`` writes into the data folder and reads again, with ``{file}`` for the
            name of a data file and any argument; with ``--seg`` they are neither read nor written.
        leftovers: files that ``train()`` leaves beside the checkpoint and that are deleted.
        fixes: name of a function of the script -> (function) -> one that works with today's libraries.
        trains: the argument without which ``main()`` evaluates a saved model; None if it always trains.
        predicts: arguments with which ``main()`` reads ``--test_file`` and calls ``evaluate()`` once.
        fuses: (arguments) -> whether they ask for inference-stage fusion; None if the script has none.
        load_path_starts: ``--load_path`` names the weights that training starts from (otherwise the base itself).
        places: arguments for paths and for evaluation, which do not change what is trained.
        refused: arguments that do not go with ``--seg`` -> a hint.
        values: arguments that need one of these values with ``--seg``.
        inputs: (arguments, train file) -> further files that training reads, by name.
        reads: the reader's positional arguments: ``path``, ``tokenizer``, ``args`` (the script's arguments), others.
        reading: arguments of the reader -> type; the other ones of a bundle or a run are refused.
        args: those of the script's arguments that its model or its reader looks up -> type; a bundle keeps them.
        train_only: further arguments of the reader, which concern the train split only.
        explain: (further files, train documents) -> the problems of those files; called when the reader fails.
        max_sentences: the argument with the largest number of sentences of a document.
        max_entities: the largest number of entities of a document, or the argument that says it.
        recipe: (arguments) -> how ``train()`` trains, for our own loop; None: it cannot take its place.
        loss: (arguments, output of the training model's ``forward``) -> the terms of the loss that ``train()``
            minimises, by the rows of which each is the mean, of ``ROWS``; called by :meth:`terms`.
        feed: (batch as arguments of ``forward``) -> those that ``train()`` passes.
        selects: the dev score by which ``train()`` keeps a checkpoint.
    """

    file: str
    patch: str
    versions: Mapping[str, str]
    checkpoint: str
    save_path: str
    scores: Callable[[float, Mapping[str, float]], Any] = dev_scores
    options: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    no_save_path: str = ""
    saved: Callable[[Namespace], str] | None = None
    checkpoint_key: str | None = None
    names: Names = Names()
    modules: tuple[str, str, str] = ("model", "prepro", "utils")
    install: Callable[[MutableMapping[str, Any]], None] = lambda names: None
    rel2id: str = REL2ID
    report: str | None = None
    reported: Any = ()
    required: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    supplied: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    without_gpu: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    stand_ins: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    caches: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()
    fixes: Mapping[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = field(default_factory=dict)
    trains: str | None = None
    predicts: Mapping[str, Any] = field(default_factory=dict)
    fuses: Callable[[Namespace], bool] | None = None
    load_path_starts: bool = False
    places: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    inputs: Callable[[Namespace, Path], Mapping[str, Path]] = lambda args, train_file: {}
    reads: tuple[str, ...] = ("path", "tokenizer")
    reading: Mapping[str, type] = field(default_factory=lambda: {"max_seq_length": int})
    args: Mapping[str, type] = field(default_factory=dict)
    train_only: tuple[str, ...] = ()
    explain: Callable[[Mapping[str, Path], Sequence[Mapping[str, Any]]], list[str]] = lambda files, documents: []
    max_sentences: str | None = None
    max_entities: str | int | None = None
    recipe: Callable[[Namespace], Recipe] | None = None
    loss: Callable[[Namespace, Any], Mapping[str, Tensor]] = lambda args, output: {"pairs": output[0]}
    feed: Callable[[dict[str, Any]], dict[str, Any]] = lambda inputs: inputs
    selects: str = "F1"

    def terms(self, args: Namespace, output: Any) -> Mapping[str, Tensor]:
        """Return what ``loss`` finds in an output.

        Raises:
            SegDREError: if it is not as described.
        """
        found: Any = self.loss(args, output)
        hint = f'say in Script.loss where the loss is, as {{"pairs": loss}}; rows: {", ".join(ROWS)}'
        if not isinstance(found, Mapping) or not found or not found.keys() <= set(ROWS):
            names = ", ".join(map(str, found)) if isinstance(found, Mapping) else repr(found)
            raise SegDREError(f"expected terms of a loss by rows, got {names or 'none':.80}", hint)
        wrong = [term for term in found.values() if getattr(term, "numel", int)() != 1]
        if wrong:
            raise SegDREError(f"expected a loss, got {type(wrong[0]).__name__}", hint)
        return found

    @property
    def imported(self) -> str:
        """The path of the relations that the clone reads when it is imported."""
        return REL2ID if "{" in self.rel2id else self.rel2id

    def check_reading(self, found: Mapping[str, Any], where: str) -> None:
        """Refuse arguments of the reader that are not in ``reading``: they may name files that it trusts.

        Raises:
            SegDREError: with all that are not; ``where`` begins the message.
        """
        _check(found, self.reading, f"{where}: arguments of the reader", "Script.reading")

    def check_args(self, found: Mapping[str, Any], where: str) -> None:
        """Refuse arguments of the script that are not in ``args``.

        Raises:
            SegDREError: with all that are not; ``where`` begins the message.
        """
        _check(found, self.args, f"{where}: arguments of the script that a bundle keeps", "Script.args")

    def kept(self, args: Namespace) -> dict[str, Any]:
        """Return the arguments in ``args``, which a bundle keeps.

        Raises:
            SegDREError: if one is of another type.
        """
        found = {name: getattr(args, name, None) for name in self.args}
        # argparse converts a default only if it is a text
        found = {k: float(v) if self.args[k] is float and type(v) is int else v for k, v in found.items()}
        self.check_args(found, self.file)
        return found

    def checkpoint_in(self, folder: Path) -> Path:
        """Return the checkpoint in a stage's folder."""
        return Path(self.checkpoint.format(folder=folder))

    def checkpoint_at(self, path: str, args: Namespace) -> Path:
        """Return the checkpoint that a ``--save_path`` or ``--load_path`` means: a file, or one in a folder."""
        if self.saved:
            return Path(path) / self.saved(args)
        return Path(path) / relpath(self.checkpoint.format(folder="x"), self.save_path.format(folder="x"))


def _check(found: Mapping[str, Any], allowed: Mapping[str, type], where: str, field_name: str) -> None:
    problems = []
    for name, value in found.items():
        expected = allowed[name].__name__ if name in allowed else f"only {', '.join(allowed)}"
        if type(value) is not allowed.get(name):
            problems.append(f"{name}: expected {expected}, got {value!r:.80}")
    hint = f"do not use what a stranger made; for a backbone of your own, add the argument to {field_name}"
    raise_all(problems, where, hint)

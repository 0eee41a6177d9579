"""The script's own arguments, checked before anything is trained: the scripts themselves take any number.

The names are those that the scripts of ATLOP's descendants share; one that a script does not have is not checked.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.features import START_TOKENS
from segdre_plugin.backbones.script import Script
from segdre_plugin.backbones.windows import capacity
from segdre_plugin.errors import raise_all

# Arguments that say where things are, not what is computed; the data are known by their hashes.
PLACES = frozenset(
    {
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
)
LARGEST_SEED = 2**32 - 1  # of NumPy's generator

AT_LEAST_ONE: tuple[Callable[[Any], bool], str] = (lambda value: value >= 1, "1 or more")
POSITIVE: tuple[Callable[[Any], bool], str] = (lambda value: value > 0, "a positive number")
# argument -> whether a value is legal, and which ones are
LEGAL: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("train_batch_size", "test_batch_size", "gradient_accumulation_steps"), AT_LEAST_ONE),
    **dict.fromkeys(("num_train_epochs", "max_sent_num", "emb_size", "block_size"), AT_LEAST_ONE),
    **dict.fromkeys(("learning_rate", "lr_transformer", "lr_added", "new_layer_lr", "adam_epsilon"), POSITIVE),
    "warmup_ratio": (lambda value: 0 <= value <= 1, "a share from 0 to 1"),
    "seed": (lambda value: 0 <= value <= LARGEST_SEED, f"0 to {LARGEST_SEED}"),
    "max_seq_length": (lambda value: value >= 3, "3 or more: a document has two special tokens"),
}


def check_arguments(args: Namespace, backbone: Backbone, script: Script) -> None:
    """Check the arguments of a script that ``--seg`` drives.

    Raises:
        SegDREError: with all that are not legal.
    """
    problems = [
        f"--{name}: expected {expected}, got {value!r}"
        for name, value, expected in _illegal(vars(args), backbone, script)
    ]
    raise_all(problems, f"arguments with which {script.file} cannot run", "correct them")


def _illegal(values: dict[str, Any], backbone: Backbone, script: Script) -> Iterator[tuple[str, Any, str]]:
    """Yield the name and the value of each illegal argument, and what is legal."""
    for name, value in values.items():
        if isinstance(value, float) and not math.isfinite(value):
            yield name, value, "a finite number"
        elif name in LEGAL and value is not None and not LEGAL[name][0](value):
            yield name, value, LEGAL[name][1]
    for name, legal in script.values.items():
        if values.get(name) not in legal:
            yield name, values.get(name), f"{' or '.join(map(repr, legal))} with --seg"
    if values.get("num_labels", 0) > values["num_class"]:
        yield "num_labels", values["num_labels"], f"at most {values['num_class']}, the number of classes (--num_class)"
    if values["transformer_type"] not in backbone.end_tokens:
        yield "transformer_type", values["transformer_type"], " or ".join(sorted(backbone.end_tokens))
    longest, two = values.get("max_seq_length"), 2 * backbone.window
    if longest is not None and backbone.windows is not None and backbone.windows > 2:
        end = max(backbone.end_tokens.values())
        most = capacity(backbone.window, START_TOKENS, end, backbone.windows)
        if not two < longest <= most:
            several = f"more than {two} with --seg-windows {backbone.windows}: two windows hold these"
            yield "max_seq_length", longest, f"{several}; and at most {most}, which they hold without a gap"
    # a script that can evaluate alone reads --test_file only then
    for name in ("train_file", "dev_file", *(("test_file",) if script.trains is None else ())):
        if not values[name]:
            yield name, values[name], "the name of a file in --data_dir"

"""What a backbone's train script looks like, as data, so that ``--seg`` can drive it.

The scripts of ATLOP's descendants have the same shape: ``main()`` parses arguments, reads the data, builds the model
and calls ``train()``, which calls ``evaluate()`` now and then and keeps the best checkpoint. All of these names are
looked up in the module when ``main()`` runs, so they can be swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Script:
    """A train script.

    Attributes:
        file: its name in the clone.
        patch: the name of our patch in ``segdre_plugin.patches``.
        versions: git blob hash of each version of the file that the patch fits -> what it is.
        checkpoint: where the best checkpoint lies, with ``{folder}`` for a stage's folder.
        save_path: what ``args.save_path`` must be for that.
        scores: (dev score, dev metrics) -> what the script's ``evaluate()`` returns.
        report: name of the function that predicts the test split, if the script has one.
        required: modules that the script imports besides torch, transformers and this package's own dependencies.
    """

    file: str
    patch: str
    versions: Mapping[str, str]
    checkpoint: str
    save_path: str
    scores: Callable[[float, Mapping[str, float]], Any]
    report: str | None = "report"
    required: tuple[str, ...] = ()

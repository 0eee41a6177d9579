"""Stand-ins for names that the backbones' scripts use and today's libraries lack.

The scripts were written for transformers 3 and 4, apex and wandb. :func:`supply_modules` runs before their imports,
:func:`adapt_names` after them, on the script's own names; nothing is changed where the real thing is there.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, MutableMapping
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch
import transformers
import transformers.optimization
from torch import nn

from segdre_plugin.backbones.clones import apex as amp
from segdre_plugin.backbones.script import Script
from segdre_plugin.errors import SegDREError


class AdamW(torch.optim.AdamW):
    """The optimiser that transformers had until 4.x: torch's, without weight decay by default.

    transformers added ``eps`` before the bias correction, torch adds it after: equal but for the scale of ``eps``.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


class _NoRun:
    """A wandb that records nothing."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}

    def log(self, *_: Any, **__: Any) -> None:
        """Record nothing."""

    def finish(self, *_: Any, **__: Any) -> None:
        """End nothing."""


def _stand_in(name: str) -> ModuleType:
    """Make an empty module; with a spec, without which ``find_spec`` (transformers asks it) raises ValueError."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    return module


def supply_modules() -> list[str]:
    """Put stand-ins where a module or a name that the scripts import is missing; return their names, for a message."""
    supplied = []
    if not _importable("apex"):
        apex = _stand_in("apex")
        apex.amp = amp  # type: ignore[attr-defined]
        sys.modules["apex"] = apex
        sys.modules["apex.amp"] = amp
        supplied.append("apex")
    if not _importable("wandb"):
        wandb, run = _stand_in("wandb"), _NoRun()
        wandb.init = lambda *_, **__: run  # type: ignore[attr-defined]
        wandb.log, wandb.finish, wandb.config = run.log, run.finish, run.config  # type: ignore[attr-defined]
        sys.modules["wandb"] = wandb
        supplied.append("wandb")
    if not _importable("ujson"):
        sys.modules["ujson"] = json
        supplied.append("ujson")
    if not hasattr(transformers.optimization, "AdamW"):
        transformers.optimization.AdamW = AdamW
        supplied.append("transformers.optimization.AdamW")
    return supplied


def adapt_names(names: MutableMapping[str, Any], script: Script) -> None:
    """Adapt a script's globals to today's libraries, to machines without a GPU, and to models that predict nothing."""
    names["AutoConfig"] = AutoConfig
    names["AutoModel"] = AutoModel
    names["AutoTokenizer"] = AutoTokenizer
    names["DocREModel"] = _on_any_device(names["DocREModel"])
    for name, fix in script.fixes.items():
        names[name] = fix(names[name])
    names["evaluate"] = _with_empty_predictions(names["evaluate"], script)


def _load(auto: Any, path: str, *args: Any, **kwargs: Any) -> Any:
    """Load as transformers does; raise SegDREError, whatever it raises for a folder that is missing or damaged."""
    try:
        return auto.from_pretrained(path, *args, **kwargs)
    except Exception as error:
        reason = (str(error).splitlines() or [""])[0]
        raise SegDREError(
            f"encoder {path!r} cannot be loaded: {type(error).__name__}: {reason}",
            "pass the folder of a saved encoder and its tokenizer, or a name on the Hugging Face Hub "
            "(--model_name_or_path, --config_name, --tokenizer_name)",
        ) from error


class AutoConfig:
    """``AutoConfig`` that says what is wrong with a folder."""

    @staticmethod
    def from_pretrained(path: str, *args: Any, **kwargs: Any) -> Any:
        """Load an encoder's configuration as transformers does."""
        return _load(transformers.AutoConfig, path, *args, **kwargs)


class AutoModel:
    """``AutoModel`` with eager attention, which alone returns the weights that the backbones pool."""

    @staticmethod
    def from_pretrained(path: str, *args: Any, from_tf: bool = False, **kwargs: Any) -> Any:
        """Load an encoder as transformers does; raise SegDREError for TensorFlow's."""
        if from_tf:
            raise SegDREError(f"{path}: TensorFlow checkpoints cannot be loaded any more", "convert it to PyTorch")
        kwargs.setdefault("attn_implementation", "eager")
        return _load(transformers.AutoModel, path, *args, **kwargs)


class AutoTokenizer:
    """``AutoTokenizer`` whose tokenizers have ``build_inputs_with_special_tokens``, gone in transformers 5."""

    @staticmethod
    def from_pretrained(path: str, *args: Any, **kwargs: Any) -> Any:
        """Load a tokenizer as transformers does."""
        tokenizer = _load(transformers.AutoTokenizer, path, *args, **kwargs)
        build = getattr(tokenizer, "build_inputs_with_special_tokens", list)
        if tokenizer.cls_token_id is not None and not build([]):  # transformers 4's generic tokenizer adds none
            # one sequence of the BERT and RoBERTa families
            tokenizer.build_inputs_with_special_tokens = lambda ids: [
                tokenizer.cls_token_id,
                *ids,
                tokenizer.sep_token_id,
            ]
        return tokenizer


def _on_any_device(cls: type[nn.Module]) -> type[nn.Module]:
    """Let ``model.to(0)`` mean the CPU where there is no GPU."""

    class Model(cls):  # type: ignore[valid-type, misc]
        def to(self, *args: Any, **kwargs: Any) -> Any:
            if args and isinstance(args[0], int) and not torch.cuda.is_available():
                args = ("cpu", *args[1:])
            return super().to(*args, **kwargs)

    Model.__name__ = Model.__qualname__ = cls.__name__
    return Model


def _with_empty_predictions(evaluate: Callable[..., Any], script: Script) -> Callable[..., Any]:
    """Score a model that predicts nothing with 0: ATLOP's ``evaluate`` leaves its result unset then."""

    def evaluated(*args: Any, **kwargs: Any) -> Any:
        try:
            return evaluate(*args, **kwargs)
        except UnboundLocalError:
            print("segdre: nothing is predicted: F1 is 0", file=sys.stderr)
            return script.scores(0.0, {"F1": 0.0, "F1_ign": 0.0})

    return evaluated


def _importable(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None

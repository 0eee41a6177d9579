"""Stand-ins for names that the backbones' scripts use and today's libraries lack.

The scripts were written for transformers 3 and 4, apex and wandb, and for a GPU. :func:`supply_modules` runs before
their imports, :func:`adapt_names` after them, on the script's own names, and :func:`on_host` while they run; nothing is
changed where the real thing is there.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import ModuleSpec
from threading import Lock
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


def supply_modules(script: Script | None = None) -> list[str]:
    """Put stand-ins where a module or a name that the scripts import is missing; return their names, for a message."""
    gpu = torch.cuda.is_available()
    supplied = stand_in_modules(script.supplied if script else {})
    if not (gpu and _works("apex.amp")) and "apex" not in sys.modules:  # a clone may have an apex that no longer works
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
    if script and not gpu:
        supplied += stand_in_modules(script.without_gpu, always=True)
    return supplied


def stand_in_modules(modules: Mapping[str, Mapping[str, Any]], always: bool = False) -> list[str]:
    """Put stand-ins where ``modules`` (dotted name -> names in it) are missing, or ``always``; return their names."""
    missing = [name for name in modules if always or not _importable(name.split(".")[0])]
    supplied = []
    for name in missing:
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                sys.modules[path] = module = _stand_in(path)
                module.__path__ = []
                supplied.append(path)
                if end > 1:
                    setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], module)
        vars(sys.modules[name]).update(modules[name])
    return supplied


def adapt_names(names: MutableMapping[str, Any], script: Script) -> None:
    """Adapt a script's globals to today's libraries and to models that predict nothing."""
    names["AutoConfig"] = AutoConfig
    names["AutoModel"] = AutoModel
    names["AutoTokenizer"] = AutoTokenizer
    for name, fix in script.fixes.items():
        names[name] = fix(names[name])
    evaluate = script.names.evaluate
    names[evaluate] = _with_empty_predictions(names[evaluate], script)


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
    """``AutoModel`` as the scripts knew it: attention that returns weights, and 32 bits.

    transformers 5 loads a checkpoint in the type in which it was saved, and half precision cannot be trained without
    scaled losses; transformers 4 gave float32 unless a type was asked for.
    """

    @staticmethod
    def from_pretrained(path: str, *args: Any, from_tf: bool = False, **kwargs: Any) -> Any:
        """Load an encoder as transformers does; raise SegDREError for TensorFlow's."""
        if from_tf:
            raise SegDREError(f"{path}: TensorFlow checkpoints cannot be loaded any more", "convert it to PyTorch")
        kwargs.setdefault("attn_implementation", "eager")
        model = _load(transformers.AutoModel, path, *args, **kwargs)
        return model if kwargs.keys() & {"dtype", "torch_dtype"} else model.float()


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


_hosts = 0  # how many contexts of on_host are entered
_host_lock = Lock()


@contextmanager
def on_host() -> Iterator[None]:
    """Make a clone's ``.cuda()``, ``.to(0)`` and ``.to("cuda")`` mean the CPU inside the context if there is no GPU.

    Existing tensors and modules stay where they are; with a GPU, nothing changes.
    """
    global _hosts
    if torch.cuda.is_available():
        yield
        return
    with _host_lock:
        _hosts += 1
        if _hosts == 1:
            torch.Tensor.to = _to_host(torch.Tensor.to)  # type: ignore[method-assign]
            torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign]
            nn.Module.to = _to_host(nn.Module.to)  # type: ignore[method-assign]
    try:
        yield
    finally:
        with _host_lock:
            _hosts -= 1
            if not _hosts:
                nn.Module.to = nn.Module.to.__wrapped__  # type: ignore[attr-defined, method-assign]
                del torch.Tensor.to, torch.Tensor.cuda  # what it inherits shows again


def _to_host(to: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a ``to`` so that a GPU means the CPU."""

    @wraps(to)
    def moved(what: Any, *args: Any, **kwargs: Any) -> Any:
        if args and _is_gpu(args[0]):
            args = ("cpu", *args[1:])
        if _is_gpu(kwargs.get("device")):
            kwargs["device"] = "cpu"
        return to(what, *args, **kwargs)

    return moved


def _is_gpu(device: Any) -> bool:
    if isinstance(device, torch.device):
        return device.type == "cuda"
    return type(device) is int or (isinstance(device, str) and device.startswith("cuda"))


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


def _works(name: str) -> bool:
    try:
        importlib.import_module(name)
    except Exception:  # whatever a package for an old torch raises
        return False
    return True

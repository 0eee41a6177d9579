"""The registry of adapters: those of the package, those that installed packages register, and a user's own files.

Adapters are found by name: in ``adapters/``, and among the entry points of the group ``segdre.backbones``, each of
which names a module (or an object) with ``BACKBONE`` and, optionally, ``SCRIPT``; they are imported when they are used.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.script import Script
from segdre_plugin.errors import SegDREError, raise_all

GROUP = "segdre.backbones"
REFERENCE = "reference"  # the reference model's name, which no adapter may have
OWN_FILE = "pass --adapter FILE, a Python file with BACKBONE and, for --seg, SCRIPT"


@dataclass(frozen=True)
class Adapter:
    """What the plugin knows of a backbone.

    Attributes:
        backbone: the description of its model.
        script: that of its train script; None: its stages work in a loop of the user's own only.
        origin: where the adapter comes from, for messages.
    """

    backbone: Backbone
    script: Script | None
    origin: str

    @property
    def name(self) -> str:
        """Return the backbone's name."""
        return self.backbone.name

    def require_script(self) -> Script:
        """Return the description of the train script; raise SegDREError if there is none."""
        if self.script is None:
            raise SegDREError(
                f"adapter {self.name} ({self.origin}) has no SCRIPT, which describes the train script",
                "add one (docs/new-backbone.md), or use wrap_model in a loop of your own",
            )
        return self.script


def known_adapters() -> dict[str, Adapter]:
    """Return all adapters that are found by name.

    Raises:
        SegDREError: if two have the same name, or one cannot be imported.
    """
    return {name: get_adapter(name) for name in _sources()}


def get_adapter(name: str) -> Adapter:
    """Return the adapter of a name, which is never taken for a path; raise SegDREError as :func:`known_adapters`."""
    sources = _sources()
    if name not in sources:
        raise SegDREError(f"unknown adapter {name!r}", f"known adapters: {', '.join(sorted(sources))}; or {OWN_FILE}")
    return sources[name][1]()


def load_adapter(text: str) -> Adapter:
    """Return the adapter that a user names: a known one, or that of a Python file, which is run.

    Raises:
        SegDREError: if there is none of that name, the file fails or lacks something, or its backbone has the name of
            a known adapter.
    """
    path = Path(text)
    if text in _sources() or not (path.suffix == ".py" or path.is_file()):
        return get_adapter(text)
    found = _check(_run_file(path), str(path))
    taken = {name: origin for name, (origin, _) in _sources().items()} | {REFERENCE: "the reference model"}
    _refuse_second(found.name, found.origin, taken)
    return found


def get_backbone(adapter: str | Backbone) -> Backbone:
    """Look a backbone up by name (a description is returned as it is); raise SegDREError if it is unknown."""
    return adapter if isinstance(adapter, Backbone) else get_adapter(adapter).backbone


def find_backbone(model: Any, adapter: str | Backbone | None = None) -> Backbone:
    """Return the description that fits a model; without ``adapter``, the most specific known one.

    Raises:
        SegDREError: if the name is unknown, or the model lacks something; lists everything it lacks.
    """
    if adapter is not None:
        backbone = get_backbone(adapter)
        raise_all(
            backbone.problems(model),
            f"this model does not look like {backbone.name} ({backbone.repository})",
            "pass the right adapter=, or describe the model with a segdre_plugin.Backbone of your own",
        )
        return backbone
    candidates = sorted((known.backbone for known in known_adapters().values()), key=lambda b: -len(b.batch))
    problems = {b.name: b.problems(model) for b in candidates}
    for backbone in candidates:
        if not problems[backbone.name]:
            return backbone
    raise SegDREError(
        "\n".join(
            [f"{type(model).__name__} is none of the known backbones:"]
            + [f"  - {name}: {'; '.join(found)}" for name, found in problems.items()]
        ),
        "pass the model itself (not a wrapper around it), or describe it with a segdre_plugin.Backbone of your own",
    )


@cache
def _sources() -> dict[str, tuple[str, Callable[[], Adapter]]]:
    """Return name -> origin of the adapter, and what loads it; two of one name are refused."""
    from segdre_plugin.adapters import BACKBONES, SCRIPTS

    sources: dict[str, tuple[str, Callable[[], Adapter]]] = {}
    for name, backbone in BACKBONES.items():
        origin = f"segdre_plugin.adapters.{name}"
        sources[name] = origin, partial(Adapter, backbone, SCRIPTS[name], origin)
    taken = {name: origin for name, (origin, _) in sources.items()} | {REFERENCE: "the reference model"}
    for point in entry_points(group=GROUP):
        origin = f"{point.value} of {_distribution(point)}"
        _refuse_second(point.name, origin, taken)
        taken[point.name] = origin
        sources[point.name] = origin, partial(_load_point, point, origin)
    return sources


def _refuse_second(name: str, origin: str, taken: dict[str, str]) -> None:
    if name in taken:
        problem = f"two adapters are called {name!r}: {taken[name]} and {origin}"
        raise SegDREError(problem, "rename one of them (its BACKBONE.name and its entry point), or uninstall it")


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown distribution"


def _load_point(point: EntryPoint, origin: str) -> Adapter:
    try:
        module = point.load()
    except Exception as error:  # it is foreign code
        raise SegDREError(
            f"adapter {point.name!r}, {origin}, cannot be imported: {type(error).__name__}: {error}",
            f"update or uninstall {_distribution(point)}",
        ) from error
    found = _check(module, origin)
    if found.name != point.name:
        problem = f"{origin}: BACKBONE.name is {found.name!r}, the entry point's {point.name!r}"
        raise SegDREError(problem, "let both be the same")
    return found


def _check(module: Any, origin: str) -> Adapter:
    """Return what a module (or an object) describes; its names may have any values."""
    problems: list[str] = []
    values: dict[str, Any] = {}
    for name, expected, optional in (("BACKBONE", Backbone, False), ("SCRIPT", Script, True)):
        values[name] = getattr(module, name, None)
        if values[name] is None and not optional:
            problems.append(f"{name}: missing, expected a {expected.__module__}.{expected.__name__}")
        elif values[name] is not None and not isinstance(values[name], expected):
            problems.append(f"{name}: expected {expected.__name__}, got {type(values[name]).__name__}")
    raise_all(problems, f"{origin}: not an adapter", "see docs/new-backbone.md")
    return Adapter(values["BACKBONE"], values["SCRIPT"], origin)


def _run_file(path: Path) -> ModuleType:
    """Run a Python file as a module of a name of its own, and leave no bytecode beside it."""
    if not path.is_file():
        raise SegDREError(f"adapter {path} not found", OWN_FILE)
    module = ModuleType(f"segdre_adapter_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look their module up there
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        where = path if line is None else f"{path}, line {line}"
        what = error.msg if isinstance(error, SyntaxError) else error
        raise SegDREError(f"adapter {where}: {type(error).__name__}: {what}", "correct the file") from error
    return module

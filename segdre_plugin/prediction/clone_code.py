"""A backbone's model, reader and collate function, taken from a clone without leaving a trace in the interpreter.

Clones have top-level modules called ``model``, ``utils`` and ``prepro`` and read ``meta/rel2id.json`` from the working
directory when they are imported. So ``sys.path``, ``sys.modules`` and the working directory are theirs for the time of
the import only; afterwards other clones, or modules of the same names, can be imported as if nothing had been.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.clones.compat import stand_in_modules
from segdre_plugin.backbones.clones.recognition import blob_hash, remove
from segdre_plugin.backbones.registry import REFERENCE, Adapter, get_adapter
from segdre_plugin.backbones.script import Script
from segdre_plugin.data.files import write_json
from segdre_plugin.errors import SegDREError, raise_all


@dataclass(frozen=True)
class BackboneCode:
    """A backbone's code, as far as prediction needs it.

    Attributes:
        backbone: what its model looks like.
        script: what its train script looks like.
        model: class of the model.
        read: (file, tokenizer, arguments) -> features.
        collate: features -> batch.
    """

    backbone: Backbone
    script: Script
    model: type[Any]
    read: Callable[..., Any]
    collate: Callable[..., Any]


def load_backbone_code(
    adapter: str,
    clone: Path | None,
    rel2id: Mapping[str, int],
    modules: Mapping[str, str] | None = None,
    own: Adapter | None = None,
) -> BackboneCode:
    """Return a backbone's code.

    Args:
        adapter: the backbone's name; the reference model needs no clone.
        clone: the folder of its clone.
        rel2id: the relations, which clones read when they are imported.
        modules: file -> git blob hash of the modules that the models were trained with; others are refused.
        own: the adapter that the user passes, which has to be that of the name.

    Raises:
        SegDREError: if the adapter is unknown, or the clone is missing, incomplete, changed or
            cannot be imported.
    """
    if own is not None and own.name != adapter:
        raise SegDREError(
            f"this is a model of {adapter}, and the adapter passed is that of {own.name} ({own.origin})",
            "pass the adapter that the model was trained with",
        )
    if adapter == REFERENCE:
        from segdre_plugin.backbones.reference import ReferenceModel, collate_fn
        from segdre_plugin.backbones.reference.spec import BACKBONE, SCRIPT
        from segdre_plugin.backbones.reference.train import read_docred

        return BackboneCode(BACKBONE, SCRIPT, ReferenceModel, read_docred, collate_fn)
    known = own or get_adapter(adapter)
    backbone, script = known.backbone, known.require_script()
    get = f"git clone {backbone.repository}, then pass its folder: --clone DIR (in Python: backbone_dir=DIR)"
    if clone is None:
        raise SegDREError(f"this is a model of {adapter}, whose code is needed to run it", get)
    folder = (clone / script.file).parent
    missing = [f"{name}.py, which has {part}" for name, part in _parts(script) if not (folder / f"{name}.py").is_file()]
    raise_all(missing, f"{folder}: not a clone of {adapter}; missing", get)
    (model, read, collate), imported = _import(folder.resolve(), script, rel2id)
    _compare(folder, {name: known for name, known in (modules or {}).items() if name in imported})
    return BackboneCode(backbone, script, model, read, collate)


def _parts(script: Script) -> list[tuple[str, str]]:
    """Return the modules of a clone, and what each is needed for."""
    return list(zip(script.modules, (script.names.model, script.names.reader, script.names.collate), strict=True))


def _import(clone: Path, script: Script, rel2id: Mapping[str, int]) -> tuple[list[Any], set[str]]:
    """Return the parts, and the names of the clone's files that were imported for them."""
    names: dict[str, Any] = {}
    with isolated(clone, script, rel2id):
        for name in reversed(script.modules):  # where two have a name, the model's module comes last
            try:
                names |= vars(importlib.import_module(name))
            except Exception as error:  # it is foreign code
                missing = error.name if isinstance(error, ImportError) else None
                what = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
                commands = [do for needed, do in script.commands.items() if importlib.util.find_spec(needed) is None]
                hint = f"pip install {missing}" if missing else (commands or ["check that the clone is complete"])[0]
                raise SegDREError(f"{clone / name}.py cannot be imported: {what}", hint) from error
        paths = [path for module in list(sys.modules.values()) if clone in (path := _file(module)).parents]
        files = {path.relative_to(clone).as_posix() for path in paths}
    with contextlib.suppress(KeyError):  # what is missing is named below
        script.install(names)
    problems = [f"{part} in {name}.py" for name, part in _parts(script) if part not in names]
    raise_all(problems, f"{clone}: missing", "use an unchanged clone")
    return [names[part] for _, part in _parts(script)], files


@contextmanager
def isolated(clone: Path, script: Script, rel2id: Mapping[str, int]) -> Iterator[None]:
    """Make a clone's modules importable inside the context, where its ``meta/rel2id.json`` holds ``rel2id``.

    Other JSON files that lie beside that one in the clone are there, too.
    """
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if (clone / f"{name}.py").is_file()}
    path, cwd, bytecode = list(sys.path), Path.cwd(), sys.dont_write_bytecode
    ujson = "ujson" in sys.modules or importlib.util.find_spec("ujson") is not None
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "clone"
        place.mkdir()
        target = place / script.imported
        target.parent.mkdir(parents=True, exist_ok=True)
        for beside in (clone / script.imported).parent.glob("*.json"):
            shutil.copy(beside, target.parent)
        write_json(target, dict(rel2id))
        supplied = stand_in_modules(script.supplied)
        try:
            sys.path.insert(0, str(clone))
            sys.dont_write_bytecode = True  # the clone stays as it is
            if not ujson:
                sys.modules["ujson"] = json
            os.chdir(place)
            importlib.invalidate_caches()
            yield
        finally:
            os.chdir(cwd)
            sys.path[:] = path
            sys.dont_write_bytecode = bytecode
            for name in (*supplied, *(() if ujson else ("ujson",))):
                del sys.modules[name]
            for name, module in list(sys.modules.items()):
                if clone in _file(module).parents:
                    del sys.modules[name]
            sys.modules.update(hidden)


def _file(module: Any) -> Path:
    return Path(getattr(module, "__file__", None) or "/")


def _compare(clone: Path, modules: Mapping[str, str]) -> None:
    """Refuse modules that differ from those that the models were trained with: they may compute other margins."""
    found = {name: blob_hash(remove((clone / name).read_bytes())) for name in modules}  # patched or not
    others = [
        f"{name}: git blob {found[name]}, trained with {known}"
        for name, known in modules.items()
        if found[name] != known
    ]
    hint = "pass the clone that the model was trained with, at the same commit"
    raise_all(others, f"{clone}: modules that the model was not trained with", hint)

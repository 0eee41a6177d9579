"""Recognise whose train script a file is by what is in it: half of ATLOP's descendants call theirs train.py.

First by the git hash without our own lines, then by what script and model declare: the options of the parser and the
attributes of the model. Only the syntax is read, nothing is imported.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from segdre_plugin.backbones.backbone import METHODS
from segdre_plugin.backbones.registry import Adapter, get_adapter, known_adapters, load_adapter
from segdre_plugin.errors import SegDREError

MARK = b"# segdre-plugin"  # ends every line of ours
ALIKE = 0.85  # least share of options, and of attributes, that a changed script has in common with the original
APART = 0.05  # at least by so much the second adapter is less alike
SHOWN = 6  # options or attributes that a message names
PASS = "pass --adapter with a name, or with a file that describes the backbone (docs/new-backbone.md)"
_OURS = re.compile(rb"\s*(import segdre_plugin|segdre_plugin\.|main = segdre_plugin\.)[^#]*" + MARK + rb"\s*")
_NAMED = re.compile(rb'\bentry\(globals\(\), "([^"]+)"\)')


@dataclass(frozen=True)
class Declared:
    """What a train script and the modules of its folder that it imports declare.

    Attributes:
        options: of the parser, with their dashes.
        attributes: names that the models (classes with ``encode`` and ``get_hrt``) assign to ``self``.
    """

    options: frozenset[str]
    attributes: frozenset[str]


@dataclass(frozen=True)
class Comparison:
    """How much a script is like an adapter's original: the smaller share of common options and common attributes."""

    adapter: Adapter
    alike: float
    differences: str

    def __str__(self) -> str:
        return f"{self.adapter.name} ({self.alike:.0%} alike): {self.differences}"


def choose_adapter(path: Path, adapter: str | None = None) -> Adapter:
    """Return the adapter of a train script: the one that the user names, else the one that is recognised.

    Raises:
        SegDREError: if it is unknown, does not describe a script, or the script is patched for another one.
    """
    if adapter is None:
        return recognise(path)
    found = load_adapter(adapter)
    found.require_script()
    patched = patched_for(path.read_bytes())
    if patched not in (None, found.name):
        raise SegDREError(
            f"{path}: patched for {patched}, and --adapter is {found.name}",
            f"take the patch out (segdre patch {path.parent} --reverse), or leave --adapter out",
        )
    return found


def recognise(path: Path) -> Adapter:
    """Return the adapter whose train script a file is, changed or not, patched or not.

    Raises:
        SegDREError: if it is none's or several's, or patched for another backbone than its own.
    """
    patched = patched_for(path.read_bytes())
    if patched is not None:
        named = get_adapter(patched)
        refuse_another(path, named)
        return named
    found, compared = _match(path)
    if len(found) > 1:
        names = ", ".join(adapter.name for adapter in found)
        raise SegDREError(f"{path}: several adapters describe this train script: {names}", PASS)
    if not found:
        lines = "".join(f"\n  - {comparison}" for comparison in compared)
        raise SegDREError(f"{path}: no known train script; compared with:{lines}", PASS)
    return found[0]


def refuse_another(path: Path, adapter: Adapter) -> None:
    """Refuse a script that calls itself an adapter's and is recognised as another one's.

    Raises:
        SegDREError: with both names.
    """
    if _is_original(path, adapter):
        return
    found, _ = _match(path)
    if found and adapter.name not in [other.name for other in found]:
        names = " or ".join(other.name for other in found)
        problem = f"{path}: patched for {adapter.name}, and it is the train script of {names}"
        raise SegDREError(problem, "restore the original script, and run: segdre patch CLONE")


def find_script(folder: Path, adapter: str | None = None) -> tuple[Path, Adapter]:
    """Return the train script in a clone's folder, and its adapter.

    Raises:
        SegDREError: if there is none, or several.
    """
    files = sorted(folder.glob("*.py"))
    if adapter is not None:
        chosen = load_adapter(adapter)
        script = chosen.require_script()
        found = [(path, choose_adapter(path, adapter)) for path in files if _is_original(path, chosen)]
        found = found or [(path, choose_adapter(path, adapter)) for path in files if path.name == script.file]
    else:
        found = [(path, recognise(path)) for path in files if _is_candidate(path)]
    found = [pair for pair in found if _is_original(*pair)] or found
    found = [(path, one) for path, one in found if path.name == one.require_script().file] or found
    if len(found) > 1:
        listed = ", ".join(f"{path.name} ({one.name})" for path, one in found)
        raise SegDREError(f"{folder}: several train scripts: {listed}", "use one: segdre run SCRIPT -- ARGUMENTS")
    if not found:
        known = known_adapters().values() if adapter is None else [load_adapter(adapter)]
        looked = ", ".join(f"{one.script.file} ({one.name})" for one in known if one.script)
        raise SegDREError(
            f"{folder}: no known train script",
            f"pass the folder of a clone; looked for {looked}, by content; or {PASS}",
        )
    return found[0]


def declared(path: Path) -> Declared:
    """Read what a script and the modules that it imports declare; raise SegDREError if one is not Python."""
    options: set[str] = set()
    attributes: set[str] = set()
    for tree in _modules(path.resolve()):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                values = [part.value for part in node.args if isinstance(part, ast.Constant)]
                options.update(value for value in values if isinstance(value, str) and value.startswith("--"))
            elif isinstance(node, ast.ClassDef) and _is_model(node):
                attributes.update(_assigned(node))
    return Declared(frozenset(options), frozenset(attributes))


def patched_for(content: bytes) -> str | None:
    """Return the adapter that our lines in a script name, if there are any."""
    ours = [line for line in content.splitlines() if _OURS.fullmatch(line)]
    named = [match[1].decode(errors="replace") for line in ours if (match := _NAMED.search(line))]
    return named[0] if named else None


def blob_hash(content: bytes) -> str:
    """Hash a text file's content as git does, which may have written it with CRLF line ends."""
    content = content.replace(b"\r\n", b"\n")
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def remove(content: bytes) -> bytes:
    """Remove all lines of ours, and nothing else: a line of a user's that happens to end in the mark stays."""
    return b"".join(line for line in content.splitlines(keepends=True) if not _OURS.fullmatch(line))


def _is_original(path: Path, adapter: Adapter) -> bool:
    return blob_hash(remove(path.read_bytes())) in adapter.require_script().versions


def _match(path: Path) -> tuple[list[Adapter], list[Comparison]]:
    """Return the adapters whose train script a file may be, and, if it is no original, how it compares with all."""
    adapters = [adapter for adapter in known_adapters().values() if adapter.script is not None]
    same = [adapter for adapter in adapters if _is_original(path, adapter)]
    if same:
        return same, []
    found = declared(path)
    compared = sorted((_compare(found, adapter) for adapter in adapters), key=lambda one: -one.alike)
    near = [one for one in compared if one.alike >= compared[0].alike - APART] if compared else []
    return [one.adapter for one in near if near[0].alike >= ALIKE], compared


def _is_candidate(path: Path) -> bool:
    """Return whether a file of a clone is patched or known; a broken one, of which there may be some, is neither."""
    with suppress(SegDREError):
        return patched_for(path.read_bytes()) is not None or bool(_match(path)[0])
    return False


def _compare(found: Declared, adapter: Adapter) -> Comparison:
    script = adapter.require_script()
    pairs = ((found.options, script.options), (found.attributes, script.attributes))
    shares = [len(have & want) / len(have | want) if have and want else 0.0 for have, want in pairs]
    words = []
    for what, (have, want) in zip(("options", "model attributes"), pairs, strict=True):
        for how, names in (("without", sorted(want - have)), ("with", sorted(have - want))):
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            words += [f"{how} {what} {', '.join(names[:SHOWN])}{more}"] if names else []
    return Comparison(adapter, min(shares), "; ".join(words) or "no difference")


def _modules(path: Path) -> Iterator[ast.Module]:
    """Parse a script and the modules of its folder that it imports."""
    script = _parse(path)
    yield script
    names: dict[str, None] = {}
    for node in ast.walk(script):
        if isinstance(node, ast.ImportFrom):
            names |= dict.fromkeys([node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)])
        elif isinstance(node, ast.Import):
            names |= dict.fromkeys(alias.name for alias in node.names)
    for name in filter(None, names):
        place = path.parent / name.replace(".", "/")
        for file in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
            if file.is_file() and file != path:
                yield _parse(file)


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise SegDREError(f"{path}{line}: not Python: {error}", "pass the train script of a clone") from None


def _is_model(node: ast.ClassDef) -> bool:
    return set(METHODS) <= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}


def _assigned(node: ast.ClassDef) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and ast.unparse(part.value) == "self":
            yield part.attr

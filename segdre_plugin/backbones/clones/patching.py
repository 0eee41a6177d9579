"""Patch a backbone's train script so that it knows ``--seg``, and take the patch out again.

A patch holds inserted lines of ours and nothing else: two before the script's first statement, and one before the
statement that calls ``main()``. In the version that the patch file was made for, these are the file's own line numbers
(``git apply --unidiff-zero`` does the same); in a script that was edited, the syntax says where they are. The line ends
of Windows are kept.
"""

from __future__ import annotations

import ast
import re
from importlib import resources
from pathlib import Path

from segdre_plugin.backbones.clones.recognition import find_script, patched_for, remove
from segdre_plugin.backbones.registry import Adapter
from segdre_plugin.backbones.script import Script
from segdre_plugin.data.files import write
from segdre_plugin.errors import SegDREError

_HUNK = re.compile(rb"^@@ -\d+,0 \+")
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def patch(folder: Path, reverse: bool = False, adapter: str | None = None) -> str:
    """Patch the train script of a clone, or take the patch out (``reverse``); doing it twice is doing it once.

    Args:
        folder: the clone; its train script is recognised among the files there.
        reverse: take the patch out.
        adapter: the backbone's, by name or as a Python file; None recognises it.

    Returns:
        What was done, as a sentence.

    Raises:
        SegDREError: if no known train script is found, it has no patch, or the patch has no place in it; then nothing
            is changed.
    """
    path, known = find_script(folder, adapter)
    if not has_patch(known):
        without = f"segdre run {path}{f' --adapter {adapter}' if adapter else ''} -- ARGUMENTS"
        raise SegDREError(f"{path}: there is no patch for {known.name}", f"leave it as it is and use: {without}")
    found = path.read_bytes()
    original = remove(found)
    try:
        wanted = original if reverse else insert(original, read_patch(known.require_script()))
    except SegDREError as error:
        raise error.at(path) from None
    state = "not patched" if reverse else "patched"
    if found == wanted:
        return f"{path} is {state} already"
    write(path, lambda file: file.write(wanted))
    return f"{path} is now {state}"


def has_patch(adapter: Adapter) -> bool:
    """Return whether there is a patch for an adapter's script; one that names another adapter is none."""
    lines = [line for new in read_patch(adapter.require_script()) for line in new]
    return patched_for(b"".join(lines)) == adapter.name


def read_patch(script: Script) -> list[list[bytes]]:
    """Return the lines that a script's patch inserts, one list for each place; an empty list without a patch."""
    path = resources.files("segdre_plugin.patches").joinpath(script.patch)
    text = path.read_bytes() if path.is_file() else b""
    hunks: list[list[bytes]] = []
    for line in text.splitlines(keepends=True):
        if _HUNK.match(line):
            hunks.append([])
        elif hunks and line.startswith(b"+"):
            hunks[-1].append(line[1:])
    return hunks


def insert(content: bytes, hunks: list[list[bytes]]) -> bytes:
    """Return a script with a patch's lines before its first statement and before its call of ``main()``.

    They get the line ends of the line that they stand before. :func:`recognition.remove` gives the content back.

    Raises:
        SegDREError: if a place is missing or not the only one; the hint has the lines, to be added by hand.
    """
    start, call = (" and ".join(repr(line.decode().strip()) for line in lines) for lines in hunks)
    by_hand = f"add by hand {start} before the first import, and {call} before the call of main()"
    try:
        places = [before - 1 for before in _places(ast.parse(content))]
        lines = content.splitlines(keepends=True)
        for place, new in reversed(list(zip(places, hunks, strict=True))):
            end = b"\r\n" if lines[place].endswith(b"\r\n") else b"\n"
            lines[place:place] = [line.rstrip() + end for line in new]
        patched = b"".join(lines)
        ast.parse(patched)  # a line of ours before a byte order mark
    except SegDREError as error:
        raise SegDREError(error.problem, by_hand) from None
    except (SyntaxError, ValueError) as error:
        raise SegDREError(f"the patch does not fit: {error}", by_hand) from None
    return patched


def _places(script: ast.Module) -> tuple[int, int]:
    """Return the lines (from 1) of the first statement that can follow our own, and of the call of ``main()``.

    Raises:
        SegDREError: if there is no such place, or the call of ``main()`` is not the only one, or has arguments.
    """
    body = script.body
    mains = [part for part in body if isinstance(part, ast.FunctionDef) and part.name == "main"]
    calling = [(part, calls) for part in body if (calls := _calls_of_main(part))]
    if len(mains) != 1 or len(calling) != 1 or len(calling[0][1]) != 1:
        lines = [call.lineno for _, found in calling for call in found]
        where = f" in lines {', '.join(map(str, lines))}" if lines else ""
        raise SegDREError(
            f"expected one main() that is called once, got {len(mains)}, called {len(lines)} times{where}"
        )
    statement, (call,) = calling[0]
    if call.args or call.keywords:
        raise SegDREError(f"line {call.lineno}: main() is called with arguments, and ours takes none")
    first = next(part for part in body if not _stays_first(part, body[0]))
    for part in (first, statement):
        others = [other for other in body if other is not part]
        if any(other.lineno <= part.lineno <= (other.end_lineno or 0) for other in others):
            raise SegDREError(f"line {part.lineno} holds several statements")
    return min([first.lineno, *(part.lineno for part in getattr(first, "decorator_list", []))]), statement.lineno


def _stays_first(statement: ast.stmt, first: ast.stmt) -> bool:
    """Return whether nothing may stand before a statement: the docstring, or an import from ``__future__``."""
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return statement is first and docstring


def _calls_of_main(statement: ast.stmt) -> list[ast.Call]:
    """Return the calls of ``main()`` in a statement that runs when the script does, not in what it defines."""
    found: list[ast.Call] = []
    left: list[ast.AST] = [statement]
    while left:
        node = left.pop()
        if isinstance(node, _FUNCTIONS):
            continue
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "main":
            found.append(node)
        left += ast.iter_child_nodes(node)
    return sorted(found, key=lambda call: call.lineno)

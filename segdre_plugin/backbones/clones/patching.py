"""Patch a backbone's train script so that it knows ``--seg``, and take the patch out again.

A patch holds inserted lines of ours and nothing else, so it says nothing of the script but line numbers; it therefore
fits exactly the versions whose hashes the adapter lists. A file with the line ends of Windows is the same version, and
keeps them.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

from segdre_plugin.backbones.clones.recognition import blob_hash, find_script, patched_for, remove
from segdre_plugin.backbones.registry import Adapter
from segdre_plugin.backbones.script import Script
from segdre_plugin.data.files import write
from segdre_plugin.errors import SegDREError

_HUNK = re.compile(rb"^@@ -(\d+),0 \+")


def patch(folder: Path, reverse: bool = False, adapter: str | None = None) -> str:
    """Patch the train script of a clone, or take the patch out (``reverse``); doing it twice is doing it once.

    Args:
        folder: the clone; its train script is recognised among the files there.
        reverse: take the patch out.
        adapter: the backbone's, by name or as a Python file; None recognises it.

    Returns:
        What was done, as a sentence.

    Raises:
        SegDREError: if no known train script is found, the patch does not fit its version, or it has no patch; nothing
            is changed then.
    """
    path, known = find_script(folder, adapter)
    script = known.require_script()
    without = f"leave it as it is and use: segdre run {path}{f' --adapter {adapter}' if adapter else ''} -- ARGUMENTS"
    if not has_patch(known):
        raise SegDREError(f"{path}: there is no patch for {known.name}", without)
    insertions = read_patch(script)
    found = path.read_bytes()
    original = remove(found)
    if blob_hash(original) not in script.versions:
        raise SegDREError(
            f"{path}: not a version that the patch fits (git blob {blob_hash(original)}); known: "
            + ", ".join(f"{h} = {name}" for h, name in script.versions.items()),
            f"restore the original {script.file}, or {without}",
        )
    wanted = original if reverse else insert(original, insertions)
    state = "not patched" if reverse else "patched"
    if found == wanted:
        return f"{path} is {state} already"
    write(path, lambda file: file.write(wanted))
    return f"{path} is now {state}"


def has_patch(adapter: Adapter) -> bool:
    """Return whether there is a patch for an adapter's script; one that names another adapter is none."""
    lines = [line for _, new in read_patch(adapter.require_script()) for line in new]
    return patched_for(b"".join(lines)) == adapter.name


def read_patch(script: Script) -> list[tuple[int, list[bytes]]]:
    """Return a script's patch, which inserts lines; empty if there is none.

    It has for each hunk the line of the original after which it goes (0: before the first), and the hunk's lines.
    """
    path = resources.files("segdre_plugin.patches").joinpath(script.patch)
    text = path.read_bytes() if path.is_file() else b""
    hunks: list[tuple[int, list[bytes]]] = []
    for line in text.splitlines(keepends=True):
        match = _HUNK.match(line)
        if match:
            hunks.append((int(match[1]), []))
        elif hunks and line.startswith(b"+"):
            hunks[-1][1].append(line[1:])
    return hunks


def insert(content: bytes, insertions: list[tuple[int, list[bytes]]]) -> bytes:
    """Insert a patch's lines, with the line ends of the content."""
    end = b"\r\n" if b"\r\n" in content else b"\n"
    lines = content.splitlines(keepends=True)
    for after, new in reversed(insertions):
        lines[after:after] = [line.rstrip() + end for line in new]
    return b"".join(lines)

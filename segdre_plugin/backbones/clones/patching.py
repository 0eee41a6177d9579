"""Patch a backbone's train script so that it knows ``--seg``, and take the patch out again.

A patch holds inserted lines of ours and nothing else, so it says nothing of the script but line numbers; it therefore
fits exactly the versions whose hashes the adapter lists. A file with the line ends of Windows is the same version, and
keeps them.
"""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from pathlib import Path

import segdre_plugin.adapters as adapters
from segdre_plugin.backbones.script import Script
from segdre_plugin.data.files import write
from segdre_plugin.errors import SegDREError

MARK = b"# segdre-plugin"  # ends every line of ours
_HUNK = re.compile(rb"^@@ -(\d+),0 \+")


def patch(folder: Path, reverse: bool = False) -> str:
    """Patch the train script of a clone, or take the patch out (``reverse``); doing it twice is doing it once.

    Returns:
        What was done, as a sentence.

    Raises:
        SegDREError: if there is no known train script, or not a version that the patch fits; nothing is changed then.
    """
    script = _find(folder)
    path = folder / script.file
    if not script.patch:
        raise SegDREError(f"{path}: there is no patch for it", f"use it as it is: segdre run {path} -- ARGUMENTS")
    insertions = read_patch(script)
    found = path.read_bytes()
    original = remove(found)
    if blob_hash(original) not in script.versions:
        raise SegDREError(
            f"{path}: not a version that the patch fits (git blob {blob_hash(original)}); known: "
            + ", ".join(f"{h} = {name}" for h, name in script.versions.items()),
            f"restore the original {script.file}, or leave it as it is and use: segdre run {path} -- ARGUMENTS",
        )
    wanted = original if reverse else insert(original, insertions)
    state = "not patched" if reverse else "patched"
    if found == wanted:
        return f"{path} is {state} already"
    write(path, lambda file: file.write(wanted))
    return f"{path} is now {state}"


def recognise(path: Path) -> str:
    """Return the name of the adapter whose train script this is; raise SegDREError if none has one of that name."""
    for name, script in adapters.SCRIPTS.items():
        if script.file == path.name:
            return name
    raise SegDREError(f"{path}: no known train script", f"known: {_known()}")


def blob_hash(content: bytes) -> str:
    """Hash a text file's content as git does, which may have written it with CRLF line ends."""
    content = content.replace(b"\r\n", b"\n")
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def read_patch(script: Script) -> list[tuple[int, list[bytes]]]:
    """Return a script's patch, which inserts lines.

    It has for each hunk the line of the original after which it goes (0: before the first), and the hunk's lines.
    """
    text = resources.files("segdre_plugin.patches").joinpath(script.patch).read_bytes()
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


def remove(content: bytes) -> bytes:
    """Remove all lines of ours; the caller compares the hash of the rest."""
    return b"".join(line for line in content.splitlines(keepends=True) if not line.rstrip().endswith(MARK))


def _find(folder: Path) -> Script:
    found = [script for script in adapters.SCRIPTS.values() if (folder / script.file).is_file()]
    if not found:
        raise SegDREError(f"{folder}: no known train script", f"pass the folder of a clone; looked for {_known()}")
    return found[0]


def _known() -> str:
    return ", ".join(f"{script.file} ({name})" for name, script in adapters.SCRIPTS.items())

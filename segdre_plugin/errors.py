"""Errors that state the problem, its place, the value found and a remedy, and how a command ends with one.

Everything this package raises on purpose derives from :class:`SegDREError`. It is also a ``ValueError``, so that a
caller who guards against bad arguments in the ordinary way catches it too.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches


class SegDREError(ValueError):
    """A problem that the user can act on.

    Args:
        message: the problem, its place and the value found.
        hint: the remedy, an imperative; printed on a line of its own.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.problem, self.hint = message, hint
        super().__init__(f"{message}\n  -> {hint}" if hint else message)

    def at(self, place: object) -> SegDREError:
        """Return the same error with its place before it."""
        return SegDREError(f"{place}: {self.problem}", self.hint)


def raise_all(problems: Sequence[str], heading: str, hint: str = "", limit: int = 20) -> None:
    """Raise one error that lists the problems, one line each, and counts those beyond ``limit``; without any, return.

    Raises:
        SegDREError: if there are problems; ``heading`` is the sentence above them, ``hint`` the remedy for all.
    """
    if not problems:
        return
    lines = [f"{heading}:"] + [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  ... and {len(problems) - limit} more")
    raise SegDREError("\n".join(lines), hint)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint for an unknown word: the known ones that it may stand for, else all of them."""
    known = list(known)
    near = [name for name in known if name.startswith(word)] or get_close_matches(word, known, n=2, cutoff=0.8)
    return f"did you mean {' or '.join(near)}?" if near else f"choose from {', '.join(known)}"


# What to do about an operating system's error, by its number.
REMEDIES = {
    errno.ENOSPC: "free some space, or write to another disk",
    errno.EDQUOT: "free some of the quota, or write to another disk",
    errno.EFBIG: "raise the limit (ulimit -f), or write to another disk",
    errno.EACCES: "change the permissions, or pass another path",
    errno.EPERM: "change the permissions, or pass another path",
    errno.EROFS: "pass a path on a disk that is not read-only",
    errno.EISDIR: "pass a file, not a folder",
    errno.ENOTDIR: "pass another path: a part of this one is a file",
    errno.EEXIST: "remove or rename what is there, or pass another path",
    errno.ENOTEMPTY: "remove or rename what is there, or pass another path",
    errno.ENAMETOOLONG: "pass a shorter name",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "check the disk",
}


def explain(error: OSError, doing: str = "") -> SegDREError:
    """Return an error of the operating system as one with path, cause and remedy.

    Args:
        error: the error.
        doing: what failed and with which path; empty takes the path that the error names.
    """
    remedy = REMEDIES.get(error.errno or 0, "check the path")
    cause = error.strerror or str(error) or type(error).__name__
    if error.args and isinstance(error.args[0], list):  # of shutil: (source, target, cause) of each file
        source, target, cause = error.args[0][0]
        doing = doing or f"cannot copy {source} to {target}"
    if not doing and error.errno is None:  # of a library, a whole message
        return SegDREError(cause, remedy)
    place = error.filename2 or error.filename
    doing = doing or (f"cannot open {place}" if place else "a file cannot be read or written")
    return SegDREError(f"{doing}: {cause}", remedy)


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn errors of the operating system into those of :func:`explain`; a closed pipe stays one.

    Raises:
        OSError: if it is a closed pipe.
    """
    try:
        yield
    except OSError as error:
        raise error if isinstance(error, BrokenPipeError) else explain(error, doing) from None


ENDINGS = (SegDREError, OSError, KeyboardInterrupt)  # what a command ends with in a message, not in a traceback


@contextmanager
def console() -> Iterator[None]:
    """Prepare standard output for a command: spell out characters that the locale lacks; flush it before the end."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        yield
    except SystemExit:
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def report(error: BaseException) -> int:
    """Print with what a command ends (one of ``ENDINGS``), and return its exit status.

    The text of a ``KeyboardInterrupt`` says how to go on. Nothing is said of an output that nobody reads any more (as
    in ``| head``).

    Returns:
        2 for an error that the user can fix; as from shells, 130 for Ctrl-C and 141 for a closed pipe.
    """
    status, text = 2, f"segdre: error: {explain(error) if isinstance(error, OSError) else error}"
    if isinstance(error, BrokenPipeError):
        status, text = 141, ""
    elif isinstance(error, KeyboardInterrupt):
        status, text = 130, "\nsegdre: stopped" + (f"; {error}" if str(error) else "")
    with suppress(OSError):  # standard error may be closed, too
        print(text, end="\n" if text else "", file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:  # nothing can be written there: the interpreter shall not try it again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status

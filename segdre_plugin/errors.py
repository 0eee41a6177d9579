"""Errors that state the problem, its place, the value found and a remedy.

Everything this package raises on purpose derives from :class:`SegDREError`. It is also a ``ValueError``, so that a
caller who guards against bad arguments in the ordinary way catches it too.
"""

from __future__ import annotations

from collections.abc import Sequence


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

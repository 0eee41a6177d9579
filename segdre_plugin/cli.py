"""The command ``segdre``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from segdre_plugin import __version__
from segdre_plugin.errors import SegDREError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command line; None takes the process's.

    Returns:
        The exit status: 0, or 2 if something is wrong that the user can mend.
    """
    parser = argparse.ArgumentParser(prog="segdre", description=__doc__)
    parser.add_argument("--version", action="version", version=f"segdre-plugin {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    command = commands.add_parser("patch", help="make the train script of a clone know --seg")
    command.add_argument("folder", type=Path, help="the clone")
    command.add_argument("--reverse", action="store_true", help="take the patch out")

    command = commands.add_parser(
        "run", help="run the train script of an unpatched clone", usage="segdre run SCRIPT -- ARGUMENTS [--seg ...]"
    )
    command.add_argument("script", type=Path, help="DIR/train.py")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="its command line, after --")

    options = parser.parse_args(arguments)
    try:
        if options.command == "patch":
            from segdre_plugin.patching import patch

            print(patch(options.folder, options.reverse))
        else:
            from segdre_plugin.launch import run_script

            run_script(options.script, [a for i, a in enumerate(options.arguments) if i > 0 or a != "--"])
    except SegDREError as error:
        print(f"segdre: error: {error}", file=sys.stderr)
        return 2
    return 0

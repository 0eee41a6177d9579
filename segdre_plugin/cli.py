"""The command ``segdre``."""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segdre_plugin import __version__
from segdre_plugin.errors import SegDREError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: the command line; None takes the process's.

    Returns:
        The exit status: 0, or 2 if something is wrong that the user can mend.
    """
    parser = argparse.ArgumentParser(prog="segdre", description="SegDRE for document-level relation extraction.")
    parser.add_argument("--version", action="version", version=f"segdre-plugin {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_demo, _add_patch, _add_run, _add_report):
        add(commands)
    options = parser.parse_args(arguments)
    try:
        options.command(options)
    except SegDREError as error:
        print(f"segdre: error: {error}", file=sys.stderr)
        return 2
    return 0


# Commands import what they need when they run: torch takes seconds, `segdre --help` should not.


def _add_demo(commands: Any) -> None:
    command = commands.add_parser("demo", help="see the whole method work on generated documents, on a CPU")
    command.add_argument("folder", type=Path, nargs="?", default=Path("segdre-demo"), help="for results (%(default)s)")
    for name, default, what in (
        ("train", 1000, "training documents"),
        ("dev", 80, "development documents"),
        ("test", 80, "test documents"),
        ("epochs", 4, "epochs of a stage"),
        ("seed", 0, "of documents and training"),
    ):
        command.add_argument(f"--{name}", type=int, default=default, help=f"{what} (%(default)s)")

    def run(options: Namespace) -> None:
        from segdre_plugin.demo.run import demo

        sizes = {name: getattr(options, name) for name in ("train", "dev", "test", "epochs", "seed")}
        demo(options.folder, **sizes)

    command.set_defaults(command=run)


def _add_patch(commands: Any) -> None:
    command = commands.add_parser("patch", help="make the train script of a clone know --seg")
    command.add_argument("folder", type=Path, help="the clone")
    command.add_argument("--reverse", action="store_true", help="take the patch out")

    def run(options: Namespace) -> None:
        from segdre_plugin.patching import patch

        print(patch(options.folder, options.reverse))

    command.set_defaults(command=run)


def _add_run(commands: Any) -> None:
    command = commands.add_parser(
        "run", help="run the train script of an unpatched clone", usage="segdre run SCRIPT -- ARGUMENTS [--seg ...]"
    )
    command.add_argument("script", type=Path, help="the train script in the clone")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="its command line, after --")

    def run(options: Namespace) -> None:
        from segdre_plugin.launch import run_script

        run_script(options.script, options.arguments[options.arguments[:1] == ["--"] :])

    command.set_defaults(command=run)


def _add_report(commands: Any) -> None:
    command = commands.add_parser("report", help="show a finished run on one HTML page")
    command.add_argument("folder", type=Path, metavar="DIR", help="the run's --seg-dir")
    command.add_argument("--output", type=Path, metavar="FILE", help="the page (DIR/report.html)")
    command.add_argument(
        "--documents",
        nargs="+",
        default=[],
        metavar="TITLE",
        help="titles of documents to show (of dev: where fusion gained most, lost most, and a typical one)",
    )
    command.add_argument(
        "--data-dir", type=Path, metavar="DIR", help="where the run's data are now (where they were during the run)"
    )

    def run(options: Namespace) -> None:
        from segdre_plugin.report.render import write_report

        print(f"written: {write_report(options.folder, options.output, options.documents, options.data_dir)}")

    command.set_defaults(command=run)

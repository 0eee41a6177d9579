"""The arguments of ``segdre study``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from segdre_plugin.analysis.study.rows import STUDIES


def add_arguments(command: ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    command.add_argument("name", choices=sorted(STUDIES))
    command.add_argument("folder", type=Path, metavar="DIR", help="for its runs and results; run again to go on")
    command.add_argument("--seeds", type=int, nargs="+", default=[66], metavar="SEED", help="one run each (66)")
    command.add_argument(
        "--partners",
        choices=("own", "next"),
        default="own",
        help="second models of naive ensembles: each seed its own, or the base model of the next seed (%(default)s)",
    )
    command.add_argument(
        "--reuse",
        dest="others",
        action="append",
        default=[],
        type=Path,
        metavar="DIR",
        help="another study's DIR: its stages with the same settings are taken, not trained (again for more)",
    )
    what = "score finished runs only: rows that need others fail"
    command.add_argument("--no-training", dest="trains", action="store_false", help=what)
    corpus = command.add_argument_group("without a script: the reference model on the corpus of segdre demo")
    for name, what in (("train", "documents"), ("dev", "documents"), ("test", "documents"), ("epochs", "of a stage")):
        corpus.add_argument(f"--{name}", type=int, metavar="N", help=what)


def run(options: Namespace) -> None:
    """Run the command."""
    from segdre_plugin.analysis.study import command  # which loads all that trains

    sizes = {name: getattr(options, name) for name in command.SIZES}
    how = {name: getattr(options, name) for name in ("partners", "others", "trains", "adapter")}
    command.run(options.name, options.folder, options.seeds, options.behind, sizes, **how)

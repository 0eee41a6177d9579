"""The arguments of ``segdre study``."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from segdre_plugin.analysis.study.studies import STUDIES


def add_study(commands: Any) -> None:
    """Add the command to the console script's."""
    what = "tables and figures of the paper on your data, and where the gain is lost"
    command = commands.add_parser(
        "study", help=what, usage="segdre study NAME DIR [options] [-- SCRIPT ARGUMENTS [--seg-...]]"
    )
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
        from segdre_plugin.analysis.study.command import SIZES, run  # which loads all that trains

        sizes = {name: getattr(options, name) for name in SIZES}
        how = {name: getattr(options, name) for name in ("partners", "others", "trains")}
        run(options.name, options.folder, options.seeds, options.behind, sizes, **how)

    command.set_defaults(command=run, behind=[])

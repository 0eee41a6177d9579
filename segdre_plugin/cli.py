"""The command ``segdre``."""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segdre_plugin import __version__
from segdre_plugin.analysis.study.arguments import add_study
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
    for add in COMMANDS:
        add(commands)
    given, behind = _split(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if behind and not hasattr(options, "behind"):
        parser.error(f"unrecognized arguments: -- {' '.join(behind)}")
    options.behind = behind
    try:
        options.command(options)
    except SegDREError as error:
        print(f"segdre: error: {error}", file=sys.stderr)
        return 2
    return 0


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line at its first ``--``: what is behind that is the command line of a train script."""
    given = list(arguments)
    cut = given.index("--") if "--" in given else len(given)
    return given[:cut], given[cut + 1 :]


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
    for name in ("--seg-salient", "--seg-salient-k", "--seg-train-salient", "--seg-loss"):
        command.add_argument(name, help="as of a run with --seg")

    def run(options: Namespace) -> None:
        from segdre_plugin.seg.demo import demo

        sizes = {name: getattr(options, name) for name in ("train", "dev", "test", "epochs", "seed")}
        seg = {name: value for name, value in vars(options).items() if name.startswith("seg_") and value is not None}
        demo(options.folder, **sizes, options=[f"--{name.replace('_', '-')}={value}" for name, value in seg.items()])

    command.set_defaults(command=run)


def _add_patch(commands: Any) -> None:
    command = commands.add_parser("patch", help="make the train script of a clone know --seg")
    command.add_argument("folder", type=Path, help="the clone")
    command.add_argument("--reverse", action="store_true", help="take the patch out")

    def run(options: Namespace) -> None:
        from segdre_plugin.backbones.clones.patching import patch

        print(patch(options.folder, options.reverse))

    command.set_defaults(command=run)


def _add_run(commands: Any) -> None:
    command = commands.add_parser(
        "run", help="run the train script of an unpatched clone", usage="segdre run SCRIPT -- ARGUMENTS [--seg ...]"
    )
    command.add_argument("script", type=Path, help="the train script in the clone")
    command.add_argument("arguments", nargs=argparse.REMAINDER, help="its command line, after --")

    def run(options: Namespace) -> None:
        from segdre_plugin.seg.launch import run_script

        run_script(options.script, [*options.arguments, *options.behind])

    command.set_defaults(command=run, behind=[])


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
        from segdre_plugin.analysis.report.render import write_report

        print(f"written: {write_report(options.folder, options.output, options.documents, options.data_dir)}")

    command.set_defaults(command=run)


def _add_validate(commands: Any) -> None:
    command = commands.add_parser("validate", help="check a data file: every problem with title, entity and field")
    command.add_argument("file", type=Path, help="DocRED documents, JSON or JSONL; labels may be missing")
    command.add_argument("--rel2id", type=Path, metavar="FILE", help="the relations that may occur in labels")

    def run(options: Namespace) -> None:
        from segdre_plugin.data.documents import validate

        print(validate(options.file, options.rel2id))

    command.set_defaults(command=run)


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser("evaluate", help="score predictions against gold, or compare two of them")
    command.add_argument("predictions", type=Path, help="in the official format, or what segdre predict writes")
    command.add_argument("--gold", type=Path, required=True, metavar="FILE", help="DocRED documents with labels")
    command.add_argument("--train", type=Path, metavar="FILE", help="train documents, whose facts Ign-F1 leaves out")
    command.add_argument("--compare", type=Path, metavar="FILE", help="other predictions: is the difference chance?")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")

    def run(options: Namespace) -> None:
        from segdre_plugin.analysis.evaluate import run as evaluate

        evaluate(options.predictions, options.gold, options.train, options.compare, options.json)

    command.set_defaults(command=run)


def _add_stats(commands: Any) -> None:
    command = commands.add_parser("stats", help="describe data files: sizes, salient entities, coverage, relations")
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="DocRED documents, JSON or JSONL")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    command.add_argument("--figures", type=Path, metavar="FOLDER", help="draw them, PNG and SVG")
    command.add_argument("--rel-info", type=Path, metavar="FILE", help="names of relations (DocRED's rel_info.json)")

    def run(options: Namespace) -> None:
        from segdre_plugin.analysis.statistics.command import run as describe

        describe(options.files, options.json, options.figures, options.rel_info)

    command.set_defaults(command=run)


def _add_convert(commands: Any) -> None:
    command = commands.add_parser("convert", help="turn plain text with entity spans into DocRED's JSON")
    command.add_argument(
        "file", type=Path, help='JSON or JSONL: {"title", "text", "entities": [{"type", "mentions": [[start, end]]}]}'
    )
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help=".jsonl for one document a line")

    def run(options: Namespace) -> None:
        from segdre_plugin.data.convert import convert_file

        print(convert_file(options.file, options.output))

    command.set_defaults(command=run)


def _add_bundle(commands: Any) -> None:
    command = commands.add_parser("bundle", help="put what prediction needs of a finished --seg run into one folder")
    command.add_argument("folder", type=Path, metavar="SEG_DIR", help="the run's --seg-dir")
    command.add_argument("output", type=Path, metavar="OUTPUT", help="the bundle's folder")

    def run(options: Namespace) -> None:
        from segdre_plugin.seg.bundle import bundle_run

        print(f"written: {bundle_run(options.folder, options.output)}")

    command.set_defaults(command=run)


def _add_predict(commands: Any) -> None:
    command = commands.add_parser("predict", help="predict new documents with a bundle")
    command.add_argument("bundle", type=Path, help="what segdre bundle wrote")
    command.add_argument("--input", type=Path, required=True, metavar="FILE", help="DocRED documents, JSON or JSONL")
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="one answer a line")
    command.add_argument("--clone", type=Path, metavar="DIR", help="the backbone's clone (the reference needs none)")
    command.add_argument("--batch-size", type=int, default=8, help="documents at once (%(default)s)")
    command.add_argument("--resume", action="store_true", help="go on with what a killed run left, if there is any")
    command.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="at a document that cannot be predicted (%(default)s); skip: OUTPUT.rejected.jsonl says which and why",
    )
    command.add_argument(
        "--format", choices=("jsonl", "official"), default="jsonl", help="official: DocRED's list (%(default)s)"
    )
    command.add_argument("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")

    def run(options: Namespace) -> None:
        from segdre_plugin.prediction.predict import predict

        report = predict(
            options.bundle,
            options.input,
            options.output,
            clone=options.clone,
            batch_size=options.batch_size,
            resume=options.resume,
            on_error=options.on_error,
            form=options.format,
            device=options.device,
        )
        print(
            "written: {output}: {documents} documents, {triples} triples, {rejected} rejected, "
            "{documents_per_second:.2f} documents a second".format(output=options.output, **report)
        )

    command.set_defaults(command=run)


COMMANDS = (
    _add_demo,
    _add_patch,
    _add_run,
    add_study,
    _add_report,
    _add_validate,
    _add_evaluate,
    _add_stats,
    _add_convert,
    _add_bundle,
    _add_predict,
)

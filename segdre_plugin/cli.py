"""The command ``segdre``.

Every command is a function that adds its arguments and one that runs it. Only the command that the line names gets its
arguments, and both functions import what they need themselves: torch takes seconds, ``segdre --help`` should not.
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from segdre_plugin import __version__
from segdre_plugin.data.files import named_path
from segdre_plugin.errors import ENDINGS, SegDREError, console, did_you_mean, report


@dataclass(frozen=True)
class Command:
    """A subcommand."""

    help: str  # its line in ``segdre --help``
    example: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], None]
    usage: str | None = None  # None lets argparse write it
    takes_script: bool = False  # whether the command line of a train script may follow after ``--``
    output: str = ""  # the argument that names its output file, which may be ``-``


DEMO = {
    "train": ("training documents", 450, 80),
    "dev": ("development documents", 80, 20),
    "test": ("test documents", 120, 20),
    "epochs": ("epochs of the base; dense and sparse have half of them", 4, 2),
    "seed": ("of documents and training", 0, 0),
}  # argument of segdre demo -> meaning, default, default with --quick
DEMO_STAGES = """a tiny model from scratch, on one CPU core, in four stages:
  base      the backbone alone, on all pairs
  identify  which entity has most relations: the salient one
  dense     the pairs of the salient entity
  sparse    all other pairs, of text into which the dense triples are injected
and then the fusion of base, dense and sparse. Dense and sparse start from the base: nothing here is pretrained."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (None: the process's) and return its exit status: 0, or that of :func:`errors.report`."""
    try:
        with console():
            _run_command(arguments)
    except ENDINGS as error:
        return report(error)
    return 0


def _run_command(arguments: Sequence[str] | None) -> None:
    from segdre_plugin.data.pipes import is_stdout

    own, script = _split(sys.argv[1:] if arguments is None else arguments)
    if own and not own[0].startswith("-") and own[0] not in COMMANDS:
        raise SegDREError(f"unknown command {own[0]!r}", did_you_mean(own[0], COMMANDS))
    parser = ArgumentParser(
        prog="segdre", description="SegDRE for document-level relation extraction.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"segdre-plugin {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        subparser = subparsers.add_parser(
            name,
            help=command.help,
            usage=command.usage,
            description=f"{command.help[0].upper()}{command.help[1:]}.",
            epilog=f"example: {command.example}",
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        subparser.register("type", Path, named_path)
        if name in own[:1]:
            command.add_arguments(subparser)
            _check_options(subparser, own[1:])

    options = parser.parse_args(own)
    chosen = COMMANDS[options.command]
    if script and not chosen.takes_script:
        parser.error(f"unrecognized arguments: -- {' '.join(script)}")
    options.behind = script
    output = getattr(options, chosen.output) if chosen.output else None
    with redirect_stdout(sys.stderr) if output and is_stdout(output) else nullcontext():
        chosen.run(options)


def _check_options(parser: ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuse options that a command does not have, with those that may be meant."""
    known = [option for action in parser._actions for option in action.option_strings]
    for word in (argument.split("=")[0] for argument in arguments):
        if word.startswith("--") and word not in known:
            raise SegDREError(f"{parser.prog}: unknown option {word}", did_you_mean(word, known))


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split a command line at its first ``--``, after which the command line of a train script follows."""
    own = list(arguments)
    cut = own.index("--") if "--" in own else len(own)
    return own[:cut], own[cut + 1 :]


def _demo_arguments(command: ArgumentParser) -> None:
    command.add_argument("folder", type=Path, nargs="?", default=Path("segdre-demo"), help="for results (%(default)s)")
    command.add_argument(
        "--quick", action="store_true", help="half a minute: every step, with models that have hardly learned anything"
    )
    for name, (what, default, quick) in DEMO.items():
        command.add_argument(f"--{name}", type=int, help=f"{what} ({default}; with --quick {quick})")
    for name in ("--seg-salient", "--seg-salient-k", "--seg-train-salient", "--seg-alpha", "--seg-start", "--seg-loss"):
        command.add_argument(name, help="as of a run with --seg")


def _demo(options: Namespace) -> None:
    started = time.perf_counter()
    print(f"segdre demo: {DEMO_STAGES}", flush=True)
    from segdre_plugin.analysis.parts import part_verdict
    from segdre_plugin.analysis.report.render import write_report
    from segdre_plugin.seg.demo import demo

    sizes = {name: quick if options.quick else default for name, (_, default, quick) in DEMO.items()}
    sizes |= {name: getattr(options, name) for name in DEMO if getattr(options, name) is not None}
    seg = {name: value for name, value in vars(options).items() if name.startswith("seg_") and value is not None}
    demo(options.folder, **sizes, options=[f"--{name.replace('_', '-')}={value}" for name, value in seg.items()])
    print("\nverdict:")
    for sentence in part_verdict(options.folder):
        print(f"  {sentence}")
    print("  (dense and sparse go on from the base: part of their gain is longer training, see docs/demo.md)")
    print(f"\nreport: {write_report(options.folder)}")
    print(f"{time.perf_counter() - started:.0f} seconds, {time.process_time():.0f} of them of processor time")


def _patch_arguments(command: ArgumentParser) -> None:
    command.add_argument("folder", type=Path, help="the clone")
    command.add_argument("--reverse", action="store_true", help="take the patch out")
    _adapter_argument(command)


def _patch(options: Namespace) -> None:
    from segdre_plugin.backbones.clones.patching import patch

    print(patch(options.folder, options.reverse, options.adapter))


def _run_arguments(command: ArgumentParser) -> None:
    command.add_argument("script", type=Path, help="the train script in the clone; its command line follows after --")
    _adapter_argument(command)


def _run(options: Namespace) -> None:
    from segdre_plugin.seg.launch import run_script

    run_script(options.script, options.behind, options.adapter)


def _adapter_argument(command: ArgumentParser) -> None:
    what = "the backbone's adapter: a name (see segdre backbones), or a Python file with BACKBONE and SCRIPT"
    command.add_argument("--adapter", metavar="NAME|FILE", help=what)


def _backbone_arguments(command: ArgumentParser) -> None:
    command.add_argument("what", choices=["check"], help="check: every stage on a few documents, a line a check")
    _run_arguments(command)


def _backbone(options: Namespace) -> None:
    from segdre_plugin.prediction.backbone_check import check_backbone

    check_backbone(options.script, options.behind, options.adapter)


def _backbones_arguments(command: ArgumentParser) -> None:
    command.add_argument("--json", type=Path, metavar="FILE", help="write the list")


def _backbones(options: Namespace) -> None:
    from segdre_plugin.backbones.listing import list_backbones

    list_backbones(options.json)


def _study_arguments(command: ArgumentParser) -> None:
    from segdre_plugin.analysis.study.arguments import add_arguments

    add_arguments(command)
    _adapter_argument(command)


def _study(options: Namespace) -> None:
    from segdre_plugin.analysis.study.arguments import run

    run(options)


def _report_arguments(command: ArgumentParser) -> None:
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


def _report(options: Namespace) -> None:
    from segdre_plugin.analysis.report.render import write_report

    print(f"written: {write_report(options.folder, options.output, options.documents, options.data_dir)}")


def _validate_arguments(command: ArgumentParser) -> None:
    command.add_argument("file", type=Path, help="DocRED documents, JSON or JSONL; labels may be missing")
    command.add_argument("--rel2id", type=Path, metavar="FILE", help="the relations that may occur in labels")
    command.add_argument(
        "--fix", type=Path, metavar="OUTPUT", help="write the documents with what has one obvious answer fixed"
    )


def _validate(options: Namespace) -> None:
    from segdre_plugin.data.documents import validate
    from segdre_plugin.data.fixes import fix_file

    if options.fix:
        print(fix_file(options.file, options.fix, options.rel2id))
    else:
        print(validate(options.file, options.rel2id))


def _evaluate_arguments(command: ArgumentParser) -> None:
    command.add_argument("predictions", type=Path, help="in the official format, or what segdre predict writes")
    command.add_argument("--gold", type=Path, required=True, metavar="FILE", help="DocRED documents with labels")
    what = "train documents, for Ign-F1 and for F1 by frequency of relation"
    command.add_argument("--train", type=Path, metavar="FILE", help=what)
    command.add_argument("--compare", type=Path, metavar="FILE", help="other predictions: is the difference chance?")
    command.add_argument("--relations", action="store_true", help="print F1 of each relation, too")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers, curve and relations included")


def _evaluate(options: Namespace) -> None:
    from segdre_plugin.analysis.evaluate import run as evaluate

    evaluate(options.predictions, options.gold, options.train, options.compare, options.json, options.relations)


def _stats_arguments(command: ArgumentParser) -> None:
    command.add_argument("files", type=Path, nargs="+", metavar="FILE", help="DocRED documents, JSON or JSONL")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    command.add_argument("--figures", type=Path, metavar="FOLDER", help="draw them, PNG and SVG")
    command.add_argument("--rel-info", type=Path, metavar="FILE", help="names of relations (DocRED's rel_info.json)")


def _stats(options: Namespace) -> None:
    from segdre_plugin.analysis.statistics.command import run as describe

    describe(options.files, options.json, options.figures, options.rel_info)


def _convert_arguments(command: ArgumentParser) -> None:
    command.add_argument(
        "file", type=Path, help='JSON or JSONL: {"title", "text", "entities": [{"type", "mentions": [[start, end]]}]}'
    )
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help=".jsonl for one document a line")


def _convert(options: Namespace) -> None:
    from segdre_plugin.data.convert import convert_file

    print(convert_file(options.file, options.output))


def _bundle_arguments(command: ArgumentParser) -> None:
    command.add_argument("folder", type=Path, metavar="SEG_DIR", help="the run's --seg-dir")
    command.add_argument("output", type=Path, metavar="OUTPUT", help="the bundle's folder")


def _bundle(options: Namespace) -> None:
    from segdre_plugin.seg.bundle import bundle_run

    print(f"written: {bundle_run(options.folder, options.output)}")


def _predict_arguments(command: ArgumentParser) -> None:
    command.add_argument("bundle", type=Path, help="what segdre bundle wrote")
    sources = command.add_mutually_exclusive_group(required=True)
    sources.add_argument("--input", type=Path, metavar="FILE", help="DocRED documents, JSON or JSONL")
    sources.add_argument(
        "--text",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="plain text, a document a file, or folders of *.txt",
    )
    command.add_argument("--spacy", metavar="NAME", help="with --text: the spaCy pipeline that finds the entities")
    command.add_argument("--output", type=Path, default=Path("-"), metavar="FILE", help="(standard output)")
    command.add_argument("--html", type=Path, metavar="FILE", help="write a page, too: text, graph, triples")
    command.add_argument("--clone", type=Path, metavar="DIR", help="the backbone's clone (the reference needs none)")
    _adapter_argument(command)
    command.add_argument("--batch-size", type=int, default=8, metavar="N", help="documents at once (%(default)s)")
    command.add_argument("--resume", action="store_true", help="continue what an interrupted run left, if anything")
    command.add_argument(
        "--on-error",
        choices=("stop", "skip"),
        default="stop",
        help="at a document that cannot be predicted (%(default)s); skip: OUTPUT.rejected.jsonl says which and why",
    )
    command.add_argument(
        "--format",
        choices=("jsonl", "official", "csv", "rdf", "parquet"),
        default="jsonl",
        help="an answer a line, DocRED's list of triples, a row a triple, N-Triples; ray also Parquet (%(default)s)",
    )
    command.add_argument("--device", help="cpu, cuda, cuda:1, ... (a GPU if there is one)")
    ray = "with --engine ray: "
    command.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: a folder of JSON, JSONL and Parquet files into another, by actors of Ray Data (%(default)s)",
    )
    command.add_argument(
        "--actors", type=int, metavar="N", help=f"{ray}how many (one a GPU, or as many as cores allow)"
    )
    command.add_argument("--threads", type=int, metavar="N", help=f"{ray}CPU threads of an actor (1)")
    command.add_argument("--ray-address", metavar="A", help=f"{ray}of a cluster (RAY_ADDRESS, or Ray is started here)")
    what = "inference-stage fusion (eq. 11), where the bundle's run has tuned it (DREEAM: --eval_mode fushion on dev)"
    command.add_argument("--isf", action="store_true", help=what)


def _predict(options: Namespace) -> None:
    from segdre_plugin.prediction.predict import predict

    if bool(options.text) != bool(options.spacy):
        raise SegDREError(
            "--text and --spacy go together",
            "pass the name or folder of a spaCy pipeline, such as --spacy en_core_web_sm, with --text, and only there",
        )
    _check_engine(options)
    source = options.text or options.input
    page = None
    if options.html:
        from segdre_plugin.analysis.report.answers import answers_page

        page = answers_page(options.html, [*(options.text or [source]), options.output], options.resume)
    names = ("clone", "adapter", "batch_size", "resume", "on_error", "device", "isf")
    how = {name: getattr(options, name) for name in names} | {"form": options.format}
    if options.engine == "ray":
        from segdre_plugin.prediction.ray_engine import predict_folder

        how |= {"actors": options.actors, "threads": options.threads or 1, "address": options.ray_address}
        report = predict_folder(options.bundle, source, options.output, **how)
    else:
        report = predict(options.bundle, source, options.output, spacy=options.spacy, page=page, **how)
    print(
        "written: {output}: {documents} documents, {triples} triples, {rejected} rejected, "
        "{documents_per_second:.2f} documents a second".format(output=options.output, **report)
    )
    if page:
        print(f"written: {options.html}")


def _check_engine(options: Namespace) -> None:
    """Refuse options of the other engine."""
    other = ("text", "html") if options.engine == "ray" else ("actors", "threads", "ray_address")
    wrong = [f"--{name.replace('_', '-')}" for name in other if getattr(options, name) is not None]
    forms = ("jsonl", "parquet") if options.engine == "ray" else ("jsonl", "official", "csv", "rdf")
    wrong += [f"--format {options.format}"] if options.format not in forms else []
    if wrong:
        engine = "local" if options.engine == "ray" else "ray"
        raise SegDREError(
            f"--engine {options.engine}: no {', '.join(wrong)}", f"leave that out, or use --engine {engine}"
        )
    if options.engine == "ray" and str(options.output) == "-":
        raise SegDREError("--engine ray writes a folder", "pass --output FOLDER")


COMMANDS = {
    "demo": Command(
        "see the whole method work on generated documents, on a CPU", "segdre demo", _demo_arguments, _demo
    ),
    "patch": Command("make the train script of a clone know --seg", "segdre patch ATLOP", _patch_arguments, _patch),
    "run": Command(
        "run the train script of an unpatched clone",
        "segdre run train.py -- --data_dir dataset/docred --seg --seg-dir out",
        _run_arguments,
        _run,
        usage="segdre run SCRIPT [--adapter NAME|FILE] -- ARGUMENTS [--seg ...]",
        takes_script=True,
    ),
    "backbone": Command(
        "check the description of a backbone: every stage on a few documents",
        "segdre backbone check train.py --adapter mine.py -- --data_dir dataset/docred",
        _backbone_arguments,
        _backbone,
        usage="segdre backbone check SCRIPT [--adapter NAME|FILE] -- ARGUMENTS",
        takes_script=True,
    ),
    "backbones": Command(
        "list the known backbones and what is supported",
        "segdre backbones",
        _backbones_arguments,
        _backbones,
        output="json",
    ),
    "study": Command(
        "tables and figures of the paper on your data, and where the gain is lost",
        "segdre study ablations study --seeds 66 67 68 -- train.py --data_dir dataset/docred",
        _study_arguments,
        _study,
        usage="segdre study NAME DIR [options] [-- SCRIPT ARGUMENTS [--seg-...]]",
        takes_script=True,
    ),
    "report": Command(
        "show a finished run on one HTML page", "segdre report out", _report_arguments, _report, output="output"
    ),
    "validate": Command(
        "check a data file: every problem with title, entity and field",
        "segdre validate docs.json --fix fixed.json",
        _validate_arguments,
        _validate,
        output="fix",
    ),
    "evaluate": Command(
        "score predictions against gold, or compare two of them",
        "segdre evaluate out/result_dev.json --gold dev.json --compare other.json",
        _evaluate_arguments,
        _evaluate,
        output="json",
    ),
    "stats": Command(
        "describe data files: sizes, salient entities, coverage, relations",
        "segdre stats train.json dev.json --figures figures",
        _stats_arguments,
        _stats,
        output="json",
    ),
    "convert": Command(
        "turn plain text with entity spans into DocRED's JSON",
        "segdre convert spans.jsonl --output docs.json",
        _convert_arguments,
        _convert,
        output="output",
    ),
    "bundle": Command(
        "put what prediction needs of a finished --seg run into one folder",
        "segdre bundle out my-bundle",
        _bundle_arguments,
        _bundle,
    ),
    "predict": Command(
        "predict new documents with a bundle",
        "segdre predict my-bundle --clone ATLOP --input docs.jsonl --output triples.jsonl",
        _predict_arguments,
        _predict,
        output="output",
    ),
}

"""Where a backbone's train script meets the plugin.

The patched script calls :func:`prepare` before its imports and puts :func:`entry` around its ``main``; ``segdre run``
does the same for a script that is not patched.
"""

from __future__ import annotations

import codecs
import importlib.util
import locale
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.clones.compat import adapt_names, on_host, supply_modules
from segdre_plugin.backbones.clones.recognition import choose_adapter, refuse_another
from segdre_plugin.backbones.launched import choose_gpu, joined
from segdre_plugin.backbones.memory import MACHINE_HINT, enough_memory
from segdre_plugin.backbones.registry import get_adapter
from segdre_plugin.backbones.script import Script
from segdre_plugin.backbones.workers import ALONE, Workers
from segdre_plugin.data.files import read_json
from segdre_plugin.data.progress import silence
from segdre_plugin.errors import ENDINGS, SegDREError, console, raise_all, report
from segdre_plugin.seg.options import Options, build_parser, parse
from segdre_plugin.stages.wrap import place_outputs

OTHER_DATA = {"read_cdr": "CDR", "read_gda": "GDA"}  # readers that ATLOP's train_bio.py has in place of DocRED's


def prepare(adapter: str = "atlop") -> None:
    """Supply what the script is about to import and today's libraries lack; end with a message if something is missing.

    Raises:
        SegDREError: never out of here: its message is printed, and the process ends.
    """
    with messages():
        _prepare(get_adapter(adapter).require_script())


def _prepare(script: Script) -> None:
    if "--seg" in sys.argv:
        choose_gpu()
    missing = [name for name in script.required if importlib.util.find_spec(name) is None]
    if missing:
        named = [name for name in missing if name not in script.commands]
        commands = [f"pip install {' '.join(named)}"] if named else []
        commands += [script.commands[name] for name in missing if name in script.commands]
        raise SegDREError(f"{script.file} imports {', '.join(missing)}", " && ".join(commands))
    check_relations(Path(script.imported))
    supplied = supply_modules(script)
    if supplied:
        print(f"segdre: standing in for {', '.join(supplied)}", file=sys.stderr)


def check_relations(path: Path) -> None:
    """Check that the backbone can read its relations: it opens the file itself, as text of the locale.

    Raises:
        SegDREError: if the file is missing, is not JSON, or would be misread.
    """
    if not path.is_file():
        raise SegDREError(
            f"{path} not found in {Path.cwd()}: the backbone reads it when it is imported",
            "run from the clone's folder, and put DocRED's rel2id.json into its folder meta/",
        )
    read_json(path, "relations")
    content, encoding = path.read_bytes(), locale.getpreferredencoding(False)
    if content.startswith(codecs.BOM_UTF8):
        raise SegDREError(
            f"{path} starts with a byte order mark, over which the backbone stumbles", "save it as UTF-8 without one"
        )
    if not content.isascii() and codecs.lookup(encoding).name != "utf-8":
        raise SegDREError(
            f"{path} holds characters beyond ASCII, and the backbone would read it in this locale's {encoding}",
            "set PYTHONUTF8=1, or write them as JSON escapes (json.dump does)",
        )


def entry(names: MutableMapping[str, Any], adapter: str | Backbone, script: Script | None = None) -> Callable[[], None]:
    """Return the ``main`` that the patched script calls.

    Without ``--seg`` it is the script's own, on today's libraries; with it, all stages of SegDRE.

    ``names`` are the script's globals. ``adapter`` may be the spec of a backbone of your own, and ``script`` that of
    its script; None takes the script of the adapter's name. A script that is recognised as another backbone's than the
    one that its patch names ends with a message.
    """
    with messages():
        backbone, spec = _descriptions(names, adapter, script)
        install(names, spec)
        upstream = names["main"]
        adapt_names(names, spec)

    def main() -> None:
        with messages():
            if {"-h", "--help"} & set(sys.argv[1:]):
                print(build_parser().format_help())
                upstream()
            options, rest = parse(sys.argv[1:])
            sys.argv[1:] = rest
            if options.seg:
                with enough_memory(lambda: spec.file, MACHINE_HINT):
                    _run(names, upstream, backbone, spec, options)
                return
            model = names[spec.names.model]
            names[spec.names.model] = lambda *args, **kwargs: place_outputs(model(*args, **kwargs), backbone)
            with on_host():
                upstream()

    main.segdre = (upstream, backbone, spec)  # type: ignore[attr-defined]
    return main


def install(names: MutableMapping[str, Any], script: Script) -> None:
    """Let a script's description change its globals, and check that they have what is swapped.

    Raises:
        SegDREError: with all that is missing.
    """
    hint = f"is it the original {script.file}? What a script of your own calls them, say in Script.names"
    _refuse_other_data(names, script)
    try:
        script.install(names)
    except KeyError as error:
        raise SegDREError(f"{script.file}: no {error.args[0]} in it", hint) from error
    wanted = {**vars(script.names), "main": "main"}
    missing = [f"{name} ({what})" for what, name in wanted.items() if not callable(names.get(name))]
    raise_all(missing, f"{script.file}: missing", hint)


def _refuse_other_data(names: MutableMapping[str, Any], script: Script) -> None:
    """Refuse a sibling of a script that reads other data than DocRED's (ATLOP's train_bio.py: CDR and GDA).

    Raises:
        SegDREError: with what its data lack and what to do.
    """
    found = [data for reader, data in OTHER_DATA.items() if reader in names]
    if found and script.names.reader not in names:
        file = Path(names.get("__file__", "the script")).name
        raise SegDREError(
            f"{file}: reads {' and '.join(found)} in a form that has no sentences and no names of entities or "
            "relations, which become the text of branches",
            "write the documents as DocRED's JSON (see train_bio.py in docs/troubleshooting.md; segdre validate --fix "
            f"helps), and train with {script.file}, --num_class, --num_labels and --seg-rel-info",
        )


def _descriptions(
    names: MutableMapping[str, Any], adapter: str | Backbone, script: Script | None
) -> tuple[Backbone, Script]:
    """Return the descriptions that :func:`entry` gets, looked up by the adapter's name where it gets no script."""
    if isinstance(adapter, Backbone) and script is not None:
        return adapter, script
    known = get_adapter(adapter.name if isinstance(adapter, Backbone) else adapter)
    if isinstance(adapter, str) and Path(names.get("__file__", "")).is_file():
        refuse_another(Path(names["__file__"]), known)
    return known.backbone if isinstance(adapter, str) else adapter, script or known.require_script()


def _run(
    names: MutableMapping[str, Any],
    upstream: Callable[[], Any],
    backbone: Backbone,
    script: Script,
    options: Options,
    training: Callable[..., Any] | None = None,
) -> None:
    """Train, check or evaluate with ``--seg``; several processes that were started together train together.

    Raises:
        SegDREError: if what they are to do is the work of one.
    """
    from segdre_plugin.seg.check_run import CheckRun
    from segdre_plugin.seg.evaluation_run import EvaluationRun
    from segdre_plugin.seg.script_run import peek
    from segdre_plugin.seg.training_run import TrainingRun

    run: Callable[..., Any] = training or TrainingRun
    if options.check:
        run = CheckRun
    if script.trains and not getattr(peek(names, upstream, script)[0], script.trains):
        run = EvaluationRun
    with joined() as workers:
        if workers is not ALONE:
            _check_launch(workers, options, run in (CheckRun, EvaluationRun))
        with nullcontext() if workers.is_main else silence():
            run(names, upstream, backbone, script, options, workers).run()


def _check_launch(workers: Workers, options: Options, reads: bool) -> None:
    """Refuse to do in several processes, or with Accelerate's settings, what is not done so.

    Raises:
        SegDREError: if nothing is trained (``reads``), or not by our own loop.
    """
    several = f"started as {workers.size} processes"
    if workers.size > 1 and (reads or options.parallel):
        what = "--seg-parallel starts processes of its own" if options.parallel else "only training is shared"
        raise SegDREError(f"{several}, and {what}", "start the same command without the launcher")
    if workers.size > 1 and options.config.share_encoder:
        raise SegDREError(
            f"{several}, and --seg-share-encoder adds up means over all pairs and over dense ones, whose shares differ",
            "start the same command without the launcher, or leave it out",
        )
    if options.trainer != "own" and (workers.size > 1 or workers.mixed_precision != "no" or workers.accumulation):
        how = several if workers.size > 1 else "started with Accelerate's settings"
        raise SegDREError(f"{how}, and the script's own train() knows nothing of that", "add --seg-trainer own")


def run_script(path: Path, arguments: list[str], adapter: str | None = None) -> None:
    """Run a train script that is not patched; ``arguments`` are its command line, options of ours included."""
    load_script(path, arguments, adapter)()


def load_script(path: Path, arguments: list[str], adapter: str | None = None) -> Callable[[], None]:
    """Return what :func:`entry` made of a script's ``main``; its command line becomes ``arguments``, ours included.

    ``adapter`` is the name of the backbone's, or the path of a Python file; None recognises the script.

    Raises:
        SegDREError: if the script is missing or has no ``main``, or the adapter is unknown or not the script's.
    """
    if not path.is_file():
        raise SegDREError(f"{path} not found", "pass the train script of a clone")
    chosen = choose_adapter(path, adapter)
    _prepare(chosen.require_script())
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location("segdre_upstream", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    names = vars(module)
    if not callable(names.get("main")):
        raise SegDREError(f"{path} has no main()", "pass the train script of a clone")
    main: Callable[[], None] = names["main"]
    return main if hasattr(main, "segdre") else entry(names, chosen.backbone, chosen.require_script())


def run_reference(arguments: Sequence[str], training: Callable[..., Any] | None = None) -> None:
    """Run the reference model's train script with a command line; without ``--seg`` it trains the base alone.

    ``training`` takes the place of :class:`segdre_plugin.seg.training_run.TrainingRun`.
    """
    from segdre_plugin.backbones.clones.stand_ins import swapped
    from segdre_plugin.backbones.reference import train
    from segdre_plugin.backbones.reference.spec import BACKBONE, SCRIPT

    options, rest = parse(arguments)
    with swapped(vars(sys), {"argv": [SCRIPT.file, *rest]}):
        if options.seg:
            _run(vars(train), train.main, BACKBONE, SCRIPT, options, training)
        else:
            train.main()


@contextmanager
def messages() -> Iterator[None]:
    """Turn errors and Ctrl-C into a message and an exit status."""
    try:
        with console():
            yield
    except ENDINGS as error:
        raise SystemExit(report(error)) from None

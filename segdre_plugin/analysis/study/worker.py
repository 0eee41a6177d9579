"""A process of a study: one training run, or the readings of a finished one.

Its arguments: ``[--script FILE] [--adapter NAME|FILE] [--requests FILE] -- ARGUMENTS``; without a script it is the
reference model's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from segdre_plugin.analysis.study.repredict import Request, RereadRun
from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.clones.stand_ins import swapped
from segdre_plugin.backbones.reference import train
from segdre_plugin.backbones.reference.spec import BACKBONE, SCRIPT
from segdre_plugin.backbones.script import Script
from segdre_plugin.data.files import read_json
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.seg.launch import load_script, messages
from segdre_plugin.seg.options import parse
from segdre_plugin.seg.processes import end_with_parent
from segdre_plugin.seg.training_run import TrainingRun

Opened = tuple[MutableMapping[str, Any], Callable[[], Any], Backbone, Script]


def serve(given: Sequence[str]) -> None:
    """Be the worker of the process at the other end of the standard input, and end with it, however it ends."""
    end_with_parent()
    main(given)


def main(given: Sequence[str]) -> None:
    """Train or read, by a command line; end with a message and exit status 2 on an error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--script", type=Path)
    parser.add_argument("--adapter")
    parser.add_argument("--requests", type=Path)
    cut = list(given).index("--")
    chosen = parser.parse_args(given[:cut])
    with messages(), swapped(vars(sys), {"argv": list(sys.argv)}):
        work(chosen.script, chosen.requests, list(given[cut + 1 :]), chosen.adapter)


def work(script: Path | None, requests: Path | None, arguments: list[str], adapter: str | None = None) -> None:
    """Train, or read.

    Args:
        script: the backbone's train script; None takes the reference model's.
        requests: JSON of name -> request; None trains.
        arguments: the script's command line, options of ours included.
        adapter: of the script's backbone, a name or a Python file; None recognises the script.

    Raises:
        SegDREError: if an argument or the data are wrong, or with all requests that failed.
    """
    names, upstream, backbone, spec = open_script(script, arguments, adapter)
    options, sys.argv[1:] = parse(sys.argv[1:])
    session = (RereadRun if requests else TrainingRun)(names, upstream, backbone, spec, options)
    if spec.trains and not getattr(session.args, spec.trains):
        raise SegDREError(f"a study trains its rows, and --{spec.trains} is missing", "add it")
    if not isinstance(session, RereadRun):
        session.run()
        return
    assert requests is not None
    wanted = {name: Request(**request) for name, request in read_json(requests, "requests").items()}
    problems = session.answer(wanted)
    raise_all([f"{name}: {problem}" for name, problem in problems.items()], "readings that failed", "see above")


def open_script(script: Path | None, arguments: list[str], adapter: str | None = None) -> Opened:
    """Import a script, given as for :func:`work`; ``sys.argv`` is its command line afterwards.

    Returns:
        Its globals, its ``main``, and the descriptions of its model and of itself.
    """
    if script is None:
        sys.argv = [SCRIPT.file, *arguments]
        return vars(train), train.main, BACKBONE, SCRIPT
    upstream, backbone, spec = load_script(script, arguments, adapter).segdre  # type: ignore[attr-defined]
    return upstream.__globals__, upstream, backbone, spec

"""Studies in tests: their runs trained in this process, or not trained at all."""

import json
import shutil
import traceback
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path

import finished

from segdre_plugin.analysis.study import worker

STAGES = ("base", "identify", "dense", "sparse")
TINY = ["--train", "8", "--dev", "4", "--test", "3", "--epochs", "1"]


def start_here(arguments, log, environment):
    """Do a worker's work in this process, which has loaded torch already."""
    with log.open("w") as file, redirect_stdout(file), redirect_stderr(file):
        try:
            worker.main(arguments)
        except SystemExit as stop:
            return stop.code
        except Exception:
            traceback.print_exc()
            return 1
    return 0


def make_source(root, seed):
    """A run of random margins, with the settings of every stage."""
    out = root / f"source-{seed}" / "out"
    if not out.exists():
        finished.make_run(out.parent, seed=seed)
        for stage in STAGES:
            arguments = {"seed": seed, "model_name_or_path": "made-up"}
            settings = {"arguments": arguments, "data": {}, "modules": {}, "options": {}}
            (out / stage / "settings.json").write_text(json.dumps(settings))
    return out


def make_up(root):
    """Make a worker that trains nothing: it copies stages of a run of random margins, which depend on the seed only."""

    def start(arguments, log, environment):
        log.write_text("")
        option = dict(pairwise(arguments))
        target, last = Path(option["--seg-dir"]), option["--seg-stage"]
        source = make_source(root, int(option["--seed"]))
        target.mkdir(parents=True, exist_ok=True)
        for stage in STAGES if last == "all" else (last,):
            if not (target / stage).exists():
                shutil.copytree(source / stage, target / stage)
        for path in source.glob("*.json") if last == "all" else ():
            shutil.copy(path, target)
        return 0

    return start

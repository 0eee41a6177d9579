"""How the run was made: its settings, and what was recorded of each stage's making."""

from __future__ import annotations

import re
from typing import Any

from segdre_plugin.analysis.report.page import Table
from segdre_plugin.data.progress import duration
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.config import STAGES

UNKNOWN = "not recorded"
RATE = re.compile(r"(^|_)(lr|learning_rate)(_|$)")  # arguments of train scripts


def made_section(run: RunFolder) -> tuple[Table, Table]:
    """Return a table of what holds for the run, and one of its stages."""
    settings = {stage: run.settings(stage) for stage in STAGES}
    made = {stage: run.provenance(stage) for stage in STAGES}
    arguments = settings["base"]["arguments"]
    rates = {name: value for name, value in arguments.items() if RATE.search(name)}
    known = [origin for origin in made.values() if origin]
    rows = [
        ("command", _distinct(origin["command"] for origin in known)),
        ("seed", [str(run.seed)]),
        ("encoder", [_encoder(arguments)]),
        ("learning rates", [", ".join(f"{name} {_number(value)}" for name, value in rates.items()) or UNKNOWN]),
        ("machine", _distinct(_machine(origin["machine"], origin["processes"]) for origin in known)),
        ("versions", _distinct(", ".join(" ".join(part) for part in origin["versions"].items()) for origin in known)),
    ]
    stages = [
        (
            stage,
            [
                _epochs(settings[stage], arguments, stage) if stage in run.config.models else "trains nothing",
                _rate(settings[stage]) if stage in run.config.models else "-",
                duration(origin["seconds"]) if origin else UNKNOWN,
                origin["date"][:16].replace("T", " ") if origin else UNKNOWN,
            ],
        )
        for stage, origin in made.items()
    ]
    columns = ["stage", "epochs", "rate of new layers", "time", "begun (UTC)"]
    return Table("how the run was made", ["", ""], rows), Table("stages", columns, stages)


def _distinct(texts: Any) -> list[str]:
    return ["; ".join(dict.fromkeys(texts)) or UNKNOWN]


def _encoder(arguments: dict[str, Any]) -> str:
    name = str(arguments.get("model_name_or_path") or "trained from scratch")
    kind = arguments.get("transformer_type")
    return f"{name} ({kind})" if kind else name


def _epochs(settings: dict[str, Any], arguments: dict[str, Any], stage: str) -> str:
    own = settings["options"].get(f"{stage}_epochs")
    epochs = arguments.get("num_train_epochs") if own is None else own
    return UNKNOWN if epochs is None else _number(epochs)


def _rate(settings: dict[str, Any]) -> str:
    rate = settings["options"].get("new_layer_lr")
    return "the script's" if rate is None else _number(rate)


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)  # whatever a stranger's file has


def _machine(machine: dict[str, Any], processes: int) -> str:
    gpu = machine["gpu"] or "no GPU"
    if processes > 1:
        return f"{processes} processes, the main one on: {_machine(machine, 1)}"
    cores = f"{machine['cores']} cores, {machine['threads']} thread{'s' if machine['threads'] != 1 else ''}"
    return f"{machine['processor']}, {cores}, {gpu}, {machine['system']}"

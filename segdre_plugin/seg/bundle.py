"""A bundle: one folder with all that prediction needs of a finished run, the code of the backbone excepted.

==========================  ==========================================================================================
``bundle.json``             adapter, thresholds, settings, arguments, versions, size and SHA-256 of the other files
``STAGE.safetensors``       the weights of base, dense and sparse, and of identify if it trains a count head
``encoder/``                the encoder's configuration and the tokenizer, as transformers saves them
``rel2id.json``             relation id -> class, in DocRED's form
``rel_info.json``           relation id -> name, in DocRED's form
``metrics.json``            the run's metrics
==========================  ==========================================================================================

Nothing in it is code and nothing is pickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from segdre_plugin.data.documents import read_rel2id
from segdre_plugin.data.files import check_finite, fingerprint, read_json, read_weights, write_json
from segdre_plugin.data.folders import copy_files, recover, regular_files, replacing
from segdre_plugin.data.splits import read_relation_names
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.fusion import FusionResult
from segdre_plugin.seg.checkpoints import ENCODER, MODEL_FORM, read_model
from segdre_plugin.seg.provenance import versions
from segdre_plugin.seg.run_folder import CONFIG_FORM, NUMBER, THRESHOLDS_FORM, RunFolder
from segdre_plugin.stages.artifacts import EACH, METRICS, check_form
from segdre_plugin.stages.config import SegConfig

FORMAT = 1
DESCRIPTION = "bundle.json"
WEIGHTS = "{stage}.safetensors"
State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Description:
    """What a bundle says besides weights, tokenizer and encoder.

    Attributes:
        adapter: the backbone's name.
        repository: where its code is.
        encoder: the name or path that the encoder was loaded from.
        arguments: of the model's constructor: numbers and texts.
        arrays: of the model's constructor.
        args: those of the train script that its model or its reader looks up.
        reading: arguments of the backbone's reader.
        modules: file -> git blob hash of the clone's modules that made the model.
        config: the settings of the stages.
        thresholds: the fused ones, chosen on dev.
        isf: ``tau`` of inference-stage fusion (eq. 11) and the ``thresholds`` around it; None if the run has none.
        versions: of the libraries that made the bundle.
        rel2id: relation id -> class.
        relation_names: relation id -> name.
        metrics: of the run.
        seed: of the run, for strategies that choose salient entities by chance.
    """

    adapter: str
    repository: str
    encoder: str
    arguments: dict[str, Any]
    arrays: dict[str, list[float]]
    args: dict[str, Any]
    reading: dict[str, Any]
    modules: dict[str, str]
    config: SegConfig
    thresholds: FusionResult
    isf: dict[str, Any] | None
    versions: dict[str, str]
    rel2id: dict[str, int]
    relation_names: dict[str, str]
    metrics: dict[str, Any]
    seed: int = 0


# Fields that are files of their own.
FILES = {"rel2id": "rel2id.json", "relation_names": "rel_info.json", "metrics": METRICS}
# The form of bundle.json, as check_form takes it.
FORM = MODEL_FORM | {
    "adapter": str,
    "encoder": str,
    "modules": {EACH: str},
    "config": CONFIG_FORM,
    "thresholds": THRESHOLDS_FORM,
    "isf": (dict, type(None)),
    "versions": {EACH: str},
    "seed": int,
    "files": {EACH: {"bytes": int, "sha256": str}},
}
AGAIN = "copy the bundle again, or make it again"


def write_bundle(
    folder: Path, description: Description, weights: Callable[[str], State], encoder: Callable[[Path], Any]
) -> None:
    """Write a bundle, whole or not at all; a bundle that already exists is replaced.

    The ``weights`` of stages are asked for one after the other; ``encoder`` writes the encoder's configuration and the
    tokenizer into a folder.

    Raises:
        SegDREError: if the folder holds something else.
    """
    check_target(folder)
    with replacing(folder) as partial:
        (partial / ENCODER).mkdir()
        encoder(partial / ENCODER)
        for stage in description.config.models:
            path = partial / WEIGHTS.format(stage=stage)
            save_file(_separate(weights(stage)), path)
            path.chmod(0o644)  # safetensors makes files that only their owner may read
        for name, file in FILES.items():
            write_json(partial / file, getattr(description, name))
        files = regular_files(partial)
        own = {f.name: getattr(description, f.name) for f in fields(Description) if f.name not in FILES}
        own |= {name: vars(own[name]) for name in ("config", "thresholds")}
        hashes = {
            name: {"bytes": path.stat().st_size, "sha256": fingerprint(path)} for name, path in sorted(files.items())
        }
        write_json(partial / DESCRIPTION, {"format": FORMAT} | own | {"files": hashes})


def check_target(folder: Path, run: Path | None = None) -> None:
    """Refuse to write a bundle over something else, or where its run is.

    Raises:
        SegDREError: if the folder exists and is not a bundle, or is the ``run``'s, inside or around it.
    """
    if run is not None:
        places = folder.resolve(), run.resolve()
        if places[0] in (places[1], *places[1].parents) or places[1] in places[0].parents:
            raise SegDREError(
                f"bundle {folder}: the folder of the run {run}, or one of the two is inside the other",
                "pass another folder for the bundle",
            )
    if folder.exists() and not (folder / DESCRIPTION).is_file():
        raise SegDREError(f"{folder} already exists and is not a bundle", "pass another folder, or remove it")


def _separate(state: State) -> dict[str, torch.Tensor]:
    """Return each tensor memory of its own, which safetensors asks for."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in state.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.detach().clone() if place in seen else tensor.detach()
        apart[name] = apart[name].to("cpu", memory_format=torch.contiguous_format).contiguous()
        seen.add(place)
    return apart


def read_bundle(folder: Path) -> Description:
    """Return what a bundle says, checked as what a stranger made; weights are read later, by :func:`read_stage`.

    Raises:
        SegDREError: if it is not a bundle, is of a later format, holds other files than those that it lists, or a value
            is not what it should be.
    """
    bundle_fingerprint(folder)
    path = folder / DESCRIPTION
    found = read_json(path, "bundle")
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        form = found.get("format") if isinstance(found, dict) else None
        raise SegDREError(f"{folder}: a bundle of format {form!r}, expected {FORMAT}", "update segdre-plugin")
    check_form(path, found, FORM, hint=AGAIN)
    if found["isf"] is not None:
        check_form(path, found["isf"], {"tau": NUMBER, "thresholds": THRESHOLDS_FORM}, "isf", AGAIN)
    _check_files(folder, found["files"])
    own = {f.name: found[f.name] for f in fields(Description) if f.name not in FILES}
    for name, cls in (("config", SegConfig), ("thresholds", FusionResult)):
        unknown = own[name].keys() - {f.name for f in fields(cls)}
        raise_all(sorted(unknown), f"{path}: {name}: unknown", AGAIN)
        try:
            own[name] = cls(**own[name])
        except SegDREError as error:
            raise error.at(path) from None
    rel2id = read_rel2id(folder / FILES["rel2id"])
    own["relation_names"] = read_relation_names(folder / FILES["relation_names"], [r for r, i in rel2id.items() if i])
    return Description(**own, rel2id=rel2id, metrics=read_json(folder / METRICS, "metrics"))


def _check_files(folder: Path, known: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a bundle whose files are not those of its list, to the last bit."""
    there = regular_files(folder)
    del there[DESCRIPTION]
    problems = [f"{name}: not in the list of {DESCRIPTION}" for name in sorted(there.keys() - known.keys())]
    for name, expected in known.items():
        size = f"{there[name].stat().st_size} bytes" if name in there else "missing"
        if size != f"{expected['bytes']} bytes":
            problems.append(f"{name}: {size}, expected {expected['bytes']} bytes")
        elif fingerprint(there[name]) != expected["sha256"]:
            problems.append(f"{name}: other content (SHA-256) than in the list of {DESCRIPTION}")
    raise_all(problems, f"{folder}: a damaged bundle", AGAIN)


def bundle_fingerprint(folder: Path) -> str:
    """Return the SHA-256 of all that a bundle holds: that of its list of files and their hashes.

    Raises:
        SegDREError: if it is not a bundle.
    """
    recover(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise SegDREError(f"{folder}: not a bundle ({path.name} not found)", "make one: segdre bundle SEG_DIR OUTPUT")
    return fingerprint(path)


def read_encoder(folder: Path) -> dict[str, bytes]:
    """Read the encoder's configuration and the tokenizer as they are, for another bundle."""
    names = read_json(folder / DESCRIPTION, "bundle")["files"]
    return {Path(name).name: (folder / name).read_bytes() for name in names if Path(name).parent == Path(ENCODER)}


def read_stage(folder: Path, stage: str) -> dict[str, torch.Tensor]:
    """Return the weights of a stage, on the CPU.

    Raises:
        SegDREError: if the file is broken, or weights in it are not finite.
    """
    path = folder / WEIGHTS.format(stage=stage)
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise SegDREError(f"{path}: cannot be read: {error}", AGAIN) from None
    check_finite(path, weights)
    return weights


def bundle_run(run: Path, output: Path) -> Path:
    """Make a bundle of a finished ``--seg`` run (others are refused) and return its folder."""
    folder = RunFolder(run)
    folder.require_finished()
    check_target(output, run)
    key = folder.sources["checkpoint_key"]
    model, base = read_model(folder.stage("base")), folder.settings("base")
    isf = folder.isf if folder.isf and folder.isf.get("stages") == folder.isf_stages else None
    description = Description(
        adapter=folder.sources["adapter"],
        repository=model["repository"],
        encoder=str(base["arguments"].get("model_name_or_path", "")),
        arguments=model["arguments"],
        arrays=model["arrays"],
        args=model["args"],
        reading=model["reading"],
        modules=base["modules"],
        config=folder.config,
        thresholds=folder.thresholds,
        isf=isf and {"tau": isf["tau"], "thresholds": vars(FusionResult.of(isf["thresholds"]))},
        versions=versions(),
        rel2id=folder.rel2id,
        relation_names=folder.relation_names,
        metrics=folder.metrics,
        seed=folder.seed,
    )
    write_bundle(
        output,
        description,
        lambda stage: read_weights(folder.checkpoint(stage), f"stage {stage}", key),
        lambda target: copy_files(folder.stage("base") / ENCODER, target),
    )
    return output


def offer(run: Path, target: Path | None) -> None:
    """Make a bundle of a finished run where one is asked for, else print how to make one."""
    if target is None:
        print(f"for new documents: segdre bundle {run} BUNDLE, then segdre predict BUNDLE")
    else:
        print(f"bundle for segdre predict: {bundle_run(run, target)}")

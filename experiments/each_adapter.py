"""What every adapter's base and SegDRE reach with few documents and five epochs, and what that costs.

python experiments/each_adapter.py OUT --data DIR --encoder DIR --jobs 2
python experiments/each_adapter.py OUT --data DIR --encoder DIR --only aa p3m    # of these clones

It takes the documents with the fewest entities. Clones are those in ~/.cache/segdre, copied with the files that they
ask for; what else an adapter needs stands in adapters/NAME/__init__.py. Finished runs are not trained again, broken off
ones go on. What was found goes to experiments/raw/adapters.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from documents import FILES, fewest, find
from plan import RAW

from segdre_plugin.adapters import SCRIPTS
from segdre_plugin.analysis.study.tables import Cell, Table
from segdre_plugin.data.files import fingerprint, read_json, write_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.launch import messages
from segdre_plugin.stages.config import STAGES

CLONES = Path.home() / ".cache" / "segdre"
RELATIONS = "rel2id.json"
SIZES = (100, 40, 60)  # documents of train, dev and test
SHARED = (
    *("--transformer_type", "bert", "--train_batch_size", "1", "--test_batch_size", "8"),
    *("--seed", "66", "--train_file", "train_annotated.json", "--dev_file", "dev.json"),
    *("--seg", "--seg-new-layer-lr", "1e-3", "--seg-grid", "redocred", "--seg-identify-epochs", "2"),
    *("--seg-start", "base", "--seg-dense-epochs", "2", "--seg-sparse-epochs", "2"),
)
TEST, RATE = ("--test_file", "test.json"), ("--learning_rate", "5e-5")
EVIDENCE = ("--do_train", "--lr_transformer", "5e-5", "--lr_added", "1e-3")


def _describe(data: Path) -> None:
    """Write the descriptions of relations that KD-DocRE reads: their names."""
    folder = data / "DocRED_baseline_metadata"
    folder.mkdir(exist_ok=True)
    shutil.copy(data / RELATIONS, folder)
    names = {"Na": "none"} | read_json(data / "rel_info.json", "names of relations")
    with open(data / "wikidata-properties.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ID", "label", "description", "aliases"])
        rows.writerows([key, *[name] * 3] for key, name in names.items())


@dataclass(frozen=True)
class Clone:
    """A backbone's clone.

    Attributes:
        title: its name in tables.
        folder: its name in ~/.cache/segdre.
        arguments: of its train script, besides those that all have.
        folders: those that it writes into, relative to its script's.
        prepare: writes what else it reads in the data folder.
    """

    title: str
    folder: str
    arguments: tuple[str, ...]
    folders: tuple[str, ...] = ()
    prepare: Callable[[Path], None] = lambda data: None


CLONED = {
    "atlop": Clone("ATLOP", "ATLOP", (*TEST, *RATE)),
    "dreeam": Clone("DREEAM", "dreeam", (*TEST, *EVIDENCE, "--evi_thresh", "0.2", "--evi_lambda", "0.1")),
    "aa": Clone("AA", "AA", (*TEST, *EVIDENCE, "--use_graph")),
    "pemscl": Clone("PEMSCL", "PEMSCL", (*TEST, *RATE, "--tau", "0.2", "--tau_base", "2.0"), ("../logs",)),
    "ssr_pu": Clone("SSR-PU", "SSR-PU", (*TEST, *RATE, "--isrank", "1", "--m_tag", "S-PU", "--m", "0.25", "--e", "3")),
    "p3m": Clone("P3M", "P3M", (*TEST, *RATE, "--la", "10", "--e", "3", "--aug", "pos_aug", "--use_mixup", "1")),
    "eider": Clone("Eider", "Eider", (*TEST, *RATE, "--ablation", "eider")),
    "docunet": Clone(
        "DocuNet",
        "DocuNet",
        (
            *(*TEST, "--channel_type", "context-based", "--max_height", "42", "--log_dir", "train.log"),
            *("--bert_lr", "5e-5", "--learning_rate", "1e-3"),
        ),
    ),
    "kd_docre": Clone("KD-DocRE", "KD-DocRE", (*TEST, *RATE, "--classifier_lr", "1e-3"), prepare=_describe),
}


def write_data(source: Path, target: Path, sizes: Iterable[int]) -> None:
    """Write the documents with the fewest entities, and the relations.

    Args:
        source: folder with train, dev, test, rel2id and rel_info.
        target: a folder, which is made.
        sizes: documents of train, dev and test.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, size in zip(("train_annotated.json", "dev.json", "test.json"), sizes, strict=True):
        write_json(target / name, fewest(find(source, name), size))
    shutil.copy(target / "train_annotated.json", target / "train_distant.json")  # scores of some scripts read it
    shutil.copy(find(source, "rel_info.json"), target)
    shutil.copy(source / RELATIONS, target)


def copy_clone(name: str, folder: Path, data: Path) -> Path:
    """Copy a clone, with the files that it asks for; return the folder of its train script."""
    clone, script = CLONED[name], SCRIPTS[name]
    source = CLONES / clone.folder
    if not (source / script.file).is_file():
        raise SegDREError(f"no clone of {clone.title} at {source}", "clone it there, or leave it out: --only")
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".git", "dataset"), dirs_exist_ok=True)
    place = (folder / script.file).parent
    relations = place / script.imported
    relations.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(data / RELATIONS, relations)
    shutil.copy(data / "rel_info.json", relations.parent)
    for more in clone.folders:
        (place / more).mkdir(exist_ok=True)
    clone.prepare(data)
    return place


def train(name: str, out: Path, source: Path, encoder: str, sizes: Iterable[int], epochs: int) -> int:
    """Run a train script to the end, unless it is finished.

    Args:
        name: of the adapter.
        out: folder of everything: the log is ``NAME.log``, and ``NAME/cost.json`` adds up processor seconds.
        source: folder of the data.
        encoder: folder or name of the encoder.
        sizes: documents of train, dev and test.
        epochs: of the base.

    Returns:
        The exit status.

    Raises:
        SegDREError: if what is there was made from other documents, or with another encoder or number of epochs.
    """
    folder, data = out / name, out / name / "data"
    asked = {"sizes": [*sizes], "epochs": epochs, "encoder": encoder}
    asked |= {"data": {target: fingerprint(find(source, target)) for target in FILES}}
    known = folder / "asked.json"
    if known.is_file() and read_json(known, "what was asked for") != asked:
        raise SegDREError(f"{folder} was made with other documents, epochs or encoder: {known}", "take another OUT")
    folder.mkdir(exist_ok=True)
    write_json(known, asked)
    if (folder / "out" / "run.json").is_file():
        return 0
    if not (data / RELATIONS).is_file():  # it is written last
        write_data(source, data, sizes)
    place = copy_clone(name, folder / "clone", data)
    n_classes = len(read_json(data / RELATIONS, "relations"))
    command = ["segdre", "run", Path(SCRIPTS[name].file).name, "--", "--data_dir", str(data), *SHARED]
    command += ["--model_name_or_path", encoder, "--num_class", str(n_classes), "--num_train_epochs", str(epochs)]
    command += ["--seg-dir", str(folder / "out")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with open(out / f"{name}.log", "ab") as log:
        process = subprocess.Popen(
            [*command, *CLONED[name].arguments], cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        _, status, used = os.wait4(process.pid, 0)
    cost = folder / "cost.json"
    before = read_json(cost, "cost")["cpu_seconds"] if cost.is_file() else 0.0
    write_json(cost, {"cpu_seconds": before + used.ru_utime + used.ru_stime})
    return os.waitstatus_to_exitcode(status)


def collect(out: Path) -> dict[str, Any]:
    """Return what finished runs found, without the places of this machine: adapter -> scores, cost and command."""
    found = {}
    for name in CLONED:
        run = out / name / "out"
        if not (run / "run.json").is_file():
            continue
        metrics = read_json(run / "metrics.json", "scores")
        made = {stage: read_json(run / stage / "provenance.json", "provenance") for stage in STAGES}
        found[name] = {
            **{split: {row: s for row, s in metrics[split].items() if _scored(s)} for split in ("dev", "test")},
            "strategies": {split: metrics[split]["strategies"] for split in ("dev", "test")},
            "thresholds": metrics["thresholds"],
            "cpu_seconds": read_json(out / name / "cost.json", "cost")["cpu_seconds"],
            "seconds": {stage: one["seconds"] for stage, one in made.items()},
            **{key: made["base"][key] for key in ("command", "machine", "versions")},
        }
    return found


def _scored(part: object) -> bool:
    return isinstance(part, dict) and "f1" in part


def table(found: Mapping[str, Any]) -> Table:
    """Make the table of :func:`collect`'s results."""
    rows = {"base_tuned": "base, tuned", "fused": "SegDRE"}
    columns = [f"{split} {title}" for split in ("dev", "test") for title in rows.values()]
    columns += ["test dense", "test base on these", "test sparse", "test base on those", "test saliency", "CPU min"]
    on_pairs = ("dense", "base_on_dense", "sparse", "base_on_sparse")
    lines = []
    for name, clone in CLONED.items():
        if name in found:
            own = found[name]
            values = [own[split][row]["f1"] for split in ("dev", "test") for row in rows]
            values += [own["test"][row]["f1"] for row in on_pairs]
            values.append(own["strategies"]["test"]["zip"]["saliency"])
            cells = [*(Cell([100 * value]) for value in values), Cell([own["cpu_seconds"] / 60])]
            lines.append((clone.title, cells))
    return Table("F1 (%)", columns, lines)


def main() -> int:
    """Read the command line, train, print a table and keep the numbers; 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of everything that is trained")
    parser.add_argument("--data", type=Path, required=True, help="folder with train, dev, test, rel2id and rel_info")
    parser.add_argument("--encoder", required=True, help="folder or name of the encoder")
    parser.add_argument("--only", nargs="+", choices=CLONED, default=[*CLONED], metavar="NAME", help="adapters (all)")
    parser.add_argument("--sizes", nargs=3, type=int, default=SIZES, metavar="N", help="documents (100 40 60)")
    parser.add_argument("--epochs", type=int, default=5, help="of the base (5)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, with a thread each (1)")
    parser.add_argument("--raw", type=Path, default=RAW, help=argparse.SUPPRESS)
    options = parser.parse_args()
    out, encoder = options.out.resolve(), options.encoder
    encoder = str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder
    with messages():
        for target in FILES:
            find(options.data, target)
        if not (options.data / RELATIONS).is_file():
            raise SegDREError(f"{options.data}: no {RELATIONS}", "put it there: relation -> class")
        out.mkdir(parents=True, exist_ok=True)

        def run(name: str) -> int:
            return train(name, out, options.data, encoder, options.sizes, options.epochs)

        failed = 0
        with ThreadPoolExecutor(options.jobs) as pool:
            for name, status in zip(options.only, pool.map(run, options.only), strict=True):
                failed |= bool(status)
                said = f"failed, see {out / name}.log (exit status {status})" if status else "done"
                print(f"{name}: {said}", flush=True)
        found = collect(out)
        text = json.dumps(found, indent=1).replace(str(out), "OUT").replace(encoder, "ENCODER")
        (options.raw / "adapters.json").write_text(text + "\n", encoding="utf-8")
    print(table(found).text())
    return failed


if __name__ == "__main__":
    sys.exit(main())

"""A finished run of the reference model that predicts something, and its bundle, made once for all tests that ask."""

import copy
from pathlib import Path

import pytest
import torch
from finished import rewrite

from segdre_plugin.backbones.reference import ReferenceModel, train
from segdre_plugin.data.files import fingerprint
from segdre_plugin.data.synthetic.corpus import rel2id, write_corpus
from segdre_plugin.seg.bundle import bundle_run
from segdre_plugin.seg.launch import run_reference

_made: dict[str, Path] = {}


class Talkative(ReferenceModel):
    """A random model whose relations often lie above the threshold class, and whose pairs differ a lot."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        with torch.no_grad():
            self.bilinear.weight.mul_(12)
            self.bilinear.bias.zero_()
            self.bilinear.bias[0] = 4.0


def finished_run(folder: Path) -> Path:
    """Run all stages on 12 documents; learning rates are so small that the models stay as they start."""
    if "run" not in _made:
        write_corpus(folder / "corpus", train=12, dev=7, test=4, seed=5)
        _run(folder / "run")
        _made["run"] = folder / "run"
    return _made["run"]


def arguments(folder: Path, *more: str) -> list[str]:
    """Return the command line of a run whose corpus lies beside its folder."""
    own = {
        "data_dir": folder.parent / "corpus",
        "num_class": len(rel2id()),
        "num_train_epochs": 1,
        "learning_rate": 1e-6,
        "new_layer_lr": 1e-6,
        "seg-identify-epochs": 1,
        "seg-hidden": 16,
        "seg-dir": folder,
    }
    return ["--seg", *(str(part) for name, value in own.items() for part in (f"--{name}", value)), *more]


def _run(folder: Path, *more: str) -> None:
    before, train.DocREModel = train.DocREModel, Talkative
    try:
        run_reference(arguments(folder, *more))
    finally:
        train.DocREModel = before


def repeat(folder: Path, capsys: pytest.CaptureFixture, *more: str) -> str:
    """Run the command of a finished run again; give what it prints."""
    capsys.readouterr()
    _run(folder, *more)
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return finished_run(tmp_path_factory.mktemp("reference"))
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def bundle(run_folder: Path) -> Path:
    if "bundle" not in _made:
        _made["bundle"] = bundle_run(run_folder, run_folder.parent / "bundle")
    return _made["bundle"]


def sign(folder: Path) -> None:
    """Let bundle.json list the files that are there, as whoever changed them would."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    del files["bundle.json"]
    listed = {name: {"bytes": path.stat().st_size, "sha256": fingerprint(path)} for name, path in files.items()}
    rewrite(folder / "bundle.json", lambda said: said | {"files": listed})


def mixed(documents: list) -> list:
    """Documents of very different lengths: as they are, cut to few sentences, and two in one."""
    found = []
    for i, document in enumerate(documents):
        other = copy.deepcopy(documents[(i + 1) % len(documents)])
        n, k = len(document["sents"]), len(document["vertexSet"])
        joined = {
            "title": f"{document['title']} {i} joined",
            "sents": document["sents"] + other["sents"],
            "vertexSet": document["vertexSet"]
            + [[mention | {"sent_id": mention["sent_id"] + n} for mention in entity] for entity in other["vertexSet"]],
        }
        few = [[m for m in entity if m["sent_id"] < 2] for entity in document["vertexSet"]]
        short = {
            "title": f"{document['title']} {i} short",
            "sents": document["sents"][:2],
            "vertexSet": [entity for entity in few if entity][: i % 4],
        }
        assert k
        found += [joined, document, short]
    return found

"""Real clones of ATLOP's descendants, run with ``segdre run`` on 16 generated documents and a tiny encoder."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from seg_runs import environment, make_encoder

from segdre_plugin.adapters import BACKBONES, SCRIPTS
from segdre_plugin.data.files import read_weights
from segdre_plugin.data.synthetic.corpus import write_corpus

CLONES = Path.home() / ".cache" / "segdre"
SEG = ("--seg", *(f"--seg-{stage}-epochs=1" for stage in ("identify", "dense", "sparse")), "--seg-hidden", "16")
DRIVER = """
import sys
from pathlib import Path
from segdre_plugin.backbones.clones import patching
from segdre_plugin.seg import launch
patching.recognise = lambda path: sys.argv[1]
launch.run_script(Path(sys.argv[2]), sys.argv[3:])
"""


@dataclass(frozen=True)
class Other:
    """A clone in the folder of clones.

    Attributes:
        folder: its name there.
        arguments: of its train script, besides those that all have.
        folders: those that it writes into, relative to its script's.
        commit: an older one that has the script; None: what is in the folder.
    """

    folder: str
    arguments: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    commit: str | None = None


OTHERS = {
    "docunet": Other(
        "DocuNet",
        (
            *("--channel_type", "context-based", "--max_height", "30", "--unet_out_dim", "16", "--down_dim", "8"),
            *("--bert_lr", "1e-3", "--learning_rate", "1e-3", "--log_dir", "train.log"),
        ),
    ),
    "pemscl": Other("PEMSCL", ("--learning_rate", "3e-3", "--num_train_epochs", "25"), folders=("../logs",)),
    "ncrl": Other("NCRL", ("--learning_rate", "1e-2", "--num_train_epochs", "25"), commit="bce70d4"),
}


@dataclass(frozen=True)
class OtherPlace:
    """A copy of a clone with data and an encoder in it."""

    name: str
    folder: Path

    def __post_init__(self):
        clone, commit = CLONES / OTHERS[self.name].folder, OTHERS[self.name].commit
        if commit:
            archive = self.folder.with_suffix(".zip")
            subprocess.run(["git", "-C", clone, "archive", "-o", archive, commit], check=True)
            shutil.unpack_archive(archive, self.folder)
        else:
            ignored = shutil.ignore_patterns(".git", "dataset", "*.json")
            shutil.copytree(clone, self.folder, ignore=ignored)
        write_corpus(self.data, train=8, dev=4, test=4, seed=3)
        shutil.copy(self.data / "train_annotated.json", self.data / "train_distant.json")  # their scores read it
        relations = self.cwd / self.script.imported
        relations.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.data / "rel2id.json", relations)
        names = json.loads((self.data / "rel_info.json").read_text())
        make_encoder(self.cwd / "bert", self.documents("train_annotated"), names, "bert")
        for folder in OTHERS[self.name].folders:
            (self.cwd / folder).mkdir()

    @property
    def script(self):
        return SCRIPTS[self.name]

    @property
    def backbone(self):
        return BACKBONES[self.name]

    @property
    def cwd(self):
        return (self.folder / self.script.file).parent

    @property
    def data(self):
        return self.folder / "data"

    def documents(self, name):
        return json.loads((self.data / f"{name}.json").read_text())

    def arguments(self, *more):
        classes = len(json.loads((self.data / "rel2id.json").read_text()))
        common = {"data_dir": str(self.data), "model_name_or_path": "bert", "transformer_type": "bert"}
        common |= {"num_class": str(classes), "num_train_epochs": "2", "train_batch_size": "4", "test_batch_size": "4"}
        return [*(part for name, value in common.items() for part in (f"--{name}", value)), *self._own, *more]

    @property
    def _own(self):
        return OTHERS[self.name].arguments

    def run(self, *arguments):
        """Run the script with a command line, as ``segdre run`` does."""
        return subprocess.run(
            [sys.executable, "-c", DRIVER, self.name, Path(self.script.file).name, *arguments],
            cwd=self.cwd,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=500,
        )

    def finish(self, *arguments):
        """Run; it has to end well."""
        result = self.run(*arguments)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    @cached_property
    def finished(self):
        """A whole run with ``--seg``."""
        self.finish(*self.arguments(*SEG, "--seg-dir", str(self.folder / "out")))
        return self.folder / "out"

    def weights(self, path):
        return read_weights(path, "checkpoint", self.script.checkpoint_key)


def equal(first, second):
    """Return whether two state dicts are the same, bit by bit, but for the pooler.

    It is made before some scripts seed, and used by nobody.
    """
    names = [name for name in first if "pooler" not in name]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in names)

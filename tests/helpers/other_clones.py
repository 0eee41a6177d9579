"""Real clones of ATLOP's descendants, run with ``segdre run`` on 16 generated documents and a tiny encoder."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from processes import SEGDRE, python
from seg_runs import make_encoder

from segdre_plugin.adapters import BACKBONES, SCRIPTS
from segdre_plugin.data.files import read_weights
from segdre_plugin.data.synthetic.corpus import write_corpus

CLONES = Path.home() / ".cache" / "segdre"
SEG = ("--seg", *(f"--seg-{stage}-epochs=1" for stage in ("identify", "dense", "sparse")), "--seg-hidden", "16")
SPACY_MODEL = "en_core_web_sm"


@dataclass(frozen=True)
class Other:
    """A clone in the folder of clones.

    Attributes:
        folder: its name there.
        arguments: of its train script, besides those that all have.
        folders: those that it writes into, relative to its script's.
        hidden: width of the encoder.
        touched: whether --save_path has to name a file that is there.
        sizes: of train, dev and test, in documents.
        seed: of the documents.
        prepare: writes what else it reads in the data folder.
    """

    folder: str
    arguments: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    hidden: int = 32
    touched: bool = False
    sizes: tuple[int, int, int] = (8, 4, 4)
    seed: int = 3
    prepare: Callable[[Path], None] = lambda data: None


def _describe_relations(data):
    """Write the descriptions of relations that KD-DocRE reads."""
    (data / "DocRED_baseline_metadata").mkdir()
    shutil.copy(data / "rel2id.json", data / "DocRED_baseline_metadata")
    names = {"P0": "none"} | json.loads((data / "rel_info.json").read_text())
    rows = ["ID,label,description,aliases", *(f"{key},{name},{name},{name}" for key, name in names.items())]
    (data / "wikidata-properties.csv").write_text("\n".join([*rows, ""]))


OTHERS = {
    "docunet": Other(
        "DocuNet",
        (
            *("--channel_type", "context-based", "--max_height", "30", "--unet_out_dim", "16", "--down_dim", "8"),
            *("--bert_lr", "1e-3", "--learning_rate", "1e-3", "--log_dir", "train.log"),
        ),
    ),
    "eider": Other(
        "Eider",
        (
            *("--ablation", "eider", "--evi_eval_mode", "all", "--learning_rate", "3e-3"),
            *("--grouped_learning_rate", "3e-3", "--num_train_epochs", "12"),
        ),
        hidden=64,
        touched=True,
    ),
    "aa": Other(
        "AA",
        ("--do_train", "--use_graph", "--lr_transformer", "3e-3", "--lr_added", "3e-3", "--test_file", "test.json"),
    ),
    "pemscl": Other(
        "PEMSCL",
        ("--learning_rate", "1e-2", "--num_train_epochs", "12", "--train_batch_size", "2"),
        folders=("../logs",),
        sizes=(4, 4, 4),
    ),
    # of these documents, the few of train have all relations; --save_path has a default
    "ssr_pu": Other(
        "SSR-PU",
        (
            *("--isrank", "1", "--m_tag", "S-PU", "--m", "0.25", "--e", "3", "--learning_rate", "1e-3"),
            *("--save_path", ""),
        ),
        seed=2,
    ),
    "p3m": Other(
        "P3M",
        (  # in so few steps it would unlearn all relations
            *("--la", "10", "--e", "3", "--aug", "pos_aug", "--use_mixup", "1", "--adam_epsilon", "1"),
            *("--save_path", ""),
        ),
        sizes=(4, 3, 3),
        seed=2,
    ),
    "kd_docre": Other(  # every document, however short, takes seconds
        "KD-DocRE",
        ("--learning_rate", "1e-3", "--classifier_lr", "1e-3", "--train_batch_size", "2", "--num_train_epochs", "1"),
        sizes=(2, 2, 1),
        prepare=_describe_relations,
    ),
}


@dataclass(frozen=True)
class OtherPlace:
    """A copy of a clone with data and an encoder in it."""

    name: str
    folder: Path

    def __post_init__(self):
        ignored = shutil.ignore_patterns(".git", "dataset", "*.json")
        shutil.copytree(CLONES / OTHERS[self.name].folder, self.folder, ignore=ignored)
        other = OTHERS[self.name]
        train, dev, test = other.sizes
        write_corpus(self.data, train=train, dev=dev, test=test, seed=other.seed)
        shutil.copy(self.data / "train_annotated.json", self.data / "train_distant.json")  # their scores read it
        relations = self.cwd / self.script.imported
        relations.parent.mkdir(parents=True, exist_ok=True)
        for path in (CLONES / other.folder / relations.relative_to(self.folder)).parent.glob("*.json"):
            if path.stat().st_size < 10_000:
                shutil.copy(path, relations.parent)
        shutil.copy(self.data / "rel2id.json", relations)
        shutil.copy(self.data / "rel_info.json", relations.parent)
        if SPACY_MODEL in self.script.required:
            make_spacy_model(self.site)
        other.prepare(self.data)
        names = json.loads((self.data / "rel_info.json").read_text())
        make_encoder(self.cwd / "bert", self.documents("train_annotated"), names, "bert", other.hidden)
        for folder in other.folders:
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
    def site(self):
        """A folder of packages that the script imports."""
        return self.folder / "site"

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
        command = [*SEGDRE, "run", Path(self.script.file).name, "--", *arguments]
        return python(command, cwd=self.cwd, paths=[self.site])

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

    @cached_property
    def plain(self):
        """What --save_path was in a run without ``--seg``: a file, or a folder with one."""
        folder = self.folder / "plain"
        folder.mkdir()
        path = Path(self.script.save_path.format(folder=folder))
        if OTHERS[self.name].touched:
            path.touch()
        self.finish(*self.arguments("--save_path", str(path)))
        return path

    def weights(self, path):
        """Read a checkpoint: a file, or the one in a folder."""
        if path.is_dir():
            own = self.script.checkpoint_in(path)
            path = own if own.is_file() else next(path.iterdir())
        return read_weights(path, "checkpoint", self.script.checkpoint_key)


def make_spacy_model(folder):
    """Write a package of the name of spaCy's English model, which PyPI lacks: two rules, for pronouns and for "the"."""
    import spacy

    nlp = spacy.blank("en")
    ruler = nlp.add_pipe("attribute_ruler")
    ruler.add([[{"LOWER": {"IN": ["it", "he", "she", "they"]}}]], {"POS": "PRON"})
    ruler.add([[{"LOWER": "the"}]], {"DEP": "det"})
    package = folder / SPACY_MODEL
    folder.mkdir()
    nlp.to_disk(package)
    (package / "__init__.py").write_text(
        "from spacy.util import load_model_from_path as load_from\nfrom pathlib import Path\n"
        "def load(**how):\n    return load_from(Path(__file__).parent, **how)\n"
    )
    described = folder / f"{SPACY_MODEL}-0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {SPACY_MODEL}\nVersion: 0\n")


def equal(first, second):
    """Return whether two state dicts are the same, bit by bit, but for the pooler.

    It is made before some scripts seed, and used by nobody.
    """
    names = [name for name in first if "pooler" not in name]
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in names)

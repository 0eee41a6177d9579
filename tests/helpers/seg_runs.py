"""``--seg`` on a clone of a backbone, from the command line: a generated corpus and tiny random encoders."""

import json
import os
import shutil
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from locate import copy_clone
from processes import python, start

from segdre_plugin.backbones.clones.patching import patch
from segdre_plugin.backbones.reference.tokenizer import build_encoder, build_tokenizer
from segdre_plugin.data.synthetic.corpus import write_corpus
from segdre_plugin.stages.artifacts import PROVENANCE

STAGES = ("base", "identify", "dense", "sparse")
COMMON = {"data_dir": "data", "train_batch_size": "4", "test_batch_size": "4"}
TRAINING = {"num_train_epochs": "2"}  # later epochs shuffle as upstream's only if all seeds agree


@dataclass(frozen=True)
class Upstream:
    """How a backbone's README calls its train script."""

    script: str
    checkpoint: str
    train: tuple[str, ...]
    saved: str  # what --save_path gets
    evidence: bool = False


UPSTREAM = {
    "atlop": Upstream("train.py", "checkpoint.pt", ("--learning_rate", "1e-3"), "plain.pt"),
    "dreeam": Upstream(
        "run.py",
        "best.ckpt",
        ("--do_train", "--lr_transformer", "1e-3", "--lr_added", "1e-3", "--test_file", "test.json"),
        "plain",
        evidence=True,
    ),
}
# hidden 16 in place of 768 keeps the count head, and so the checkpoint, small
SEG = ("--seg", "--seg-identify-epochs", "1", "--seg-hidden", "16")


@dataclass
class Place:
    """A patched clone with data and encoders in it."""

    name: str
    folder: Path
    original: Path
    upstream: Upstream = field(init=False)

    def __post_init__(self):
        self.upstream = UPSTREAM[self.name]
        copy_clone(self.original, self.folder)
        patch(self.folder)
        data = self.folder / "data"
        write_corpus(data, train=10, dev=5, test=5, seed=3)
        (self.folder / "meta").mkdir()
        shutil.copy(data / "rel2id.json", self.folder / "meta")
        names = json.loads((data / "rel_info.json").read_text())
        for kind in ("bert", "roberta"):
            make_encoder(self.folder / kind, self.documents("train_annotated"), names, kind)

    def documents(self, name):
        return json.loads((self.folder / "data" / f"{name}.json").read_text())

    def write(self, name, documents):
        (self.folder / "data" / f"{name}.json").write_text(json.dumps(documents))

    def arguments(self, *more, kind="bert", train=True):
        n_classes = len(json.loads((self.folder / "meta" / "rel2id.json").read_text()))
        own = COMMON | {"transformer_type": kind, "model_name_or_path": kind, "num_class": str(n_classes)}
        flags = [part for name, value in (own | (TRAINING if train else {})).items() for part in (f"--{name}", value)]
        return [*flags, *(self.upstream.train if train else ()), *more]

    def seg(self, *more, **how):
        """The command of the backbone's README with ``--seg``."""
        return self.arguments(*SEG, *more, **how)

    def python(self, *arguments, before=""):
        return python(arguments, cwd=self.folder, before=before)

    def run(self, *more, **how):
        """Run with ``--seg``; it has to end well."""
        result = self.python(self.upstream.script, *self.seg(*more, **how))
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    def evaluate(self, out, *more):
        """Evaluate a finished run; only the data are given."""
        result = self.python(self.upstream.script, "--data_dir", "data", "--seg", "--seg-dir", str(out), *more)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    def plain(self, *arguments):
        """Run without ``--seg``; it has to end well."""
        result = self.python(self.upstream.script, *arguments)
        assert result.returncode == 0, result.stderr[-3000:]
        return result.stdout

    def kill(self, out, moment):
        """Start a run and kill it as soon as a file or folder is there."""
        command = [self.upstream.script, *self.seg("--seg-dir", str(out))]
        process = start(command, (os.devnull, os.devnull), cwd=self.folder)
        deadline = time.time() + 300
        while not moment.exists() and time.time() < deadline and process.is_alive():
            time.sleep(0.02)
        process.kill()
        process.join()
        assert moment.exists()

    def failures(self, cases):
        """Call ``main()`` once with each command line, in one process.

        Returns:
            For each case, the exit status (or the traceback) and what it printed to stderr.
        """
        result = self.python("-c", DRIVER, Path(self.upstream.script).stem, json.dumps(cases))
        assert result.returncode == 0, result.stderr[-3000:]
        return json.loads(result.stdout.splitlines()[-1])

    @cached_property
    def finished(self):
        """One whole run: its folder and what it printed."""
        printed = self.run("--seg-dir", "out")
        return self.folder / "out", printed


DRIVER = """
import contextlib, importlib, io, json, sys, traceback
name, cases = sys.argv[1], json.loads(sys.argv[2])
script = importlib.import_module(name)
for case, arguments in cases.items():
    sys.argv = [f"{name}.py", *arguments]
    printed = io.StringIO()
    with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
        try:
            script.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        except Exception:
            status = traceback.format_exc()
    cases[case] = [status, printed.getvalue()]
print(json.dumps(cases))
"""


def check_messages(place, cases):
    """Every case has to end in one message with its words, and the traceback of none."""
    messages = place.failures({name: arguments for name, (arguments, _) in cases.items()})
    for name, (_, words) in cases.items():
        status, message = messages[name]
        assert status == 2, (name, status, message)
        for word in ("segdre: error:", "->", *words):
            assert word in message, (name, word, message)


def make_encoder(folder, documents, names, kind, hidden=32):
    """Write a tiny random encoder and a tokenizer, as ``from_pretrained`` reads them."""
    from transformers import RobertaConfig, RobertaModel

    tokenizer = build_tokenizer(documents, list(names.values()))
    torch.manual_seed(0)
    if kind == "bert":
        encoder = build_encoder(len(tokenizer), hidden=hidden, layers=2, heads=2)
    else:
        config = RobertaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=514,
            type_vocab_size=1,
            pad_token_id=1,
        )
        encoder = RobertaModel(config)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def contents(folder):
    """The bytes of every file in a folder; locks are left out, and dates and times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", PROVENANCE)
    }

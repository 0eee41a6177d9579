"""The parts of a ``--seg`` run of the reference model, made one by one and without training."""

import sys
from argparse import Namespace
from functools import lru_cache
from pathlib import Path

from segdre_plugin.backbones.reference import train
from segdre_plugin.backbones.reference.spec import BACKBONE, SCRIPT
from segdre_plugin.backbones.reference.tokenizer import build_tokenizer
from segdre_plugin.data.synthetic.corpus import RELATIONS, generate, rel2id, write_corpus
from segdre_plugin.seg.options import parse
from segdre_plugin.seg.reader import Reader
from segdre_plugin.seg.script_run import ScriptRun, peek
from segdre_plugin.seg.training_run import TrainingRun

__all__ = ["BACKBONE", "SCRIPT", "corpus", "peek", "reader", "script_run", "tokenizer", "training_run"]


def corpus(folder: Path) -> Path:
    """Write a corpus of a few documents."""
    write_corpus(folder, train=4, dev=3, test=2, seed=5)
    return folder


@lru_cache(maxsize=1)
def tokenizer():
    return build_tokenizer(generate(9, 5), list(RELATIONS.values()))


def reader(splits, read=None, backbone=BACKBONE, script=SCRIPT, **args) -> Reader:
    """The reader between checked documents and features; ``read`` stands for the backbone's own."""
    known = Namespace(**({"transformer_type": "bert"} | args))
    return Reader(read or train.read_docred, splits, backbone, script, known, False)


def script_run(monkeypatch, *arguments, script=SCRIPT, cls=ScriptRun, backbone=BACKBONE):
    """A run of the reference model's train script with a command line."""
    options, rest = parse(["--seg", *arguments])
    monkeypatch.setattr(sys, "argv", [script.file, *rest])
    return cls(vars(train), train.main, backbone, script, options)


def training_run(monkeypatch, data, out, *arguments, script=SCRIPT):
    """The same with its data, ready to train."""
    own = ["--data_dir", str(data), "--num_class", str(len(rel2id())), "--seg-dir", str(out), "--seg-hidden", "16"]
    return script_run(monkeypatch, *own, *arguments, script=script, cls=TrainingRun)

"""Attempts to run code or to read foreign files through what strangers bring: all end in a message, or do nothing.

Each attempt changes a bundle, a run folder, a study's folder or a data file as its maker could (sums fitted), and
calls what reads it. Code that runs leaves a file behind; files outside are watched by an audit hook.
"""

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import sign
from finished import make_run, rewrite
from seg_objects import BACKBONE, SCRIPT, script_run, tokenizer

from segdre_plugin import SegDREError, SegPipeline
from segdre_plugin.analysis.evaluate import run as evaluate
from segdre_plugin.analysis.report.render import write_report
from segdre_plugin.analysis.study import runs
from segdre_plugin.backbones.reference import ReferenceModel
from segdre_plugin.backbones.reference.tokenizer import build_encoder, prepare_config
from segdre_plugin.cli import main
from segdre_plugin.data.documents import load_documents
from segdre_plugin.data.files import read_weights
from segdre_plugin.data.folders import copy_files
from segdre_plugin.data.synthetic.corpus import RELATIONS, generate, rel2id
from segdre_plugin.prediction.clone_code import load_backbone_code
from segdre_plugin.prediction.predict import predict
from segdre_plugin.seg.bundle import bundle_run
from segdre_plugin.seg.checkpoints import keep_model
from segdre_plugin.seg.evaluation_run import EvaluationRun
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.seg.store import Store

pytestmark = pytest.mark.slow

DOCUMENT = {k: v for k, v in generate(1, 3)[0].items() if k != "labels"}
STAGES = ("base", "dense", "sparse")
watched: list[Path] = []  # folders of which it is noted ...
opened: set[str] = set()  # ... which files are opened, by whatever path


def _note(event, how):
    if watched and event == "open" and isinstance(how[0], (str, os.PathLike)):
        opened.update(str(how[0]) for folder in watched if folder in Path(os.path.realpath(how[0])).parents)


sys.addaudithook(_note)


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class Place:
    """A stranger's bundle and run, and what lies outside them."""

    def __init__(self, folder, bundle, run):
        self.folder, self.outside, self.ran = folder, folder / "outside", folder / "ran"
        self.outside.mkdir()
        self.bundle = Path(shutil.copytree(bundle, folder / "bundle"))
        self.run = Path(shutil.copytree(run / "out", folder / "run" / "out"))
        shutil.copytree(run / "data", folder / "run" / "data")
        self.secret = self.outside / "secret.json"
        shutil.copy(bundle / "encoder" / "tokenizer.json", self.secret)
        self.bomb = pickle.dumps(Bomb(self.ran), protocol=2)
        self.code = f"open({str(self.ran)!r}, 'w').close()\nraise SystemExit('ran')\n"

    # what changes a file

    def said(self, **fields):
        rewrite(self.bundle / "bundle.json", lambda found: found | fields)

    def inside(self, name, **fields):
        said = json.loads((self.bundle / "bundle.json").read_text())[name]
        self.said(**{name: said | fields})

    def file(self, name, content):
        """Write a file of the bundle and fit its list to it."""
        path = self.bundle / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        sign(self.bundle)

    def json(self, name, **fields):
        """Change a JSON file of the bundle."""
        path = self.bundle / name
        rewrite(path, lambda found: found | fields)
        sign(self.bundle)

    def link(self, path, target):
        """Put a link in the place of a file or folder."""
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(target)

    # what reads it

    def predict(self, **how):
        SegPipeline.from_pretrained(self.bundle, **how)(dict(DOCUMENT))

    def predict_trusting(self):
        """Predict with a backbone whose reader unpickles what it is told to, as DREEAM's does."""
        code = load_backbone_code("reference", None, rel2id())
        self.predict(code=replace(code, read=trusting_reader(code.read)))

    def make_bundle(self):
        bundle_run(self.run, self.folder / "made")
        SegPipeline.from_pretrained(self.folder / "made")

    def report(self):
        write_report(self.run)

    def evaluate_run(self):
        """Take the settings of a run whose script trains only on request."""
        script = replace(SCRIPT, trains="warmup_ratio", places=frozenset({"teacher_sig_path"}))
        arguments = ["--data_dir", str(self.run.parent / "data"), "--num_class", str(len(rel2id()))]
        arguments += ["--train_file", "train.json", "--test_file", "dev.json", "--seg-dir", str(self.run)]
        with pytest.MonkeyPatch.context() as patch:
            script_run(patch, *arguments, script=script, cls=EvaluationRun)

    def settings(self, stage, **fields):
        rewrite(self.run / stage / "settings.json", lambda found: found | fields)


def trusting_reader(read):
    def reader(path, tokenizer, rel2id, teacher_sig_path=""):
        if teacher_sig_path:
            pickle.loads(Path(teacher_sig_path).read_bytes())
        return read(path, tokenizer, rel2id)

    return reader


def object_array(path):
    return np.array([Bomb(path)], dtype=object)


def tar(place):
    """The oldest format of torch.save, which torch before 2.6 unpickles whatever is asked for."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            entry = tarfile.TarInfo(name)
            entry.size = len(place.bomb)
            archive.addfile(entry, io.BytesIO(place.bomb))
    return content.getvalue()


CHECKPOINT = "base/checkpoint.pt"
MARGINS = "base/margins_dev.npz"
AUTO_MAP = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None]}}


def with_code(place, name, **fields):
    place.file("encoder/evil.py", place.code)
    place.json(name, **fields)


def deep(place):
    place.file("rel_info.json", "[" * 100_000)


# What is changed, and what reads it: each ends in a message.
REFUSED = {
    # bundles: arguments and settings
    "reader is told of a pickle": (
        lambda p: (p.file("x.attns", p.bomb), p.inside("reading", teacher_sig_path=str(p.bundle / "x.attns"))),
        Place.predict_trusting,
    ),
    "reader is told of another file": (lambda p: p.inside("reading", path=str(p.secret)), Place.predict),
    "reader's argument of another type": (lambda p: p.said(reading={"rel2id": str(p.secret)}), Place.predict),
    "template that never ends": (lambda p: p.inside("config", template_to="{tail:>200000000}"), Place.predict),
    "template of attributes": (lambda p: p.inside("config", template_from="{tail.__class__}"), Place.predict),
    "template in a template": (lambda p: p.inside("config", template_from="{tail:{relation}}"), Place.predict),
    "strategy that is code": (lambda p: p.inside("config", salient="os.system"), Place.predict),
    "adapter that is a path": (lambda p: p.said(adapter="../../evil"), Place.predict),
    "threshold that is code": (lambda p: p.inside("thresholds", tau_base="__import__('os')"), Place.predict),
    "argument that is a list": (lambda p: p.inside("arguments", emb_size=[64]), Place.predict),
    # bundles: pickles
    "bundle.json is a pickle": (lambda p: (p.bundle / "bundle.json").write_bytes(p.bomb), Place.predict),
    "rel2id.json is a pickle": (lambda p: p.file("rel2id.json", p.bomb), Place.predict),
    "weights are a pickle": (lambda p: p.file("base.safetensors", p.bomb), Place.predict),
    "weights are a checkpoint of torch": (
        lambda p: (torch.save({"a": Bomb(p.ran)}, p.bundle / "base.safetensors"), sign(p.bundle)),
        Place.predict,
    ),
    "tokenizer is a pickle": (lambda p: p.file("encoder/tokenizer.json", p.bomb), Place.predict),
    "pickle that is not listed": (lambda p: (p.bundle / "encoder" / "model.bin").write_bytes(p.bomb), Place.predict),
    "JSON without an end": (deep, Place.predict),
    # bundles: the encoder's folder
    "code of a configuration": (lambda p: with_code(p, "encoder/config.json", **AUTO_MAP), Place.predict),
    "code of a configuration inside": (
        lambda p: with_code(p, "encoder/config.json", text_config=AUTO_MAP),
        Place.predict,
    ),
    "code of a tokenizer": (lambda p: with_code(p, "encoder/tokenizer_config.json", **AUTO_MAP), Place.predict),
    "model that loads others": (lambda p: p.json("encoder/config.json", model_type="timm_wrapper"), Place.predict),
    "model without a type": (lambda p: p.json("encoder/config.json", model_type=None), Place.predict),
    **{
        f"{name} outside": (
            lambda p, name=name: p.json("encoder/tokenizer_config.json", **{name: str(p.secret)}),
            Place.predict,
        )
        for name in ("tokenizer_file", "vocab_file", "special_tokens_map_file")
    },
    "fast tokenizer outside": (
        lambda p: p.json("encoder/tokenizer_config.json", fast_tokenizer_files=["../outside/tokenizer.4.0.json"]),
        Place.predict,
    ),
    # bundles: paths and links
    "list of files leaves the bundle": (
        lambda p: p.inside("files", **{"../outside/secret.json": {"bytes": p.secret.stat().st_size, "sha256": ""}}),
        Place.predict,
    ),
    "list of files has a path": (
        lambda p: p.inside("files", **{str(p.secret): {"bytes": 1, "sha256": ""}}),
        Place.predict,
    ),
    "link to a file": (lambda p: p.link(p.bundle / "encoder" / "tokenizer.json", p.secret), Place.predict),
    "link to a folder": (lambda p: p.link(p.bundle / "encoder", p.outside), Place.predict),
    "link in the place of weights": (lambda p: p.link(p.bundle / "base.safetensors", "/dev/zero"), Place.predict),
    "pipe": (lambda p: os.mkfifo(p.bundle / "encoder" / "pipe"), Place.predict),
    # run folders
    "checkpoint is a pickle": (lambda p: (p.run / CHECKPOINT).write_bytes(p.bomb), Place.make_bundle),
    "checkpoint is torch's pickle": (lambda p: torch.save(Bomb(p.ran), p.run / CHECKPOINT), Place.make_bundle),
    "checkpoint is of the oldest format": (lambda p: (p.run / CHECKPOINT).write_bytes(tar(p)), Place.make_bundle),
    **{
        f"checkpoint at {at}": (
            lambda p, at=at: rewrite(p.run / "run.json", lambda x: x | {"checkpoint": at.format(o=p.outside)}),
            Place.make_bundle,
        )
        for at in ("{o}/x", "{{folder}}/../../outside/x", "{{folder}}/{o}/x", "{{folder.x}}", "{{folder:>200000000}}/x")
    },
    "margins with objects": (lambda p: np.savez(p.run / MARGINS, document=object_array(p.ran)), Place.report),
    "margins are an array of objects": (
        lambda p: (np.save(p.folder / "x.npy", object_array(p.ran)), (p.folder / "x.npy").rename(p.run / MARGINS)),
        Place.report,
    ),
    "margins are a pickle": (lambda p: (p.run / MARGINS).write_bytes(p.bomb), Place.report),
    "counts with objects": (
        lambda p: np.savez(p.run / "identify" / "counts_dev.npz", document=object_array(p.ran)),
        lambda p: RunFolder(p.run).counts("dev"),
    ),
    "run.json is a pickle": (lambda p: (p.run / "run.json").write_bytes(p.bomb), Place.report),
    "link in the encoder's folder": (
        lambda p: p.link(p.run / "base" / "encoder" / "tokenizer.json", p.secret),
        Place.make_bundle,
    ),
    "link deep in the encoder's folder": (
        lambda p: ((p.run / "base/encoder/x").mkdir(), p.link(p.run / "base/encoder/x/y", p.outside)),
        Place.make_bundle,
    ),
    "link for the encoder's folder": (lambda p: p.link(p.run / "base" / "encoder", p.outside), Place.make_bundle),
    "link in a stage to be reused": (
        lambda p: p.link(p.run / "base" / "encoder" / "tokenizer.json", p.secret),
        lambda p: Store(p.folder / "mine").adopt("base", Store(p.run)),
    ),
    "run's reader is told of a pickle": (
        lambda p: rewrite(p.run / "base" / "model.json", lambda x: x | {"reading": {"teacher_sig_path": "x"}}),
        Place.make_bundle,
    ),
    "run's template that never ends": (
        lambda p: p.settings("sparse", options={"template_from": "{tail:>200000000}"}),
        Place.make_bundle,
    ),
    **{
        f"run's argument {name}": (
            lambda p, name=name: (
                p.settings(
                    "base",
                    arguments={"seed": 1, name: str(p.secret)},
                    data={"dev": "", "train": "", "rel2id": ""},
                    options={"skip_unusable": False, "windows": 2},
                )
                or p.settings("sparse", options={"rel_info": ""})
            ),
            Place.evaluate_run,
        )
        for name in ("teacher_sig_path", "load_path", "save_path", "data_dir", "__class__")
    },
    # data files
    "documents are a pickle": (
        lambda p: (p.folder / "x.json").write_bytes(p.bomb),
        lambda p: load_documents(p.folder / "x.json"),
    ),
    "predictions are a pickle": (
        lambda p: (p.folder / "x.json").write_bytes(p.bomb),
        lambda p: evaluate(p.folder / "x.json", p.run.parent / "data" / "dev.json", None, None, None),
    ),
    "weights to start from are a pickle": (
        lambda p: (p.folder / "x.pt").write_bytes(p.bomb),
        lambda p: read_weights(p.folder / "x.pt", "--load_path"),
    ),
    "state of an output is a pickle": (
        lambda p: ((p.folder / "x").write_text(""), (p.folder / "x.run.json").write_bytes(p.bomb)),
        lambda p: predict(p.bundle, p.run.parent / "data" / "dev.json", p.folder / "x", resume=True),
    ),
}

# What does nothing: it is never looked at, or only as the text that it is.
IGNORED = {
    "pickle beside the tokenizer": (lambda p: p.file("encoder/pytorch_model.bin", p.bomb), Place.predict),
    "code in the bundle": (
        lambda p: [p.file(f"{name}.py", p.code) for name in ("model", "prepro", "utils", "torch", "sitecustomize")],
        Place.predict,
    ),
    "code in the encoder's folder": (
        lambda p: [p.file(f"encoder/{name}.py", p.code) for name in ("tokenizer", "modeling", "configuration_bert")],
        Place.predict,
    ),
    "loss that is code": (lambda p: p.inside("config", loss="os.system('x')"), Place.predict),
    "model's argument in the place of the model": (
        lambda p: p.inside("arguments", model=str(p.secret), config=str(p.secret), tokenizer=str(p.secret)),
        Place.predict,
    ),
    "modules outside": (lambda p: p.said(modules={"../outside/secret.json": "0"}), Place.predict),
    "names that are templates": (
        lambda p: p.json("rel_info.json", **dict.fromkeys(RELATIONS, "{tail.__class__} {{7*7}}")),
        Place.predict,
    ),
    "chat template": (
        lambda p: p.file("encoder/chat_template.jinja", "{{ cycler.__init__.__globals__ }}"),
        Place.predict,
    ),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A bundle, and a run that can be made one; nothing is trained."""
    folder = tmp_path_factory.mktemp("strangers")
    # at least one document of dev is seen by the report; a strategy that trains nothing has no counts
    run = make_run(folder / "run", sparse={"salient": "max-mention"}).parent
    torch.manual_seed(0)
    encoder = build_encoder(len(tokenizer()))
    config = prepare_config(encoder.config, tokenizer(), len(rel2id()), "bert")
    model = ReferenceModel(config, encoder, 64, 16, num_labels=4)
    keep_model(run / "out" / "base", model, tokenizer(), BACKBONE, {"rel2id": rel2id()})
    rewrite(run / "out" / "run.json", lambda found: found | {"adapter": "reference"})
    for stage in STAGES:
        torch.save(model.state_dict(), run / "out" / stage / "checkpoint.pt")
    return bundle_run(run / "out", folder / "bundle"), run


@pytest.fixture
def place(tmp_path, sources):
    place = Place(tmp_path.resolve(), *sources)
    watched.append(place.outside)
    yield place
    watched.clear()
    opened.clear()


@pytest.fixture
def in_bundle(place, monkeypatch):
    monkeypatch.chdir(place.bundle)


@pytest.mark.parametrize("attempt", REFUSED)
def test_refused(place, in_bundle, attempt):
    change, read = REFUSED[attempt]
    change(place)
    opened.clear()
    with pytest.raises(SegDREError) as caught:
        read(place)
    assert not place.ran.exists()
    assert not opened
    assert "\n  -> " in str(caught.value)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("attempt", IGNORED)
def test_ignored(place, in_bundle, attempt):
    change, read = IGNORED[attempt]
    change(place)
    opened.clear()
    read(place)
    assert not place.ran.exists()
    assert not opened


def test_the_attempts_would_work(place):
    """Negative control: bombs explode, the hook sees what is opened, and what is unchanged is read."""
    for read in (Place.predict, Place.predict_trusting, Place.make_bundle, Place.report):
        read(place)
    copy_files(place.run / "base", place.folder / "copy")
    assert not place.ran.exists()
    assert not opened
    (place.outside / "x.attns").write_bytes(place.bomb)
    opened.clear()
    trusting_reader(lambda *_: [])("", None, {}, str(place.outside / "x.attns"))
    assert place.ran.exists()
    assert len(opened) == 1
    place.ran.unlink()
    np.load(io.BytesIO(_saved(object_array(place.ran))), allow_pickle=True)
    assert place.ran.exists()


def _saved(array):
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


SHADOWS = ("segdre_plugin", "torch", "numpy", "json", "filelock", "tqdm", "sitecustomize", "usercustomize")


def test_modules_in_the_current_folder_are_not_imported(place, monkeypatch, capfd):
    """A study's worker and the commands, in a folder with modules of the names that they import."""
    for name in SHADOWS:
        (place.outside / f"{name}.py").write_text(place.code)
    monkeypatch.chdir(place.outside)
    log = place.folder / "log"
    status = runs.launch(["--", "--data_dir", "x", "--seg", "--seg-dir", str(place.folder / "x")], log, os.environ)
    assert (status, log.read_text()[:16]) == (2, "segdre: error: r")
    segdre = Path(sys.executable).with_name("segdre")
    if segdre.exists():
        result = subprocess.run([segdre, "validate", place.run.parent / "data" / "dev.json"], check=False)
        assert result.returncode == 0
    assert not place.ran.exists()
    # negative control
    subprocess.run([sys.executable, "-c", "import segdre_plugin"], check=False, capture_output=True)
    assert place.ran.exists()


def test_commands_end_with_a_message(place, capsys):
    place.inside("config", template_to="{tail:>200000000}")
    source = place.run.parent / "data" / "dev.json"
    assert main(["predict", str(place.bundle), "--input", str(source), "--output", str(place.folder / "o")]) == 2
    assert "is not a plain field" in capsys.readouterr().err
    assert not (place.folder / "o").exists()

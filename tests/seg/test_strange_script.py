"""``--seg`` on a train script that differs from ATLOP's in all that a description can say, to a bundle."""

import json
import os
import sys
from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from seg_objects import BACKBONE, SCRIPT, corpus

from segdre_plugin import SegPipeline
from segdre_plugin.backbones.clones.stand_ins import swapped
from segdre_plugin.backbones.reference import ReferenceModel, collate_fn, train
from segdre_plugin.backbones.script import Names
from segdre_plugin.data.synthetic.corpus import rel2id
from segdre_plugin.prediction.answers import official_rows
from segdre_plugin.prediction.clone_code import BackboneCode
from segdre_plugin.seg.bundle import bundle_run
from segdre_plugin.seg.launch import entry

READ = train.read_docred  # the name is another's while the script runs


class Model(ReferenceModel):
    """Its constructor takes the script's arguments and an array."""

    def __init__(self, args, config, priors, model, num_labels=-1):
        super().__init__(config, model, args.emb_size, args.block_size, num_labels=num_labels)
        assert priors.shape == (2,)
        self.priors = priors


def read(args, path, tokenizer):
    """Take the arguments first, and give priors, too."""
    features = READ(path, tokenizer, rel2id())
    return features, torch.tensor([len(features) / args.scale, 0.5])


def script_names(seen):
    """Return the globals of a script that makes its model inside ``fit`` and reads its checkpoint in the end."""

    def fit(args, config, features, dev, *, logger):
        model = names["create"](args, config)
        save = args.save_path
        loader = names["Loader"](features, batch_size=args.train_batch_size, collate_fn=names["collate"])
        for batch in loader:
            model(*batch)[0].backward()
        seen.append((logger, names["judge"](args, model, dev, "label loader", tag="dev")))
        torch.save({"epoch": 1, "state": model.state_dict()}, save)

    def create(args, config):
        return names["Model"](args, *config, num_labels=args.num_labels)

    def main():
        # the reference's main() parses the arguments and reads; what follows is this script's own
        def go_on(args, model, *_):
            os.mkdir(args.save_path) if not os.path.exists(args.save_path) else None
            args.scale, args.save_path = 8, args.save_path + "/made up"
            files = [f"{args.data_dir}/{name}" for name in (args.train_file, args.dev_file, args.test_file)]
            tokenizer = model.tokenizer
            splits = [names["read"](args, file, tokenizer) for file in files]
            config = (model.config, splits[0][1], model.model)
            names["fit"](args, config, *(features for features, _ in splits[:2]), logger="log")
            state = torch.load(args.save_path, weights_only=True)["state"]
            fresh = create(args, config)
            seen.append(state.keys() - fresh.state_dict().keys())
            seen.append(names["judge"](args, fresh, splits[2][0], "label loader", tag="test"))

        def prepared(path, tokenizer, rel2id, max_seq_length):
            prepared.tokenizer = tokenizer
            return []

        def build(*how, **more):
            model = ReferenceModel(*how, **more)
            model.tokenizer = prepared.tokenizer
            return model

        ours = {"argparse": names["argparse"], "train": go_on, "read_docred": prepared, "DocREModel": build}
        with swapped(vars(train), ours):
            train.main()

    names = {"fit": fit, "create": create, "main": main, "Model": Model, "read": read, "collate": collate_fn}
    names |= {"Loader": train.DataLoader, "judge": None, "argparse": train.argparse, "AdamW": train.AdamW}
    return names


def install(names):
    """Let ``fit`` take a model."""
    fit, create = names["fit"], names["create"]

    def fit_model(args, model, features, dev, *, config, logger):
        with swapped(names, {"create": lambda *_: model}):
            return fit(args, config, features, dev, logger=logger)

    def fit_as_called(args, config, features, dev, *, logger):
        return names["fit_model"](args, create(args, config), features, dev, config=config, logger=logger)

    names["fit"], names["fit_model"], names["judge"] = fit_as_called, fit_model, print


STRANGE = replace(
    SCRIPT,
    file="strange.py",
    names=Names("Model", "read", "collate", "Loader", "fit_model", "judge"),
    install=install,
    reads=("args", "path", "tokenizer"),
    reading={},
    args={"emb_size": int, "block_size": int},
    no_save_path=".",
    saved=lambda args: f"{args.seed}.pt",
    checkpoint_key="state",
    scores=lambda score, metrics: (score, metrics, "third"),
)


@pytest.mark.slow
def test_to_a_bundle(tmp_path, monkeypatch, capsys):
    data, seen = corpus(tmp_path / "data"), []
    names = script_names(seen)
    monkeypatch.chdir(tmp_path)
    main = entry(names, BACKBONE, STRANGE)
    flags = ["--data_dir", str(data), "--num_class", str(len(rel2id())), "--emb_size", "16", "--block_size", "4"]
    flags += ["--num_train_epochs", "1", "--save_path", str(tmp_path / "saved")]
    seg = ["--seg", "--seg-dir", "out", "--seg-identify-epochs", "1", "--seg-hidden", "8"]
    monkeypatch.setattr(sys, "argv", ["strange.py", *flags, *seg])
    main()
    assert "fused" in capsys.readouterr().out
    assert [entry for entry in seen if entry == (0.0, {}, "third")] == [
        (0.0, {}, "third")
    ] * 4  # test is not judged again
    assert {entry[0] for entry in seen if len(entry) == 2} == {"log"}
    assert (tmp_path / "saved" / "0.pt").is_file()
    assert torch.load(tmp_path / "saved" / "0.pt", weights_only=True).keys() == {"epoch", "state"}
    kept = json.loads((tmp_path / "out" / "base" / "model.json").read_text())
    assert kept["args"] == {"emb_size": 16, "block_size": 4}
    assert kept["arrays"] == {"priors": [0.5, 0.5]}

    code = BackboneCode(BACKBONE, STRANGE, Model, lambda args, *how: read(Namespace(scale=8), *how), collate_fn)
    pipeline = SegPipeline.from_pretrained(bundle_run(tmp_path / "out", tmp_path / "bundle"), code=code)
    documents = json.loads((data / "dev.json").read_text())
    assert official_rows(pipeline(documents)) == json.loads((tmp_path / "out" / "result_dev.json").read_text())

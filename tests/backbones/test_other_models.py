"""The descriptions that docs/new-backbone.md gives for models that are not in the package, on their real clones."""

import importlib
import json
from pathlib import Path

import pytest
import torch
from pages import Page
from torch import nn

from segdre_plugin import (
    Verbaliser,
    gold_dense_triples,
    gold_salient,
    prepare_features,
    unwrap_model,
    wrap_collate,
    wrap_model,
)
from segdre_plugin.adapters import SCRIPTS
from segdre_plugin.backbones.reference import build_encoder, build_tokenizer, collate_fn, prepare_config
from segdre_plugin.data.synthetic.corpus import write_corpus
from segdre_plugin.prediction.clone_code import isolated
from segdre_plugin.stages.config import STAGES
from segdre_plugin.stages.scoring import score_counts, score_relations

run = Page("new-backbone.md").run
HOW = {"batch_size": 2, "device": "cpu", "label": ""}


class World:
    """A corpus with a tokenizer, and a clone's modules on it."""

    def __init__(self, folder):
        write_corpus(folder, train=5, dev=1, test=1, seed=2)
        self.file = folder / "train_annotated.json"
        self.documents, self.rel2id, self.names = (
            json.loads((folder / f"{name}.json").read_text()) for name in ("train_annotated", "rel2id", "rel_info")
        )
        self.tokenizer = build_tokenizer(self.documents, list(self.names.values()))

    def load(self, clone, make):
        """Return a model, features and a collate function; ``make`` makes them of the clone's modules."""
        path = Path.home() / ".cache" / "segdre" / clone
        if not path.is_dir():
            pytest.skip(f"no clone of {clone}: check it out to {path}")
        torch.manual_seed(0)
        encoder = build_encoder(len(self.tokenizer), hidden=32, layers=3, heads=4)
        config = prepare_config(encoder.config, self.tokenizer, len(self.rel2id), "bert")
        with isolated(path, SCRIPTS["atlop"], self.rel2id):
            for folder in (Path("dataset/meta"), Path("your_path")):
                folder.mkdir(parents=True)
            for target in (Path("dataset/meta/rel2id.json"), Path("your_path/rel2id.json")):
                target.write_text(json.dumps(self.rel2id))
            return make(importlib.import_module, config, encoder)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


def loss_of(output):
    return sum(output["loss"].values()) if isinstance(output, dict) else output[0]


def walk(world, spec, model, features, collate):
    """Train a step and predict in every stage; margins are compared with the model's decisions on the way."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    salient = [gold_salient(document) for document in world.documents]
    triples = [gold_dense_triples(d, e) for d, e in zip(world.documents, salient, strict=True)]
    for stage in STAGES:
        wrap_model(model, stage=stage, adapter=spec)
        given = {"salient": salient} if stage in ("dense", "sparse") else {}
        if stage == "sparse":
            given |= {"triples": triples, "verbaliser": Verbaliser(world.tokenizer, world.names)}
        prepared = prepare_features(features, world.documents, model, **given)
        wrapped = wrap_collate(collate, adapter=spec)
        model.train().zero_grad()
        loss = loss_of(model(**spec.arguments(wrapped(prepared.features[:2]), "cpu")))
        loss.backward()
        assert loss.isfinite(), stage
        assert model.model.embeddings.word_embeddings.weight.grad.abs().sum() > 0, stage
        if stage == "identify":
            counts = score_counts(model, prepared.features, wrapped, **HOW)
            assert sum(map(len, counts)) == sum(len(one["hts"]) for one in prepared.features)
        else:
            assert len(score_relations(model, prepared.features, prepared.documents, wrapped, **HOW)), stage
        unwrap_model(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(weight, after[name]) for name, weight in before.items())


@pytest.mark.slow
@pytest.mark.upstream
@pytest.mark.skipif(not importlib.util.find_spec("pandas"), reason="GREP imports pandas")
def test_grep(world):
    def make(module, config, encoder):
        read = module("prepro").read_docred(str(world.file), world.tokenizer)
        model = module("model").DocREModel(config, encoder, world.tokenizer, emb_size=32, block_size=4, num_labels=4)
        return model, read, module("utils").collate_fn

    if not hasattr(world.tokenizer, "build_inputs_with_special_tokens"):
        ends = [world.tokenizer.cls_token_id], [world.tokenizer.sep_token_id]
        world.tokenizer.build_inputs_with_special_tokens = lambda ids: [*ends[0], *ids, *ends[1]]
    walk(world, run("grep")["GREP"], *world.load("GREP", make))


@pytest.mark.slow
@pytest.mark.upstream
def test_hingeabl(world):
    found = run("grep", "hinge")

    def make(module, config, encoder):
        read = module("prepro").read_docred(str(world.file), world.tokenizer)
        features = [found["one_row_per_pair"](feature, len(world.rel2id)) for feature in read]
        cls = found["with_loss"](module("model").DocREModel, nn.functional.mse_loss)
        return cls(config, encoder, emb_size=32, block_size=4, num_labels=4), features, collate_fn

    if not hasattr(world.tokenizer, "build_inputs_with_special_tokens"):
        ends = [world.tokenizer.cls_token_id], [world.tokenizer.sep_token_id]
        world.tokenizer.build_inputs_with_special_tokens = lambda ids: [*ends[0], *ids, *ends[1]]
    model, features, collate = world.load("HingeABL", make)
    for feature, document in zip(features, world.documents, strict=True):  # as ATLOP's reader labels them
        rows = {tuple(pair): row for pair, row in zip(feature["hts"], feature["labels"], strict=True)}
        for label in document["labels"]:
            assert rows[label["h"], label["t"]][world.rel2id[label["r"]]] == 1
        assert sum(map(sum, feature["labels"])) == len(document["labels"]) + sum(row[0] for row in feature["labels"])
    walk(world, found["HINGE"], model, features, collate)

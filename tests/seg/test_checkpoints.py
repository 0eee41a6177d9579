"""Checkpoints: weights into a model, and what is kept to build a model without the encoder's folder."""

import json

import numpy as np
import pytest
import tiny
import torch
from seg_objects import tokenizer
from transformers import AutoConfig, AutoTokenizer

from segdre_plugin import SegConfig, SegDREError, wrap_model
from segdre_plugin.seg.checkpoints import ENCODER, MODEL, keep_model, load_all, load_shared, read_model, save_checkpoint


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "base.pt"
    torch.save(tiny.model(seed=1).state_dict(), path)
    return path


def differing(model, path):
    saved = torch.load(path, weights_only=True)
    return {
        name for name, weight in model.state_dict().items() if name in saved and not torch.equal(weight, saved[name])
    }


def test_all_weights_are_loaded(checkpoint):
    model = tiny.model(seed=2)
    assert differing(model, checkpoint)
    load_all(model, checkpoint)
    assert not differing(model, checkpoint)


def test_the_count_head_alone_stays_new(checkpoint):
    model = wrap_model(tiny.model(seed=2), stage="identify", config=SegConfig(hidden=8))
    head = {name: weight.clone() for name, weight in model.bilinear.state_dict().items()}
    load_shared(model, checkpoint, ["bilinear"])
    assert not {name for name in differing(model, checkpoint) if not name.startswith("bilinear.")}
    assert all(torch.equal(weight, head[name]) for name, weight in model.bilinear.state_dict().items())


CHANGED = {
    "old transformers": lambda state: state | {"model.embeddings.position_ids": torch.arange(512)[None]},
    "DataParallel": lambda state: {f"module.{name}": weight for name, weight in state.items()},
    "torch.compile of DataParallel": lambda state: {f"module._orig_mod.{name}": w for name, w in state.items()},
}


@pytest.mark.parametrize("case", CHANGED)
def test_names_of_other_days_are_read(checkpoint, case):
    torch.save(CHANGED[case](torch.load(checkpoint, weights_only=True)), checkpoint.with_name("other.pt"))
    model = tiny.model(seed=2)
    load_all(model, checkpoint.with_name("other.pt"))
    assert not differing(model, checkpoint)
    head = wrap_model(tiny.model(seed=2), stage="identify", config=SegConfig(hidden=8))
    load_shared(head, checkpoint.with_name("other.pt"), ["bilinear"])
    assert not {name for name in differing(head, checkpoint) if not name.startswith("bilinear.")}


DIFFERENT = {
    "classes": (
        "bilinear.bias",
        torch.zeros(9),
        "2 of .*bilinear.weight: .*bilinear.bias: \\[9\\] in the checkpoint, \\[6\\]",
    ),
    "lost": ("bilinear.bias", None, "1 of .*bilinear.bias: missing in the checkpoint, \\[6\\] in the model"),
    "more": ("extra.weight", torch.zeros(2), "1 of .*extra.weight: \\[2\\] in the checkpoint, missing in the model"),
    "other ids": ("ids.position_ids", torch.zeros(2), "1 of .*ids.position_ids"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_what_differs_is_listed(checkpoint, case):
    name, weight, message = DIFFERENT[case]
    state = torch.load(checkpoint, weights_only=True)
    if case == "classes":
        state["bilinear.weight"] = torch.zeros(9, state["bilinear.weight"].shape[1])
    torch.save({k: v for k, v in state.items() if k != name} | ({} if weight is None else {name: weight}), checkpoint)
    model = tiny.model(seed=2)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(SegDREError, match=f"(?s)does not fit the model; {message}.*--num_class"):
        load_all(model, checkpoint)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize("load", [load_all, lambda model, path: load_shared(model, path, ["bilinear"])])
@pytest.mark.parametrize("case", ["missing", "broken", "another model"])
def test_what_does_not_fit_is_named(tmp_path, load, case):
    path = tmp_path / "other.pt"
    if case == "broken":
        path.write_bytes(b"PK of something else")
    elif case == "another model":
        torch.save({"strange.weight": torch.zeros(2)}, path)
    with pytest.raises(SegDREError) as caught:
        load(tiny.model(), path)
    assert str(path) in str(caught.value)
    assert " -> " in str(caught.value)


class TestKeptModel:
    def test_says_how_the_model_is_made(self, tmp_path):
        model = tiny.model(seed=3)
        keep_model(tmp_path, model, tokenizer(), tiny.ATLOP, {"max_seq_length": 1024})
        found = read_model(tmp_path)
        assert found["repository"] == tiny.ATLOP.repository
        assert found["reading"] == {"max_seq_length": 1024}
        assert found["arguments"] == {"emb_size": 16, "block_size": 4, "num_labels": 4}
        again = AutoConfig.from_pretrained(tmp_path / ENCODER)
        assert (again.hidden_size, again.num_labels) == (32, tiny.CLASSES)  # the backbone's own numbers, too
        words = AutoTokenizer.from_pretrained(tmp_path / ENCODER)
        assert words("a town")["input_ids"] == tokenizer()("a town")["input_ids"]
        assert not [path for path in (tmp_path / ENCODER).iterdir() if path.suffix in (".bin", ".safetensors")]

    @pytest.mark.parametrize("lost", [ENCODER, MODEL])
    def test_a_folder_without_it_is_refused(self, tmp_path, lost):
        keep_model(tmp_path, tiny.model(), tokenizer(), tiny.ATLOP, {})
        (tmp_path / lost).rename(tmp_path / "elsewhere")
        with pytest.raises(SegDREError, match="cannot be built again"):
            read_model(tmp_path)

    def test_is_json_that_a_person_can_read(self, tmp_path):
        keep_model(tmp_path, tiny.model(), tokenizer(), tiny.ATLOP, {})
        assert set(json.loads((tmp_path / MODEL).read_text())) >= {"repository", "arguments", "reading"}


def test_a_state_dict_under_a_key(checkpoint, tmp_path):
    """As DocuNet saves it, with the optimiser beside it; ours are of the same form."""
    state, keyed = torch.load(checkpoint, weights_only=True), tmp_path / "keyed.pt"
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([weight])
    weight.sum().backward()
    optimizer.step()
    beside = {"epoch": 3, "best_f1": 0.5, "optimizer": optimizer.state_dict()}
    torch.save(beside | {"checkpoint": state}, keyed, _use_new_zipfile_serialization=False)
    model = tiny.model(seed=2)
    load_all(model, keyed, "checkpoint")
    assert not differing(model, checkpoint)
    save_checkpoint(model, tmp_path / "again.pt", "checkpoint")
    again = tiny.model(seed=3)
    load_all(again, tmp_path / "again.pt", "checkpoint")
    assert not differing(again, checkpoint)
    head = wrap_model(tiny.model(seed=2), stage="identify", config=SegConfig(hidden=8))
    load_shared(head, keyed, ["bilinear"], "checkpoint")
    assert not {name for name in differing(head, checkpoint) if not name.startswith("bilinear.")}
    with pytest.raises(SegDREError, match="expected a state dict under 'checkpoint', got"):
        load_all(again, checkpoint, "checkpoint")
    with pytest.raises(SegDREError, match="not a checkpoint of tensors"):  # negative control
        load_all(again, keyed)


def test_arrays_and_args_of_a_constructor_are_kept(tmp_path):
    model = tiny.model()
    model.num_labels, model.emb_size = np.array([0.25, 0.5]), torch.tensor([1, 2])
    keep_model(tmp_path, model, tokenizer(), tiny.ATLOP, {}, {"tau": 2.0})
    found = read_model(tmp_path)
    assert found["arrays"] == {"num_labels": [0.25, 0.5], "emb_size": [1, 2]}
    assert "num_labels" not in found["arguments"]
    assert found["args"] == {"tau": 2.0}

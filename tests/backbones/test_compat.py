"""Stand-ins for what today's libraries lack: only where something is missing, and with the old meaning."""

import importlib
import importlib.util
import json
import sys
from dataclasses import replace
from types import ModuleType

import pytest
import tiny
import torch
import transformers.optimization
from transformers import PreTrainedTokenizerFast

from segdre_plugin import SegDREError
from segdre_plugin.adapters import SCRIPTS
from segdre_plugin.backbones.clones import apex as amp
from segdre_plugin.backbones.clones import compat
from segdre_plugin.backbones.reference import build_tokenizer

MODULES = ("apex", "apex.amp", "wandb", "ujson")


@pytest.fixture
def nothing(monkeypatch):
    """Take away whatever could be stood in for, and put it back after the test."""
    modules = {name: sys.modules.pop(name, None) for name in MODULES}
    theirs = vars(transformers.optimization).pop("AdamW", None)
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in MODULES else real(name, *a))
    yield monkeypatch
    for name, module in modules.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module
    vars(transformers.optimization).pop("AdamW", None)
    if theirs is not None:
        transformers.optimization.AdamW = theirs


class TestSupplyModules:
    def test_what_is_missing(self, nothing):
        supplied = compat.supply_modules()
        assert supplied == ["apex", "wandb", "ujson", "transformers.optimization.AdamW"]
        names = {}
        exec(
            "import wandb\nimport ujson as json\nfrom apex import amp\nimport apex.amp\n"
            "from transformers.optimization import AdamW, get_linear_schedule_with_warmup\n",
            names,
        )
        assert names["amp"] is amp
        assert names["AdamW"] is compat.AdamW
        assert names["json"].loads("[1]") == json.loads("[1]")

    def test_wandb_records_nothing(self, nothing):
        compat.supply_modules()
        wandb = sys.modules["wandb"]
        run = wandb.init(project="DocRED", name="seg")
        assert wandb.log({"loss": 1.0}, step=3) is None
        assert run.log({"loss": 1.0}) is None
        wandb.config["lr"] = 1
        assert wandb.finish() is None

    def test_twice_is_once(self, nothing):
        compat.supply_modules()
        assert compat.supply_modules() == []

    @pytest.mark.parametrize("present", ["apex", "wandb", "ujson"])
    def test_what_is_there_stays(self, nothing, present):
        sys.modules[present] = module = ModuleType(present)
        assert present not in compat.supply_modules()
        assert sys.modules[present] is module

    def test_what_a_script_imports_and_hardly_uses(self, monkeypatch):
        names = {"embed": print}
        script = replace(SCRIPTS["atlop"], supplied={"no_such.inner": names, "json": names, "no_such": {"top": 1}})
        script = replace(script, without_gpu={"choose.gpu": {"choose": print}})
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        supplied = compat.supply_modules(script)
        try:
            assert {"no_such", "no_such.inner", "choose", "choose.gpu"} <= set(supplied)
            found = {}
            exec("import no_such\nfrom no_such.inner import embed\nfrom choose.gpu import choose", found)
            assert (found["embed"], found["choose"], found["no_such"].top) == (print, print, 1)
            assert not hasattr(json, "embed")  # it is there
            with pytest.raises(ImportError):
                importlib.import_module("no_such.other")
        finally:
            for name in supplied:
                sys.modules.pop(name, None)

    def test_an_apex_that_cannot_run_here_is_not_taken(self, nothing, tmp_path):
        (tmp_path / "apex").mkdir()
        (tmp_path / "apex" / "__init__.py").write_text("raise RuntimeError('for an old torch')")
        nothing.syspath_prepend(tmp_path)
        assert "apex" in compat.supply_modules()
        assert sys.modules["apex.amp"] is amp

    def test_an_adamw_that_is_there_stays(self, nothing):
        transformers.optimization.AdamW = theirs = object()
        assert "transformers.optimization.AdamW" not in compat.supply_modules()
        assert transformers.optimization.AdamW is theirs

    def test_other_libraries_may_look_for_them(self, nothing):
        """transformers and accelerate ask find_spec, which refuses a module without a spec."""
        compat.supply_modules()
        nothing.undo()
        assert [name for name in ("apex", "wandb") if importlib.util.find_spec(name) is None] == []


class TestAdamW:
    def test_defaults_are_those_of_transformers_4(self):
        weight = torch.nn.Parameter(torch.ones(2))
        assert compat.AdamW([weight]).defaults["weight_decay"] == 0.0
        assert compat.AdamW([weight]).defaults["lr"] == 1e-3
        assert compat.AdamW([weight]).defaults["eps"] == 1e-6
        assert torch.optim.AdamW([weight]).defaults["weight_decay"] > 0  # torch's own differs

    def test_step_without_gradient_decays_nothing(self):
        weight = torch.nn.Parameter(torch.ones(2))
        optimizer = compat.AdamW([{"params": [weight], "lr": 0.1}], lr=1.0)
        weight.grad = torch.zeros(2)
        optimizer.step()
        assert weight.tolist() == [1.0, 1.0]

    def test_equals_the_old_update(self):
        """The update of transformers 4 (correct_bias), written out."""
        weight, lr, eps, (b1, b2) = torch.nn.Parameter(torch.tensor([0.5, -2.0])), 0.1, 1e-6, (0.9, 0.999)
        due, m, v = weight.detach().clone(), 0, 0
        optimizer = compat.AdamW([weight], lr=lr, eps=eps)
        for t in range(1, 5):
            gradient = torch.tensor([1.0, -0.1]) * t
            weight.grad = gradient.clone()
            optimizer.step()
            m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
            due = due - lr * (1 - b2**t) ** 0.5 / (1 - b1**t) * m / (v.sqrt() + eps)
        torch.testing.assert_close(weight.detach(), due, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a folder with a tiny encoder and its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    tiny.encoder(attn_implementation="sdpa").save_pretrained(folder)
    document = {"sents": [["Varn", "is", "old"]]}
    build_tokenizer([document], ["mayor"]).save_pretrained(folder)
    return str(folder)


class TestAutoClasses:
    def test_tensorflow_is_refused(self, saved):
        with pytest.raises(SegDREError, match="TensorFlow checkpoints cannot be loaded"):
            compat.AutoModel.from_pretrained(saved, from_tf=True)

    def test_attention_is_eager_unless_asked_for_otherwise(self, saved):
        model = compat.AutoModel.from_pretrained(saved, from_tf=False)
        assert model.config._attn_implementation == "eager"
        model = compat.AutoModel.from_pretrained(saved, attn_implementation="sdpa")
        assert model.config._attn_implementation == "sdpa"

    def test_weights_saved_in_half_precision_are_trained_in_32_bits(self, saved, tmp_path):
        transformers.AutoModel.from_pretrained(saved).half().save_pretrained(tmp_path)
        model = compat.AutoModel.from_pretrained(tmp_path)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        asked = "dtype" if transformers.__version__.startswith("5") else "torch_dtype"
        assert compat.AutoModel.from_pretrained(tmp_path, **{asked: torch.float16}).dtype == torch.float16

    def test_the_scripts_config_is_taken(self, saved):
        config = transformers.AutoConfig.from_pretrained(saved, num_labels=97)
        assert compat.AutoModel.from_pretrained(saved, from_tf=False, config=config).config.num_labels == 97

    def test_tokenizers_build_inputs(self, saved):
        tokenizer = compat.AutoTokenizer.from_pretrained(saved)
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        ids = tokenizer.convert_tokens_to_ids(tokenizer.tokenize("varn is old"))
        due = tokenizer("varn is old")["input_ids"]
        assert tokenizer.build_inputs_with_special_tokens(ids) == due
        assert due == [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]


class TestOnHost:
    @pytest.fixture(autouse=True)
    def no_gpu(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    @pytest.mark.parametrize(
        "move",
        [
            lambda it: it.to(0),
            lambda it: it.cuda(),
            lambda it: it.to("cuda:0"),
            lambda it: it.to(device=torch.device("cuda")),
            lambda it: it.to(0, torch.float64),
        ],
    )
    @pytest.mark.parametrize("make", [lambda: torch.ones(2), lambda: torch.nn.Linear(2, 3)])
    def test_a_gpu_means_the_cpu_inside(self, make, move):
        it = make()
        with compat.on_host():
            with compat.on_host():
                pass
            moved = move(it)
        assert next(iter(moved.parameters() if isinstance(moved, torch.nn.Module) else [moved])).device.type == "cpu"
        if not torch.cuda.device_count():
            with pytest.raises((RuntimeError, AssertionError)):  # negative control
                move(it)

    def test_everything_is_back_afterwards(self):
        before = torch.nn.Module.to
        with compat.on_host():
            assert torch.nn.Linear(2, 3).to(torch.float64).weight.dtype == torch.float64  # other arguments go through
        with pytest.raises(ZeroDivisionError), compat.on_host():
            raise ZeroDivisionError
        assert torch.nn.Module.to is before
        assert not {"to", "cuda"} & vars(torch.Tensor).keys()


class TestAdaptNames:
    @staticmethod
    def names(evaluate=None):
        names = {"evaluate": evaluate, "AutoModel": 1, "AutoTokenizer": 2}
        compat.adapt_names(names, SCRIPTS["atlop"])
        return names

    def test_names(self):
        names = self.names()
        assert names["AutoModel"] is compat.AutoModel
        assert names["AutoTokenizer"] is compat.AutoTokenizer

    def test_evaluate_without_predictions_is_zero(self, capsys):
        def evaluate(found):
            if found:
                score = 0.5
            return score, {"dev_F1": score}

        names = self.names(evaluate)
        assert names["evaluate"](True) == (0.5, {"dev_F1": 0.5})
        score, metrics = names["evaluate"](False)
        assert score == 0.0
        assert set(metrics.values()) == {0.0}
        assert "nothing is predicted" in capsys.readouterr().err

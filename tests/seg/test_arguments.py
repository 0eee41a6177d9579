"""The script's own arguments: what no script can train with is said at once, each with its name."""

from argparse import Namespace
from dataclasses import replace

import pytest
import tiny
from seg_objects import BACKBONE, SCRIPT, corpus, script_run, training_run

from segdre_plugin import SegDREError
from segdre_plugin.adapters import BACKBONES, SCRIPTS
from segdre_plugin.seg import script_run as script_run_module
from segdre_plugin.seg.arguments import LEGAL, check_arguments

FILES = {name: f"{name}.json" for name in ("train_file", "dev_file", "test_file")}
COMMON = FILES | {"num_class": 3, "num_labels": 2, "transformer_type": "bert", "seed": 66, "save_path": ""}
# the defaults of each script's own numbers
NUMBERS = {
    "atlop": {"train_batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 5e-5, "warmup_ratio": 0.06},
    "dreeam": {"train_batch_size": 4, "lr_transformer": 5e-5, "lr_added": 1e-4, "max_sent_num": 25, "evi_lambda": 0.1},
    "reference": {"train_batch_size": 2, "num_train_epochs": 5.0, "new_layer_lr": 2e-3, "emb_size": 128},
}
BAD = {
    "seed": [-1, 2**32],
    "num_labels": [4],
    "train_batch_size": [0, -1],
    "test_batch_size": [0],
    "gradient_accumulation_steps": [0],
    "num_train_epochs": [0.0, 0.5, float("inf"), float("nan")],
    "learning_rate": [0.0, -1e-3, float("nan"), float("inf")],
    "lr_added": [float("nan")],
    "evi_lambda": [float("nan")],
    "warmup_ratio": [-0.1, 1.1, float("nan")],
    "max_seq_length": [2],
    "emb_size": [0],
    "train_file": [""],
    "dev_file": [""],
    "transformer_type": ["xlm", ""],
}


def described(adapter):
    return (BACKBONE, SCRIPT) if adapter == "reference" else (BACKBONES[adapter], SCRIPTS[adapter])


def checked(adapter, **values):
    check_arguments(Namespace(**COMMON | NUMBERS[adapter] | values), *described(adapter))


@pytest.mark.parametrize("adapter", NUMBERS)
class TestChecks:
    def test_defaults_are_legal(self, adapter):
        checked(adapter)

    @pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
    def test_names_option_and_value(self, adapter, name, value):
        with pytest.raises(SegDREError) as caught:
            checked(adapter, **{name: value})
        assert str(caught.value).count("\n  - ") == 1
        assert f"\n  - --{name}: expected " in str(caught.value)
        assert str(caught.value).count(f", got {value!r}") == 1

    def test_all_at_once(self, adapter):
        with pytest.raises(SegDREError) as caught:
            checked(adapter, **{name: values[0] for name, values in BAD.items()})
        assert str(caught.value).count("\n  - --") == len(BAD)

    def test_legal_ones(self, adapter):
        checked(adapter, num_labels=3, seed=0, warmup_ratio=0.0, num_train_epochs=1.0)
        checked(adapter, num_labels=-1, warmup_ratio=1.0, seed=2**32 - 1)  # -1: all classes
        checked(adapter, lr_added=None)


def test_a_value_without_which_a_script_cannot_run():
    script = replace(SCRIPT, values={"channel_type": ("context-based",), "is_rank": (1, True)})
    values = COMMON | {"channel_type": "", "is_rank": 0}
    with pytest.raises(SegDREError) as caught:
        check_arguments(Namespace(**values), BACKBONE, script)
    assert "--channel_type: expected 'context-based' with --seg, got ''" in str(caught.value)
    assert "--is_rank: expected 1 or True with --seg, got 0" in str(caught.value)
    check_arguments(Namespace(**values | {"channel_type": "context-based", "is_rank": 1}), BACKBONE, script)


def test_a_test_file_is_needed_where_the_script_always_reads_it():
    checked("dreeam", test_file="")
    with pytest.raises(SegDREError, match="--test_file: expected the name of a file in --data_dir, got ''"):
        checked("atlop", test_file="")


def test_every_argument_with_a_rule_is_some_scripts(atlop, dreeam):
    text = (atlop / "train.py").read_text() + (dreeam / "args.py").read_text()
    reference = {"new_layer_lr", "emb_size", "block_size"}
    assert {name for name in LEGAL if f'"--{name}"' not in text} == reference


def test_windows_need_a_length_that_fills_them(monkeypatch):
    windows = ("--data_dir", "nowhere", "--seg-windows", "4")
    with pytest.raises(SegDREError, match=r"--max_seq_length: expected more than 1024 with --seg-windows 4.*got 1024"):
        script_run(monkeypatch, *windows)
    assert script_run(monkeypatch, *windows, "--max_seq_length", "1500").backbone == replace(BACKBONE, windows=4)
    assert script_run(monkeypatch, *windows[:2], "--max_seq_length", "1500").backbone is BACKBONE
    with pytest.raises(SegDREError, match="at most 2038, which they hold without a gap, got 2039"):
        script_run(monkeypatch, *windows, "--max_seq_length", "2039")
    script_run(monkeypatch, *windows, "--max_seq_length", "2038")
    fixed = replace(BACKBONE, slides=False)
    with pytest.raises(SegDREError, match="its encode cannot be given more"):
        script_run(monkeypatch, *windows, "--max_seq_length", "1500", backbone=fixed)
    with pytest.raises(SegDREError, match="--seg-windows is 1"):
        script_run(monkeypatch, "--data_dir", "nowhere", "--seg-windows", "1")


def test_a_run_of_the_reference_script_is_checked(monkeypatch):
    with pytest.raises(SegDREError, match="--seed: expected 0 to 4294967295, got -1"):
        script_run(monkeypatch, "--data_dir", "nowhere", "--seed=-1")


class TestBeforeAnythingIsTrained:
    @pytest.fixture
    def data(self, tmp_path):
        return corpus(tmp_path / "data")

    def test_a_script_of_whole_epochs(self, monkeypatch, data, tmp_path):
        original = script_run_module.peek

        def parsed(names, main, script):  # as a script with --num_train_epochs of type int does
            args, given = original(names, main, script)
            args.num_train_epochs = 3
            return args, given

        training_run(monkeypatch, data, tmp_path / "out", "--seg-identify-epochs", "1.5")
        monkeypatch.setattr(script_run_module, "peek", parsed)
        with pytest.raises(SegDREError, match=r"trains whole epochs:\n  - --seg-identify-epochs 1.5\n  -> pass whole"):
            training_run(monkeypatch, data, tmp_path / "out", "--seg-identify-epochs", "1.5")
        training_run(monkeypatch, data, tmp_path / "out", "--seg-identify-epochs", "2")

    def test_args_that_a_bundle_could_not_keep(self, monkeypatch, data, tmp_path):
        script = replace(SCRIPT, args={"seed": int, "learning_rate": str})
        with pytest.raises(SegDREError, match="learning_rate: expected str, got"):
            training_run(monkeypatch, data, tmp_path / "out", script=script)

    def test_more_entities_than_a_model_has_room_for(self, monkeypatch, data, tmp_path):
        script = replace(SCRIPT, max_entities="train_batch_size")
        with pytest.raises(SegDREError, match="documents with more entities than --train_batch_size 2"):
            training_run(monkeypatch, data, tmp_path / "out", "--train_batch_size", "2", script=script)
        with pytest.raises(SegDREError, match=r"than the model's 3:(.|\n)*-> shorten these documents"):
            training_run(monkeypatch, data, tmp_path / "out", script=replace(SCRIPT, max_entities=3))

    def test_a_place_that_cannot_be_written(self, monkeypatch, data, tmp_path):
        for path, words in (
            (data / "dev.json" / "x.pt", "no folder"),
            (data, "is not a file"),
        ):
            with pytest.raises(SegDREError, match=f"--save_path {path}.* {words}"):
                training_run(monkeypatch, data, tmp_path / "out", "--save_path", str(path))
        training_run(monkeypatch, data, tmp_path / "out", "--save_path", str(tmp_path / "new" / "x.pt"))
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]

    def test_an_encoder_that_is_missing_or_damaged(self, monkeypatch, data, tmp_path):
        (tmp_path / "empty").mkdir()
        for name in ("nowhere", "empty"):
            run = training_run(monkeypatch, data, tmp_path / "out", "--model_name_or_path", str(tmp_path / name))
            with pytest.raises(SegDREError, match=f"encoder '.*{name}' cannot be loaded: .*\n  -> .*--model_name_or"):
                run.run()
        assert not (tmp_path / "out").exists()

    @pytest.mark.slow
    def test_an_encoder_that_does_not_fit(self, monkeypatch, data, tmp_path):
        from seg_objects import tokenizer

        tiny.encoder(positions=64).save_pretrained(tmp_path / "short")
        tokenizer().save_pretrained(tmp_path / "short")
        run = training_run(monkeypatch, data, tmp_path / "out", "--model_name_or_path", str(tmp_path / "short"))
        with pytest.raises(SegDREError, match="BertModel as --transformer_type bert: expected 512 positions or more"):
            run.run()
        assert not (tmp_path / "out").exists()

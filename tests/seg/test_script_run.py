"""A train script under our control: its arguments, its data, and what its ``main()`` sees."""

from dataclasses import replace
from pathlib import Path

import pytest
from seg_objects import SCRIPT, corpus, peek, script_run, tokenizer
from seg_runs import contents

from segdre_plugin import SegDREError
from segdre_plugin.backbones.reference import train
from segdre_plugin.data.synthetic.corpus import rel2id

FILES = {"train": "train_annotated.json", "dev": "dev.json", "test": "test.json"}
CLASSES = str(len(rel2id()))


class TestArguments:
    def test_parsed_by_the_script_itself_and_nothing_else_is_run(self, monkeypatch):
        run = script_run(monkeypatch, "--data_dir", "nowhere", "--seed=7", "--seg-alpha", "0.5")
        assert (run.args.data_dir, run.args.seed, run.args.num_class) == ("nowhere", 7, 97)
        assert run.given == {"data_dir", "seed"}
        assert run.options.config.alpha == 0.5
        assert not hasattr(run, "splits")

    def test_one_that_does_not_go_with_seg_is_refused(self, monkeypatch):
        script = replace(SCRIPT, refused={"load_path": "leave it out"})
        script_run(monkeypatch, "--data_dir", "x", script=script)
        with pytest.raises(SegDREError, match=r"--load_path does not go with --seg\n  -> leave it out"):
            script_run(monkeypatch, "--data_dir", "x", "--load_path", "y", script=script)

    @pytest.mark.parametrize(
        ("word", "meant"), [("--seg_alpha", "--seg-alpha"), ("--sgeed", "--seed"), ("--num_clas_s=3", "--num_class")]
    )
    def test_a_misspelled_one_is_refused_with_what_is_meant(self, monkeypatch, word, meant):
        with pytest.raises(SegDREError, match=f"unknown argument {word.split('=')[0]}\n  -> did you mean {meant}"):
            script_run(monkeypatch, "--data_dir", "x", word)

    def test_a_script_that_parses_nothing(self):
        with pytest.raises(SegDREError, match="main\\(\\) parsed no arguments"):
            peek({}, lambda: None, SCRIPT)

    def test_the_scripts_names_are_back_afterwards(self, monkeypatch):
        before = dict(vars(train))
        script_run(monkeypatch, "--data_dir", "nowhere")
        assert vars(train) == before


class TestData:
    def test_every_split_is_read_and_checked(self, monkeypatch, tmp_path):
        run = script_run(monkeypatch, "--data_dir", str(corpus(tmp_path)), "--num_class", CLASSES)
        run.load(FILES | {"test": ""}, skip_unusable=False)
        assert {name: len(split.documents) for name, split in run.splits.items()} == {"train": 4, "dev": 3}
        assert run.rel2id == rel2id()
        assert run.rel_info == tmp_path / "rel_info.json"
        assert run.relation_names.keys() == rel2id().keys() - {"Na"}

    def test_relation_names_of_ones_own(self, monkeypatch, tmp_path):
        data, mine = corpus(tmp_path / "data"), tmp_path / "mine.json"
        (data / "rel_info.json").rename(mine)
        run = script_run(monkeypatch, "--data_dir", str(data), "--num_class", CLASSES, "--seg-rel-info", str(mine))
        run.load(FILES, skip_unusable=False)
        assert run.rel_info == mine

    def test_another_number_of_classes_is_refused(self, monkeypatch, tmp_path):
        run = script_run(monkeypatch, "--data_dir", str(corpus(tmp_path)), "--num_class", "97")
        with pytest.raises(SegDREError, match="num_class"):
            run.load(FILES, skip_unusable=False)


class TestCaches:
    """Features that main() writes into the data folder and reads again belong to no stage."""

    def test_main_sees_the_data_without_them_and_writes_elsewhere(self, monkeypatch, tmp_path):
        data, seen = corpus(tmp_path / "data"), []
        (data / "dev.json.bert.pt").write_bytes(b"features of another day")
        (data / "mine.pt").write_bytes(b"kept")
        script = replace(SCRIPT, caches=("{file}.{name}.pt",))
        run = script_run(monkeypatch, "--data_dir", str(data), "--num_class", CLASSES, script=script)
        run.args.name = "bert"
        run.load(FILES, skip_unusable=False)
        before = contents(data)

        def main():
            parser = run.names["argparse"].ArgumentParser()
            parser.add_argument("--data_dir")
            parser.add_argument("--num_class")
            folder = Path(parser.parse_args().data_dir)
            seen.append(sorted(path.name for path in folder.iterdir()))
            (folder / "dev.json.bert.pt").write_bytes(b"features of this stage")
            found = run.names["read_docred"](str(folder / "dev.json"), tokenizer(), rel2id=rel2id())
            seen.append(found is run.splits["dev"].features)

        run.names, run.main = {"read_docred": None}, main
        for _ in range(2):
            run.run_main({}, {})
        files = sorted(name for name in before if name != "dev.json.bert.pt")
        assert seen == [files, True] * 2
        assert contents(data) == before


def test_what_stands_in_is_made_anew_for_each_main(monkeypatch):
    seen = []
    script = replace(SCRIPT, stand_ins={"log": lambda theirs: [theirs]})
    run = script_run(monkeypatch, "--data_dir", "x", script=script)
    run.names, run.reader = {"log": "their log"}, None
    run.main = lambda: seen.append(run.names["log"])
    run.run_main({}, {})
    run.run_main({}, {})
    assert seen == [["their log"]] * 2
    assert seen[0] is not seen[1]
    assert run.names == {"log": "their log"}


def test_main_sees_other_arguments_and_names_and_silent_functions_do_nothing(monkeypatch):
    seen, names = [], {"argparse": "the script's own", "dump": lambda *_: seen.append("a file"), "train": "theirs"}

    def main():
        parser = names["argparse"].ArgumentParser()
        parser.add_argument("--data_dir")
        parser.add_argument("--epochs", type=int, default=3)
        names["dump"]("scores", path="scores.csv")
        seen.append((vars(parser.parse_args()), names["train"], names["read_docred"]))

    run = script_run(monkeypatch, "--data_dir", "x", script=replace(SCRIPT, silent=("dump",)))
    run.names, run.main, run.reader = names, main, "our reader"
    before = dict(names)
    run.run_main({"epochs": 1}, {"train": "ours"})
    assert seen == [({"data_dir": "x", "epochs": 1}, "ours", "our reader")]
    assert names == before

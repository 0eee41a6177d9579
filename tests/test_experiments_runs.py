"""experiments/each_adapter.py, gate.py and where.py: every adapter with few documents, and what finished runs say."""

import itertools
import json
import shutil
import sys

import numpy as np
import pytest
from finished import make_documents, make_run
from hypothesis import given
from hypothesis import strategies as st
from locate import REPOSITORY
from scripts import importer
from seg_runs import make_encoder

from segdre_plugin import SegDREError
from segdre_plugin.adapters import SCRIPTS
from segdre_plugin.data.synthetic.corpus import write_corpus
from segdre_plugin.stages.candidates import Candidates, average
from segdre_plugin.stages.margins import Margins
from segdre_plugin.vocabulary import Triple

script = importer(REPOSITORY / "experiments")


class TestGate:
    @given(data=st.data())
    def test_cut_equals_trying_all(self, data):
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(REPOSITORY / "experiments")
            from gate import best_cut
        n = data.draw(st.integers(1, 12))
        scores = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=n, max_size=n)), dtype=float)
        gold = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        n_gold = int(gold.sum()) + data.draw(st.integers(1, 3))

        def f1(cut):
            return 2 * (gold & (scores > cut)).sum() / ((scores > cut).sum() + n_gold)

        tried = [f1(cut) for cut in {*(scores - 0.5)}]
        assert f1(best_cut(scores, gold, n_gold)) == pytest.approx(max(tried))

    def test_regression_is_at_the_minimum(self, script):
        rng = np.random.default_rng(0)
        x = np.c_[rng.normal(size=(40, 2)), np.ones(40)]
        gold = rng.random(40) < 1 / (1 + np.exp(-x @ [2.0, -1.0, 0.5]))

        def loss(w):
            chance = 1 / (1 + np.exp(-x @ w))
            return -np.log(np.where(gold, chance, 1 - chance)).sum() + 0.5 * 0.3 * (w[:2] ** 2).sum()

        found = script("gate").regress(x, gold, 0.3)
        for step in 0.01 * np.eye(3):
            assert loss(found) < min(loss(found + step), loss(found - step))
            assert loss(found + step) - loss(found - step) == pytest.approx(0, abs=1e-4)
        assert np.abs(script("gate").regress(x, gold, 1e6)[:2]).max() < 1e-3  # control: the penalty counts

    def test_a_candidate_that_a_model_lacks(self, script):
        """The pair (0, 1) has two relations of the base and one of the dense model, (1, 2) none of the sparse one."""
        cells = Margins(
            document=np.zeros(3, dtype=int),
            head=np.array([0, 0, 1]),
            tail=np.array([1, 1, 2]),
            relation=np.array([1, 2, 1]),
            margin=np.array([3.0, -1.0, 2.0]),
            evidence=np.zeros((3, 0), dtype=bool),
        )
        found = Candidates(cells, np.array([5.0, -np.inf, -np.inf]), np.array([True, True, False]))
        x = script("gate").features(found, [cells.margin, found.stage], 3)
        base_dense, base_sparse, dense, sparse, is_dense, one = x.T.tolist()
        assert (base_dense, base_sparse) == ([3, -1, 0], [0, 0, 2])
        assert (dense, sparse) == ([5, 5, 0], [0, 0, 5])  # the pair's lowest; of all where it has none
        assert (is_dense, one) == ([1, 1, 0], [1, 1, 1])

    def test_no_document_is_fused_by_a_fit_that_saw_it(self, script, tmp_path):
        gate = script("gate")
        run = make_run(tmp_path)
        found = gate.FinishedRun(run)
        judged = gate.judge("gate", found, "dev", gate.Odds(found.train))
        folds = judged.folds()
        assert (np.sum(folds, axis=0) == 1).all()
        for fold in folds:
            seen, kept = judged.take(~fold), judged.take(fold)
            assert not np.isin(seen.document, kept.document).any()
            assert seen.n_gold.sum() + kept.n_gold.sum() == judged.n_gold.sum()
            assert len(seen.gold) + len(kept.gold) == len(judged.gold)

    @pytest.mark.slow
    def test_thresholds_are_the_runs(self, script, tmp_path, capsys, monkeypatch):
        run = make_run(tmp_path / "a")
        shutil.copytree(run, tmp_path / "b" / "out")  # another run in a folder of the same name
        monkeypatch.setattr(sys, "argv", ["gate.py", str(run), str(tmp_path / "b" / "out"), "--raw", str(tmp_path)])
        gate = script("gate")
        gate.main()
        found = json.loads((tmp_path / "gate.json").read_text())
        metrics = json.loads((run / "metrics.json").read_text())["test"]
        for row, own in (("base", "base_tuned"), ("union", "fused")):
            assert found["f1"][row]["test"] == dict.fromkeys(("a/out", "b/out"), metrics[own]["f1"])
        assert found["f1"].keys() == {row for row, way in gate.ROWS.items() if "second" not in way.models}
        assert found["comparisons"].keys() == {
            f"{split}: {row} - union" for split, row in itertools.product(gate.SPLITS, ("average", "gate", "odds"))
        }
        assert "gate with odds" in capsys.readouterr().out

    @pytest.mark.slow
    def test_a_second_base_is_the_next_runs(self, script, tmp_path, monkeypatch, capsys):
        documents = make_documents()
        runs = [make_run(tmp_path / str(seed), documents, seed=seed) for seed in (0, 1)]
        monkeypatch.setattr(sys, "argv", ["gate.py", *map(str, runs), "--raw", str(tmp_path), "--ensembles"])
        gate = script("gate")
        gate.main()
        found = json.loads((tmp_path / "ensembles.json").read_text())
        assert found["f1"].keys() == gate.ROWS.keys()
        first, second = (gate.FinishedRun(run) for run in runs)
        odds = gate.Odds(first.train)
        mean = gate.judge("ensemble", first, "dev", odds, second).cells.cells
        expected = average(*(run.margins("base", "dev") for run in (first, second)), 99)
        assert len(mean) == len(expected)
        for name in ("document", "head", "tail", "relation", "margin"):
            assert (getattr(mean, name) == getattr(expected, name)).all()
        x = {row: gate.judge(row, first, "dev", odds, second).x for row in ("alone", "gate", "two", "all", "all_odds")}
        assert {row: made.shape[1] for row, made in x.items()} == {
            "alone": 4,
            "gate": 6,
            "two": 6,
            "all": 8,
            "all_odds": 9,
        }
        for row in ("ensemble", "two", "all"):
            with pytest.raises(SegDREError, match="both base models are the same"):
                gate.judge(row, first, "dev", odds, first)
        monkeypatch.setattr(sys, "argv", ["gate.py", str(runs[0]), "--raw", str(tmp_path), "--ensembles"])
        with pytest.raises(SystemExit):
            gate.main()
        assert "--ensembles: one run" in capsys.readouterr().err

    def test_holm_by_hand(self, script):
        assert script("gate").holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert script("gate").holm([0.9, 0.8]) == [1.0, 1.0]


class TestWhere:
    def test_distance_by_hand(self, script):
        """0 is in the most triples, 1 and 2 are its neighbours, 3 is one of 2's, 4 and 5 have nothing to do with it."""
        gold = [(0, 1), (2, 0), (2, 3), (4, 5)]
        document = {
            "vertexSet": [[{"name": str(e), "sent_id": 0, "pos": [e, e + 1], "type": "X"}] for e in range(6)],
            "labels": [{"h": h, "t": t, "r": "P1", "evidence": []} for h, t in gold],
        }
        where = script("where")
        first, second, third = where.DISTANCES
        expected = {(0, 1): first, (5, 0): first, (2, 3): second, (1, 2): second, (5, 2): second, (3, 4): third}
        for (h, t), name in expected.items():
            assert where.distance(document, Triple(h, "P1", t)) == name

    @pytest.mark.slow
    def test_parts_are_those_of_the_runs_own_scores(self, script, tmp_path, capsys, monkeypatch):
        run = make_run(tmp_path / "a")
        monkeypatch.setattr(sys, "argv", ["where.py", str(run), str(run), "--raw", str(tmp_path)])
        where = script("where")
        where.main()
        found = json.loads((tmp_path / "where.json").read_text())
        metrics = json.loads((run / "metrics.json").read_text())["test"]
        for k, row in enumerate(("fused", "base_tuned")):
            for name in ("intra", "inter"):
                assert found["sentences"][name]["f1"][k] == metrics[row][f"{name}_f1"]
            by_name = {name: own["f1"] for name, own in metrics["frequencies"][row].items() if own["n_gold"]}
            assert [own["f1"][k] for own in found["frequency"].values()] == [*by_name.values()][1:]
        gold = {way: sum(part["n_gold"] for part in parts.values()) for way, parts in found.items()}
        assert set(gold.values()) == {2 * metrics["fused"]["n_gold"]}  # the same run twice
        assert "1 hop from the salient entity" in capsys.readouterr().out

    def test_runs_of_other_documents_are_refused(self, script, tmp_path):
        runs = [make_run(tmp_path / str(seed), make_documents(seed), seed=seed) for seed in (0, 1)]
        documents = make_documents()
        without = make_run(tmp_path / "without", {name: documents[name] for name in ("train", "dev")})
        where = script("where")
        assert len(where.open_runs([runs[0], runs[0]])) == 2
        with pytest.raises(SegDREError, match="another dev file than that of"):
            where.open_runs(runs)
        with pytest.raises(SegDREError, match="no test split with gold"):
            where.open_runs([without])


class TestEachAdapter:
    def test_every_adapter_is_there(self, script):
        assert script("each_adapter").CLONED.keys() == SCRIPTS.keys()

    def test_data_are_the_documents_with_the_fewest_entities(self, script, tmp_path):
        write_corpus(tmp_path / "all", train=9, dev=5, test=4, seed=0)
        script("each_adapter").write_data(tmp_path / "all", tmp_path / "few", (3, 2, 1))
        for name, size in (("train_annotated", 3), ("dev", 2), ("test", 1)):
            n = [
                [len(document["vertexSet"]) for document in json.loads((folder / f"{name}.json").read_text())]
                for folder in (tmp_path / "all", tmp_path / "few")
            ]
            assert n[1] == sorted(n[0])[:size]

    def test_no_clone(self, script, tmp_path, monkeypatch):
        monkeypatch.setattr(script("each_adapter"), "CLONES", tmp_path)
        with pytest.raises(SegDREError, match="no clone of P3M"):
            script("each_adapter").copy_clone("p3m", tmp_path / "p3m", tmp_path)

    @pytest.mark.slow
    @pytest.mark.upstream
    def test_a_clone(self, script, atlop, tmp_path, monkeypatch, capsys):
        each = script("each_adapter")
        monkeypatch.setattr(each, "CLONES", tmp_path / "clones")
        (tmp_path / "clones").mkdir()
        (tmp_path / "clones" / "ATLOP").symlink_to(atlop)
        write_corpus(tmp_path / "corpus", train=5, dev=3, test=3, seed=0)
        documents = json.loads((tmp_path / "corpus" / "train_annotated.json").read_text())
        names = json.loads((tmp_path / "corpus" / "rel_info.json").read_text())
        make_encoder(tmp_path / "tiny", documents, names, "bert")
        places = ["out", "--data", "corpus", "--encoder", "tiny", "--raw", "."]
        small = ["--only", "atlop", "--sizes", "4", "2", "2", "--epochs", "1"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["each_adapter.py", *places, *small])
        assert each.main() == 0
        text = (tmp_path / "adapters.json").read_text()
        assert str(tmp_path) not in text
        found = json.loads(text)["atlop"]
        metrics = json.loads((tmp_path / "out" / "atlop" / "out" / "metrics.json").read_text())
        assert found["test"]["fused"] == metrics["test"]["fused"]
        assert found["cpu_seconds"] > 0
        assert "ATLOP" in capsys.readouterr().out
        monkeypatch.setattr(each, "copy_clone", None)  # control: nothing is trained again
        assert each.main() == 0
        assert json.loads((tmp_path / "adapters.json").read_text())["atlop"] == found
        sys.argv[-1] = "2"
        with pytest.raises(SystemExit):
            each.main()
        assert "other documents, epochs or encoder" in capsys.readouterr().err

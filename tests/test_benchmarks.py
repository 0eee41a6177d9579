"""The benchmark scripts run, at a tiny size, and say what they measured; both sides agree (the scripts check it)."""

import copy
import json
import sys

import pytest
import tiny
import torch
from bundles import run_folder as run_folder
from locate import REPOSITORY, kbert_clone
from scripts import importer
from transformers import AutoTokenizer

from segdre_plugin import wrap_collate, wrap_model
from segdre_plugin.backbones.attention import additive_mask
from segdre_plugin.backbones.reference import ReferenceModel, collate_fn
from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import search_thresholds

FOLDER = REPOSITORY / "benchmarks"


script = importer(FOLDER)


def read(path):
    found = json.loads(path.read_text())
    assert {"processor", "cores", "threads", "torch", "numpy"} <= found["machine"].keys()
    return found["rows"]


class TestTiming:
    @pytest.mark.slow
    def test_sides_in_turn(self, script):
        order = []
        sides = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
        seconds = script("timing").interleaved(sides, repeats=3, warmup=1, synchronize=lambda: order.append("."))
        assert "".join(order).replace(".", "") == "baabbaab"
        assert "".join(order).startswith(".b..a.")
        assert [len(values) for values in seconds.values()] == [3, 3]

    def test_medians_and_ratios(self, script):
        timing = script("timing")
        rows = timing.compare("x", {"slow": [4.0, 2.0, 9.0], "fast": [1.0, 0.5, 2.0]}, against="slow", mb={"fast": 7})
        assert [(row["side"], row["median_s"], row["times_faster"], row["mb"]) for row in rows] == [
            ("slow", 4.0, 1.0, None),
            ("fast", 1.0, 4.0, 7),
        ]
        assert timing.growth([1, 2, 4], [3.0, 12.0, 48.0]) == pytest.approx(2)

    def test_report(self, script, tmp_path, capsys):
        timing = script("timing")
        timing.report("T", [{"case": "x", "seconds": [1.0], "median_s": 12345.6}], tmp_path / "t.json", batch=4)
        printed = capsys.readouterr().out
        assert "| case | median_s |" in printed
        assert "12,346" in printed
        assert read(tmp_path / "t.json")[0]["seconds"] == [1.0]

    def test_nothing_to_time(self, script):
        with pytest.raises(SegDREError, match="0 sides"):
            script("timing").interleaved({})


class TestFusion:
    @pytest.mark.slow
    def test_runs(self, script, tmp_path, run_folder, capsys):
        small = ["--cells", "3000", "--points", "3", "--repeats", "1", "--run", str(run_folder)]
        script("fusion").main([*small, "--json", str(tmp_path / "f.json")])
        rows = read(tmp_path / "f.json")
        assert len(rows) == 4 * 3
        assert {row["side"] for row in rows} == {"search_thresholds", "point by point", "np.sort of base"}
        assert {"exponent", "median_s"} <= read(tmp_path / "f-growth.json")[0].keys()
        assert "extrapolated" in capsys.readouterr().out

    def test_control_a_wrong_search_is_noticed(self, script, monkeypatch):
        fusion = script("fusion")
        case = fusion.trained(2000, 0)
        fusion.check(case, -2.0, 5.0, [(3, 40, 60)])
        off = lambda *cells, **how: search_thresholds(*cells, **how | {"anchor": 0.1})  # noqa: E731
        monkeypatch.setattr(fusion, "search_thresholds", off)
        with pytest.raises(SegDREError, match="optimum is"):
            fusion.check(case, -2.0, 5.0, [])


@pytest.mark.upstream
class TestInjection:
    @pytest.fixture
    def clone(self):
        found = kbert_clone()
        return found or pytest.skip("no clone of K-BERT: set SEGDRE_KBERT")

    def test_runs(self, script, tmp_path, clone, redocred, encoder_dir, capsys):
        own = ["--data", str(redocred), "--encoder", str(encoder_dir), "--kbert", str(clone)]
        script("injection").main([*own, "--documents", "3", "--repeats", "1", "--json", str(tmp_path / "i.json")])
        sides = {row["side"]: row for row in read(tmp_path / "i.json")}
        assert len(sides) == 4
        ours, dense = sides["inject, mask on the device"], sides["inject, matrix from the host"]
        assert 0 < ours["bytes_to_device"] < dense["bytes_to_device"]
        assert "K-BERT" in capsys.readouterr().out

    def test_control_a_wrong_position_is_noticed(self, script, clone, monkeypatch):
        injection = script("injection")
        builder, tree = injection.Builder(clone), injection.made_up(30, 3)
        injection.check(tree, builder)
        right = injection.inject
        monkeypatch.setattr(injection, "inject", lambda *a, **k: right(*a, **k, position_offset=1))
        with pytest.raises(SegDREError, match="K-BERT and the plugin differ"):
            injection.check(tree, builder)

    def test_no_clone(self, script, tmp_path):
        with pytest.raises(SegDREError, match="no clone of K-BERT"):
            script("injection").Builder(tmp_path)


def test_operations_are_those_of_the_formulas(script):
    """A product added in place, and fused attention forward and backward: torch's own counter leaves them out."""
    out, a, b = torch.zeros(5, 3), torch.randn(5, 7), torch.randn(7, 3)
    assert script("steps").gflop(lambda: out.addmm_(a, b)) * 1e9 == 2 * 5 * 7 * 3
    assert script("steps").gflop(lambda: a @ b) * 1e9 == 2 * 5 * 7 * 3
    assert script("steps").gflop(lambda: out[None].baddbmm_(a[None], b[None])) * 1e9 == 2 * 5 * 7 * 3
    q, k, v = (torch.randn(2, 4, 11, 8, requires_grad=True) for _ in range(3))
    products = 2 * 2 * 4 * 11 * 11 * 8  # of all queries with all keys, in two sequences of four heads
    fused = script("steps").gflop(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v).sum().backward())
    assert round(fused * 1e9) == (2 + 5) * products  # backward makes the weights again


class TestPaperDevice:
    """Steps on tensors without numbers: operations and bytes are those of the same step with numbers."""

    def test_bytes_that_are_alive(self, script):
        with script("counting").PaperDevice() as paper:
            one = torch.empty(10, 100, device="meta")
            view = one.view(-1)
            del one
            assert paper.live == 4000  # the view holds it
            twice = view * 2
            del view
            assert (paper.live, paper.peak) == (4000, 8000)
            del twice
            assert (paper.live, paper.peak) == (0, 8000)
            assert torch.ones(3).to("meta").sum().item() == 3  # what the host knows stays known

    def test_a_training_step_by_hand(self, script):
        layer = torch.nn.Linear(50, 20, bias=False, device="meta")  # 4,000 bytes
        optimizer = torch.optim.AdamW(layer.parameters(), foreach=True)
        with script("counting").PaperDevice() as paper:
            paper.hold(layer)
            for _ in range(2):
                layer(torch.randn(8, 50).to("meta")).sum().backward()
                optimizer.step()
                optimizer.zero_grad()
                assert paper.live - 4 == 3 * 4000  # weights and two states; four bytes count the steps
        assert 5 * 4000 <= paper.peak < 6 * 4000  # with the gradient, and one temporary in the update

    @pytest.mark.slow
    @pytest.mark.parametrize(("stage", "kind"), [("base", "bert"), ("base", "roberta"), ("sparse", "bert")])
    def test_operations_are_those_of_the_step_with_numbers(self, script, stage, kind):
        model = wrap_model(tiny.model(kind), stage=stage, fast=False)
        feature = tiny.feature(40, kind=kind)
        batch = wrap_collate(collate_fn, adapter="atlop")(
            [tiny.injected(feature, tiny.branches(3)) if stage == "sparse" else feature]
        )
        step = lambda: model(*batch)[0].backward()  # noqa: E731
        due = script("steps").gflop(step)
        model.to("meta")
        with script("counting").PaperDevice():
            assert script("steps").gflop(step) == due > 0

    @pytest.mark.slow
    def test_the_sparse_stage_of_roberta_large_fits_24_gb(self, script, monkeypatch):
        """1,024 tokens, 42 entities and 512 branch tokens in each of 4 documents: the paper's card has 24 GB."""
        pytest.importorskip("transformers.masking_utils", reason="this transformers has eager attention only")
        for name, found in {
            "stages.wrap.check_encoder": additive_mask,  # what checks with numbers would find
            "stages.wrap.check_rule": None,
            "backbones.fast.install._pools_like": True,
            "backbones.fast.encoder.probe": None,
            "backbones.fast.encoder._agree": True,
        }.items():
            monkeypatch.setattr(f"segdre_plugin.{name}", lambda *_, found=found: found)
        make, config, kind = script("workload").SIZES["large"]
        config = tiny.configure(copy.deepcopy(config), kind, classes=97)
        entities, zeros = script("workload").ENTITIES, [0] * 97
        feature = tiny.feature(1024, kind=kind, n_entities=entities)
        feature["labels"] = [zeros] * len(feature["hts"])
        texts = [([95] * 4, 1 + i % (entities - 1)) for i in range(128)]
        batch = wrap_collate(collate_fn, adapter="atlop")([tiny.injected(feature, texts, kind=kind)] * 4)

        def peak(**how):
            with torch.device("meta"):
                model = ReferenceModel(config, make(config), emb_size=768, block_size=64, num_labels=4)
            wrap_model(model, stage="sparse", **how).train()
            with script("counting").PaperDevice() as paper:
                paper.hold(model)
                model(*batch)[0].backward()
            return paper.peak + 8 * sum(p.numel() for p in model.parameters())  # AdamW's states

        reserve = 1e9  # CUDA's own, and what the allocator rounds up
        assert peak() < 24e9 - reserve
        assert peak(checkpointing=True) < 10e9
        assert peak(fast=False) > 24e9  # the control


@pytest.mark.slow
@pytest.mark.upstream
def test_steps(script, redocred, atlop, encoder_dir, tmp_path, monkeypatch, capsys):
    path, encoder = tmp_path / "steps.json", tmp_path / "encoder"
    tiny.encoder(vocabulary=30522).save_pretrained(encoder)
    AutoTokenizer.from_pretrained(encoder_dir).save_pretrained(encoder)
    places = ["--data", str(redocred), "--clone", str(atlop), "--encoder", str(encoder), "--json", str(path)]
    small = ["--stages", "sparse", "--documents", "2", "--batch-size", "1", "--repeats", "1"]
    monkeypatch.setattr(sys, "argv", ["steps.py", *places, *small])
    script("steps").main()
    rows = {(row["case"], row["side"]): row for row in read(path)}
    assert len(rows) == 6
    for case in ("sparse: training step", "sparse: prediction"):
        plain, fast = rows[case, "wrapped, plain"], rows[case, "wrapped, fast"]
        assert 0 < fast["gflop"] < plain["gflop"]
        assert all(row["median_s"] > 0 for row in (plain, fast))
    assert "| sparse: training step |" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["steps.py", *places, *small, "--count", "--checkpointing", "--rate", "47000"])
    script("steps").main()
    rows = {row["side"]: row for row in read(path) if row["case"] == "sparse: training step"}
    assert rows.keys() == {"upstream", "wrapped, fast", "wrapped, fast, checkpointed"}
    fast, again = rows["wrapped, fast"], rows["wrapped, fast, checkpointed"]
    assert fast["gflop"] < again["gflop"]
    assert again["peak_gb"] <= fast["peak_gb"] < rows["upstream"]["peak_gb"]
    assert all(row["held_mb"] > 0 and row["floor_s"] > 0 for row in rows.values())

"""Margins of the top classes, against a loop over pairs and classes."""

import numpy as np
import pytest
import torch

from segdre_plugin.backbones.reference import AdaptiveThresholdLoss
from segdre_plugin.stages.margins import Margins, official, top_margins


def slow_margins(logits, num_labels, threshold=0):
    cells = []
    for pair, row in enumerate(logits.tolist()):
        best = sorted(range(len(row)), key=lambda r: -row[r])
        for relation in best[: num_labels if num_labels > 0 else None]:
            if relation not in (0, threshold):
                cells.append((pair, relation, row[relation] - (0 if threshold is None else row[threshold])))
    return cells


def random_logits(pairs=30, classes=7, dtype=torch.float32):
    return torch.randn(pairs, classes, generator=torch.Generator().manual_seed(5)).to(dtype)


@pytest.mark.parametrize("threshold", [0, 3, None])
@pytest.mark.parametrize("num_labels", [-1, 0, 1, 2, 4, 7, 50])
def test_equals_the_loop(num_labels, threshold):
    logits = random_logits()
    pairs, relations, margins = top_margins(logits, num_labels, threshold)
    due = slow_margins(logits, num_labels, threshold)
    assert list(zip(pairs.tolist(), relations.tolist(), strict=True)) == [(p, r) for p, r, _ in due]
    np.testing.assert_allclose(margins, [m for _, _, m in due], rtol=0, atol=1e-6)
    assert (pairs.dtype, relations.dtype, margins.dtype) == (np.int64, np.int64, np.float64)


@pytest.mark.parametrize("num_labels", [-1, 1, 2, 4])
def test_above_zero_is_what_the_backbone_predicts(num_labels):
    logits = random_logits()
    pairs, relations, margins = top_margins(logits, num_labels)
    predicted = torch.zeros_like(logits)
    predicted[pairs[margins > 0], relations[margins > 0]] = 1
    due = AdaptiveThresholdLoss().get_label(logits, num_labels)
    assert torch.equal(predicted[:, 1:], due[:, 1:])
    assert predicted.sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(dtype):
    logits = random_logits(dtype=dtype)
    _, _, margins = top_margins(logits, 3)
    due = [m for _, _, m in slow_margins(logits.float(), 3)]
    np.testing.assert_allclose(np.sort(margins), np.sort(due), rtol=0, atol=1e-6)


def test_no_pair_gives_no_cell():
    assert [len(part) for part in top_margins(torch.zeros(0, 5), 4)] == [0, 0, 0]


def table(with_evidence=False):
    columns = [(2, 0, 1, 3), (0, 1, 0, 5), (0, 0, 2, 4), (0, 0, 2, 1), (2, 0, 1, 2)]
    document, head, tail, relation = np.array(columns, dtype=np.int64).T
    evidence = np.zeros((5, 3 if with_evidence else 0), dtype=bool)
    evidence[1:3, 1:] = evidence[2, :1] = True  # of the cells (0, 1, 0, 5) and (0, 0, 2, 4)
    return Margins(document, head, tail, relation, np.array([0.1, -2.5, 1e30, -1e30, 0.0]), evidence)


@pytest.mark.parametrize("with_evidence", [False, True])
def test_save_and_load(tmp_path, with_evidence):
    cells = table(with_evidence)
    cells.save(tmp_path / "m.npz")
    again = Margins.load(tmp_path / "m.npz")
    for name in ("document", "head", "tail", "relation", "evidence"):
        np.testing.assert_array_equal(getattr(again, name), getattr(cells, name), strict=True)
    np.testing.assert_array_equal(again.margin, cells.margin.astype(np.float32).astype(np.float64), strict=True)


def test_take():
    by_mask = table().take(np.array([True, False, True, False, False]))
    by_index = table().take(np.array([0, 2]))
    assert len(by_mask) == len(by_index) == 2
    assert by_mask.relation.tolist() == by_index.relation.tolist() == [3, 4]
    assert len(table()) == 5


def test_keys_are_one_to_one():
    cells = [(d, h, t, r) for d in range(3) for h in range(4) for t in range(4) for r in range(1, 6)]
    document, head, tail, relation = np.array(cells, dtype=np.int64).T
    keys = Margins(document, head, tail, relation, np.zeros(len(cells)), np.zeros((len(cells), 0))).keys(4, 6)
    assert len(set(keys.tolist())) == len(cells)
    again = table().take(np.array([3, 4])).keys(4, 6)
    assert [cells[keys.tolist().index(key)] for key in again] == [(0, 0, 2, 1), (2, 0, 1, 2)]


def test_official_order_and_fields():
    documents = [{"title": "A"}, {"title": "B"}, {"title": "C"}]
    id2rel = {r: f"P{r}" for r in range(6)}
    found = official(table(), documents, id2rel)
    assert [list(prediction) for prediction in found] == [["title", "h_idx", "t_idx", "r"]] * 5
    assert [tuple(prediction.values()) for prediction in found] == [
        ("A", 0, 2, "P1"),
        ("A", 0, 2, "P4"),
        ("A", 1, 0, "P5"),
        ("C", 0, 1, "P2"),
        ("C", 0, 1, "P3"),
    ]
    assert all(type(prediction["h_idx"]) is int for prediction in found)  # json writes no numpy integers
    assert official(table().take(np.zeros(5, dtype=bool)), documents, id2rel) == []


def test_official_evidence_is_cut_at_the_documents_end():
    documents = [{"title": "A", "sents": [["one"], ["two"]]}, None, {"title": "C", "sents": [["one"]] * 3}]
    found = official(table(with_evidence=True), documents, {r: f"P{r}" for r in range(6)})
    assert [prediction["evidence"] for prediction in found] == [[], [0, 1], [1], [], []]

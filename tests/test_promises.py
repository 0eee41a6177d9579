"""What repeated readings promise on a GPU: numbers that are near count as the same, and nothing else does."""

import numpy as np
import promises
import pytest

from segdre_plugin.data.files import write_arrays

ONE = '{"title": "A 1", "triples": [{"h_idx": 3, "r": "P17", "score": 12.345678, "source": ["base"]}]}'


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(promises, "EXACT", False)


def test_on_a_cpu_every_bit_counts(monkeypatch):
    monkeypatch.setattr(promises, "EXACT", True)
    assert promises.same_text(ONE, ONE)
    assert not promises.same_text(ONE, ONE.replace("12.345678", "12.345679"))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (("12.345678", "12.3457"), True),
        (("12.345678", "1.2345699e1"), True),
        (("12.345678", "12.36"), False),
        (("P17", "P18"), False),
        (('"h_idx": 3', '"h_idx": 4'), False),
        ((', "source": ["base"]', ""), False),
    ],
)
def test_on_a_gpu_numbers_may_be_near(on_a_gpu, change, same):
    assert promises.same_text(ONE, ONE.replace(*change)) is same


@pytest.mark.parametrize(("factor", "same"), [(1 + 1e-6, True), (1.01, False)])
def test_margins(on_a_gpu, tmp_path, factor, same):
    cells = np.arange(200)
    arrays = {"document": cells // 10, "head": cells % 10, "tail": cells % 7, "relation": 1 + cells % 3}
    for name, by in (("one", 1.0), ("other", factor)):
        write_arrays(tmp_path / name, arrays | {"margin": by * (cells - 100.0)})
    assert bool(promises.same_margins(tmp_path / "one", tmp_path / "other")) is same

"""The margins of three models side by side, with one or several salient entities a document."""

import numpy as np
import pytest

from segdre_plugin.salient import as_chain
from segdre_plugin.stages.candidates import join
from segdre_plugin.stages.margins import CELL, Margins

N = 6  # entities


def margins(cells):
    columns = np.array(cells, dtype=np.int64).reshape(-1, 4).T
    return Margins(*columns, columns.sum(0) / 10, np.zeros((len(cells), 0), dtype=bool))


@pytest.mark.parametrize("salient", [[2, None, 0], [(2,), (), (0,)], [(2, 5), (), (0, 1, 4)], [(5, 2), (3,), ()]])
def test_joins_by_cell_and_knows_which_pairs_are_dense(salient):
    rng = np.random.default_rng(0)
    pairs = [(d, h, t) for d in range(3) for h in range(N) for t in range(N) if h != t]
    base = [(*pair, r) for pair in pairs for r in (1, 2) if rng.random() < 0.5]
    dense = {pair: bool({pair[1], pair[2]} & set(as_chain(salient[pair[0]]))) for pair in pairs}
    stage = {
        kind: [(*pair, r) for pair in pairs for r in (2, 3) if dense[pair] == kind and rng.random() < 0.5]
        for kind in (True, False)
    }
    found = join(margins(base), margins(stage[True]), margins(stage[False]), salient, N)
    cells = list(zip(*(getattr(found.cells, name).tolist() for name in CELL), strict=True))
    assert cells == sorted({*base, *stage[True], *stage[False]})
    for k, cell in enumerate(cells):
        assert found.is_dense[k] == dense[cell[:3]]
        assert found.cells.margin[k] == (sum(cell) / 10 if cell in base else -np.inf)
        assert found.stage[k] == (sum(cell) / 10 if cell in stage[dense[cell[:3]]] else -np.inf)
    if salient[2] == (0, 1, 4):  # negative control: with the first entity alone other pairs are dense
        first = join(margins(base), margins([]), margins([]), [as_chain(chain)[:1] for chain in salient], N)
        assert first.is_dense.sum() < join(margins(base), margins([]), margins([]), salient, N).is_dense.sum()

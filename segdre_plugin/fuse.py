"""Stage fuse: search the three thresholds on dev, apply them, evaluate and write the results (section 3.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from segdre_plugin.data import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.files import read_json, write_json
from segdre_plugin.fusion import GRIDS, FusionResult, apply_thresholds, search_thresholds
from segdre_plugin.injection import BoolArray
from segdre_plugin.margins import FloatArray, Margins, official
from segdre_plugin.metrics import evaluate, has_gold, in_train, train_facts
from segdre_plugin.options import Options
from segdre_plugin.stages import INJECTED, SALIENT, margins_file, own_scores
from segdre_plugin.store import Store
from segdre_plugin.tables import print_scores


@dataclass(frozen=True)
class Cells:
    """All candidates of a split with the margins that base and stage gave them.

    Attributes:
        cells: the candidates; their ``margin`` is the base model's.
        stage: the dense or sparse model's margin, -inf where it has none.
        is_dense: whether the pair involves the salient entity.
    """

    cells: Margins
    stage: FloatArray
    is_dense: BoolArray


def join(base: Margins, dense: Margins, sparse: Margins, salient: list[int | None], n_entities: int) -> Cells:
    """Put the margins of three models side by side.

    Args:
        base: margins of all pairs.
        dense: margins of the pairs that involve the salient entity.
        sparse: margins of the others.
        salient: each document's salient entity.
        n_entities: more than any entity's index.

    Returns:
        The union of their cells.
    """
    tables = (base, dense, sparse)
    n_classes = 1 + max((int(t.relation.max()) for t in tables if len(t)), default=0)
    keys = [t.keys(n_entities, n_classes) for t in tables]
    union, first = np.unique(np.concatenate(keys), return_index=True)
    everything = Margins(*(np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(Margins))).take(first)

    def column(*parts: int) -> FloatArray:
        margins = np.full(len(union), -np.inf)
        for k in parts:
            margins[np.searchsorted(union, keys[k])] = tables[k].margin
        return margins

    entity = np.array([-1 if e is None else e for e in salient], dtype=np.int64)[everything.document]
    cells = Margins(everything.document, everything.head, everything.tail, everything.relation, column(0))
    return Cells(cells, column(1, 2), (everything.head == entity) | (everything.tail == entity))


def gold_flags(
    cells: Margins, split: Split, rel2id: Mapping[str, int], train: list[dict[str, Any]]
) -> tuple[BoolArray, BoolArray, int]:
    """Compare cells with the gold.

    Args:
        cells: candidates.
        split: their split.
        rel2id: the relations.
        train: train documents, whose facts Ign-F1 leaves out.

    Returns:
        Which cells are gold, which of them are facts of the train documents, and how many gold triples there are.
    """
    facts = train_facts(train)
    gold: dict[tuple[int, int, int, int], bool] = {}
    for d, document in enumerate(split.documents):
        for label in document.get("labels") or []:
            head, tail, relation = label["h"], label["t"], label["r"]
            gold[d, head, tail, rel2id[relation]] = in_train(document, head, tail, relation, facts)
    columns = (cells.document, cells.head, cells.tail, cells.relation)
    known = [gold.get(cell) for cell in zip(*(column.tolist() for column in columns), strict=True)]
    is_gold = np.array([flag is not None for flag in known], dtype=bool)
    return is_gold, np.array([bool(flag) for flag in known], dtype=bool), len(gold)


def fuse(store: Store, splits: Mapping[str, Split], rel2id: Mapping[str, int], options: Options) -> dict[str, Any]:
    """Fuse the stages of a finished run; write ``result.json`` and ``metrics.json`` and print the table.

    Args:
        store: the run's folder, all stages done.
        splits: the data.
        rel2id: the relations.
        options: grid and objective.

    Returns:
        The metrics, as written.

    Raises:
        SegDREError: if a stage's file is missing or broken.
    """
    train = splits["train"].documents
    id2rel = {i: name for name, i in rel2id.items()}
    salient = read_json(store.folder("identify") / SALIENT, "salient entities")
    identify = read_json(store.folder("identify") / "metrics.json", "metrics of stage identify")
    result: FusionResult | None = None
    report: dict[str, Any] = {}
    for name in (name for name in ("dev", "test") if name in splits):
        split = splits[name]
        tables = {stage: _load(margins_file(store.folder(stage), name)) for stage in ("base", "dense", "sparse")}
        n_entities = 1 + max(len(document["vertexSet"]) for document in split.documents)
        cells = join(tables["base"], tables["dense"], tables["sparse"], salient[name], n_entities)
        if result is None:
            is_gold, trained, n_gold = gold_flags(cells.cells, split, rel2id, train)
            low, high = GRIDS[options.grid]
            result = search_thresholds(
                cells.cells.margin,
                cells.stage,
                is_gold,
                cells.is_dense,
                n_gold,
                low=low,
                high=high,
                objective=options.objective,
                in_train=trained,
            )
        keep = apply_thresholds(cells.cells.margin, cells.stage, cells.is_dense, result)
        predictions = official(cells.cells.take(keep), split.documents, id2rel)
        write_json(store.root / ("result.json" if name == "test" else "result_dev.json"), predictions)
        report[name] = _rows(tables, cells, predictions, split, salient[name], rel2id, train) | {
            "salient": identify[name]
        }
    if "test" not in splits:
        write_json(store.root / "result.json", predictions)
    assert result is not None
    report["thresholds"] = asdict(result) | {"grid": options.grid, "objective": options.objective}
    injected = read_json(store.folder("sparse") / INJECTED, "stage sparse")
    report["branches_left_out"] = {name: part["left_out"] for name, part in injected.items()}
    write_json(store.root / "metrics.json", report)
    print_scores(report, store.root)
    return report


def _rows(
    tables: Mapping[str, Margins],
    cells: Cells,
    predictions: list[Any],
    split: Split,
    salient: list[int | None],
    rel2id: Mapping[str, int],
    train: list[dict[str, Any]],
) -> dict[str, Any]:
    """Evaluate base, dense, sparse and fused; each stage beside the base model on the stage's own pairs."""
    if not has_gold(split.documents):
        return {"gold": False}
    base = cells.cells.margin > 0
    predicted = {
        "base": (tables["base"].take(tables["base"].margin > 0), "base"),
        "dense": (tables["dense"].take(tables["dense"].margin > 0), "dense"),
        "base_on_dense": (cells.cells.take(base & cells.is_dense), "dense"),
        "sparse": (tables["sparse"].take(tables["sparse"].margin > 0), "sparse"),
        "base_on_sparse": (cells.cells.take(base & ~cells.is_dense), "sparse"),
    }
    rows: dict[str, Any] = {
        name: own_scores(chosen, pairs, split, salient, rel2id, train) for name, (chosen, pairs) in predicted.items()
    }
    return {"gold": True} | rows | {"fused": evaluate(predictions, split.documents, train)}


def _load(path: Path) -> Margins:
    try:
        return Margins.load(path)
    except (OSError, ValueError, KeyError) as error:
        raise SegDREError(
            f"{path}: cannot read margins: {error}", "remove that stage's folder and run it again"
        ) from None

"""Read a finished ``--seg`` run: its metrics, its data (checked by their hashes) and every candidate's margins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from segdre_plugin.data.documents import Document, load_documents
from segdre_plugin.data.files import fingerprint, read_arrays, read_json
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.fusion import GRIDS, Grid, count_grid
from segdre_plugin.injection import BoolArray
from segdre_plugin.salient import Chain
from segdre_plugin.seg.fuse import Scored
from segdre_plugin.seg.store import MARK
from segdre_plugin.seg.training_run import RUN
from segdre_plugin.stages.branches import Triple
from segdre_plugin.stages.candidates import gold_flags
from segdre_plugin.stages.config import SegConfig
from segdre_plugin.stages.margins import FloatArray, Margins
from segdre_plugin.stages.stage import INJECTED, SALIENT, margins_file, read_salient

TAUS = ("tau_base", "tau_dense", "tau_sparse")
_UNFINISHED = "give the --seg-dir of a finished run; running its command again skips what is done and ends it"


@dataclass(frozen=True)
class Run:
    """What a run's folder and its data hold, apart from the margins.

    Attributes:
        folder: the folder.
        adapter: the backbone's adapter.
        paths: train, dev, test (if there is one), rel2id and rel_info -> file.
        hashes: the same names -> SHA-256.
        metrics: ``metrics.json``.
        rel2id: relation id -> class.
        relation_names: relation id -> name.
        config: templates and options of the injection.
        documents: split name (dev, test) -> documents.
        salient: split name -> the predicted salient entities of each document.
        injected: split name -> the triples injected into each document.
        evaluations: folder -> ``metrics.json`` of later evaluations of the run, in ``eval/``.
    """

    folder: Path
    adapter: str
    paths: Mapping[str, Path]
    hashes: Mapping[str, str]
    metrics: dict[str, Any]
    rel2id: Mapping[str, int]
    relation_names: Mapping[str, str]
    config: SegConfig
    documents: Mapping[str, list[Document]]
    salient: Mapping[str, list[Chain]]
    injected: Mapping[str, list[list[Triple]]]
    evaluations: Mapping[str, dict[str, Any]]

    @property
    def fusion(self) -> str:
        """How margins were fused; runs older than the option have a union."""
        return str(self.metrics["thresholds"].get("fusion", "union"))


@dataclass(frozen=True)
class Candidates:
    """All cells of a split with what the stages and the gold say of them, as parallel arrays.

    Attributes:
        cells: the cells; their ``margin`` is the base model's.
        stage: the dense or sparse model's margin, as the fusion takes it; -inf where there is none.
        is_dense: whether the pair involves a predicted salient entity.
        fused: whether the fused result holds the cell.
        gold: whether the cell is a gold triple.
        known: whether it is a gold triple that training states, too; filled for the objective ``ign_f1`` only.
        n_gold: all gold triples.
    """

    cells: Margins
    stage: FloatArray
    is_dense: BoolArray
    fused: BoolArray
    gold: BoolArray
    known: BoolArray
    n_gold: int


def load_run(folder: Path, data_dir: Path | None = None) -> Run:
    """Read a run, and check that its data are what they were.

    Args:
        folder: a ``--seg-dir``.
        data_dir: where the files of the data are now; None takes the paths that the run wrote down.

    Returns:
        The run.

    Raises:
        SegDREError: if the run is not finished, or its data are missing or changed.
    """
    missing = [name for name in (RUN, "metrics.json") if not (folder / name).is_file()]
    if missing:
        raise SegDREError(f"{folder}: no finished run: it has no {' and no '.join(missing)}", _UNFINISHED)
    sources = read_json(folder / RUN, "sources of the run")
    metrics = read_json(folder / "metrics.json", "metrics of the run")
    thresholds = metrics.get("thresholds", {})
    if "dev" not in metrics or not {*TAUS, "f1", "score", "objective"} <= thresholds.keys():
        raise SegDREError(f"{folder / 'metrics.json'}: no scores on dev or no thresholds in it", _UNFINISHED)
    if thresholds.get("grid") not in GRIDS:
        raise SegDREError(f"{folder / 'metrics.json'}: the grid {thresholds.get('grid')!r} is none of {sorted(GRIDS)}")
    paths = _find(sources, data_dir)
    rel2id = read_json(paths["rel2id"], "relations")
    splits = [name for name in paths if name in ("dev", "test")]
    documents = {name: load_documents(paths[name], rel2id) for name in splits}
    salient = read_salient(folder / "identify")
    injected = read_json(folder / "sparse" / INJECTED, "injected triples")
    for name, split in documents.items():
        chosen, triples = salient.get(name, []), injected.get(name, {}).get("triples", [])
        fits = len(chosen) == len(triples) == len(split) and all(
            0 <= entity < len(document["vertexSet"])
            for chain, document in zip(chosen, split, strict=True)
            for entity in chain
        )
        if not fits:
            raise SegDREError(
                f"{folder}: {SALIENT} or {INJECTED} does not fit the {len(split)} documents of {name}", _UNFINISHED
            )
    return Run(
        folder=folder,
        adapter=str(sources["adapter"]),
        paths=paths,
        hashes=sources["hashes"],
        metrics=metrics,
        rel2id=rel2id,
        relation_names=read_json(paths["rel_info"], "relation names"),
        config=_config(folder),
        documents=documents,
        salient=salient,
        injected={
            name: [[Triple(*triple) for triple in one] for one in injected[name]["triples"]] for name in documents
        },
        evaluations={
            path.parent.name: read_json(path, "metrics of an evaluation")
            for path in sorted((folder / "eval").glob("*/metrics.json"))
        },
    )


def load_candidates(run: Run, name: str) -> Candidates:
    """Read the margins of a split and put them beside its gold and the fused result.

    Args:
        run: the run.
        name: dev or test.

    Returns:
        Its cells.

    Raises:
        SegDREError: if a file is missing or broken, or does not belong to the split.
    """
    tables = {stage: _margins(run, stage, name) for stage in ("base", "dense", "sparse")}
    split = Split(name, run.paths[name], run.documents[name])
    joined = Scored(split, tables, list(run.salient[name]), run.rel2id, [], run.fusion).cells()
    train = load_documents(run.paths["train"], run.rel2id) if run.metrics["thresholds"]["objective"] == "ign_f1" else []
    gold, known, n_gold = gold_flags(joined.cells, split, run.rel2id, train)
    return Candidates(joined.cells, joined.stage, joined.is_dense, _fused(run, name, joined.cells), gold, known, n_gold)


def dev_grid(run: Run, found: Candidates) -> tuple[Grid, tuple[int, int, int]]:
    """Count the threshold grid on dev once more, with the code of the search.

    Args:
        run: the run.
        found: the cells of dev.

    Returns:
        The grid, and the indices of the run's thresholds (base, dense, sparse) in it.

    Raises:
        SegDREError: if the thresholds are not on the grid, or do not give the score that the run noted.
    """
    thresholds = run.metrics["thresholds"]
    low, high = GRIDS[thresholds["grid"]]
    grid = count_grid(
        found.cells.margin,
        found.stage,
        found.gold,
        found.is_dense,
        found.n_gold,
        low=low,
        high=high,
        objective=thresholds["objective"],
        in_train=found.known,
    )
    wanted = np.array([thresholds[tau] for tau in TAUS])
    b, d, s = np.abs(grid.taus - wanted[:, None]).argmin(axis=1).tolist()
    off = np.abs(grid.taus[range(3), (b, d, s)] - wanted).max()
    if off > 1e-6 or abs(grid.scores(b)[d, s] - thresholds["score"]) > 1e-9:
        raise SegDREError(
            f"{run.folder}: metrics.json and the margins are of different runs: at the thresholds in it the margins "
            f"give {grid.scores(b)[d, s]:.6f}, it says {thresholds['score']:.6f}",
            _UNFINISHED,
        )
    return grid, (b, d, s)


def expected_counts(run: Run, name: str) -> FloatArray | None:
    """Return the relation count that stage identify expects of each document's (first) predicted salient entity.

    Args:
        run: the run.
        name: dev or test.

    Returns:
        Sum of the expected counts of its pairs, [documents]; NaN where no entity was predicted. None if the run's
        strategy has no count head.

    Raises:
        SegDREError: if the file is missing or broken.
    """
    if "identify" not in run.config.models:
        return None
    path = run.folder / "identify" / f"counts_{name}.npz"
    arrays = _arrays(path, ("document", "pair", "count"))
    entity = np.array([chain[0] if chain else -1 for chain in run.salient[name]], dtype=np.int64)
    document = arrays["document"].astype(np.int64)
    if len(document) and document.max() >= len(entity):
        raise SegDREError(f"{path}: holds document {document.max()}, {name} has {len(entity)}", _UNFINISHED)
    involved = (arrays["pair"] == entity[document][:, None]).any(axis=1)
    totals = np.bincount(document[involved], arrays["count"][involved].astype(np.float64), minlength=len(entity))
    return np.where(entity < 0, np.nan, totals)


def _find(sources: Mapping[str, Any], data_dir: Path | None) -> dict[str, Path]:
    """Return where the data are now; refuse with the list of all that are missing or changed."""
    paths, problems = {}, []
    for name, file in sources["files"].items():
        path = Path(file)
        if data_dir is not None and (name not in ("rel2id", "rel_info") or (data_dir / path.name).is_file()):
            path = data_dir / path.name
        paths[name] = path
        if not path.is_file():
            problems.append(f"{name}: {path} is not there")
        elif fingerprint(path) != sources["hashes"][name]:
            problems.append(f"{name}: {path} is not the file of the run (other SHA-256)")
    raise_all(
        problems, "the data of the run have moved or changed", "say where the run's own files are: --data-dir DIR"
    )
    return paths


def _config(folder: Path) -> SegConfig:
    options = read_json(folder / "sparse" / MARK, "settings of stage sparse").get("options", {})
    return SegConfig.of(options)


def _margins(run: Run, stage: str, name: str) -> Margins:
    path = margins_file(run.folder / stage, name)
    _arrays(path, ("document", "head", "tail", "relation", "margin"))
    table = Margins.load(path)
    documents = run.documents[name]
    if len(table):
        sizes = np.array([len(document["vertexSet"]) for document in documents])
        inside = (table.document < len(documents)).all() and table.relation.max() < len(run.rel2id)
        if not (inside and (np.maximum(table.head, table.tail) < sizes[table.document]).all()):
            raise SegDREError(f"{path}: holds pairs or relations that {name} does not have", _UNFINISHED)
    return table


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError, BadZipFile) as error:
        raise SegDREError(f"{path}: cannot be read: {error}", "remove that stage's folder and run it again") from None
    if not set(names) <= arrays.keys():
        raise SegDREError(f"{path}: expected {', '.join(names)}, found {', '.join(sorted(arrays)) or 'nothing'}")
    return arrays


def _fused(run: Run, name: str, cells: Margins) -> BoolArray:
    """Return which cells the written result holds."""
    path = run.folder / ("result.json" if name == "test" else "result_dev.json")
    index = {document["title"]: d for d, document in enumerate(run.documents[name])}
    try:
        triples = {
            (index[item["title"]], item["h_idx"], item["t_idx"], run.rel2id[item["r"]])
            for item in read_json(path, "fused result")
        }
    except (KeyError, TypeError):
        raise SegDREError(f"{path}: holds predictions that {name} does not have", _UNFINISHED) from None
    columns = (cells.document, cells.head, cells.tail, cells.relation)
    keep = np.array([cell in triples for cell in zip(*(c.tolist() for c in columns), strict=True)], dtype=bool)
    if keep.sum() != len(triples):
        raise SegDREError(f"{path}: holds predictions that the stages' margins do not", _UNFINISHED)
    return keep

"""Stage fuse: search the three thresholds on dev, apply them, evaluate and write the results (section 3.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import FusionResult
from segdre_plugin.seg.options import Options
from segdre_plugin.seg.score_table import print_scores
from segdre_plugin.seg.store import Store
from segdre_plugin.stages.artifacts import INJECTED, margins_file, read_salient
from segdre_plugin.stages.config import TRAINED
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.scored import ScoredSplit


def fuse(
    store: Store, splits: Mapping[str, Split], rel2id: Mapping[str, int], options: Options, seed: int = 0
) -> dict[str, Any]:
    """Fuse the stages of a finished run; write ``result.json`` and ``metrics.json`` and print the table.

    Args:
        store: the run's folder, all stages done.
        splits: the data.
        rel2id: the relations.
        options: grid, objective, and how salient entities are chosen.
        seed: the run's, for strategies that choose by chance.

    Returns:
        The metrics, as written.

    Raises:
        SegDREError: if a stage's file is missing or broken.
    """
    salient = read_salient(store.folder("identify"))
    identify = read_json(store.folder("identify") / "metrics.json", "metrics of stage identify")
    thresholds: FusionResult | None = None
    report: dict[str, Any] = {"salient_k": options.config.salient_k}
    for name in (name for name in ("dev", "test") if name in splits):
        tables = {stage: _load(margins_file(store.folder(stage), name)) for stage in TRAINED}
        scored = ScoredSplit(splits[name], tables, salient[name], rel2id, splits["train"].documents, options.fusion)
        cells = scored.cells()
        if thresholds is None:
            thresholds = scored.search(cells, options.grid, options.objective)
            tau_base_alone = scored.search_base(cells, options.grid, options.objective)
        predictions = scored.predict(cells, thresholds)
        write_json(store.root / ("result.json" if name == "test" else "result_dev.json"), predictions)
        report[name] = scored.rows(predictions, tau_base_alone) | {"salient": identify[name]}
        if report[name]["gold"]:
            report[name]["strategies"] = scored.strategies(options.config, seed)
        report["evidence"] = scored.has_evidence
    if "test" not in splits:
        write_json(store.root / "result.json", predictions)
    assert thresholds is not None
    search = {"grid": options.grid, "objective": options.objective, "tau_base_alone": tau_base_alone}
    report["thresholds"] = asdict(thresholds) | search
    injected = read_json(store.folder("sparse") / INJECTED, "stage sparse")
    report["branches_left_out"] = {name: part["left_out"] for name, part in injected.items()}
    write_json(store.root / "metrics.json", report)
    print_scores(report, store.root)
    return report


def _load(path: Path) -> Margins:
    try:
        return Margins.load(path)
    except (OSError, ValueError, KeyError) as error:
        raise SegDREError(
            f"{path}: cannot read margins: {error}", "remove that stage's folder and run it again"
        ) from None

"""Stage fuse: search the three thresholds on dev, apply them, evaluate and write the results (section 3.6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from segdre_plugin.data.files import write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.fusion import FusionResult
from segdre_plugin.seg.options import Options
from segdre_plugin.seg.run_folder import SPLITS, RunFolder
from segdre_plugin.seg.score_table import print_scores
from segdre_plugin.stages.config import TRAINED
from segdre_plugin.stages.scored import ScoredSplit


def fuse(
    folder: RunFolder, splits: Mapping[str, Split], rel2id: Mapping[str, int], options: Options, seed: int = 0
) -> dict[str, Any]:
    """Fuse the finished stages of a run; write ``result.json`` and ``metrics.json``, print and return the metrics."""
    thresholds: FusionResult | None = None
    report: dict[str, Any] = {"salient_k": options.config.salient_k}
    predictions: dict[str, list[dict[str, Any]]] = {}
    for name in (name for name in SPLITS if name in splits):
        split = splits[name]
        tables = {stage: folder.margins(stage, name, split.documents, len(rel2id)) for stage in TRAINED}
        salient = folder.salient(name, split.documents)
        scored = ScoredSplit(split, tables, salient, rel2id, splits["train"].documents, options.fusion)
        cells = scored.cells()
        if thresholds is None:  # dev comes first: they are chosen there
            thresholds = scored.search(cells, options.grid, options.objective)
            tau_base_alone = scored.search_base(cells, options.grid, options.objective)
        predictions[name] = scored.predict(cells, thresholds)
        own = folder.stage_metrics("identify", name)
        report[name] = scored.rows(predictions[name], thresholds, tau_base_alone) | {"salient": own}
        if report[name]["gold"]:
            report[name]["strategies"] = scored.strategies(options.config, seed)
        report["evidence"] = scored.has_evidence
    assert thresholds is not None
    search = {"grid": options.grid, "objective": options.objective, "tau_base_alone": tau_base_alone}
    report["thresholds"] = asdict(thresholds) | search
    report["branches_left_out"] = folder.left_out
    # without metrics.json a run is not fused: results of two fusions never count as one, whenever this is killed
    folder.metrics_file.unlink(missing_ok=True)
    for name, found in ({"test": predictions["dev"]} | predictions).items():
        write_json(folder.result_file(name), found)
    write_json(folder.metrics_file, report)
    print_scores(report, folder.path)
    return report

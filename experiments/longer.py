"""Is it SegDRE, or only more training? A base model that goes on as long as the dense model trains, on all pairs.

python experiments/longer.py OUT --data DIR --encoder DIR --backbone atlop --recipe from-base --seeds 66 67 68

Where dense and sparse model start from the base, they have been trained for longer than it, and a naive ensemble of two
base models is no match for that. Here the dense stage is trained on *all* pairs. This model stands alone, beside the
base in a naive ensemble, in the place of the dense and the sparse model in SegDRE's own fusion, in the place of the
base, and against dense and sparse model on their own pairs; and two of them, of different seeds, make a naive ensemble.
All thresholds are searched on dev.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

from probe import ProbeRun, main, probe
from run import Experiments

from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.results import Results
from segdre_plugin.analysis.study.rows import Line, Row, Study
from segdre_plugin.analysis.study.score_row import score
from segdre_plugin.analysis.study.studies import AVERAGE, BASE_TUNED, FULL, SEEDS, UNION, on_pairs
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.candidates import average, count_entities
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.stage import ChainResult, Stage


class AllPairsRun(ProbeRun):
    """A run whose stage dense has all pairs."""

    probed, way = "dense", MappingProxyType({"pairs": "all"})

    def prepare(self, name: str) -> tuple[Stage, dict[str, ChainResult]]:
        """Gather what the stage needs; every entity is salient."""
        stage, known = super().prepare(name)
        return stage, {
            split: replace(
                found, salient=[tuple(range(len(document["vertexSet"]))) for document in self.splits[split].documents]
            )
            for split, found in known.items()
        }


ALONE = Row("longer", sources=("base",), ensemble="second")
ON_LONGER = Row("on longer", ensemble="second")
PAIR = Row("two longer", sources=("base",), ensemble="second")
LONGER = Study(
    "Dense and sparse model, or a base that was trained for longer",
    (
        Line("base", (BASE_TUNED,)),
        Line("base, trained for longer", (ALONE,)),
        Line("mean of both", (AVERAGE,)),
        Line("both in SegDRE's fusion", (UNION,)),
        Line("mean of two, trained for longer", (PAIR,)),
        Line("SegDRE", (FULL,)),
        Line("SegDRE, base trained for longer", (ON_LONGER,)),
        *(
            on_pairs(pairs, title, row)
            for pairs in ("dense", "sparse")
            for title, row in (
                ("base", BASE_TUNED),
                ("base, trained for longer", ALONE),
                (f"{pairs} model", Row("model", sources=(pairs,))),
                ("mean of base and base, trained for longer", AVERAGE),
                (f"base and {pairs} model", FULL),
            )
        ),
    ),
    SEEDS.columns,
    comparisons=(
        *((FULL.name, row.name) for row in (BASE_TUNED, ALONE, AVERAGE, UNION, PAIR)),
        (ON_LONGER.name, ALONE.name),
        *((f"model on {pairs}", f"longer on {pairs}") for pairs in ("dense", "sparse")),
    ),
)


def measure(experiments: Experiments, backbone: str, recipe: str, seeds: list[int]) -> Results:
    """Train what is not there, and score.

    Args:
        experiments: where runs are.
        backbone: which one.
        recipe: which one; its runs ``full`` must be finished.
        seeds: the runs'.

    Returns:
        The scores of every row.
    """
    made = {
        seed: probe(experiments, backbone, recipe, seed, name="longer", kind=AllPairsRun, stage="dense")
        for seed in seeds
    }
    runs = {seed: FinishedRun(experiments.runs(backbone, recipe).path("full", seed)) for seed in seeds}
    return score_runs(runs, {seed: store.root for seed, store in made.items()})


def score_runs(runs: Mapping[int, FinishedRun], longer: Mapping[int, Path]) -> Results:
    """Score finished runs beside base models that were trained for longer.

    Args:
        runs: seed -> the run.
        longer: seed -> folder of the run whose stage dense was trained on all pairs.

    Returns:
        The scores of every row.
    """
    seeds = list(runs)

    def own(seed: int, split: str) -> Margins:
        return RunFolder(longer[seed]).margins("dense", split)

    def with_next(seed: int, split: str) -> Margins:
        other = seeds[(seeds.index(seed) + 1) % len(seeds)]
        return average(own(seed, split), own(other, split), count_entities(runs[seed].split(split)))

    scores = {
        name: {
            seed: score(row, found, partial(with_next if row == PAIR else own, seed), LONGER.splits)
            for seed, found in runs.items()
            if row != PAIR or len(seeds) > 1
        }
        for name, row in LONGER.rows.items()
    }
    return Results(LONGER, tuple(seeds), scores, {})


if __name__ == "__main__":
    main(__doc__, measure)

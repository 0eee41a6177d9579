"""A gate in place of three thresholds: does a regression that weighs base and stage margins by pair fuse better?

python experiments/gate.py OUT/*/out        # finished runs (--seg-dir); nothing is trained
python experiments/gate.py OUT/runs/full-* --ensembles    # seeds of one backbone: with naive ensembles of two bases

The gate is a logistic regression of "this candidate is gold" on the margins of base and stage and whether the pair is
dense (each margin with a weight of its own for dense and for sparse pairs). The strength of its L2 penalty and its
threshold are chosen on scores that documents get from fits to the other ones. ``with odds`` adds what the predicted
dense triples tell about a sparse pair, counted on train (information.py). Beside it stand the tuned base, the three
thresholds on the run's margins (the paper's fusion), those on averaged margins, and a gate that sees the base alone.
With ``--ensembles`` the next run's base is a second one: the mean of both with one threshold, and gates over both.

Every way of fusion is fitted to dev for test, which is read once. Its score on dev is that of five folds, each fused by
a fit to the other four: a way with more to choose has no advantage there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from information import Odds, added, contexts
from scipy.optimize import minimize
from scipy.special import expit
from where import Counts, add, open_runs, parse

from segdre_plugin.analysis.comparison import compare, count
from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.score_row import ensemble
from segdre_plugin.analysis.study.tables import Cell, Table
from segdre_plugin.data.progress import progress
from segdre_plugin.errors import SegDREError
from segdre_plugin.fusion import GRIDS, apply_thresholds, search_thresholds
from segdre_plugin.seg.launch import messages
from segdre_plugin.stages.candidates import Candidates, align, count_entities, dense_flags, gold_flags
from segdre_plugin.stages.scored import ScoredSplit
from segdre_plugin.stages.stage import predicted_triples
from segdre_plugin.vocabulary import BoolArray, FloatArray, IntArray


@dataclass(frozen=True)
class Way:
    """A way of fusing the margins of a finished run.

    Attributes:
        title: its name in tables.
        models: whose margins it takes: of the base, the stages, and the second base.
        gate: whether a regression fuses them, not thresholds.
        mean: whether thresholds cut means of margins: of base and stage, or of both bases.
        odds: whether the gate sees the log-odds.
    """

    title: str
    models: tuple[str, ...]
    gate: bool = False
    mean: bool = False
    odds: bool = False


ROWS = {
    "base": Way("base, threshold tuned", ("base",)),
    "union": Way("three thresholds (SegDRE)", ("base", "stages")),
    "average": Way("three thresholds, margins averaged", ("base", "stages"), mean=True),
    "alone": Way("gate, base alone", ("base",), gate=True),
    "gate": Way("gate", ("base", "stages"), gate=True),
    "odds": Way("gate with odds", ("base", "stages"), gate=True, odds=True),
    "ensemble": Way("naive ensemble of two bases", ("base", "second"), mean=True),
    "two": Way("gate, two bases", ("base", "second"), gate=True),
    "all": Way("gate, two bases and stages", ("base", "second", "stages"), gate=True),
    "all_odds": Way("gate, two bases and stages, with odds", ("base", "second", "stages"), gate=True, odds=True),
}
FOLDS = 5
PENALTIES = (0.01, 0.1, 1.0, 10.0)
SPLITS = ("dev", "test")


@dataclass(frozen=True)
class Judged:
    """Candidates of a split, or of some of its documents.

    Attributes:
        cells: with the margins of base and stage.
        x: (candidates, features) what a gate sees of them; none for thresholds.
        gold: (candidates,) whether each is gold.
        n_gold: (documents,) gold triples of each document of the split, candidates or not.
    """

    cells: Candidates
    x: FloatArray
    gold: BoolArray
    n_gold: IntArray

    @property
    def document(self) -> IntArray:
        """(candidates,) the document of each."""
        return self.cells.cells.document

    def take(self, documents: BoolArray) -> Judged:
        """Return what is there of chosen documents: (documents,) whether each is."""
        k = np.flatnonzero(documents[self.document])
        cells = Candidates(self.cells.cells.take(k), self.cells.stage[k], self.cells.is_dense[k])
        return Judged(cells, self.x[k], self.gold[k], np.where(documents, self.n_gold, 0))

    def folds(self) -> list[BoolArray]:
        """Return (documents,) which documents each fold has, of those that have candidates or gold."""
        there = np.isin(np.arange(len(self.n_gold)), self.document) | (self.n_gold > 0)
        number = np.cumsum(there) % FOLDS
        return [there & (number == fold) for fold in range(FOLDS)]


Rule = Callable[[Judged], BoolArray]  # (candidates,) which of them are predicted


def fit_thresholds(judged: Judged, grid: str, objective: str) -> Rule:
    """Search the thresholds that are best; for the base alone, candidates have no margin of a stage."""
    low, high = GRIDS[grid]
    cells, n_gold = judged.cells, int(judged.n_gold.sum())
    found = search_thresholds(
        *(cells.cells.margin, cells.stage, judged.gold, cells.is_dense, n_gold), low=low, high=high, objective=objective
    )
    return lambda other: apply_thresholds(other.cells.cells.margin, other.cells.stage, other.cells.is_dense, found)


def fit_gate(judged: Judged) -> Rule:
    """Choose penalty and threshold on scores of fits to other documents, then fit to all."""
    tried = []
    for penalty in PENALTIES:
        scores = np.empty(len(judged.x))
        for fold in judged.folds():
            out = fold[judged.document]
            scores[out] = judged.x[out] @ regress(judged.x[~out], judged.gold[~out], penalty)
        loss = np.logaddexp(0, -(2.0 * judged.gold - 1) * scores).mean()
        tried.append((float(loss), penalty, best_cut(scores, judged.gold, int(judged.n_gold.sum()))))
    _, penalty, cut = min(tried)
    weights = regress(judged.x, judged.gold, penalty)
    return lambda other: np.asarray(other.x @ weights > cut)


def regress(x: FloatArray, gold: BoolArray, penalty: float) -> FloatArray:
    """Return the weights of a logistic regression.

    Args:
        x: (candidates, features), the last of them 1.
        gold: (candidates,) whether each is gold.
        penalty: of half the squares of all weights but the last.

    Raises:
        SegDREError: if the search for the minimum does not end.
    """
    sign, free = 2.0 * gold - 1, np.r_[np.ones(x.shape[1] - 1), 0.0]

    def loss(w: FloatArray) -> tuple[float, FloatArray]:
        margin = sign * (x @ w)
        slope = -(sign * expit(-margin)) @ x
        return float(np.logaddexp(0, -margin).sum() + penalty / 2 * (free * w**2).sum()), slope + penalty * free * w

    found = minimize(loss, np.zeros(x.shape[1]), jac=True, method="L-BFGS-B")
    if not found.success:
        raise SegDREError(f"logistic regression on {len(x)} candidates: {found.message}", "look at the run's margins")
    weights: FloatArray = found.x
    return weights


def best_cut(scores: FloatArray, gold: BoolArray, n_gold: int) -> float:
    """Return the threshold with the best F1: halfway between two scores, or below all."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    hits, taken = np.cumsum(gold[order]), np.arange(1, len(scores) + 1)
    ends = np.r_[np.diff(ranked) != 0, True]  # equal scores go together
    k = int(np.argmax(np.where(ends, 2 * hits / (taken + n_gold), -1.0)))
    return float((ranked[k] + (ranked[k + 1] if k + 1 < len(ranked) else ranked[k] - 1.0)) / 2)


def features(
    cells: Candidates, margins: Sequence[FloatArray], n_entities: int, extra: Sequence[FloatArray] = ()
) -> FloatArray:
    """Return what the gate sees of each candidate: (candidates, features).

    A model's table holds the top classes of a pair only; a cell that it lacks gets its lowest margin of the pair, or of
    all where it has none of the pair.

    Args:
        cells: the candidates.
        margins: (candidates,) of each model, -inf where it has none.
        n_entities: exceeds the index of any entity.
        extra: (candidates,) what else it sees.
    """
    pairs, place = np.unique(cells.cells.pairs(n_entities), return_inverse=True)
    columns = []
    for margin in margins:
        there = np.isfinite(margin)
        lowest = np.full(len(pairs), np.inf)
        np.minimum.at(lowest, place[there], margin[there])
        lowest[np.isinf(lowest)] = margin[there].min()
        columns.append(np.where(there, margin, lowest[place]))
    dense = cells.is_dense.astype(float)
    by_kind = [column * kind for column in columns for kind in (dense, 1 - dense)]
    return np.stack([*by_kind, *extra, dense, np.ones(len(dense))], axis=1)


def told(found: FinishedRun, scored: ScoredSplit, cells: Candidates, odds: Odds) -> FloatArray:
    """Return what the predicted dense triples tell about each candidate; 0 for dense pairs."""
    names = {i: name for name, i in found.rel2id.items()}
    triples = predicted_triples(scored.tables["dense"], len(scored.split.documents), found.rel2id)
    around = [contexts(one, tuple(chain)) for one, chain in zip(triples, scored.salient, strict=True)]
    sparse = np.flatnonzero(~cells.is_dense)
    numbers = np.zeros(len(cells.is_dense))
    numbers[sparse] = added(cells.cells.take(sparse), scored.split.documents, around, odds, names)
    return numbers


def judge(row: str, found: FinishedRun, split: str, odds: Odds, second: FinishedRun | None = None) -> Judged:
    """Return a split's candidates as a row of the table takes them; ``second`` is the run of the second base."""
    way = ROWS[row]
    scored = replace(found.scored(split), fusion="average" if way.mean and "stages" in way.models else "union")
    n, tables = count_entities(scored.split), dict(scored.tables)
    bases = [tables["base"]]
    if "stages" not in way.models:
        tables |= dict.fromkeys(("dense", "sparse"), tables["base"].take(np.empty(0, dtype=np.int64)))
    if "second" in way.models:
        assert second is not None
        bases.append(second.margins("base", split))
        mean = ensemble("average", bases[0], bases[1], n)  # refuses one and the same base
        tables |= mean if way.mean else {}
    if way.gate:
        union, margins = align((tables["dense"], tables["sparse"], *bases), n, -np.inf)
        is_dense = dense_flags(union, scored.salient, n)
        stage = np.maximum(*margins[:2])
        cells = Candidates(union, stage, is_dense)
        extra = [told(found, scored, cells, odds)] if way.odds else []
        x = features(cells, [*margins[2:], *[stage] * ("stages" in way.models)], n, extra)
    else:
        cells = replace(scored, tables=tables).cells()
        x = np.empty((len(cells.stage), 0))
    gold, _, _ = gold_flags(cells.cells, scored.split, found.rel2id, [])
    distinct = [{(label["h"], label["t"], label["r"]) for label in d["labels"]} for d in scored.split.documents]
    return Judged(cells, x, gold, np.array([len(labels) for labels in distinct]))


def measure(found: FinishedRun, second: FinishedRun | None = None) -> dict[str, dict[str, Counts]]:
    """Fuse a finished run in every way: row -> split -> title -> correct, predicted and gold triples.

    Args:
        found: the run.
        second: the run with the second base; None leaves the rows out that have one.

    Returns:
        The counts.
    """
    odds = Odds(found.train)
    result: dict[str, Any] = {}
    rows = {row: way for row, way in ROWS.items() if second or "second" not in way.models}
    for row, way in progress(rows.items(), label=f"gate: {found.path}"):
        dev, test = (judge(row, found, split, odds, second) for split in SPLITS)

        def fit(judged: Judged, way: Way = way) -> Rule:
            if way.gate:
                return fit_gate(judged)
            return fit_thresholds(judged, found.search["grid"], found.search["objective"])

        kept = {"dev": np.zeros(len(dev.gold), dtype=bool), "test": fit(dev)(test)}
        everything = np.ones(len(dev.n_gold), dtype=bool)
        for fold in dev.folds():
            kept["dev"][fold[dev.document]] = fit(dev.take(everything & ~fold))(dev.take(fold))
        result[row] = {}
        for split, judged in (("dev", dev), ("test", test)):
            scored = found.scored(split)
            chosen = scored.official(judged.cells.cells.take(np.flatnonzero(kept[split])))
            result[row][split] = count(chosen, scored.split.documents)
    return result


def f1(counts: Mapping[str, Sequence[int]]) -> float:
    """Return F1 of counts by title."""
    correct, predicted, gold = (sum(row[k] for row in counts.values()) for k in range(3))
    return 2 * correct / (predicted + gold)


def summarise(runs: Mapping[str, Any]) -> dict[str, Any]:
    """Return F1 by row, split and run, and paired tests, all runs together.

    They are those of averaged margins and gates against the three thresholds; with naive ensembles, those of everything
    else against the tuned base and against the ensemble. ``p_holm`` is corrected for all tests of a split (Holm).
    """
    rows = [*next(iter(runs.values()))]
    scores = {row: {s: {run: f1(own[row][s]) for run, own in runs.items()} for s in SPLITS} for row in rows}
    if "ensemble" in rows:
        pairs = [(row, other) for other in ("base", "ensemble") for row in rows if row not in ("base", "ensemble")]
        pairs.append(("ensemble", "base"))
    else:
        pairs = [(row, "union") for row in ("average", "gate", "odds")]
    tests: dict[str, Any] = {}
    for split in SPLITS:
        sums = {row: add([own[row][split] for own in runs.values()]) for row in rows}
        own = {f"{split}: {row} - {other}": vars(compare(sums[row], sums[other])) for row, other in pairs}
        corrected = holm([test["p_value"] for test in own.values()])
        tests |= {name: test | {"p_holm": p} for (name, test), p in zip(own.items(), corrected, strict=True)}
    return {"f1": scores, "comparisons": tests}


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number (Holm's step-down procedure)."""
    order = np.argsort(p_values, kind="stable")
    ranked = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(ranked))
    return [float(p) for p in corrected]


def table(found: Mapping[str, Any]) -> Table:
    """Make the table of :func:`summarise`'s F1."""
    lines = [
        (ROWS[row].title, [Cell([100 * value for value in scores[split].values()]) for split in SPLITS])
        for row, scores in found["f1"].items()
    ]
    return Table("(%)", ["dev F1", "test F1"], lines)


def comparisons(found: Mapping[str, Any]) -> Table:
    """Make the table of :func:`summarise`'s tests."""
    lines = []
    for name, test in found["comparisons"].items():
        split, pair = name.split(": ")
        first, second = (ROWS[row].title for row in pair.split(" - "))
        signed = [Cell([100 * test[key]], signed=True) for key in ("difference", "low", "high")]
        p_values = [Cell([test[key]], decimals=4) for key in ("p_value", "p_holm")]
        lines.append((f"{split}: {first} - {second}", [*signed, *p_values]))
    return Table("F1 (points)", ["difference", "95 % from", "to", "p", "p (Holm)"], lines)


def main() -> None:
    """Read the command line, fuse, print tables and keep the numbers."""
    parser = parse(__doc__)
    parser.add_argument("--ensembles", action="store_true", help="each run's second base is that of the next one")
    options = parser.parse_args()
    with messages():
        runs = open_runs(options.runs)
        seconds: list[FinishedRun | None] = [None] * len(runs)
        if options.ensembles:
            if len(runs) < 2:
                raise SegDREError("--ensembles: one run", "pass two or more, the seeds of one backbone")
            seconds = [*runs[1:], runs[0]]
        shared = os.path.commonpath([path.parent for path in options.runs])  # all names differ below it
        names = [os.path.relpath(run.path, shared) for run in runs]
        made = {name: measure(run, second) for name, run, second in zip(names, runs, seconds, strict=True)}
        found = summarise(made)
        name = "ensembles.json" if options.ensembles else "gate.json"
        (options.raw / name).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found).text())
    print(comparisons(found).text())


if __name__ == "__main__":
    main()

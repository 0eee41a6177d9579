"""The studies as data.

Table 4 of the paper is ``ablations``, Table 5 ``selection``, Figures 4 and 7 ``alpha``, Table 7 ``injection``;
``seeds`` is the main table over several seeds, with Figure 5. :mod:`segdre_plugin.analysis.study.rows` has the fields.
"""

from __future__ import annotations

from dataclasses import replace

from segdre_plugin.analysis.study.rows import STUDIES as NAMES
from segdre_plugin.analysis.study.rows import Column, Line, Reading, Row, Study, Training
from segdre_plugin.stages.strategies import get_strategy, strategy_names

TRAININGS = {
    "full": Training(),
    "random": Training(("--seg-salient", "random", "--seg-train-salient", "same"), shares=("base",)),
    "plain": Training(("--seg-alpha", "0"), shares=("base", "identify", "dense")),
    "linear": Training(("--seg-salient", "linear"), stage="identify", shares=("base",)),
    "partner": Training(stage="base"),
}


def _line(title: str, row: Row, note: str = "") -> Line:
    return Line(title, (row,), note)


FULL = Row("full")
BASE = Row("base", sources=("base",), thresholds="anchor")
BASE_TUNED = Row("base tuned", sources=("base",))
AVERAGE = Row("ensemble average", sources=("base",), ensemble="average")
UNION = Row("ensemble union", ensemble="union")

_BOTH = (
    Column("dev Ign-F1", "ign_f1"),
    Column("dev F1"),
    Column("test Ign-F1", "ign_f1", "test"),
    Column("test F1", split="test"),
)

_ENSEMBLES = (
    _line(
        "naive ensemble, average",
        AVERAGE,
        "two base models of different seeds: the mean of their margins, one threshold searched on dev",
    ),
    _line(
        "naive ensemble, union",
        UNION,
        "the same two base models in SegDRE's fusion: the second one replaces the dense and the sparse model, and "
        "three thresholds are searched on dev",
    ),
)

ABLATIONS = Study(
    "Ablations (the paper's Table 4)",
    (
        _line("SegDRE", FULL, "all stages, thresholds searched on dev"),
        _line(
            "w/o salient entity identification",
            Row("random", run="random"),
            "a random entity for the salient one, in training as well; dense and sparse model trained for it",
        ),
        _line("w/o dense", replace(FULL, name="no dense", sources=("base", "sparse")), "left out of the fusion only"),
        _line("w/o sparse", replace(FULL, name="no sparse", sources=("base", "dense")), "left out of the fusion only"),
        _line(
            "w/o knowledge injection",
            Row("no injection", run="plain"),
            "the sparse model is trained on the plain text and reads it (alpha 0)",
        ),
        _line(
            "w/o threshold grid search",
            replace(FULL, name="no search", thresholds="anchor"),
            "all three thresholds at their anchor, 0",
        ),
        *_ENSEMBLES,
        _line("base", BASE, "the backbone alone, at its own threshold"),
        _line("base, threshold tuned", BASE_TUNED, "the backbone alone, one threshold searched on dev"),
    ),
    _BOTH,
    comparisons=tuple((FULL.name, name) for name in ("random", "no dense", "no sparse", "no injection", "no search")),
)

STRATEGIES = {  # in the paper's order, and two that it does not have
    "linear": "Regression (linear)",
    "zip": "Regression (ZIP)",
    "aggregation": "Aggregation",
    "max-mention": "Max Mention",
    "edit-distance": "Edit Distance",
    "random": "Random",
    "gold": "Gold",
}


HEADS = {"linear": "linear"}  # strategies whose head is not that of the run "full"


def _strategy(name: str) -> tuple[Row, ...]:
    """Return the rows of a salient strategy: fused, the dense model on its pairs, the sparse model on its pairs."""
    fused = Row(name, reading=Reading(salient=name, head=HEADS.get(name, "full")))
    own = {kind: replace(fused, name=f"{name} {kind}", sources=(kind,), pairs=kind) for kind in ("dense", "sparse")}
    return fused, *(replace(row, thresholds="anchor") for row in own.values())


def selection_lines() -> tuple[Line, ...]:
    """Return a line for each strategy; registered ones join unless they want a head of their own trained."""
    others = {name: name for name in strategy_names() if name not in STRATEGIES and not get_strategy(name).head}
    return tuple(Line(title, _strategy(name)) for name, title in (STRATEGIES | others).items())


SELECTION = Study(
    "Selection of the salient entity (the paper's Table 5)",
    selection_lines(),
    (
        Column("accuracy", "accuracy"),
        Column("saliency", "saliency"),
        Column("dev F1"),
        Column("dense F1", row=1),
        Column("sparse F1", row=2),
        Column("sparse F1, gold entity", "gold_pairs_f1", row=2),
    ),
    remarks=(
        "The dense and the sparse model are trained once, with gold salient entities, as in the paper; only the choice "
        "of their checkpoints on dev has seen entities, those of the ZIP head. Both models read dev again with each "
        "strategy's entities, and thresholds are searched again.",
        "dense F1 and sparse F1: the stage's model alone on its own pairs, which depend on the strategy. The last "
        "column has the same predictions, and counts the triples on the sparse pairs of the gold salient entity: one "
        "reading of the paper's Table 5, in which sparse F1 falls where the entity is wrong.",
    ),
)

NOTHING = Row("alpha 0", reading=Reading(alpha=0.0), thresholds="run")


def _alpha(alpha: float) -> Line:
    """Return the rows of a share of the triples: those of the dense model, and those of the base model."""
    if alpha == 0:
        return Line("0", (NOTHING, NOTHING))
    rows = (
        Row(f"{triples} {alpha:g}", reading=Reading(triples=triples, alpha=alpha), thresholds="run")
        for triples in ("dense", "base")
    )
    return Line(f"{alpha:g}", tuple(rows))


ALPHA = Study(
    "Share of the injected triples (the paper's Figures 4 and 7)",
    tuple(_alpha(k / 10) for k in range(11)),
    (
        Column("dense: F1"),
        Column("dense: gain", over=NOTHING.name),
        Column("base: F1", row=1),
        Column("base: gain", row=1, over=NOTHING.name),
    ),
    remarks=(
        "dense: what the dense model predicts is injected; base: what the base model predicts on the same pairs. "
        "Only the sparse model's input changes; thresholds are those of the run.",
    ),
)


def _sparse(name: str, **what: object) -> Row:
    return replace(Row(name, sources=("sparse",), pairs="sparse", thresholds="anchor"), **what)  # type: ignore[arg-type]


INJECTION = Study(
    "What is injected (the paper's Table 7)",
    (
        _line(
            "ground truth", _sparse("gold", reading=Reading(triples="gold")), "the gold triples of the salient entity"
        ),
        _line("dense inference", _sparse("predicted"), "the dense model's predictions, as in the run"),
        _line(
            "original text",
            _sparse("plain", run="plain"),
            "another sparse model, trained on the plain text, which it reads",
        ),
        _line(
            "original text, same model",
            _sparse("unread", reading=Reading(alpha=0.0)),
            "the sparse model that was trained with branches reads the plain text",
        ),
    ),
    (Column("dev Ign-F1", "ign_f1"), Column("dev F1"), Column("dev P", "precision"), Column("dev R", "recall")),
    comparisons=(("predicted", "plain"), ("predicted", "unread"), ("gold", "predicted")),
    remarks=("The sparse model alone, on the sparse pairs of the salient entities that the run predicted.",),
)

_MAIN = (
    _line("base", BASE),
    _line("base, threshold tuned", BASE_TUNED),
    *(
        line
        for pairs in ("dense", "sparse")
        for line in (
            _line(f"{pairs} model on its pairs", Row(pairs, sources=(pairs,), pairs=pairs, thresholds="anchor")),
            _line(f"base on {pairs} pairs", replace(BASE, name=f"base on {pairs}", pairs=pairs)),
        )
    ),
    *_ENSEMBLES,
    _line("fused", FULL),
)

SEEDS = Study(
    "Mean and standard deviation over seeds, and what moved the thresholds (the paper's Figure 5)",
    _MAIN,
    tuple(
        Column(f"{split} {title}", metric, split)
        for split in ("dev", "test")
        for title, metric in (("Ign-F1", "ign_f1"), ("F1", "f1"), ("Intra-F1", "intra_f1"), ("Inter-F1", "inter_f1"))
    ),
    comparisons=tuple((FULL.name, row.name) for row in (BASE, BASE_TUNED, AVERAGE, UNION)),
    shifts=FULL.name,
    remarks=("shift: threshold of the grid search minus its anchor, 0.",),
)

_GOLD = Reading(triples="gold")


def on_pairs(pairs: str, title: str, row: Row) -> Line:
    """Return a row on some pairs only, its thresholds searched on these."""
    return Line(f"{pairs} pairs: {title}", (replace(row, name=f"{row.name} on {pairs}", pairs=pairs),))


DIAGNOSIS = Study(
    "Where the gain is lost",
    (
        _line("base, threshold tuned", BASE_TUNED),
        *_ENSEMBLES,
        _line("SegDRE", FULL),
        _line("SegDRE, margins averaged", replace(FULL, name="averaged", fusion="average")),
        _line("SegDRE, gold triples injected", Row("gold injected", reading=_GOLD)),
        _line("SegDRE, gold salient entities", Row("gold salient", reading=Reading(salient="gold"))),
        _line("SegDRE, both gold", Row("both gold", reading=replace(_GOLD, salient="gold")), "the ceiling of both"),
        *(
            on_pairs(pairs, title, row)
            for pairs in ("dense", "sparse")
            for title, row in (
                ("base", BASE_TUNED),
                ("ensemble, average", AVERAGE),
                (f"{pairs} model", Row("model", sources=(pairs,))),
                (f"base and {pairs} model", Row("fused")),
                (f"base and {pairs} model, averaged", Row("averaged", fusion="average")),
            )
        ),
        on_pairs(
            "sparse", "sparse model, gold triples injected", Row("model, gold", reading=_GOLD, sources=("sparse",))
        ),
        on_pairs(
            "sparse", "sparse model, plain text", Row("model, plain text", reading=NOTHING.reading, sources=("sparse",))
        ),
    ),
    (
        Column("dev F1"),
        Column("P", "precision"),
        Column("R", "recall"),
        Column("direction", "wrong_direction"),
        Column("relation", "wrong_relation"),
        Column("pair", "wrong_pair"),
        Column("missed: relation", "missed_relation"),
        Column("missed: pair", "missed_pair"),
    ),
    remarks=(
        "Thresholds of every line are searched on dev for the pairs of that line. Dense and sparse pairs are those of "
        "the salient entities that the run predicted, and of gold ones where a line says so.",
        "direction, relation, pair: shares of the predictions whose pair has the relation in the other direction, has "
        "other relations, or has none. missed: shares of the gold triples on whose pair something else, or nothing, is "
        "predicted.",
    ),
)

STUDIES = dict(zip(NAMES, (ABLATIONS, SELECTION, ALPHA, INJECTION, SEEDS, DIAGNOSIS), strict=True))

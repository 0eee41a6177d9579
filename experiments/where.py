"""Where SegDRE wins and where it loses: finished runs beside their tuned bases, by part of the test triples.

python experiments/where.py OUT/*/out        # finished runs (--seg-dir); nothing is trained

Parts are: pairs that some sentence mentions together or not; relations by their triples in train; documents by their
entities, in thirds; and pairs by their distance from the gold salient entity (1 hop: it is head or tail; 2 hops: an
entity that has a gold triple with it is). A wrong prediction counts in the part of its own pair and relation. Several
runs of the same documents are counted together; intervals are those of a paired bootstrap over documents.
"""

from __future__ import annotations

import argparse
import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from plan import RAW

from segdre_plugin.analysis.comparison import compare, distinct
from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.tables import Cell, Table
from segdre_plugin.data.files import read_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.metrics import FREQUENCIES, has_gold, is_intra
from segdre_plugin.salient import gold_salient
from segdre_plugin.seg.launch import messages
from segdre_plugin.vocabulary import Document, Triple, labels

Part = Callable[[Document, Triple], str]
Counts = dict[str, list[int]]  # title -> correct, predicted and gold triples
DISTANCES = ("1 hop from the salient entity", "2 hops", "further")


def distance(document: Document, triple: Triple) -> str:
    """Return how far a pair is from the gold salient entity."""
    salient = gold_salient(document)
    ends = {triple.head, triple.tail}
    if salient in ends:
        return DISTANCES[0]
    near = {e for label in labels(document) for e in (label["h"], label["t"]) if salient in (label["h"], label["t"])}
    return DISTANCES[1] if ends & near else DISTANCES[2]


def ways(train: Sequence[Document], test: Sequence[Document]) -> dict[str, tuple[Sequence[str], Part]]:
    """Return the ways of dividing triples: name -> the names of the parts, and a function that names a triple's."""
    seen = Counter(label["r"] for document in train for label in labels(document))
    ends = np.quantile([len(document["vertexSet"]) for document in test], [1 / 3, 2 / 3]).round().astype(int).tolist()
    sizes = [f"up to {ends[0]} entities", f"{ends[0] + 1} to {ends[1]} entities", f"more than {ends[1]} entities"]
    most, *others = FREQUENCIES
    counted = [f"relations with {most} or more triples in train"]
    counted += [f"{low} to {above - 1}" if low else "none" for above, low in pairwise([most, *others])]

    def frequency(document: Document, triple: Triple) -> str:
        return counted[next(k for k, least in enumerate(FREQUENCIES) if seen[triple.relation] >= least)]

    def sentences(document: Document, triple: Triple) -> str:
        return "intra" if is_intra(document, triple.head, triple.tail) else "inter"

    def size(document: Document, triple: Triple) -> str:
        return sizes[bisect_left(ends, len(document["vertexSet"]))]

    return {
        "sentences": (("intra", "inter"), sentences),
        "frequency": (counted, frequency),
        "entities": (sizes, size),
        "distance": (DISTANCES, distance),
    }


def divide(
    predictions: Sequence[Mapping[str, Any]], documents: Sequence[Document], names: Sequence[str], part: Part
) -> dict[str, Counts]:
    """Return the counts of predictions by part and title; all parts and titles are there."""
    by_title = {document["title"]: document for document in documents}
    gold, predicted = distinct(predictions, documents)
    found: dict[str, Counts] = {name: {title: [0, 0, 0] for title in by_title} for name in names}
    for k, triples in enumerate((gold & predicted, predicted, gold)):
        for title, triple in triples:
            found[part(by_title[title], triple)][title][k] += 1
    return found


def open_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """Open finished runs that share their test documents.

    Args:
        paths: their folders.

    Returns:
        The runs.

    Raises:
        SegDREError: if one is not finished, has no test split with gold, or has another dev or test split than
            the first one.
    """
    runs = [FinishedRun(path) for path in paths]
    for run in runs:
        run.require_finished()
        if "test" not in run.documents or not has_gold(run.documents["test"]):
            raise SegDREError(f"{run.path}: no test split with gold", "pass runs with one")
        for split in ("dev", "test"):
            if run.sources["hashes"][split] != runs[0].sources["hashes"][split]:
                raise SegDREError(
                    f"{run.path}: another {split} file than that of {runs[0].path}", "pass runs that share it"
                )
    return runs


def measure(run: FinishedRun) -> dict[str, dict[str, dict[str, Counts]]]:
    """Return the counts of a finished run's tuned base and fused predictions on test: way -> row -> part -> counts."""
    scored = run.scored("test")
    base = scored.tables["base"]
    rows = {
        "base": scored.official(base.take(base.margin > run.tau_base_alone)),
        "fused": read_json(run.path / "result.json", "predictions"),
    }
    documents = scored.split.documents
    return {
        way: {row: divide(predictions, documents, *how) for row, predictions in rows.items()}
        for way, how in ways(run.train, documents).items()
    }


def summarise(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Add several runs up: way -> part with gold -> F1 of fused and base, their difference, and the gold triples."""
    result: dict[str, dict[str, Any]] = {}
    for way, rows in runs[0].items():
        for name in rows["base"]:
            sums = {row: add([run[way][row][name] for run in runs]) for row in rows}
            n_gold = sum(counts[2] for counts in sums["base"].values())
            if n_gold:
                result.setdefault(way, {})[name] = vars(compare(sums["fused"], sums["base"])) | {"n_gold": n_gold}
    return result


def add(each: Sequence[Mapping[str, Sequence[int]]]) -> Counts:
    """Add the counts of several runs up by title."""
    total: Counts = {}
    for counts in each:
        for title, row in counts.items():
            total[title] = [a + b for a, b in zip(total.get(title, [0, 0, 0]), row, strict=True)]
    return total


def table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """Make the table of :func:`summarise`'s results."""
    columns = ["base, tuned", "SegDRE", "difference", "95 % from", "to", "share of gold (%)"]
    lines = []
    for parts in found.values():
        n = sum(own["n_gold"] for own in parts.values())
        for name, own in parts.items():
            fused, base = own["f1"]
            signed = [Cell([100 * own[key]], signed=True) for key in ("difference", "low", "high")]
            share = Cell([100 * own["n_gold"] / n], decimals=0)
            lines.append((name, [Cell([100 * base]), Cell([100 * fused]), *signed, share]))
    return Table("test F1 (%)", columns, lines)


def parse(description: str | None) -> argparse.ArgumentParser:
    """Make a parser of finished runs and of the folder of raw results."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the JSON that is written (experiments/raw)")
    return parser


def main() -> None:
    """Read the command line, divide, print a table and keep the numbers."""
    options = parse(__doc__).parse_args()
    with messages():
        found = summarise([measure(run) for run in open_runs(options.runs)])
        (options.raw / "where.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(table(found).text())


if __name__ == "__main__":
    main()

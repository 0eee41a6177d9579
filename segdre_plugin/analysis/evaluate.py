"""``segdre evaluate``: predictions against gold, or against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segdre_plugin.analysis.comparison import Comparison, compare, count
from segdre_plugin.data.documents import load_gold
from segdre_plugin.data.files import check_output, write_json
from segdre_plugin.data.stream import Broken, read_values
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.metrics import by_frequency, by_relation, curve_of, evaluate, has_gold
from segdre_plugin.vocabulary import Document, is_na, labels


def load_predictions(path: Path) -> list[dict[str, Any]]:
    """Return predictions in the official format, or those of the lines that ``segdre predict`` writes.

    Args:
        path: a JSON list of triples, or JSONL of triples or of documents with their ``triples``.

    Raises:
        SegDREError: if it cannot be read, or a line is broken.
    """
    rows: list[Any] = []
    problems = []
    for i, value in enumerate(read_values(path, "predictions")):
        if isinstance(value, Broken):
            problems.append(f"line {i}: {value.reason}")
        elif isinstance(value, dict) and isinstance(value.get("triples"), list):
            for k, triple in enumerate(value["triples"]):
                if isinstance(triple, dict):
                    rows.append(triple | {"title": value.get("title")})
                else:
                    problems.append(f"line {i}: triples[{k}]: expected an object, got {type(triple).__name__}")
        else:
            rows.append(value)
    raise_all(problems, f"{path}: {len(problems)} broken lines or triples", "write the file again")
    return rows


def remarks(rows: Sequence[Mapping[str, Any]], documents: Sequence[Document]) -> list[str]:
    """Return a line for each way in which well-formed predictions cannot be right, whatever a model knows.

    Raises:
        SegDREError: if no prediction is of a document with gold.
    """
    titles = {document["title"] for document in documents}
    relations = {label["r"] for document in documents for label in labels(document)}
    strangers = [row["title"] for row in rows if row["title"] not in titles]
    if rows and len(strangers) == len(rows):
        raise SegDREError(
            f"no prediction is of a document with gold: their titles are such as {strangers[0]!r}, "
            f"those of the documents such as {documents[0]['title']!r}",
            "pass the gold of the same split, or predictions with its titles",
        )
    unknown = [row["r"] for row in rows if row["r"] not in relations]
    found = {
        "titles that no document has (is some of it another split?)": strangers,
        "a relation that no label has (names in place of ids?)": [r for r in unknown if not is_na(r)],
        "the relation NA (leave these rows out)": [r for r in unknown if is_na(r)],
    }
    return [
        f"{len(values)} of {len(rows)} predictions have {what}, such as {values[0]!r}: they count as wrong"
        for what, values in found.items()
        if values
    ]


def run(
    predictions: Path,
    gold: Path,
    train: Path | None = None,
    other: Path | None = None,
    output: Path | None = None,
    relations: bool = False,
) -> dict[str, Any]:
    """Score one or two files of predictions, print a table and write JSON.

    Args:
        predictions: the file.
        gold: DocRED documents with labels.
        train: train documents, whose facts Ign-F1 leaves out, and in which frequencies of relations are counted.
        other: other predictions of the same documents, to compare with.
        output: where the numbers are written as JSON.
        relations: whether the scores of each relation are printed, too.

    Returns:
        The numbers, as written; without gold only that.

    Raises:
        SegDREError: if a file cannot be read or written, is malformed, or has predictions of other documents only.
    """
    if output:
        check_output("--json", output, [path for path in (predictions, gold, train, other) if path])
    documents = load_gold(gold)
    known = load_gold(train) if train else None
    systems = {str(path): load_predictions(path) for path in (predictions, other) if path is not None}
    if other is not None and len(systems) == 1:
        raise SegDREError(f"--compare {other}: these are the predictions themselves", "pass another file")
    report: dict[str, Any] = {"gold": has_gold(documents), "documents": len(documents), "train": train is not None}
    report["evidence"] = any(isinstance(row, dict) and "evidence" in row for rows in systems.values() for row in rows)
    if report["gold"]:
        report["scores"] = {name: evaluate(rows, documents, known) for name, rows in systems.items()}
        report["remarks"] = {name: remarks(rows, documents) for name, rows in systems.items()}
        report["curves"] = {name: _curve(rows, documents) for name, rows in systems.items()}
        report["relations"] = {name: by_relation(rows, documents, known) for name, rows in systems.items()}
        if known is not None:
            report["frequencies"] = {name: by_frequency(own) for name, own in report["relations"].items()}
        if other is not None:
            first, second = (count(rows, documents) for rows in systems.values())
            report["comparison"] = asdict(compare(first, second))
    if output:
        write_json(output, report)
    print_report(report, gold, relations)
    return report


def _curve(rows: Sequence[Mapping[str, Any]], documents: Sequence[Document]) -> dict[str, Any]:
    """Return the curve of well-formed predictions; in its place how many have no score, if there are such."""
    unscored = sum(row.get("score") is None for row in rows)
    return {"unscored": unscored} if unscored else curve_of(rows, documents).summary()


def print_report(report: Mapping[str, Any], gold: Path, relations: bool = False) -> None:
    """Print the numbers of :func:`run`, those of each relation only on request."""
    from segdre_plugin.seg.score_table import COLUMNS, EVIDENCE_COLUMNS  # nothing of a run is needed before

    if not report["gold"]:
        print(f"no gold: no document of {gold} has labels, so there is nothing to compare with")
        return
    columns = COLUMNS | (EVIDENCE_COLUMNS if report["evidence"] else {})
    names: Sequence[str] = list(report["scores"])
    width = max(20, *(len(name) + 2 for name in names))
    print(f"{str(report['documents']) + ' documents (%)':<{width}}" + "".join(f"{title:>10}" for title in columns))
    for name, scores in report["scores"].items():
        print(f"{name:<{width}}" + "".join(f"{100 * scores[key]:10.2f}" for key in columns.values()))
    for name, scores in report["scores"].items():
        for line in report["remarks"][name]:
            print(f"{name}: {line}")
        print(f"{name}: {scores['n_predicted']} predicted, {scores['n_gold']} gold, {scores['n_correct']} correct")
        print(f"{name}: {_in_words(report['curves'][name], scores)}")
    if not report["train"]:
        print("Ign-F1: no train documents given (--train), so no fact is left out, and frequencies are not known")
    if "comparison" in report:
        print(sentence(Comparison(**report["comparison"]), names))
    counts = {"correct": "n_correct", "predicted": "n_predicted", "gold": "n_gold"}
    if "frequencies" in report:
        columns = {"F1 (%)": "f1", "macro (%)": "macro_f1", "relations": "n_relations"} | counts
        _print_tables("train triples", columns, report["frequencies"], width)
    if relations:
        columns = {"F1 (%)": "f1"} | counts | ({"train": "n_train"} if report["train"] else {})
        _print_tables("relation", columns, report["relations"], width)


def _in_words(curve: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    if "unscored" in curve:
        return f"no curve: {curve['unscored']} of the predictions have no 'score' to rank them by"
    return f"area under precision over recall {100 * curve['area']:.2f} %, up to recall {100 * scores['recall']:.2f} %"


def _print_tables(
    title: str, columns: Mapping[str, str], found: Mapping[str, Mapping[str, Mapping[str, float]]], width: int
) -> None:
    """Print a table for each system: rows of scores (floats, in percent) and counts under the names of columns."""
    for name, rows in found.items():
        print(f"\n{name}\n{title:<{width}}" + "".join(f"{column:>10}" for column in columns))
        for row, scores in rows.items():
            values = (scores[key] for key in columns.values())
            texts = (f"{100 * value:10.2f}" if isinstance(value, float) else f"{value:10}" for value in values)
            print(f"{row:<{width}}" + "".join(texts))


def sentence(found: Comparison, names: Sequence[str]) -> str:
    """Return a comparison as a sentence."""
    difference, low, high = found.points
    return (
        f"F1 of {names[0]} - F1 of {names[1]}: {difference:+.2f} points, "
        f"{100 * found.confidence:.0f} % confidence interval [{low:+.2f}, {high:+.2f}] "
        f"(paired bootstrap), p = {found.p_value:.4f} (paired permutation test); "
        f"{found.documents} documents, {found.resamples} resamples, seed {found.seed}"
    )

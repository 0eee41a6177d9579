"""Can SegDRE teach the base? A base that goes on with documents that SegDRE has labelled.

python experiments/distilled.py OUT --data DIR --encoder DIR --backbone atlop --recipe few-from-base --seeds 66 \
    --unlabelled docred_test.json

The finished run predicts the unlabelled documents with the fewest entities (--size), and the base is trained on, as
longer.py does it, with train and these documents together. Beside it stand the base, one that goes on with train alone
(longer.py's) and SegDRE. One model in place of four is what there would be to gain.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from documents import fewest
from longer import AllPairsRun
from probe import arguments, main, probe
from run import Experiments

from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.results import Results
from segdre_plugin.analysis.study.rows import Line, Row, Study
from segdre_plugin.analysis.study.score_row import score
from segdre_plugin.analysis.study.studies import BASE_TUNED, FULL, SEEDS
from segdre_plugin.data.documents import load_documents
from segdre_plugin.data.files import fingerprint, read_json, write_json
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.margins import Margins
from segdre_plugin.vocabulary import Document

LABELLED = "labelled-{}.json"  # beside the probes, by seed


def label(documents: list[Document], predictions: list[Mapping[str, Any]]) -> list[Document]:
    """Return documents with predictions in the official format as their labels; those without any are left out."""
    own: dict[str, list[dict[str, Any]]] = {document["title"]: [] for document in documents}
    for row in predictions:
        own[row["title"]].append({"h": row["h_idx"], "t": row["t_idx"], "r": row["r"], "evidence": []})
    return [dict(document) | {"labels": own[document["title"]]} for document in documents if own[document["title"]]]


def unlabelled_documents(path: Path, size: int, data: Path) -> list[Document]:
    """Return the documents of a file that have the fewest entities.

    Raises:
        SegDREError: if there are not so many, or one is a document of dev or test.
    """
    documents = fewest(path, size)
    judged = {document["title"] for split in ("dev.json", "test.json") for document in load_documents(data / split)}
    problems = [
        f"{document['title']!r}: a document of dev or test" for document in documents if document["title"] in judged
    ]
    raise_all(problems, str(path), "leave them out", limit=5)
    return documents


def keep_documents(path: Path, documents: list[Document]) -> None:
    """Write the documents that runs label; what they have labelled is kept, so that these stay the same.

    Raises:
        SegDREError: if there are others.
    """
    if path.is_file() and read_json(path, "unlabelled documents") != documents:
        raise SegDREError(
            f"{path}: other documents have been labelled", "take the same file and --size, or another OUT"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, documents)


class DistilledRun(AllPairsRun):
    """A run whose stage dense has all pairs, of train and of documents that the run itself has labelled."""

    def __init__(self, *how: Any) -> None:
        super().__init__(*how)
        path = self.store.root.parent / LABELLED.format(self.args.seed)
        self.way = MappingProxyType({"pairs": "all", "labelled": fingerprint(path)})
        train = self.splits["train"]
        train.documents = [*train.documents, *read_json(path, "labelled documents")]


ROWS = {
    "longer": Row("longer", sources=("base",), ensemble="second"),
    "distilled": Row("distilled", sources=("base",), ensemble="second"),
}
DISTILLED = Study(
    "A base that SegDRE has taught",
    (
        Line("base", (BASE_TUNED,)),
        Line("base, trained for longer", (ROWS["longer"],)),
        Line("base, trained for longer with documents that SegDRE has labelled", (ROWS["distilled"],)),
        Line("SegDRE", (FULL,)),
    ),
    SEEDS.columns,
    comparisons=(("distilled", BASE_TUNED.name), ("distilled", "longer"), ("distilled", FULL.name)),
)


def predict(experiments: Experiments, backbone: str, run: Path, documents: Path, target: Path) -> None:
    """Predict documents with a finished run."""
    bundle = target.with_suffix(".bundle")
    if not bundle.is_dir():
        subprocess.run(["segdre", "bundle", str(run), str(bundle)], cwd=experiments.clone(backbone), check=True)
    clone = experiments.clone(backbone)
    command = ["segdre", "predict", str(bundle), "--input", str(documents), "--output", str(target)]
    subprocess.run([*command, "--format", "official", "--clone", str(clone)], check=True)


def measure(
    experiments: Experiments, backbone: str, recipe: str, seeds: list[int], unlabelled: Path, size: int
) -> Results:
    """Label, train what is not there, and score.

    Args:
        experiments: where runs are.
        backbone: which one.
        recipe: which one; its runs ``full`` must be finished.
        seeds: the runs'.
        unlabelled: file of documents.
        size: how many of them are taken.

    Returns:
        The scores of every row.
    """
    folder = experiments.folder(backbone, recipe) / "probes"
    documents = unlabelled_documents(unlabelled, size, experiments.data)
    source = folder / "unlabelled.json"
    keep_documents(source, documents)
    runs, made = {}, {}
    for seed in seeds:
        runs[seed] = FinishedRun(experiments.runs(backbone, recipe).path("full", seed))
        labelled = folder / LABELLED.format(seed)
        if not labelled.is_file():
            predicted = folder / f"predicted-{seed}.json"
            predict(experiments, backbone, runs[seed].path, source, predicted)
            write_json(labelled, label(documents, read_json(predicted, "predictions")))
        where = (experiments, backbone, recipe, seed)
        made["longer", seed] = probe(*where, name="longer", kind=AllPairsRun, stage="dense").root
        made["distilled", seed] = probe(*where, name="distilled", kind=DistilledRun, stage="dense").root
    return score_runs(runs, made)


def score_runs(runs: Mapping[int, FinishedRun], made: Mapping[tuple[str, int], Path]) -> Results:
    """Score finished runs beside the bases that were trained on; ``made`` has their folders by row and seed."""

    def partner(row: str, seed: int) -> Any:
        def margins(split: str) -> Margins:
            return RunFolder(made[row, seed]).margins("dense", split)

        return margins

    scores = {
        name: {seed: score(row, run, partner(name, seed), DISTILLED.splits) for seed, run in runs.items()}
        for name, row in DISTILLED.rows.items()
    }
    return Results(DISTILLED, tuple(runs), scores, {})


if __name__ == "__main__":
    options = arguments(__doc__)
    options.add_argument("--unlabelled", type=Path, required=True, help="a file of documents; labels are not read")
    options.add_argument("--size", type=int, default=100, help="how many of them, those with the fewest entities (100)")
    main(__doc__, measure, options)

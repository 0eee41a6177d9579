"""A data set that is not DocRED through ATLOP: two relations, null evidence, candidate pairs by type (CDR's form)."""

import json
import random

import numpy as np
import pytest
from locate import copy_clone
from processes import SEGDRE, python
from seg_runs import make_encoder

from segdre_plugin.cli import main
from segdre_plugin.data.synthetic.corpus import generate
from segdre_plugin.seg.run_folder import RunFolder

pytestmark = [pytest.mark.upstream, pytest.mark.slow]

STAGES = ("base", "dense", "sparse")
NAMES = {"CID": "induces", "NR": "no relation"}
PAIRS = ("--seg-pairs", "CHEM:DISE", "DISE:CHEM")
TYPES = {frozenset(("CHEM", "DISE"))}


def foreign(n, seed):
    """Documents as a stranger's data set spells them: a title that is a number, two types, null evidence."""
    rng = random.Random(seed)
    found = []
    for i, document in enumerate(generate(n, seed)):
        types = [("CHEM", "DISE")[e % 2] for e in range(len(document["vertexSet"]))]
        entities = [[m | {"type": t} for m in own] for own, t in zip(document["vertexSet"], types, strict=True)]
        pairs = [(h, t) for h, a in enumerate(types) for t, b in enumerate(types) if a != b]
        labels = [{"r": rng.choice(["CID", "NR"]), "h": h, "t": t, "evidence": [None]} for h, t in rng.sample(pairs, 3)]
        if i == 0:  # gold on another pair still counts
            labels.append({"r": "CID", "h": 0, "t": 2, "evidence": [None]})
        found.append(document | {"title": 1000 * seed + i, "vertexSet": entities, "labels": labels})
    return found


class Place:
    """An unpatched clone with such documents, fixed, and an encoder."""

    def __init__(self, original, folder):
        self.folder = folder
        copy_clone(original, folder)
        for name in ("meta", "data"):
            (folder / name).mkdir()
        (folder / "meta" / "rel2id.json").write_text(json.dumps({"CID": 1, "NR": 2, "Na": 0}))
        (folder / "data" / "rel_info.json").write_text(json.dumps(NAMES))
        documents = []
        for name, n, seed in (("train_annotated", 16, 1), ("dev", 8, 2), ("test", 8, 3)):
            raw, fixed = folder / f"{name}.json", folder / "data" / f"{name}.json"
            raw.write_text(json.dumps(foreign(n, seed)))
            assert main(["validate", str(raw)]) == 2  # negative control: it is needed
            assert main(["validate", str(raw), "--fix", str(fixed), "--rel2id", str(folder / "meta/rel2id.json")]) == 0
            documents += json.loads(fixed.read_text())
        make_encoder(folder / "bert", documents, NAMES, "bert")

    def documents(self, split):
        return json.loads((self.folder / "data" / f"{split}.json").read_text())

    def seg(self, out, *more):
        """Run all stages for an epoch; return what ended it, and what it printed."""
        own = {"data_dir": "data", "transformer_type": "bert", "model_name_or_path": "bert", "num_class": 3}
        own |= {"num_labels": 3, "train_batch_size": 4, "test_batch_size": 4, "num_train_epochs": 1}
        own |= {"learning_rate": 1e-3, "seg-identify-epochs": 1, "seg-hidden": 16, "seg-dir": out}
        flags = [str(part) for name, value in own.items() for part in (f"--{name}", value)]
        return python([*SEGDRE, "run", "train.py", "--", *flags, "--seg", *more], cwd=self.folder)


@pytest.fixture(scope="module")
def place(atlop, tmp_path_factory):
    return Place(atlop, tmp_path_factory.mktemp("pairs") / "ATLOP")


def impossible(rows, documents):
    """Count the pairs (document, h, t) with other types than those that are asked for."""
    types = [[own[0]["type"] for own in document["vertexSet"]] for document in documents]
    return sum(frozenset((types[d][h], types[d][t])) not in TYPES for d, h, t in rows)


def scored(run, stage, documents):
    """Count the cells that a stage scored on test, and those of other types."""
    cells = run.margins(stage, "test", documents, 3)
    rows = list(zip(cells.document.tolist(), cells.head.tolist(), cells.tail.tolist(), strict=True))
    return len(rows), impossible(rows, documents)


@pytest.mark.parametrize("more", [(), PAIRS])
def test_to_the_end(place, more):
    out = "typed" if more else "all"
    result = place.seg(out, *more)
    assert result.returncode == 0, result.stderr[-3000:]
    lines = [f"segdre: 1 of {n} gold triples of {s} are on other pairs" for s, n in (("train", 49), ("dev", 25))]
    assert all((line in result.stdout) == bool(more) for line in lines)
    run, documents = RunFolder(place.folder / out), place.documents("test")
    for stage in STAGES:
        cells, strange = scored(run, stage, documents)
        assert cells
        assert (strange == 0) == bool(more)  # negative control: without the option the other pairs are scored
    place_of = {document["title"]: d for d, document in enumerate(documents)}
    predicted = [(place_of[row["title"]], row["h_idx"], row["t_idx"]) for row in run.result("test")]
    assert not more or impossible(predicted, documents) == 0
    counts = run.counts("test", documents)
    rows = [(int(d), int(h), int(t)) for d, (h, t) in zip(counts["document"], counts["pair"], strict=True)]
    assert (impossible(rows, documents) == 0) == bool(more)
    assert run.config.pairs == tuple(sorted(more[1:]))
    assert np.isfinite(counts["count"]).all()


def test_prediction_keeps_to_the_pairs_and_names_documents_without_types(place, tmp_path):
    out = place.folder / "typed"
    if not out.exists():
        assert place.seg("typed", *PAIRS).returncode == 0
    assert main(["bundle", str(out), str(tmp_path / "bundle")]) == 0
    documents = place.documents("test")
    del documents[1]["vertexSet"][2][0]["type"]
    documents[1]["vertexSet"][2] = documents[1]["vertexSet"][2][:1]
    for mentions in documents[2]["vertexSet"]:  # no candidate pair
        mentions[:] = [mention | {"type": "CHEM"} for mention in mentions]
    (tmp_path / "in.json").write_text(json.dumps(documents))
    where = [str(tmp_path / "bundle"), "--clone", str(place.folder), "--input", str(tmp_path / "in.json")]
    assert main(["predict", *where, "--output", str(tmp_path / "out.jsonl"), "--on-error", "skip"]) == 0
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [one["title"] for one in answers] == [d["title"] for i, d in enumerate(documents) if i != 1]
    assert (answers[1]["salient"], answers[1]["triples"]) == (None, [])
    rejected = (tmp_path / "out.jsonl.rejected.jsonl").read_text()
    assert "vertexSet[2]: expected a type" in rejected
    assert rejected.count("\n") == 1


def test_a_type_that_is_not_there(place):
    result = place.seg("strange", "--seg-pairs", "Chemical:DISE")
    assert result.returncode == 2
    assert "no entity of type Chemical in data/train_annotated.json" in result.stderr
    assert "-> types there: CHEM, DISE" in result.stderr
    assert not (place.folder / "strange").exists()


def test_a_finished_run_is_not_continued_with_other_pairs(place):
    if not (place.folder / "typed").exists():
        assert place.seg("typed", *PAIRS).returncode == 0
    result = place.seg("typed")
    assert result.returncode == 2
    assert "pairs" in result.stderr
    assert "is done" in place.seg("typed", PAIRS[0], *PAIRS[:0:-1]).stdout  # the order of the pairs means nothing

"""A finished ``--seg`` run without any training: generated documents, random margins, the real stage fuse."""

import json
from pathlib import Path

import numpy as np

from segdre_plugin.data.files import fingerprint, write_arrays, write_json
from segdre_plugin.data.splits import Split
from segdre_plugin.data.synthetic.corpus import RELATIONS, generate, rel2id
from segdre_plugin.salient import gold_salient, saliency
from segdre_plugin.seg.fuse import fuse
from segdre_plugin.seg.options import parse
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.artifacts import PROVENANCE
from segdre_plugin.stages.margins import Margins

MADE = {
    "command": "python train.py --seg --seg-dir out",
    "date": "2026-11-01T12:00:00+00:00",
    "seconds": 75.0,
    "processes": 1,
    "machine": {"system": "Linux 6.1", "processor": "a processor", "cores": 2, "threads": 1, "gpu": None},
    "versions": {"segdre_plugin": "0", "torch": "2", "transformers": "5", "numpy": "2", "python": "3.12"},
}
ARGUMENTS = {"num_train_epochs": 30.0, "learning_rate": 5e-5}
IDENTIFY = {"identify_epochs": 10, "new_layer_lr": 1e-3}
SIZES = {"train": 6, "dev": 12, "test": 5}


def make_documents(seed=0, sizes=SIZES) -> dict[str, list]:
    """Documents of the three splits, all titles different."""
    documents = generate(sum(sizes.values()), seed)
    ends = np.cumsum(list(sizes.values()))
    return {name: documents[end - size : end] for (name, size), end in zip(sizes.items(), ends, strict=True)}


def make_run(root: Path, documents=None, *, names=RELATIONS, evidence=False, options=(), sparse=None, seed=0) -> Path:
    """Write data and a run's folder; gives the folder.

    Args:
        root: an empty folder.
        documents: split name -> documents; test may be missing or without labels.
        names: relation id -> name.
        evidence: whether the margins have an evidence column, as DREEAM's.
        options: further options of ``--seg``.
        sparse: options in the settings of stage sparse.
        seed: of the margins.
    """
    documents = documents or make_documents()
    data, out = root / "data", root / "out"
    for folder in (data, *(out / stage for stage in ("base", "identify", "dense", "sparse"))):
        folder.mkdir(parents=True)
    classes, rng = rel2id(), np.random.default_rng(seed)
    files = {"rel2id": data / "rel2id.json", "rel_info": data / "rel_info.json"}
    write_json(files["rel2id"], classes)
    write_json(files["rel_info"], names)
    splits, salient, injected, scores = {}, {}, {}, {}
    for name, split in documents.items():
        files[name] = data / f"{name}.json"
        write_json(files[name], split)
        splits[name] = Split(name, files[name], split)
        if name == "train":
            continue
        salient[name] = [predict_salient(document, rng) for document in split]
        scores[name] = saliency(split, salient[name]) if splits[name].has_gold else {}
        tables = random_margins(split, salient[name], classes, rng, evidence)
        for stage, arrays in tables.items():
            write_arrays(out / stage / f"margins_{name}.npz", arrays)
        pairs = [(d, h, t) for d, doc in enumerate(split) for h, t in all_pairs(doc)]
        arrays = {"document": np.array(pairs)[:, 0], "pair": np.array(pairs)[:, 1:], "count": rng.random(len(pairs))}
        write_arrays(out / "identify" / f"counts_{name}.npz", arrays)
        injected[name] = {
            "left_out": 0,
            "triples": best_triples(Margins.load(out / "dense" / f"margins_{name}.npz"), len(split), classes),
        }
    chains = {name: [[] if one is None else [one] for one in part] for name, part in salient.items()}
    write_json(out / "identify" / "salient.json", chains)
    write_json(out / "identify" / "metrics.json", scores)
    write_json(out / "sparse" / "injected.json", injected)
    for stage in ("base", "identify", "dense", "sparse"):
        own = (sparse or {}) if stage == "sparse" else IDENTIFY if stage == "identify" else {}
        write_json(
            out / stage / "settings.json",
            {"arguments": ARGUMENTS | {"seed": seed}, "data": {}, "modules": {}, "options": own},
        )
        write_json(out / stage / PROVENANCE, MADE)
    chosen, _ = parse(["--seg", "--seg-dir", str(out), *options])
    fuse(RunFolder(out), splits, classes, chosen)
    hashes = {name: fingerprint(path) for name, path in files.items()}
    sources = {"adapter": "atlop", "checkpoint": "{folder}/checkpoint.pt", "checkpoint_key": None}
    sources |= {"rel2id": classes, "relation_names": names}
    write_json(out / "run.json", sources | {"files": {k: str(v) for k, v in files.items()}, "hashes": hashes})
    return out


def predict_salient(document, rng) -> int | None:
    """The gold entity, or by chance another one; none where there is no pair."""
    n = len(document["vertexSet"])
    if n < 2:
        return None
    return gold_salient(document) or 0 if rng.random() < 0.7 else int(rng.integers(n))


def all_pairs(document) -> list[tuple[int, int]]:
    n = len(document["vertexSet"])
    return [(h, t) for h in range(n) for t in range(n) if h != t]


def random_margins(documents, salient, classes, rng, evidence) -> dict[str, dict[str, np.ndarray]]:
    """Two cells a pair, and the gold ones, for each stage's own pairs; gold margins are higher."""
    rows = {"base": [], "dense": [], "sparse": []}
    for d, document in enumerate(documents):
        gold = {(label["h"], label["t"], classes[label["r"]]) for label in document.get("labels", [])}
        for h, t in all_pairs(document):
            others = rng.choice(np.arange(1, len(classes)), 2, replace=False).tolist()
            for r in sorted({*others, *(r for a, b, r in gold if (a, b) == (h, t))}):
                for stage in ("base", "dense" if salient[d] in (h, t) else "sparse"):
                    rows[stage].append((d, h, t, r, rng.normal(0.5 if (h, t, r) in gold else -3, 1.5)))
    tables = {}
    for stage, cells in rows.items():
        *integers, margin = map(np.array, zip(*cells, strict=True))
        tables[stage] = dict(zip(("document", "head", "tail", "relation"), integers, strict=True)) | {"margin": margin}
        if evidence:
            tables[stage]["evidence"] = rng.random((len(margin), 8)) < 0.2
    return tables


def best_triples(dense: Margins, n_documents: int, classes) -> list[list]:
    names = {i: name for name, i in classes.items()}
    found = [[] for _ in range(n_documents)]
    for k in np.argsort(-dense.margin, kind="stable"):
        if dense.margin[k] > 0:
            found[dense.document[k]].append([int(dense.head[k]), names[int(dense.relation[k])], int(dense.tail[k])])
    return found


def rewrite(path: Path, change) -> None:
    """Change a JSON file."""
    value = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(value)), encoding="utf-8")

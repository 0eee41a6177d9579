"""How much do the dense triples of a document tell about its sparse ones? A ceiling of what injection can bring.

python experiments/information.py OUT --data DIR --encoder DIR --backbone atlop --recipe from-base --seeds 66 67 68

No network is trained. For a sparse pair (h, t) the context is what the salient entity has to do with h and with t: the
relations of the dense triples, with their directions. From the train documents, each relation gets smoothed log-odds

    log P(r | types of h and t, context) - log P(r | types of h and t)

and a share of them is added to the base model's margins of sparse pairs. Share and threshold are tuned on dev and
applied to test, with gold dense triples and with those that the run predicted; the base model alone, its threshold
tuned in the same way, is listed beside. What gold triples add this way is what injection could add at least.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from plan import plan_of
from probe import arguments
from run import Experiments

from segdre_plugin.analysis.study.finished_run import FinishedRun
from segdre_plugin.analysis.study.tables import Cell, Table
from segdre_plugin.salient import Chain, gold_chain
from segdre_plugin.seg.launch import messages
from segdre_plugin.stages.branches import Triple, gold_dense_triples
from segdre_plugin.stages.candidates import count_entities, dense_flags, gold_flags
from segdre_plugin.stages.margins import Margins
from segdre_plugin.stages.scored import own_gold
from segdre_plugin.stages.stage import predicted_triples

Document = Mapping[str, Any]
Context = tuple[tuple[str, ...], tuple[str, ...]]
STRENGTH = 5.0  # documents that the prior of the types is worth
SHARES = np.arange(0, 1.01, 0.1)
CUTS = np.arange(-3, 3.01, 0.1)


def contexts(triples: Iterable[Triple], chain: Chain) -> dict[int, tuple[str, ...]]:
    """Return for each entity the relations that it has with the salient one, ``>`` from it and ``<`` to it."""
    found = defaultdict(set)
    for head, relation, tail in triples:
        if head in chain:
            found[tail].add(f">{relation}")
        else:
            found[head].add(f"<{relation}")
    return {entity: tuple(sorted(relations)) for entity, relations in found.items()}


class Odds:
    """Log-odds of relations given contexts, counted on train documents with gold triples."""

    def __init__(self, documents: Sequence[Document]) -> None:
        self.pairs: Counter[Any] = Counter()
        self.hits: Counter[Any] = Counter()
        for document in documents:
            chain = tuple(gold_chain(document, 1))
            around = contexts(gold_dense_triples(document, chain), chain)
            (sparse,) = own_gold([dict(document)], [chain], "sparse")
            labels = defaultdict(set)
            for label in sparse["labels"]:
                labels[label["h"], label["t"]].add(label["r"])
            others = [e for e in range(len(document["vertexSet"])) if e not in chain]
            for h in others:
                for t in others:
                    if h != t:
                        self._add(types(document, h, t), (around.get(h, ()), around.get(t, ())), labels[h, t])

    def _add(self, kinds: tuple[str, str], context: Context, relations: set[str]) -> None:
        for key in (kinds, (kinds, context)):
            self.pairs[key] += 1
            for relation in relations:
                self.hits[key, relation] += 1

    def __call__(self, kinds: tuple[str, str], context: Context, relation: str) -> float:
        """Return what a context adds to the log-odds of a relation."""
        prior = (self.hits[kinds, relation] + 0.01) / (self.pairs[kinds] + 1.0)
        key = (kinds, context)
        share = (self.hits[key, relation] + STRENGTH * prior) / (self.pairs[key] + STRENGTH)
        return float(np.log(share / (1 - share)) - np.log(prior / (1 - prior)))


def types(document: Document, h: int, t: int) -> tuple[str, str]:
    """Return the types of two entities."""
    return document["vertexSet"][h][0]["type"], document["vertexSet"][t][0]["type"]


def added(
    cells: Margins,
    documents: Sequence[Document],
    around: Sequence[Mapping[int, tuple[str, ...]]],
    odds: Odds,
    names: Mapping[int, str],
) -> Any:
    """Return what contexts add to each cell."""
    rows = zip(*(getattr(cells, name).tolist() for name in ("document", "head", "tail", "relation")), strict=True)
    return np.array(
        [odds(types(documents[d], h, t), (around[d].get(h, ()), around[d].get(t, ())), names[r]) for d, h, t, r in rows]
    )


def measure(path: Path, odds: Odds) -> dict[str, dict[str, float]]:
    """Measure on a finished run.

    Args:
        path: its folder.
        odds: of the train documents.

    Returns:
        What is added -> F1 on the sparse pairs of dev and test, and the share that was best on dev.
    """
    found = FinishedRun(path)
    rel2id = found.rel2id
    names = {i: name for name, i in rel2id.items()}
    salient = {name: found.salient(name) for name in ("dev", "test")}
    cells: dict[str, Margins] = {}
    gold: dict[str, tuple[Any, int]] = {}
    extra: dict[str, dict[str, Any]] = defaultdict(dict)
    for name in ("dev", "test"):
        scored = found.scored(name)
        split, base = scored.split, scored.tables["base"]
        cells[name] = base.take(np.flatnonzero(~dense_flags(base, salient[name], count_entities(split))))
        own = replace(split, documents=own_gold(split.documents, salient[name], "sparse"))
        hits, _, n_gold = gold_flags(cells[name], own, rel2id, [])
        gold[name] = (hits, n_gold)
        triples = {
            "gold": [gold_dense_triples(d, c) for d, c in zip(split.documents, salient[name], strict=True)],
            "predicted": predicted_triples(scored.tables["dense"], len(split.documents), rel2id),
        }
        for kind, each in triples.items():
            around = [contexts(one, chain) for one, chain in zip(each, salient[name], strict=True)]
            extra[kind][name] = added(cells[name], split.documents, around, odds, names)
        extra["nothing"][name] = np.zeros(len(cells[name]))

    def f1(name: str, margin: Any, cut: float) -> float:
        hits, n_gold = gold[name]
        keep = margin > cut
        return float(2 * np.count_nonzero(hits & keep) / (np.count_nonzero(keep) + n_gold))

    result = {}
    for kind, numbers in extra.items():
        points = [(share, cut) for share in (SHARES if kind != "nothing" else SHARES[:1]) for cut in CUTS]
        tried = {(share, cut): f1("dev", cells["dev"].margin + share * numbers["dev"], cut) for share, cut in points}
        share, cut = max(tried, key=lambda point: tried[point])
        test = f1("test", cells["test"].margin + share * numbers["test"], cut)
        result[kind] = {"dev": tried[share, cut], "test": test, "share": float(share)}
    return result


def main() -> None:
    """Read the command line, measure, print a table and keep the numbers."""
    options = arguments(__doc__).parse_args()
    with messages():
        experiments = Experiments(options.out, options.data, options.encoder, plan=plan_of(options.recipe))
        runs = experiments.runs(options.backbone, options.recipe)
        paths = {seed: runs.path("full", seed) for seed in options.seeds}
        odds = Odds(FinishedRun(paths[options.seeds[0]]).train)
        found = {str(seed): measure(path, odds) for seed, path in paths.items()}
        experiments.keep(options.backbone, options.recipe, "information.json", json.dumps(found, indent=1))
    print(table(found).text())


def table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Make a table of what :func:`measure` found: seed -> what is added -> numbers."""
    titles = {"nothing": "base", "predicted": "with predicted dense triples", "gold": "with gold dense triples"}
    lines = [
        (
            title,
            [
                *(Cell([100 * numbers[kind][split] for numbers in found.values()]) for split in ("dev", "test")),
                Cell([numbers[kind]["share"] for numbers in found.values()]),
            ],
        )
        for kind, title in titles.items()
    ]
    return Table("sparse pairs (%)", ["dev F1", "test F1", "share"], lines)


if __name__ == "__main__":
    main()

"""The demo's example: one test document on the terminal, before the first stage and after the last."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from segdre_plugin.data.synthetic.facts import derived
from segdre_plugin.salient import gold_salient, gold_triples
from segdre_plugin.seg.run_folder import RunFolder
from segdre_plugin.stages.branches import entity_name
from segdre_plugin.stages.config import TRAINED
from segdre_plugin.vocabulary import Document, Triple

WIDTH = 110  # columns


def choose_example(documents: Sequence[Document]) -> int:
    """Return which document to show: most triples that follow by two hops through its salient entity, fewest words.

    It is chosen before a model exists, so that it says nothing of how good the models are.
    """

    def rank(index: int) -> tuple[int, int]:
        document = documents[index]
        salient, facts = gold_salient(document), gold_triples(document)
        dense = {fact for fact in facts if salient in (fact.head, fact.tail)}
        return len({fact for fact, _ in derived(dense)} & (facts - dense)), -sum(map(len, document["sents"]))

    return max(range(len(documents)), key=rank)


def before(document: Document) -> str:
    """Return the text of a document with its mentions in brackets, and its entities."""
    starts, ends = set(), set()
    for mention in (mention for mentions in document["vertexSet"] for mention in mentions):
        starts.add((mention["sent_id"], mention["pos"][0]))
        ends.add((mention["sent_id"], mention["pos"][1] - 1))
    words = [
        "[" * ((s, k) in starts) + word + "]" * ((s, k) in ends)
        for s, sentence in enumerate(document["sents"])
        for k, word in enumerate(sentence)
    ]
    names = [f"{entity_name(document, e)} ({mentions[0]['type']})" for e, mentions in enumerate(document["vertexSet"])]
    return "\n".join((_wrap(" ".join(words)), _wrap("entities: " + ", ".join(names))))


def after(run: RunFolder, index: int) -> str:
    """Return what each stage of a finished run found in a test document, right or wrong."""
    document = run.documents["test"][index]
    salient, gold = run.salient("test")[index], gold_triples(document)
    relations = {i: relation for relation, i in run.rel2id.items()}
    found: dict[str, set[Triple]] = {}
    for stage in TRAINED:
        table = run.margins(stage, "test")
        table = table.take((table.document == index) & (table.margin > 0))
        cells = zip(table.head.tolist(), table.relation.tolist(), table.tail.tolist(), strict=True)
        found[stage] = {Triple(head, relations[relation], tail) for head, relation, tail in cells}
    fused = {Triple(p["h_idx"], p["r"], p["t_idx"]) for p in run.result("test") if p["title"] == document["title"]}
    injected = run.injected("test")[index]

    def rows(triples: Iterable[Triple]) -> Iterator[str]:
        for h, r, t in sorted(triples, key=lambda triple: (triple not in gold, triple)):
            words = (entity_name(document, h), run.relation_names[r], entity_name(document, t))
            yield f"    {'right' if (h, r, t) in gold else 'wrong'}  ({', '.join(words)})"

    def section(title: str, triples: Iterable[Triple]) -> Iterator[str]:
        triples = set(triples)
        yield f"  {title}: {_share(triples, gold)}"
        yield from rows(triples)

    names = ", ".join(entity_name(document, entity) for entity in salient) or "none"
    chosen = "right" if salient[:1] == (gold_salient(document),) else "wrong"
    lines = [f"  salient entity: {names} ({chosen})"]
    lines += section("base finds", found["base"])
    lines += section("dense adds, on pairs of the salient entity", found["dense"] - found["base"])
    lines += [f"  injected into the text that sparse reads: {_share(set(injected), gold)}"]
    lines += section("sparse adds, on the other pairs", found["sparse"] - found["base"])
    together = set.union(*found.values())
    lines += section("fusion adds, by its thresholds", fused - together)
    lines += section("fusion leaves out", together - fused)
    lines += [f"  fused: {_share(fused, gold)}; base alone: {_share(found['base'], gold)}; gold: {len(gold)} triples"]
    return "\n".join(lines)


def _share(triples: set[Triple], gold: set[Triple]) -> str:
    right = len(triples & gold)
    return f"{right} right, {len(triples) - right} wrong" if triples else "nothing"


def _wrap(text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)

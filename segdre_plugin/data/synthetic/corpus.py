"""The embedded corpus: a seeded generator of documents in DocRED's JSON.

A document tells of one topic (a band, a company or a town), which takes part in about half of its relations, and of
twins: other entities of the topic's kind, of which the same sentences tell. Facts that follow by two hops (album by a
band, band with a label) are labels too, with the evidence of both hops, and they follow through the topic alone: which
of the albums has which of the labels is stated by nothing but the facts about the topic. The title is the name of some
entity, as of a document about an album that tells most of its band.
"""

from __future__ import annotations

import json
import random
from operator import methodcaller
from pathlib import Path
from typing import Any

from segdre_plugin.data.files import write
from segdre_plugin.data.synthetic import vocabulary as words
from segdre_plugin.data.synthetic.facts import Entity, Statement, World, build_world, closure
from segdre_plugin.data.synthetic.vocabulary import RELATIONS
from segdre_plugin.errors import SegDREError
from segdre_plugin.vocabulary import Triple

__all__ = ["RELATIONS", "generate", "rel2id", "write_corpus"]

SHARED_RATE = 0.15  # how often the wording of a fact leaves its relation open
JOINT_RATE = 0.8  # how often a sentence states a fact of several heads
DECOY_RATE = 0.8  # how often the text comes back to an entity of which it says little
TITLE_RATE = 0.15  # how often the topic is sure to be the title; else any entity may be


def rel2id() -> dict[str, int]:
    """Return relation id -> class; "Na" is 0."""
    return {"Na": 0} | {relation: k for k, relation in enumerate(RELATIONS, start=1)}


def generate(
    n_documents: int, seed: int, *, sentences: tuple[int, int] = (4, 6), entities: tuple[int, int] = (7, 9)
) -> list[dict[str, Any]]:
    """Generate documents.

    Args:
        n_documents: number of documents, 0 or more.
        seed: the same seed and sizes give the same documents on every machine.
        sentences: fewest and most sentences a document.
        entities: fewest and most entities a document.

    Returns:
        Documents in DocRED's JSON, with labels and evidence; no title occurs twice.

    Raises:
        SegDREError: if a size is out of range.
    """
    for name, (low, high), least in (("sentences", sentences, 2), ("entities", entities, 4)):
        if not least <= low <= high:
            raise SegDREError(f"{name} is ({low}, {high})", f"pass (fewest, most) with {least} <= fewest <= most")
    if n_documents < 0:
        raise SegDREError(f"n_documents is {n_documents}", "pass 0 or more")
    rng = random.Random(seed)
    titles: set[str] = set()
    documents: list[dict[str, Any]] = []
    while len(documents) < n_documents:
        world = build_world(rng, rng.choice(sorted(words.CORE)), rng.randint(*entities))
        document = _write(rng, world, rng.randint(*sentences))
        if document["title"] not in titles and world.has_clear_topic():
            titles.add(document["title"])
            documents.append(document)
    return documents


def write_corpus(folder: Path, *, train: int = 300, dev: int = 80, test: int = 80, seed: int = 0) -> None:
    """Write a corpus in DocRED's layout: train_annotated.json, dev.json, test.json, rel2id.json, rel_info.json.

    The folder is created if it does not exist, and files of these names are replaced. ``train``, ``dev`` and ``test``
    are numbers of documents; ``seed`` is that of :func:`generate`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    documents = generate(train + dev + test, seed)  # all at once: no title occurs in two splits
    contents: dict[str, Any] = {
        "train_annotated.json": documents[:train],
        "dev.json": documents[train : train + dev],
        "test.json": documents[train + dev :],
        "rel2id.json": rel2id(),
        "rel_info.json": RELATIONS,
    }
    for name, content in contents.items():
        write(folder / name, methodcaller("write", json.dumps(content).encode()))


class _Writer:
    """Turns statements into sentences and remembers where each entity is mentioned."""

    def __init__(self, rng: random.Random, entities: list[Entity]) -> None:
        self.rng = rng
        self.entities = entities
        self.sents: list[list[str]] = []
        self.mentions: list[list[dict[str, Any]]] = [[] for _ in entities]

    def say(self, template: str, heads: list[int], tail: int | None, join: bool) -> int:
        """Write one sentence, or with ``join`` add it to the last one, and return its index."""
        if join:
            self.sents[-1][-1:] = self.rng.choice(words.CONNECTIVES)  # in place of the full stop
            template = template if template.startswith("{") else template[0].lower() + template[1:]
        else:
            self.sents.append([])
        sentence = self.sents[-1]
        opening = len(sentence)
        for word in template.split(" "):
            if word == "{h}":
                for k, head in enumerate(heads):
                    sentence += [] if k == 0 else ["and"] if k == len(heads) - 1 else [","]
                    self._name(head)
            elif word == "{t}" and tail is not None:
                self._name(tail)
            elif word == "{year}":
                sentence.append(str(self.rng.randint(1980, 2009)))
            elif word.startswith("{"):
                sentence.append(self.rng.choice(words.FILLERS[word.strip("{}")]))
            else:
                sentence.append(word)
        if opening == 0:
            sentence[0] = sentence[0][0].upper() + sentence[0][1:]
        return len(self.sents) - 1

    def _name(self, index: int) -> None:
        """Write an entity's name."""
        entity, sent_id, start = self.entities[index], len(self.sents) - 1, len(self.sents[-1])
        known = bool(self.mentions[index])
        form = self.rng.choice(entity.short) if known and entity.short and self.rng.random() < 0.6 else entity.name
        self.sents[-1] += form
        self.mentions[index].append({
            "name": " ".join(form), "pos": [start, start + len(form)], "sent_id": sent_id,
            "type": words.TYPES[entity.kind],
        })  # fmt: skip

    def near(self, index: int, sent_id: int) -> int:
        """Find the sentence that names the entity, at or before ``sent_id`` if there is one."""
        ids = [mention["sent_id"] for mention in self.mentions[index]]
        return max((i for i in ids if i <= sent_id), default=ids[0])


def _write(rng: random.Random, world: World, n_sentences: int) -> dict[str, Any]:
    """Return what the world holds in about ``n_sentences`` sentences."""
    statements = _group(rng, world.statements)
    hubs = [k for k, entity in enumerate(world.entities) if entity.kind == world.entities[0].kind]
    statements += [Statement("opening", [hub], hub) for hub in hubs]
    if rng.random() < DECOY_RATE:
        decoy = rng.choice(hubs[1:] or range(1, len(world.entities)))
        statements += [Statement("alone", [decoy], decoy) for _ in range(rng.randint(2, 4))]
    while len(statements) < n_sentences:
        statements.append(_idle(rng, world))
    rng.shuffle(statements)
    joined = set(rng.sample(range(1, len(statements)), len(statements) - n_sentences))  # places in the text

    writer = _Writer(rng, world.entities)
    said_in: dict[Triple, int] = {}
    for place, statement in enumerate(statements):
        template = _template(rng, world, statement)
        sent_id = writer.say(template, statement.heads, statement.tail, join=place in joined)
        for head in statement.heads:
            said_in[Triple(head, statement.relation, statement.tail)] = sent_id
    titled = 0 if rng.random() < TITLE_RATE else rng.randrange(len(world.entities))
    return _assemble(world, writer, said_in) | {"title": " ".join(world.entities[titled].name)}


def _group(rng: random.Random, statements: list[Statement]) -> list[Statement]:
    """Put facts of the same relation, kind of head and tail together into one statement."""
    grouped: list[Statement] = []
    for statement in statements:
        same = [s for s in grouped if (s.relation, s.tail) == (statement.relation, statement.tail) and len(s.heads) < 3]
        if same and rng.random() < JOINT_RATE:
            same[0].heads.extend(statement.heads)
        else:
            grouped.append(Statement(statement.relation, list(statement.heads), statement.tail))
    return grouped


def _idle(rng: random.Random, world: World) -> Statement:
    """Choose two entities that nothing is stated about, but could be; or only one."""
    related = {(h, t) for h, _, t in closure(world.stated())}
    kinds = {(head, tail) for head, tail, _ in words.IDLE}
    pairs = [
        (h, t)
        for h, head in enumerate(world.entities)
        for t, tail in enumerate(world.entities)
        if h != t and (head.kind, tail.kind) in kinds and (h, t) not in related and (t, h) not in related
    ]
    if not pairs:
        entity = rng.randrange(len(world.entities))
        return Statement("alone", [entity], entity)
    head, tail = rng.choice(pairs)
    return Statement("idle", [head], tail)


def _template(rng: random.Random, world: World, statement: Statement) -> str:
    """Choose how to say a statement."""
    kinds = world.entities[statement.heads[0]].kind, world.entities[statement.tail].kind
    if statement.relation == "opening":
        return rng.choice(words.OPENINGS[kinds[0]])
    if statement.relation == "alone":
        return rng.choice(words.ALONE[words.TYPES[kinds[0]]])
    if statement.relation == "idle":
        return rng.choice(next(templates for head, tail, templates in words.IDLE if (head, tail) == kinds))
    wording = words.WORDINGS[statement.relation, kinds[0], kinds[1]]
    if len(statement.heads) > 1:
        return rng.choice(wording.several)
    return rng.choice(wording.shared if wording.shared and rng.random() < SHARED_RATE else wording.clear)


def _assemble(world: World, writer: _Writer, said_in: dict[Triple, int]) -> dict[str, Any]:
    """Number the entities by their first mention and label all facts, with the evidence of every hop."""
    proofs = closure(world.stated())

    def evidence(fact: Triple) -> set[int]:
        proof = proofs[fact]
        if proof is not None:
            return evidence(proof[0]) | evidence(proof[1])
        sent_id = said_in[fact]
        return {sent_id, writer.near(fact.head, sent_id), writer.near(fact.tail, sent_id)}

    order = sorted(
        range(len(world.entities)), key=lambda k: (writer.mentions[k][0]["sent_id"], writer.mentions[k][0]["pos"])
    )
    place = {old: new for new, old in enumerate(order)}
    labels = [
        {"h": place[fact.head], "t": place[fact.tail], "r": fact.relation, "evidence": sorted(evidence(fact))}
        for fact in sorted(proofs)
    ]
    return {
        "sents": writer.sents,
        "vertexSet": [writer.mentions[k] for k in order],
        "labels": sorted(labels, key=lambda label: (label["h"], label["t"], label["r"])),
    }

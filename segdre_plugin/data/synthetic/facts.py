"""What an invented document tells: entities, stated facts, and the facts that follow from them by a rule."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from segdre_plugin.data.synthetic import vocabulary as words
from segdre_plugin.vocabulary import Triple


@dataclass
class Entity:
    """An invented entity; names are lists of words."""

    kind: str  # "person", "town", ...
    name: list[str]
    short: list[list[str]]  # other names, used once the full one has been read


@dataclass
class Statement:
    """One thing to say: a fact, or (relation "idle") something that is not a fact."""

    relation: str  # relation id, "idle", or "alone" for a sentence about the tail only
    heads: list[int]  # entities, more than one where one sentence states the fact for all of them
    tail: int


@dataclass
class World:
    """The entities of one document and what is said of them; entity 0 is the topic."""

    entities: list[Entity] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    used_words: set[str] = field(default_factory=set)

    def stated(self) -> set[Triple]:
        """Return the stated facts."""
        return {
            Triple(h, s.relation, s.tail) for s in self.statements if s.relation in words.RELATIONS for h in s.heads
        }


def closure(facts: Iterable[Triple]) -> dict[Triple, tuple[Triple, Triple] | None]:
    """Add what follows from the stated facts by the rules, until nothing new follows.

    Returns:
        Every fact with the two facts from which it follows; None for the stated ones.
    """
    known: dict[Triple, tuple[Triple, Triple] | None] = dict.fromkeys(sorted(facts))
    while True:
        new: dict[Triple, tuple[Triple, Triple] | None] = {}
        for fact, proof in derived(known):
            if fact not in known and fact.head != fact.tail:
                new.setdefault(fact, proof)
        if not new:
            return known
        known.update(new)


def derived(facts: Collection[Triple]) -> Iterator[tuple[Triple, tuple[Triple, Triple]]]:
    """Yield what a rule derives from two of the facts, and these two; a fact may come up again."""
    for first, second, result in words.RULES:
        for one in facts:
            for two in facts:
                if one.relation == first and two.relation == second and one.tail == two.head:
                    yield Triple(one.head, result, two.tail), (one, two)


def build_world(rng: random.Random, kind: str, n_entities: int) -> World:
    """Return what a document tells, without a contradiction.

    Args:
        rng: source of randomness.
        kind: kind of the topic: "band", "company" or "town".
        n_entities: number of entities to aim at.
    """
    world = World()
    world.entities.append(invent(rng, kind, world.used_words))
    for chance, move in words.CORE[kind]:
        if rng.random() < chance and len(world.entities) < n_entities:
            _try(rng, world, move)
    for _ in range(20 * n_entities):
        missing = n_entities - len(world.entities)
        if missing <= 0:
            break
        move = rng.choice(words.EXTRA[kind])
        if sum(part.startswith("+") for part in move) <= missing:
            _try(rng, world, move)
    return world


def _try(rng: random.Random, world: World, move: words.Move) -> None:
    """Make a move unless an entity that it needs does not exist or it contradicts a known fact."""
    relation, *roles = move
    before = len(world.entities)
    ends: list[int] = []
    for role in roles:
        candidates = [k for k, e in enumerate(world.entities) if e.kind == role and k not in ends]
        if role == "topic":
            ends.append(0)
        elif role.startswith("+"):
            world.entities.append(invent(rng, role[1:], world.used_words))
            ends.append(len(world.entities) - 1)
        elif candidates:
            ends.append(rng.choice(candidates))
        else:
            del world.entities[before:]
            return
    statement = Statement(relation, [ends[0]], ends[1])
    if relation == "idle":
        world.statements.append(statement)
        return
    fact = Triple(ends[0], relation, ends[1])
    known = closure(world.stated())
    extended = closure(world.stated() | {fact})
    values = [(h, r) for h, r, _ in extended if r in words.FUNCTIONAL]
    if fact in known or len(values) != len(set(values)):
        del world.entities[before:]
        return
    world.statements.append(statement)


def invent(rng: random.Random, kind: str, used_words: set[str]) -> Entity:
    """Return a new entity whose name shares no invented word with ``used_words``; its words are added there."""
    main = _word(rng, used_words)
    entity_type = words.TYPES[kind]
    if entity_type == "PER":
        return Entity(kind, [rng.choice(words.GIVEN_NAMES), main], [[main]])
    if kind in ("country", "river") or rng.random() < 0.5:
        return Entity(kind, [main], [])
    second = rng.choice(words.SECOND_WORDS[entity_type])
    initials = main[0] + second[0]
    short = [[main]]
    if entity_type == "ORG" and initials not in used_words:
        used_words.add(initials)
        short.append([initials])
    return Entity(kind, [main, second], short)


def _word(rng: random.Random, used_words: set[str]) -> str:
    """Make a capitalised word that is not used yet."""
    while True:
        parts = (words.ONSETS, words.VOWELS, words.ONSETS, words.VOWELS, words.ENDINGS)
        word = "".join(rng.choice(part) for part in parts).capitalize()
        if word not in used_words:
            used_words.add(word)
            return word

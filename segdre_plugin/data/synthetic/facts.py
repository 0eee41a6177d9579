"""What an invented document tells: entities, stated facts, and the facts that follow from them by a rule."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from segdre_plugin.data.synthetic import vocabulary as words
from segdre_plugin.vocabulary import Triple

NEW_TWIN = 0.2  # how often a further fact of a twin is told of a new one


@dataclass
class Entity:
    """An invented entity; names are lists of words."""

    kind: str  # "person", "town", ...
    name: list[str]
    short: list[list[str]]  # other names, used once the full one has been read


@dataclass
class Statement:
    """One thing to say: a fact, or (relation "idle") something that is not a fact."""

    relation: str  # relation id, "idle", or "opening" or "alone" for a sentence about the tail only
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

    def has_clear_topic(self) -> bool:
        """Return whether the topic takes part in more facts, those that follow included, than any other entity."""
        counts = Counter(end for fact in closure(self.stated()) for end in (fact.head, fact.tail))
        return all(counts[0] > counts[k] for k in range(1, len(self.entities)))


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
    """Return what a document tells, without a contradiction; what follows by a rule follows through the topic.

    Args:
        rng: source of randomness.
        kind: kind of the topic: "band", "company" or "town".
        n_entities: number of entities to aim at.
    """
    world = World()
    world.entities.append(invent(rng, kind, world.used_words))
    core = [rng.choice(moves) for moves in words.CORE[kind]]
    extra = (rng.choice(words.EXTRA[kind]) for _ in range(20 * n_entities))
    for move in chain(core, extra):
        if len(world.entities) >= n_entities:
            break
        _try(rng, world, move, n_entities)
    return world


def _try(rng: random.Random, world: World, move: words.Move, n_entities: int) -> None:
    """Make a move unless an entity that it needs does not exist, there is no room for it, or it contradicts a fact."""
    relation, *roles = move
    before = len(world.entities)
    ends: list[int] = []
    for role in roles:
        kind = world.entities[0].kind if role == "twin" else role
        known = [k for k, e in enumerate(world.entities) if e.kind == kind and k not in (0, *ends)]
        if role == "topic":
            ends.append(0)
        elif role.startswith("+") or (role == "twin" and (not known or rng.random() < NEW_TWIN)):
            world.entities.append(invent(rng, role.removeprefix("+").replace("twin", kind), world.used_words))
            ends.append(len(world.entities) - 1)
        elif known:
            ends.append(rng.choice(known))
    fact = Triple(ends[0], relation, ends[-1])
    if len(ends) == 2 and len(world.entities) <= n_entities and _fits(world, fact):
        world.statements.append(Statement(relation, [ends[0]], ends[1]))
    else:
        del world.entities[before:]


def _fits(world: World, fact: Triple) -> bool:
    """Return whether a fact is new, contradicts none, and lets nothing follow but through the topic."""
    extended = closure(world.stated() | {fact})
    values = [(h, r) for h, r, _ in extended if r in words.FUNCTIONAL]
    through = all(0 in (f.head, f.tail, proof[0].tail) for f, proof in extended.items() if proof)
    return through and fact not in closure(world.stated()) and len(values) == len(set(values))


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

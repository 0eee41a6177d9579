"""The words of the embedded corpus: relations, rules, sentence templates and document plans, as data.

Relation ids and names are Wikidata's, as in DocRED. Everything that the sentences name is invented.
"""

from __future__ import annotations

from typing import NamedTuple

RELATIONS: dict[str, str] = {
    "P17": "country",
    "P19": "place of birth",
    "P27": "country of citizenship",
    "P108": "employer",
    "P112": "founded by",
    "P159": "headquarters location",
    "P175": "performer",
    "P176": "manufacturer",
    "P206": "located in or next to body of water",
    "P264": "record label",
    "P463": "member of",
    "P495": "country of origin",
    "P740": "location of formation",
    "P937": "work location",
}

# (a, first, b) and (b, second, c) give (a, result, c).
RULES: tuple[tuple[str, str, str], ...] = (
    ("P740", "P17", "P495"),  # a band formed in a town of a country
    ("P159", "P17", "P17"),  # a company at home in a town of a country
    ("P19", "P17", "P27"),  # a person born in a town of a country
    ("P175", "P495", "P495"),  # an album by a band from a country
    ("P175", "P264", "P264"),  # an album by a band with a label
    ("P463", "P264", "P264"),  # a member of a band with a label
    ("P176", "P17", "P495"),  # a product by a company of a country
    ("P108", "P159", "P937"),  # an employee of a company at home in a town
)

# DocRED's entity types of our kinds. Bands, companies and labels are not told apart by their names or types.
TYPES: dict[str, str] = {
    "person": "PER",
    "town": "LOC",
    "country": "LOC",
    "river": "LOC",
    "band": "ORG",
    "company": "ORG",
    "label": "ORG",
    "album": "MISC",
    "product": "MISC",
}

# The noun that stands for the topic where its name is not repeated.
NOMINALS: dict[str, str] = {"band": "the group", "company": "the firm", "town": "the town"}

OPENINGS: dict[str, tuple[str, ...]] = {
    "band": (
        "{h} is a {style} group .",
        "{h} , a group of {number} , plays {style} music .",
        "Few {style} groups are as well known as {h} .",
    ),
    "company": (
        "{h} is a firm with {number} thousand customers .",
        "{h} , a {style} firm , pays well .",
        "Few firms grew as fast as {h} .",
    ),
    "town": (
        "{h} is a {style} town .",
        "{h} , a town of {number} thousand people , is known for its market .",
        "Few towns are as {style} as {h} .",
    ),
}

CONNECTIVES: tuple[tuple[str, ...], ...] = ((";",), (",", "and"), (",", "while"))  # between two clauses

FILLERS: dict[str, tuple[str, ...]] = {
    "style": ("quiet", "modern", "northern", "folk", "small", "famous", "old"),
    "number": ("three", "four", "five", "six", "seven", "nine"),
    "month": ("March", "April", "June", "August", "October", "December"),
}

# Wording that several relations share: which one holds depends on what the other sentences say of the topic.
_JOINED = ("{h} joined {t} in {year} .", "In {year} {h} became part of {t} .", "{h} came to {t} in {month} {year} .")
_MADE = (
    "{t} presented {h} in {year} .",
    "{h} came out in {year} and was made by {t} .",
    "In {year} {t} finished {h} .",
)
_HOME = ("{h} began in {t} in {year} .", "{t} has been the home of {h} since {year} .", "{h} started out in {t} .")
_FROM = ("{h} comes from {t} .", "{h} , from {t} , is widely known .", "Like many others , {h} is from {t} .")


class Wording(NamedTuple):
    """How a fact of one relation between two kinds is said: templates."""

    clear: tuple[str, ...]  # they name the relation by themselves
    shared: tuple[str, ...] = ()  # other relations use them too; only said of the topic, whose kind the text tells


WORDINGS: dict[tuple[str, str, str], Wording] = {
    ("P17", "town", "country"): Wording(
        ("{h} lies in {t} .", "{h} is one of the larger towns of {t} .", "The railway through {t} stops at {h} ."),
        _FROM[2:],
    ),
    ("P17", "company", "country"): Wording(("{h} pays its taxes in {t} .", "{h} is registered in {t} ."), _FROM),
    ("P19", "person", "town"): Wording(
        ("{h} was born in {t} .", "{h} was born in {year} in {t} .", "{t} is the birthplace of {h} ."), _FROM
    ),
    ("P108", "person", "company"): Wording(("{h} is an engineer at {t} .", "{t} pays {h} as a designer ."), _JOINED),
    ("P112", "company", "person"): Wording(("{h} was founded by {t} .", "{t} founded {h} in {year} .")),
    ("P159", "company", "town"): Wording(
        ("{h} has its head office in {t} .", "The offices of {h} are in {t} ."), _HOME
    ),
    ("P175", "album", "band"): Wording(("{t} sang and recorded {h} in {year} .", "{h} is an album by {t} ."), _MADE),
    ("P176", "product", "company"): Wording(
        ("{h} is a machine built by {t} .", "{t} builds {h} in its works ."), _MADE
    ),
    ("P206", "town", "river"): Wording(("{h} stands on the banks of the {t} .", "The {t} flows past {h} .")),
    ("P264", "band", "label"): Wording(
        (
            "{h} signed with the record label {t} .",
            "The records of {h} are released by {t} .",
            "{t} has released all music of {h} .",
        )
    ),
    ("P463", "person", "band"): Wording(("{h} sings in {t} .", "{h} plays the drums for {t} ."), _JOINED),
    ("P495", "band", "country"): Wording(
        ("{h} sings of its homeland {t} .", "{h} was the best known band of {t} ."), _FROM
    ),
    ("P740", "band", "town"): Wording(("{h} was formed in {t} .", "The musicians of {h} met in {t} ."), _HOME),
}

# Templates that hold for several heads at once.
PLURAL: frozenset[str] = frozenset(
    (_JOINED[0], _JOINED[2], "{t} presented {h} in {year} .", "In {year} {t} finished {h} .")
)

# Sentences that name two entities and say nothing that is a relation here; some sound nearly like one.
IDLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("person", "person", ("{h} met {t} in {year} .", "{h} and {t} are old friends ."),),
    ("person", "band", ("{h} never joined {t} .", "In {year} {h} wrote a book about {t} .")),
    ("person", "company", ("{h} turned down an offer from {t} in {year} .", "{h} often criticised {t} .")),
    ("person", "town", ("{h} visited {t} in {year} .", "{h} has never been to {t} .")),
    ("person", "country", ("{h} travelled through {t} in {month} {year} .", "{h} learned the language of {t} .")),
    ("band", "country", ("{h} toured {t} in {year} .", "In {t} , {h} has many listeners .")),
    ("company", "country", ("{h} opened a shop in {t} in {year} .", "{h} never sold anything in {t} .")),
    ("album", "country", ("{h} was also sold in {t} .", "Critics in {t} praised {h} .")),
    ("product", "country", ("{h} was also sold in {t} .", "Tests of {h} in {t} failed in {year} .")),
    ("town", "country", ("Visitors to {h} often come from {t} .", "{h} sends its apples to {t} .")),
    ("band", "label", ("{h} broke off talks with {t} in {year} .", "{h} turned down an offer from {t} .")),
    ("band", "town", ("{h} played in {t} in {year} .", "{h} was not allowed to play in {t} .")),
    ("company", "town", ("{h} closed its shop in {t} .", "{h} wanted to move to {t} in {year} .")),
    ("town", "river", ("The {t} does not reach {h} .", "{h} buys its water from the {t} .")),
)  # fmt: skip

ALONE: dict[str, tuple[str, ...]] = {
    "PER": ("{h} slept badly in {year} .", "Nobody heard of {h} in {month} {year} .", "Letters of {h} were found ."),
    "LOC": ("{h} had a hard winter in {year} .", "It rained in {h} in {month} {year} .", "Maps of {h} are rare ."),
    "ORG": ("{h} had a hard year in {year} .", "Nobody trusted {h} in {month} {year} .", "Friends of {h} are rare ."),
    "MISC": ("{h} was praised in {year} .", "Nobody noticed {h} in {month} {year} .", "Copies of {h} are rare ."),
}

# What a document about a topic tells, as moves (relation or "idle", head, tail). Ends: "topic", "+kind" for a new
# entity, "kind" for one that already exists. Core moves come first, each with the chance given; then extra moves
# follow until the document has its entities.
Move = tuple[str, str, str]
CORE: dict[str, tuple[tuple[float, Move], ...]] = {
    "band": (
        (0.8, ("P740", "topic", "+town")),
        (0.5, ("P17", "town", "+country")),
        (0.5, ("P495", "topic", "+country")),
        (0.6, ("idle", "topic", "+country")),
        (0.8, ("P264", "topic", "+label")),
        (0.5, ("idle", "topic", "+label")),
        (1.0, ("P463", "+person", "topic")),
        (1.0, ("P175", "+album", "topic")),
    ),
    "company": (
        (0.9, ("P159", "topic", "+town")),
        (0.5, ("P17", "town", "+country")),
        (0.5, ("P17", "topic", "+country")),
        (0.6, ("idle", "topic", "+country")),
        (0.5, ("idle", "topic", "+town")),
        (0.7, ("P112", "topic", "+person")),
        (1.0, ("P108", "+person", "topic")),
        (1.0, ("P176", "+product", "topic")),
    ),
    "town": (
        (0.8, ("P17", "topic", "+country")),
        (0.6, ("idle", "topic", "+country")),
        (0.6, ("P206", "topic", "+river")),
        (1.0, ("P19", "+person", "topic")),
        (0.7, ("P159", "+company", "topic")),
        (0.7, ("P740", "+band", "topic")),
    ),
}
EXTRA: dict[str, tuple[Move, ...]] = {
    "band": (
        ("P463", "+person", "topic"),
        ("P463", "+person", "topic"),
        ("P175", "+album", "topic"),
        ("P175", "+album", "topic"),
        ("P175", "+album", "+band"),
        ("P264", "+band", "+label"),
        ("P19", "person", "town"),
        ("idle", "album", "+country"),
        ("idle", "topic", "+country"),
        ("idle", "topic", "+label"),
        ("idle", "+person", "topic"),
    ),
    "company": (
        ("P108", "+person", "topic"),
        ("P108", "+person", "topic"),
        ("P176", "+product", "topic"),
        ("P176", "+product", "topic"),
        ("P176", "+product", "+company"),
        ("P19", "person", "town"),
        ("P19", "person", "+town"),
        ("idle", "product", "+country"),
        ("idle", "topic", "+country"),
        ("idle", "topic", "+town"),
        ("idle", "+person", "topic"),
    ),
    "town": (
        ("P19", "+person", "topic"),
        ("P19", "+person", "topic"),
        ("P159", "+company", "topic"),
        ("P740", "+band", "topic"),
        ("P112", "company", "+person"),
        ("P19", "+person", "+town"),
        ("P463", "person", "+band"),
        ("idle", "person", "+country"),
        ("idle", "topic", "+country"),
        ("idle", "+person", "topic"),
        ("idle", "topic", "+river"),
    ),
}

# Heads that have one value of these at most: a second one would contradict the first.
FUNCTIONAL: frozenset[str] = frozenset(RELATIONS) - {"P463", "P108"}

# An invented word is two open syllables and an ending: 20,000 words. Few syllables, so that a tiny encoder reads names
# by their parts.
ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "r", "s", "t", "v")
VOWELS = ("a", "e", "i", "o", "u")
ENDINGS = ("", "n", "r", "l", "s", "x")
# Given names are few, so that they become known words; the family name tells people apart.
GIVEN_NAMES: tuple[str, ...] = (
    "Ada", "Alma", "Anton", "Bela", "Berta", "Carl", "Clara", "Cora", "Dora", "Edgar", "Elsa", "Emil", "Erik",
    "Fanny", "Felix", "Frida", "Georg", "Greta", "Hanna", "Hugo", "Ida", "Irma", "Ivan", "Jonas", "Julia",
    "Karin", "Klaus", "Laura", "Leo", "Lotte", "Maria", "Marta", "Nora", "Olga", "Oskar", "Paula", "Peter",
    "Rosa", "Viktor", "Wanda",
)  # fmt: skip
SECOND_WORDS: dict[str, tuple[str, ...]] = {
    "ORG": ("Union", "House", "Circle", "Line", "Brothers", "Works", "Harbour"),
    "MISC": ("Star", "River", "Seven", "Light", "Garden", "Road", "Mirror"),
    "LOC": ("Bay", "Hill", "Valley", "Point"),
}

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

OPENINGS: dict[str, tuple[str, ...]] = {
    "band": ("{h} is a {style} group .", "{h} plays {style} music ."),
    "company": ("{h} is a {style} firm .", "{h} is a firm with {number} shops ."),
    "town": ("{h} is a {style} town .", "{h} is a town with {number} markets ."),
}

CONNECTIVES: tuple[tuple[str, ...], ...] = ((";",), (",", "and"), (",", "while"))  # between two clauses

FILLERS: dict[str, tuple[str, ...]] = {
    "style": ("quiet", "modern", "northern", "folk", "small", "famous", "old"),
    "number": ("three", "four", "five", "six", "seven", "nine"),
}

# Wording that several relations share: which one holds depends on the kinds of both ends, which other sentences tell.
_JOINED = ("{h} joined {t} in {year} .", "In {year} {h} became part of {t} .")
_MADE = ("{t} presented {h} in {year} .", "In {year} {t} finished {h} .")
_HOME = ("{h} began in {t} in {year} .", "{h} started out in {t} .")
_FROM = ("{h} comes from {t} .", "Like many others , {h} is from {t} .")


class Wording(NamedTuple):
    """How a fact of one relation between two kinds is said: templates."""

    clear: tuple[str, ...]  # they name the relation by themselves
    shared: tuple[str, ...] = ()  # other relations use them too
    several: tuple[str, ...] = ()  # for several heads at once


WORDINGS: dict[tuple[str, str, str], Wording] = {
    ("P17", "town", "country"): Wording(("{h} lies in {t} .", "{h} is a town in {t} ."), _FROM[1:]),
    ("P17", "company", "country"): Wording(("{h} pays its taxes in {t} .", "{h} is registered in {t} ."), _FROM),
    ("P19", "person", "town"): Wording(
        ("{h} was born in {t} .", "{t} is the birthplace of {h} ."), _FROM, ("{h} were born in {t} .",)
    ),
    ("P108", "person", "company"): Wording(
        ("{h} is an engineer at {t} .", "{t} pays {h} as a designer ."), _JOINED, ("{h} are engineers at {t} .",)
    ),
    ("P112", "company", "person"): Wording(("{h} was founded by {t} .", "{t} founded {h} in {year} .")),
    ("P159", "company", "town"): Wording(
        ("{h} has its head office in {t} .", "The offices of {h} are in {t} ."), _HOME, ("{h} have offices in {t} .",)
    ),
    ("P175", "album", "band"): Wording(
        ("{h} is an album by {t} .", "{t} sang and recorded {h} ."), _MADE, ("{h} are albums by {t} .",)
    ),
    ("P176", "product", "company"): Wording(
        ("{h} is a machine built by {t} .", "{t} builds {h} in its works ."),
        _MADE,
        ("{h} are machines built by {t} .",),
    ),
    ("P206", "town", "river"): Wording(("{h} stands on the banks of the {t} .", "The {t} flows past {h} .")),
    ("P264", "band", "label"): Wording(
        ("{h} signed with the record label {t} .", "The records of {h} are released by {t} .")
    ),
    ("P463", "person", "band"): Wording(
        ("{h} sings in {t} .", "{h} plays the drums for {t} ."), _JOINED, ("{h} sing in {t} .",)
    ),
    ("P495", "band", "country"): Wording(
        ("{h} sings of its homeland {t} .", "{h} was the best known band of {t} ."), _FROM
    ),
    ("P740", "band", "town"): Wording(
        ("{h} was formed in {t} .", "The musicians of {h} met in {t} ."), _HOME, ("{h} were formed in {t} .",)
    ),
}

# Sentences that name two entities and say nothing that is a relation here; some sound nearly like one.
IDLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("person", "person", ("{h} met {t} in {year} .", "{h} and {t} are old friends ."),),
    ("person", "band", ("{h} never joined {t} .", "In {year} {h} wrote a book about {t} .")),
    ("person", "company", ("{h} turned down an offer from {t} in {year} .", "{h} often criticised {t} .")),
    ("person", "town", ("{h} visited {t} in {year} .", "{h} has never been to {t} .")),
    ("person", "country", ("{h} travelled through {t} .", "{h} learned the language of {t} .")),
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
    "PER": ("{h} slept badly .", "Letters of {h} were found ."),
    "LOC": ("{h} had a hard winter .", "Maps of {h} are rare ."),
    "ORG": ("{h} had a hard year .", "Friends of {h} are rare ."),
    "MISC": ("{h} was praised in {year} .", "Copies of {h} are rare ."),
}

# What a document about a topic tells, as moves (relation, head, tail). Ends: "topic", "twin" for another entity of its
# kind, "+kind" for a new entity, "kind" for one that already exists. One of each row of core moves comes first, then
# extra moves follow until the document has its entities.
Move = tuple[str, str, str]
CORE: dict[str, tuple[tuple[Move, ...], ...]] = {
    "band": (
        (("P264", "topic", "+label"),),
        (("P495", "topic", "+country"), ("P740", "topic", "+town")),
        (("P175", "+album", "topic"), ("P463", "+person", "topic")),
        (("P175", "+album", "twin"), ("P463", "+person", "twin"), ("P264", "twin", "+label")),
        (("P175", "+album", "topic"), ("P463", "+person", "topic")),
    ),
    "company": (
        (("P17", "topic", "+country"),),
        (("P159", "topic", "+town"), ("P112", "topic", "+person")),
        (("P176", "+product", "topic"), ("P108", "+person", "topic")),
        (("P176", "+product", "twin"), ("P108", "+person", "twin"), ("P17", "twin", "+country")),
        (("P176", "+product", "topic"), ("P108", "+person", "topic")),
    ),
    "town": (
        (("P17", "topic", "+country"),),
        (("P206", "topic", "+river"),),
        (("P19", "+person", "topic"), ("P159", "+company", "topic"), ("P740", "+band", "topic")),
        (("P19", "+person", "twin"), ("P159", "+company", "twin"), ("P17", "twin", "+country")),
        (("P19", "+person", "topic"), ("P159", "+company", "topic"), ("P740", "+band", "topic")),
    ),
}
EXTRA: dict[str, tuple[Move, ...]] = {
    "band": (
        ("P463", "+person", "topic"),
        ("P463", "+person", "topic"),
        ("P175", "+album", "topic"),
        ("P175", "+album", "topic"),
        ("P495", "topic", "+country"),
        ("P740", "topic", "+town"),
        ("P17", "town", "+country"),
        ("P463", "+person", "twin"),
        ("P175", "+album", "twin"),
        ("P264", "twin", "+label"),
    ),
    "company": (
        ("P108", "+person", "topic"),
        ("P108", "+person", "topic"),
        ("P176", "+product", "topic"),
        ("P176", "+product", "topic"),
        ("P17", "topic", "+country"),
        ("P159", "topic", "+town"),
        ("P112", "topic", "+person"),
        ("P108", "+person", "twin"),
        ("P176", "+product", "twin"),
        ("P17", "twin", "+country"),
    ),
    "town": (
        ("P19", "+person", "topic"),
        ("P19", "+person", "topic"),
        ("P159", "+company", "topic"),
        ("P740", "+band", "topic"),
        ("P112", "company", "+person"),
        ("P19", "+person", "twin"),
        ("P740", "+band", "twin"),
        ("P17", "twin", "+country"),
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

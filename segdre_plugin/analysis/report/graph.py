"""A document's triples as a graph: where its nodes and arrows stand in an SVG, for the template to draw.

The salient entity stands in the middle, the others around it on an ellipse that grows with their number. Relations
from one entity to another share an arrow; where there are arrows both ways, they bend away from each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

LETTER, LINE, HEIGHT = 7.4, 15, 26  # width of a letter, height of a line and of a node, in pixels
LONGEST = 30  # letters of a name that are shown
ROUND = 150  # least half height of the ellipse


class Point(NamedTuple):
    """A place in the picture, in pixels."""

    x: float
    y: float


@dataclass(frozen=True)
class Node:
    """An entity: its name as shown and whole, and its box, of which ``at`` is the middle."""

    text: str
    name: str
    salient: bool
    at: Point
    width: float


@dataclass(frozen=True)
class Arrow:
    """Relations from one entity to another: a quadratic curve, and the place of the first line of its label."""

    start: Point
    bend: Point
    end: Point
    label: Point
    relations: list[str]


@dataclass(frozen=True)
class Graph:
    """The picture: left, top, width and height, and what is in it."""

    box: tuple[float, float, float, float]
    nodes: list[Node]
    arrows: list[Arrow]


def draw_graph(triples: Sequence[Mapping[str, Any]], salient: Sequence[int]) -> Graph:
    """Lay the triples of an answer out (one or more); ``salient`` are the document's salient entities."""
    names = {t[end]: t[name] for t in triples for end, name in (("h_idx", "head"), ("t_idx", "tail"))}
    middle = next((entity for entity in salient if entity in names), None)
    ring = [entity for entity in sorted(names) if entity != middle]
    high = ROUND + 13 * len(ring)
    wide = high + 130
    places = {entity: _on_ellipse(i / len(ring), wide, high) for i, entity in enumerate(ring)}
    if middle is not None:
        places[middle] = Point(0, 0)
    nodes = {
        entity: Node(_short(name), name, entity in salient, places[entity], LETTER * len(_short(name)) + 30)
        for entity, name in names.items()
    }
    relations: dict[tuple[int, int], list[str]] = {}
    for triple in triples:
        relations.setdefault((triple["h_idx"], triple["t_idx"]), []).append(triple["relation"])
    arrows = [
        _arrow(nodes[head], nodes[tail], named, (tail, head) in relations, across=middle not in (head, tail))
        for (head, tail), named in relations.items()
    ]
    edge = max(node.width for node in nodes.values()) / 2 + 12
    box = (-wide - edge, -high - HEIGHT, 2 * (wide + edge), 2 * (high + HEIGHT))
    return Graph(box, list(nodes.values()), arrows)


def _on_ellipse(share: float, wide: float, high: float) -> Point:
    """Return the point after a share of the way round, from the right; no two opposite ones are on one level."""
    angle = 2 * math.pi * share + 0.35
    return Point(wide * math.cos(angle), high * math.sin(angle))


def _arrow(head: Node, tail: Node, relations: list[str], both: bool, across: bool) -> Arrow:
    """Return the arrow between two nodes, from the edge of one box to that of the other.

    Where it goes ``across`` the picture, its label stands nearer to the head, off the middle that such arrows share.
    """
    (x, y), (x2, y2) = head.at, tail.at
    length = math.hypot(x2 - x, y2 - y)
    away = 34 if both else 10  # to the side, which is another one on the way back
    bend = Point((x + x2) / 2 - away * (y2 - y) / length, (y + y2) / 2 + away * (x2 - x) / length)
    start, end = _at_edge(head, bend), _at_edge(tail, bend)
    t = 0.3 if across else 0.5
    weights = ((1 - t) ** 2, 2 * t * (1 - t), t**2)
    at = Point(*(sum(w * c for w, c in zip(weights, cs, strict=True)) for cs in zip(start, bend, end, strict=True)))
    return Arrow(start, bend, end, Point(at.x, at.y - LINE * (len(relations) - 1) / 2 + 4), relations)


def _at_edge(node: Node, outside: Point) -> Point:
    """Return where the way from a node's middle to a point leaves its box."""
    x, y = outside.x - node.at.x, outside.y - node.at.y
    sides = [half / abs(way) for half, way in ((node.width / 2 + 3, x), (HEIGHT / 2 + 3, y)) if way]
    share = min([1.0, *sides])
    return Point(node.at.x + share * x, node.at.y + share * y)


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}\u2026"

"""Read who imports whom in the package, and draw the rooms and their arrows: ``python docs/architecture.py``.

The rooms stand on floors, and a file may import only from floors below its own or from its own room. The script writes
``architecture.svg`` beside it; ``tests/test_house.py`` checks the rules and that the picture is up to date.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

PACKAGE = "segdre_plugin"
REPOSITORY = Path(__file__).resolve().parents[1]
# where setup.cfg takes the packages from
SOURCES = {
    PACKAGE: REPOSITORY / PACKAGE,
    f"{PACKAGE}.adapters": REPOSITORY / "adapters",
    f"{PACKAGE}.patches": REPOSITORY / "patches",
}
PICTURE = Path(__file__).with_suffix(".svg")

# From the ground up. Rooms of one floor do not import each other.
FLOORS = (
    ("errors",),
    ("vocabulary",),
    ("equations",),
    ("data",),
    ("backbones",),
    ("stages",),
    ("seg",),
    ("prediction", "analysis"),
    ("cli",),
    ("package",),  # __init__.py, whose table of public names reaches everywhere
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
EQUATIONS = ("zip_head", "salient", "injection", "fusion", "metrics")
# A first name below the package -> its room, where the two differ; adapters and patches are the backbones' data.
ROOM_OF = {"adapters": "backbones", "patches": "backbones", "": "package"} | dict.fromkeys(EQUATIONS, "equations")
WHAT = {
    "errors": "messages: what is wrong, where, what to do",
    "vocabulary": "document, triple, span: one word each",
    "equations": "the paper's mathematics, no model",
    "data": "DocRED in, files out",
    "backbones": "what ATLOP-like code looks like, and the hooks into it",
    "stages": "the method on models and splits",
    "seg": "one --seg run",
    "prediction": "a bundle on new documents",
    "analysis": "data, predictions and runs under the lens",
    "cli": "the command segdre",
}


class Import(NamedTuple):
    """One import of a module of the package by another one."""

    source: str
    target: str
    line: int
    lazy: bool  # inside a function


def room(module: str) -> str | None:
    """Return the room of a module (``segdre_plugin.seg.fuse`` -> ``seg``); None if it stands in none."""
    first = module.removeprefix(PACKAGE).removeprefix(".").split(".")[0]
    found = ROOM_OF.get(first, first)
    return found if found in FLOOR_OF else None


def modules(sources: Mapping[str, Path] = SOURCES) -> dict[str, Path]:
    """Return the modules of the packages.

    Args:
        sources: package -> its folder.

    Returns:
        Module name -> file; a package goes by its own name.
    """
    found = {}
    for package, folder in sources.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


def read_imports(sources: Mapping[str, Path] = SOURCES) -> list[Import]:
    """Read all imports of the packages' modules by each other.

    Imports inside functions, under ``if TYPE_CHECKING`` and by ``importlib.import_module`` of a literal name count
    ``from segdre_plugin import __version__`` does not, nor does what the package's own ``__init__.py`` imports.

    Args:
        sources: package -> its folder.

    Returns:
        The imports, in the order of files and lines.
    """
    known = modules(sources)
    return [
        found
        for name, path in known.items()
        if name != PACKAGE
        for found in _of_file(name, path, known)
        if found.target != name
    ]


def _of_file(name: str, path: Path, known: Mapping[str, Path]) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    left: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_text(encoding="utf-8")), False)]
    while left:
        node, inside = left.pop()
        for target in _targets(node, package, known):
            yield Import(name, target, node.lineno, inside)
        inside = inside or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        left += [(child, inside) for child in reversed(list(ast.iter_child_nodes(node)))]


def _targets(node: ast.AST, package: str, known: Mapping[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            if (base, alias.name) != (PACKAGE, "__version__"):
                # "from package import name" means a module of the package, or a name that its __init__.py has
                names = (f"{base}.{alias.name}", base)
                yield from [name for name in names if name in known][:1]
    elif isinstance(node, ast.Call):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        literal = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        if called == "import_module" and literal in known:
            yield literal


def against_the_direction(imports: Iterable[Import]) -> list[str]:
    """Return the imports that do not go down, one line each, and the modules that stand in no room."""
    problems = []
    for found in imports:
        here, there = room(found.source), room(found.target)
        if here is None or there is None:
            problems.append(f"{found.source if here is None else found.target}: in no room")
        elif here != there and FLOOR_OF[there] >= FLOOR_OF[here]:
            problems.append(f"{found.source}:{found.line}: {here} imports {there} ({found.target})")
    return list(dict.fromkeys(problems))


def circles(imports: Iterable[Import]) -> list[list[str]]:
    """Return the groups of modules of one room that import each other in a circle.

    A look-up of the adapters inside a function is not counted: a registry knows its entries, which import what they
    are entries of.
    """
    below: dict[str, set[str]] = defaultdict(set)
    for found in imports:
        lookup = found.lazy and found.target.startswith(f"{PACKAGE}.adapters")
        if room(found.source) == room(found.target) and not lookup:
            below[found.source].add(found.target)
    reached = {name: _reachable(name, below) for name in below}
    groups = {
        tuple(sorted({other for other in seen if name in reached.get(other, ())})) for name, seen in reached.items()
    }
    return [list(group) for group in sorted(groups) if group]


def _reachable(start: str, below: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(below.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(below.get(name, ()))
    return seen


def arrows(imports: Iterable[Import]) -> set[tuple[str, str]]:
    """Return which room imports which other one."""
    pairs = {(room(found.source), room(found.target)) for found in imports}
    return {(here, there) for here, there in pairs if here and there and here != there}


def shortest(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Return the arrows that no chain of other arrows replaces (the transitive reduction)."""
    below: dict[str, set[str]] = defaultdict(set)
    for here, there in pairs:
        below[here].add(there)
    return {
        (here, there)
        for here, there in pairs
        if not any(there in _reachable(other, below) for other in below[here] - {there})
    }


# Of the picture, in pixels.
WIDTH, MARGIN, COLUMN, GAP, HEAD, LINE = 900, 24, (150, 750), 34, 46, 16
INK, QUIET, WRONG, PAPER = "#1f2937", "#b6bec9", "#c2410c", "#f3f6fa"
LETTERS = 80  # of a line of file names in a box as wide as the column


def draw(imports: Iterable[Import], known: Iterable[str]) -> str:
    """Draw the rooms, what is in them, and who imports whom.

    Dark arrows are those that no chain of others replaces; the rest are pale, at the side. Arrows against the direction
    would be red.

    Args:
        imports: the imports of the package.
        known: its modules.

    Returns:
        The text of an SVG file, the same for the same imports.
    """
    pairs = arrows(imports)
    shown = {name for pair in pairs for name in pair} - {"package"}
    contents = _contents(known)
    boxes, y = {}, MARGIN
    for rooms in reversed([[name for name in floor if name in shown] for floor in FLOORS]):
        if not rooms:
            continue
        width = (COLUMN[1] - COLUMN[0] - 20 * (len(rooms) - 1)) / len(rooms)
        texts = [_wrap(contents[name], int(LETTERS * width / (COLUMN[1] - COLUMN[0]))) for name in rooms]
        height = HEAD + LINE * max(map(len, texts)) + 6
        for i, (name, lines) in enumerate(zip(rooms, texts, strict=True)):
            boxes[name] = (COLUMN[0] + i * (width + 20), y, width, height, lines)
        y += height + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y - GAP + MARGIN}" '
        f'font-family="Helvetica, Arial, sans-serif" fill="{INK}">',
        "<title>The rooms of segdre_plugin; an arrow says that one imports the other</title>",
        "<defs>",
        *(
            f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0 8 4 0 8z" fill="{colour}"/></marker>'
            for name, colour in (("dark", INK), ("pale", QUIET), ("wrong", WRONG))
        ),
        "</defs>",
        f'<rect width="{WIDTH}" height="{y - GAP + MARGIN}" fill="white"/>',
    ]
    dark = shortest(pairs)
    for here, there in sorted(pairs):
        if here in boxes and there in boxes:
            parts.append(_arrow(here, there, boxes, (here, there) in dark))
    for name, (left, top, width, height, lines) in boxes.items():
        parts += [
            f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="8" fill="{PAPER}" '
            f'stroke="{INK}"/>',
            f'<text x="{left + 14:g}" y="{top + 21:g}" font-size="15" font-weight="bold">{escape(name)}</text>',
            f'<text x="{left + 14:g}" y="{top + 39:g}" font-size="12">{escape(WHAT[name])}</text>',
            *(
                f'<text x="{left + 14:g}" y="{top + HEAD + 10 + LINE * i:g}" font-size="11" fill="#4b5563" '
                f'font-family="Menlo, Consolas, monospace">{escape(line)}</text>'
                for i, line in enumerate(lines)
            ),
        ]
    return "\n".join([*parts, "</svg>", ""])


def _contents(known: Iterable[str]) -> dict[str, list[str]]:
    """Return the files and folders of each room, as they stand in it."""
    found: dict[str, dict[str, bool]] = defaultdict(dict)
    for name in sorted(known):
        home = room(name)
        first, *rest = name.removeprefix(f"{PACKAGE}.").split(".")
        if home and home != first:  # the equations, and what lies beside the package
            found[home][first if home == "equations" else f"{first}/"] = True
        elif home and rest:
            found[home][rest[0] + ("/" if any(other.startswith(f"{name}.") for other in known) else "")] = True
    return {name: [text for text in found[name] if f"{text}/" not in found[name]] for name in FLOOR_OF}


def _wrap(words: list[str], most: int) -> list[str]:
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) + 2 > most:
            lines.append("")
        lines[-1] += ("  " if lines[-1] else "") + word
    return [line for line in lines if line]


def _arrow(here: str, there: str, boxes: Mapping[str, tuple[float, float, float, float, list[str]]], dark: bool) -> str:
    wrong = FLOOR_OF[there] >= FLOOR_OF[here]
    left, top, width, height, _ = boxes[here]
    left2, top2, width2, height2, _ = boxes[there]
    kind = "wrong" if wrong else "dark" if dark else "pale"
    middle = min(max(left + width / 2, left2 + 30), left2 + width2 - 30)
    middle = min(max(middle, left + 30), left + width - 30)
    if not wrong and dark:
        way = f"M{middle:g} {top + height:g} {middle:g} {top2 - 1:g}"
    else:
        # at the side on which the upper box stands; each floor that is passed bends it further
        right = wrong or left > COLUMN[0]
        x, x2 = (left + width, left2 + width2 + 1) if right else (left, left2 - 1)
        start, end = top + height / 2 + 5 * FLOOR_OF[there] - 20, top2 + height2 / 2 + 5 * FLOOR_OF[here] - 30
        bend = 18 + 13 * abs(FLOOR_OF[here] - FLOOR_OF[there])
        out = max(x, x2) + bend if right else min(x, x2) - bend
        way = f"M{x:g} {start:g} C{out:g} {start:g} {out:g} {end:g} {x2:g} {end:g}"
    colour = {"wrong": WRONG, "dark": INK, "pale": QUIET}[kind]
    return (
        f'<path data-from="{here}" data-to="{there}" d="{way}" fill="none" stroke="{colour}" '
        f'stroke-width="{1.6 if dark else 1:g}" marker-end="url(#{kind})"/>'
    )


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(draw(read_imports(), modules()), encoding="utf-8")
    print(f"written: {PICTURE}")


if __name__ == "__main__":
    main()

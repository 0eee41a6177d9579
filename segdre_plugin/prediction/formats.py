"""The formats of ``segdre predict`` that are made of the answers once all of them are there.

``official`` is DocRED's list of triples, ``csv`` has a row a triple, ``rdf`` is N-Triples (W3C): a blank node for each
entity that has a triple and for its document, labelled; relations and our two properties are under ``urn:segdre:``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping
from typing import IO, Any
from urllib.parse import quote

from segdre_plugin.prediction.answers import official_rows

Answers = Iterable[Mapping[str, Any]]
COLUMNS = ("index", "title", "h_idx", "head", "r", "relation", "t_idx", "tail", "score", "source", "evidence")
NAMESPACE = "urn:segdre:"
LABEL = "<http://www.w3.org/2000/01/rdf-schema#label>"


def write_official(file: IO[bytes], answers: Answers) -> None:
    """Write DocRED's list of triples."""
    separator = b"[\n"
    for answer in answers:
        for row in official_rows([answer]):
            file.write(separator + json.dumps(row, ensure_ascii=False).encode())
            separator = b",\n"
    file.write(b"\n]\n" if separator == b",\n" else b"[]\n")


def write_csv(file: IO[bytes], answers: Answers) -> None:
    """Write a row a triple, ``source`` and ``evidence`` as words between spaces; ``index`` is the document's number."""
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    rows = csv.writer(text)  # lines end as in RFC 4180, else a lone carriage return stays unquoted
    rows.writerow(COLUMNS)
    for answer in answers:
        for triple in answer["triples"]:
            lists = {name: " ".join(map(str, triple.get(name, ()))) for name in ("source", "evidence")}
            row = {**answer, **triple, **lists}
            rows.writerow([row[name] for name in COLUMNS])
    text.detach()


def write_rdf(file: IO[bytes], answers: Answers) -> None:
    """Write N-Triples; what has no triple is left out, and so are scores, sources and evidence."""
    relations = set()
    for answer in answers:
        document = f"_:d{answer['index']}"
        named = set()
        lines = [f"{document} {LABEL} {_literal(answer['title'])} ."] if answer["triples"] else []
        for triple in answer["triples"]:
            for end, name in (("h_idx", "head"), ("t_idx", "tail")):
                entity = f"{document}e{triple[end]}"
                if entity not in named:
                    named.add(entity)
                    lines.append(f"{entity} {LABEL} {_literal(triple[name])} .")
                    lines.append(f"{entity} <{NAMESPACE}document> {document} .")
            relation = f"<{NAMESPACE}relation:{quote(triple['r'], safe='')}>"
            if relation not in relations:
                relations.add(relation)
                lines.append(f"{relation} {LABEL} {_literal(triple['relation'])} .")
            lines.append(f"{document}e{triple['h_idx']} {relation} {document}e{triple['t_idx']} .")
        file.write("".join(f"{line}\n" for line in lines).encode())


def _literal(text: str) -> str:
    """Return a literal; what JSON escapes in a string, and how, N-Triples understands too."""
    return json.dumps(text, ensure_ascii=False)


# format -> its writer; None: the lines of answers themselves
FORMATS: dict[str, Callable[[IO[bytes], Answers], None] | None] = {
    "jsonl": None,
    "official": write_official,
    "csv": write_csv,
    "rdf": write_rdf,
}

"""Folders of files of documents, and of their answers: JSON and JSONL as everywhere, and Parquet (pyarrow).

A Parquet file has DocRED's fields as columns (``title``, ``sents``, ``vertexSet``; null stands for a missing field), or
one column ``document`` with a document's JSON in each row. Answers have a row a document.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from segdre_plugin.data.stream import decode_line, read_values
from segdre_plugin.errors import SegDREError, explained, raise_all

ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".parquet")
FIELDS = ("title", "sents", "vertexSet")
ROWS = 1024  # of answers in a row group


def input_files(path: Path) -> dict[str, Path]:
    """Return the files of a folder of documents, or a file alone: name without its ending -> file, sorted.

    Names that begin with ``_`` or ``.`` are left out, as by other readers of such folders.

    Raises:
        SegDREError: if there are none, files of other formats are among them, or two have the same name.
    """
    with explained(f"cannot read {path}"):
        files = sorted(p for p in path.iterdir() if p.name[0] not in "._") if path.is_dir() else [path]
    others = [file.name for file in files if not file.is_file() or not file.name.endswith(ENDINGS)]
    raise_all(others, f"{path}: expected files that end in {', '.join(ENDINGS)}, got", "move these, or pass others")
    if not files:
        raise SegDREError(f"{path}: no files that end in {', '.join(ENDINGS)}", "pass another folder")
    found: dict[str, Path] = {}
    for file in files:
        name = file.name.removesuffix(".gz").rpartition(".")[0]
        if name in found:
            raise SegDREError(f"{path}: {found[name].name} and {file.name} have the same name", "rename one of them")
        found[name] = file
    return found


def read_file(path: Path) -> Iterator[Any]:
    """Return candidates for documents of a file one by one, as :func:`segdre_plugin.data.stream.read_values` does.

    Returns:
        An iterator, which raises SegDREError where the file cannot be read.
    """
    return _read_parquet(path) if path.suffix == ".parquet" else read_values(path)


def _read_parquet(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    try:
        with explained(f"documents: cannot read {path}"), ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = ["document"] if "document" in names else [n for n in names if n in (*FIELDS, "labels")]
            if columns != ["document"] and not {*FIELDS} <= {*columns}:
                needed = f"expected columns {', '.join(FIELDS)}, or one of JSON, document"
                raise SegDREError(f"documents: {path}: {needed}, got {', '.join(names)}", "rename or add columns")
            for batch in file.iter_batches(batch_size=64, columns=columns):
                for row in batch.to_pylist():
                    value = row.get("document", row)
                    yield decode_line(value.encode()) if isinstance(value, str) else _without_null(value)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        reason = str(error).partition("\n")[0]
        raise SegDREError(f"documents: {path} is not Parquet: {reason}", "check that the file is whole") from None


def _without_null(value: Any) -> Any:
    """Leave out null fields: a column has a value for each row, a JSON object need not have a field."""
    if isinstance(value, dict):
        return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
    return [_without_null(inner) for inner in value] if isinstance(value, list) else value


def _write_lines(file: IO[bytes], lines: Iterable[str]) -> None:
    file.writelines(line.encode() for line in lines)


def _write_parquet(file: IO[bytes], lines: Iterable[str]) -> None:
    """Write the answers of :mod:`segdre_plugin.prediction.answers`; here ``salient`` is always a list."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    number, text = pa.int64(), pa.string()
    named = {"h_idx": number, "r": text, "t_idx": number, "head": text, "relation": text, "tail": text}
    scored = {"score": pa.float64(), "source": pa.list_(text), "evidence": pa.list_(number)}
    columns = {"index": number, "file": text, "title": text}
    columns["salient"] = pa.list_(pa.struct({"entity": number, "name": text, "count": pa.float64()}))
    columns |= {name: pa.list_(pa.struct(t)) for name, t in (("triples", named | scored), ("injected", named))}
    schema = pa.schema(columns | {"unseen_entities": pa.list_(number)})
    rows = map(json.loads, lines)
    with ParquetWriter(file, schema) as writer:
        while group := list(islice(rows, ROWS)):
            for row in group:
                if not isinstance(row["salient"], list):
                    row["salient"] = [row["salient"]] if row["salient"] else []
            writer.write_table(pa.Table.from_pylist(group, schema))


# format -> its writer of lines of answers
WRITERS: dict[str, Callable[[IO[bytes], Iterable[str]], None]] = {"jsonl": _write_lines, "parquet": _write_parquet}

"""Mutated inputs for the commands that read files of strangers, against a slow check of our own (good_inputs.py).

``python tests/helpers/mutations.py --count 2500 --seed 0`` tries as many for each command and prints what came of them:
exceptions other than our errors, broken inputs that were accepted, and good ones that were refused.
"""

import argparse
import contextlib
import copy
import io
import json
import random
import tempfile
import traceback
from collections import Counter
from functools import partial
from pathlib import Path

from good_inputs import (
    UnsureError,
    good_document,
    good_documents,
    good_names,
    good_predictions,
    good_relations,
    good_texts,
    parse,
)

from segdre_plugin import SegPipeline
from segdre_plugin.cli import main

RELATIONS = {"Na": 0, "P1": 1, "P2": 2}
DEEP = "<deep>"  # in a file: nested lists
VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2,
    9,
    1.0,
    0.5,
    "",
    " ",
    "0",
    "Na",
    "N/A",
    "P1",
    "A",
    "a" * 300,
    [],
    {},
    [0],
    [0, 1],
]
VALUES += [[1, 0], {"h": 0}, "\ud800", "*", "[SEP]", "\u200b", "\x00", 2**40, 2**70, float("nan"), float("inf"), DEEP]


def document(title, *words):
    """Make a document of two sentences, three entities and two labels."""
    mention = [{"name": word, "sent_id": i % 2, "pos": [0, 1], "type": "MISC"} for i, word in enumerate(words)]
    return {
        "title": title,
        "sents": [[words[0], "lies", "by", words[2], "."], [words[1], "lives", "in", words[0], "."]],
        "vertexSet": [
            [mention[0], mention[0] | {"sent_id": 1, "pos": [3, 4]}],
            [mention[1]],
            [mention[2] | {"pos": [3, 4]}],
        ],
        "labels": [{"h": 1, "t": 0, "r": "P1", "evidence": [1]}, {"h": 0, "t": 2, "r": "P2", "evidence": [0]}],
    }


DOCUMENTS = [
    document("A", "Varn", "Olo", "Fik"),
    document("B", "Tovo", "Rosa", "Gel"),
    document("C", "Dos", "Ed", "Vif"),
]
ROWS = [
    {"title": d["title"], "h_idx": k["h"], "t_idx": k["t"], "r": k["r"], "evidence": k["evidence"], "score": 0.5}
    for d in DOCUMENTS
    for k in d["labels"]
]
LINES = [
    {"index": i, "title": d["title"], "triples": [r for r in ROWS if r["title"] == d["title"]]}
    for i, d in enumerate(DOCUMENTS)
]
TEXTS = [
    {
        "title": "A",
        "text": "Olo lives in Varn. He is old.",
        "entities": [{"type": "PER", "mentions": [[0, 3], [19, 21]]}],
    },
    {
        "title": "B",
        "text": "Zoe\u0308 sah\nVibe\u0301r.",
        "entities": [{"mentions": [[0, 4]]}, {"mentions": [[9, 15]]}],
    },
]


good_rows = partial(good_predictions, documents=DOCUMENTS)


# Mutations


def places(value, path=()):
    """Return every path into a value but the empty one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, part in inner for found in ((*path, key), *places(part, (*path, key)))]


def change(value, rng):
    """Replace, remove, double or swap a part of a value, in place."""
    path = rng.choice(places(value) or [()])
    if not path:
        return
    part = value
    for step in path[:-1]:
        part = part[step]
    how, key = rng.choice(["replace", "replace", "replace", "remove", "double", "swap"]), path[-1]
    if how == "replace":
        part[key] = copy.deepcopy(rng.choice(VALUES))
    elif how == "remove":
        del part[key]
    elif how == "double" and isinstance(part, list):
        part.insert(rng.randrange(len(part) + 1), copy.deepcopy(part[key]))
    elif how == "swap":
        other = rng.choice(list(part) if isinstance(part, dict) else range(len(part)))
        part[key], part[other] = part[other], part[key]


def written(values, rng):
    """Return values as a file: a list or lines, now and then with bytes changed."""
    if not isinstance(values, list) or rng.random() < 0.5:
        data = json.dumps(values, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])).encode(
            errors="surrogatepass"
        )
    else:
        ends = rng.choice([b"\n", b"\r\n", b"\n\n"])
        data = b"".join(
            json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass") + ends for value in values
        )
    data = data.replace(f'"{DEEP}"'.encode(), b"[" * 600 + b"]" * 600)
    if rng.random() < 0.2:
        data = bytearray(data)
        at = rng.randrange(len(data) + 1)
        how = rng.choice(["cut", "flip", "insert", "remove", "bom", "utf-16"])
        if how == "cut":
            del data[at:]
        elif how == "flip" and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif how == "insert":
            data[at:at] = rng.choice(
                [b"\xff", b"\x00", b"]", b"}", b",", b'"', b"\n", b"\xed\xa0\x80", b"NaN", b" " * 9]
            )
        elif how == "remove":
            del data[at : at + rng.randrange(1, 9)]
        elif how == "bom":
            data[:0] = b"\xef\xbb\xbf"
        elif how == "utf-16":
            data = data.decode(errors="replace").encode("utf-16")
    return bytes(data)


def mutated(values, rng):
    """Return a file of values with up to three mutations."""
    values = copy.deepcopy(values)
    for _ in range(rng.choice([0, 1, 1, 1, 2, 3])):
        change(values, rng)
    return written(values, rng)


# Commands: what is mutated, the command line, whether the values are good, and what good ones have to give


def same_words(values, folder):
    """Return whether what convert wrote holds each text and each mention, word for word."""
    documents = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    for value, made in zip(values, documents, strict=True):
        assert good_document(made)
        words = [word for sent in made["sents"] for word in sent]
        assert "".join(words) == "".join(value["text"].split())
        for entity, mentions in zip(value["entities"], made["vertexSet"], strict=True):
            for span, m in zip(entity["mentions"], mentions, strict=True):
                found = "".join(made["sents"][m["sent_id"]][slice(*m["pos"])])
                assert found == "".join(value["text"][slice(*span)].split())


def counted(values, folder):
    """Check that stats counted each document."""
    (found,) = json.loads((folder / "out.json").read_text(encoding="utf-8")).values()
    assert found["documents"] == len(values)


def answered(values, folder):
    """Check that predict answered the good documents and rejected the others."""
    out = [json.loads(line) for line in (folder / "out.json").read_bytes().splitlines()]
    rejected = folder / "out.json.rejected.jsonl"
    others = [json.loads(line) for line in rejected.read_bytes().splitlines()] if rejected.exists() else []
    assert sorted(row["index"] for row in [*out, *others]) == list(range(len(values)))
    for row in out:
        assert good_document(values[row["index"]], labels=False), "answered, though broken"
    for row in others:
        long = any("--max_seq_length" in reason or "two windows" in reason for reason in row["reasons"])
        assert long or not good_document(values[row["index"]], labels=False), "rejected, though good"


NAMES = {"P1": "lives in", "P2": "lies by"}
FILES = {"gold.json": DOCUMENTS, "rows.json": ROWS, "rel2id.json": RELATIONS}
COMMANDS = {
    "validate": (
        DOCUMENTS,
        "validate IN --rel2id rel2id.json",
        lambda values: good_documents(values, relations=RELATIONS.keys()),
        None,
    ),
    "stats": (DOCUMENTS, "stats IN --json OUT", lambda values: bool(values) and good_documents(values), counted),
    "evaluate": (ROWS, "evaluate IN --gold gold.json --json OUT", good_rows, None),
    "evaluate lines": (LINES, "evaluate IN --gold gold.json --json OUT", good_rows, None),
    "evaluate gold": (DOCUMENTS, "evaluate rows.json --gold IN --json OUT", None, None),
    "evaluate train": (DOCUMENTS, "evaluate rows.json --gold gold.json --train IN --json OUT", good_documents, None),
    "rel2id": (RELATIONS, "validate gold.json --rel2id IN", good_relations, None),
    "rel_info": (NAMES, "stats gold.json --rel-info IN --json OUT", good_names, None),
    "convert": (TEXTS, "convert IN --output OUT", good_texts, same_words),
    "predict": (DOCUMENTS, "predict BUNDLE --input IN --output OUT --on-error skip", lambda values: True, answered),
}


def attempt(name, seed, folder, bundle="bundle"):
    """Run a command on one mutated input.

    Returns:
        What came of it (ok, refused, unsure; exception, silent, false refusal), and more about the last three.
    """
    rng = random.Random(f"{name} {seed}")
    values, line, is_good, look = COMMANDS[name]
    data = mutated(values, rng)
    (folder / "in.json").write_bytes(data)
    for path in folder.glob("*out.json*"):
        path.unlink()
    words = {"IN": folder / "in.json", "OUT": folder / "out.json", "BUNDLE": bundle} | {n: folder / n for n in FILES}
    arguments = [str(words.get(word, word)) for word in line.split()]
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            status = main(arguments)
        said.getvalue().encode()
    except BaseException:
        return "exception", traceback.format_exc()
    try:
        found = parse(data) if isinstance(values, list) else [json.loads(data.decode("utf-8-sig"))]
        good = good_gold(found) if is_good is None else is_good(found)
    except UnsureError:
        return "unsure", ""
    except (ValueError, RecursionError):
        found, good = [], False
    if good != (status == 0):
        return ("false refusal" if good else "silent"), said.getvalue()
    if status:
        left = {path.name for path in folder.iterdir()} - {"in.json", *FILES}
        return ("exception", f"left behind: {left}") if left and name != "predict" else ("refused", "")
    try:
        if look:
            look(found, folder)
    except AssertionError:
        return "silent", traceback.format_exc()
    return "ok", ""


def good_gold(values):
    """Return whether ROWS can be scored against a file of gold."""
    if not good_documents(values):
        return False
    sizes = {value["title"]: (len(value["vertexSet"]), len(value["sents"])) for value in values}
    if not any(value.get("labels") for value in values):
        return True  # no gold: said, and nothing is scored
    for row in ROWS:
        n, sents = sizes.get(row["title"], (9, 9))
        if max(row["h_idx"], row["t_idx"]) >= n or max(row["evidence"]) >= sents:
            return False
    return any(row["title"] in sizes for row in ROWS)


@contextlib.contextmanager
def one_pipeline(bundle):
    """Load a bundle once, and not for each prediction."""
    loaded, before = SegPipeline.from_pretrained(bundle), SegPipeline.from_pretrained
    SegPipeline.from_pretrained = staticmethod(lambda *_, **__: loaded)
    try:
        yield
    finally:
        SegPipeline.from_pretrained = before


def attempts(name, seeds, bundle="bundle"):
    """Try a command on many mutated inputs; return the counts, and the first few that went wrong."""
    counts, wrong = Counter(), []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for file, value in FILES.items():
            (folder / file).write_text(json.dumps(value))
        for seed in seeds:
            found, more = attempt(name, seed, folder, bundle)
            counts[found] += 1
            if found in ("exception", "silent", "false refusal"):
                wrong.append(
                    f"{name}, seed {seed}: {found}\n{more[-1500:]}\n{(folder / 'in.json').read_bytes()[:600]!r}"
                )
    return counts, wrong


def run():
    """Try all commands."""
    from bundles import bundle_run, finished_run

    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS))
    options = parser.parse_args()
    total = Counter()
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        if "predict" in options.commands:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                bundle = bundle_run(finished_run(Path(place)), Path(place) / "bundle")
            stack.enter_context(one_pipeline(bundle))
        for name in options.commands:
            first = options.seed * options.count
            where = bundle if name == "predict" else "bundle"
            counts, wrong = attempts(name, range(first, first + options.count), where)
            total += counts
            print(f"{name:<15}", dict(sorted(counts.items())), flush=True)
            for line in wrong[:3]:
                print(line)
    print(f"{'all':<15}", dict(sorted(total.items())), "of", sum(total.values()))


if __name__ == "__main__":
    run()

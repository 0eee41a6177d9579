"""``segdre demo``: the whole method on a generated corpus, with a tiny encoder trained from scratch, on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from segdre_plugin.data.files import read_json, write_json
from segdre_plugin.data.synthetic.corpus import RELATIONS, rel2id, write_corpus
from segdre_plugin.errors import SegDREError
from segdre_plugin.seg.launch import run_reference
from segdre_plugin.seg.options import parse
from segdre_plugin.stages.branches import entity_name


def demo(folder: Path, *, train: int, dev: int, test: int, epochs: int, seed: int, options: Sequence[str] = ()) -> None:
    """Generate a corpus, train all stages on it, fuse them, and print the results.

    The folder gets ``corpus/`` and everything that a ``--seg`` run leaves. Base, dense and sparse are trained for
    ``epochs``, identify for half of them; ``options`` are further ones of ``--seg``.

    Raises:
        SegDREError: if a size makes no sense, an option is wrong, or the folder holds another demo.
    """
    for name, value, least in (
        ("train", train, 1),
        ("dev", dev, 1),
        ("test", test, 1),
        ("epochs", epochs, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise SegDREError(f"--{name} is {value}", f"pass {least} or more")
    corpus = folder / "corpus"
    own = {
        "--data_dir": corpus,
        "--num_class": len(rel2id()),
        "--num_train_epochs": epochs,
        "--seed": seed,
        "--seg-dir": folder,
        "--seg-identify-epochs": max(1, epochs // 2),
    }
    arguments = ["--seg", *(str(part) for pair in own.items() for part in pair), *options]
    parse(arguments)  # what is wrong with the options is said before anything is written
    prepare_corpus(corpus, {"train": train, "dev": dev, "test": test, "seed": seed})
    print(f"segdre: {train} train, {dev} dev and {test} test documents, generated from seed {seed}: {corpus}")
    with _one_thread():
        run_reference(arguments)
    documents = read_json(corpus / "test.json", "test documents")
    print_injection(documents, read_json(folder / "sparse" / "injected.json", "injected triples")["test"]["triples"])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: more gain nothing with so small a model, and wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def prepare_corpus(corpus: Path, sizes: dict[str, int]) -> None:
    """Write the embedded corpus of the ``sizes`` of train, dev and test and the seed, unless it already exists.

    Raises:
        SegDREError: if there is another one.
    """
    mark = corpus / "sizes.json"
    if not mark.exists():
        write_corpus(corpus, train=sizes["train"], dev=sizes["dev"], test=sizes["test"], seed=sizes["seed"])
        write_json(mark, sizes)
    found = read_json(mark, "corpus")
    if found != sizes:
        raise SegDREError(
            f"{corpus} was made with other settings: {_words(found)} there, {_words(sizes)} now",
            "use the same settings, or another folder",
        )


def _words(sizes: dict[str, int]) -> str:
    return " ".join(f"--{name} {value}" for name, value in sizes.items())


def print_injection(documents: Sequence[dict[str, Any]], triples: Sequence[Sequence[Any]]) -> None:
    """Print one document and the triples that were injected into it."""
    chosen = max(range(len(documents)), key=lambda i: (len(triples[i]), -i))
    document = documents[chosen]
    gold = {(label["h"], label["r"], label["t"]) for label in document["labels"]}
    print(f"\n{document['title']}: " + " ".join(" ".join(sent) for sent in document["sents"]))
    print("injected before the sparse stage reads it:")
    for head, relation, tail in triples[chosen]:
        mark = "right" if (head, relation, tail) in gold else "wrong"
        print(f"  ({entity_name(document, head)}, {RELATIONS[relation]}, {entity_name(document, tail)})  {mark}")

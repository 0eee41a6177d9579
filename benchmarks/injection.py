"""Injection and its mask (eq. 9-10) against K-BERT's own builder, and against a visible matrix built on the host.

    python benchmarks/injection.py --data DIR --encoder DIR [--kbert CLONE]

reads real documents (DocRED's JSON with labels, and ``rel_info.json``), takes the gold dense triples of the gold
salient entity as branches, and gives every side the same tokens, anchor and branches. K-BERT is imported from a clone
of https://github.com/autoliuweijie/K-BERT (``--kbert``, the variable SEGDRE_KBERT, or ~/.cache/segdre/K-BERT). It works
on characters, so each token becomes one character, and the words that its segmenter would find are given to it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timing import CLOCKS, Row, compare, growth, interleaved, report
from torch import Tensor

from segdre_plugin.backbones.attention import visible_tokens
from segdre_plugin.backbones.clones.compat import AutoTokenizer
from segdre_plugin.backbones.hooks import assemble, present_tokens
from segdre_plugin.backbones.reference import build_features
from segdre_plugin.data.documents import load_documents
from segdre_plugin.data.files import read_json
from segdre_plugin.errors import SegDREError
from segdre_plugin.injection import Injection, inject, visible_matrix
from segdre_plugin.salient import gold_salient
from segdre_plugin.stages.branches import Verbaliser, gold_dense_triples

CLONE = Path(os.environ.get("SEGDRE_KBERT", "~/.cache/segdre/K-BERT")).expanduser()
FIRST = 0x20000  # token 0 as a character; none from there on is white space
MOST = 512  # tokens of a document; longer ones are read in two windows and left out here
KBERT, OURS, DENSE, HOST = "K-BERT's builder", "inject, mask on the device", "inject, matrix from the host", "inject"


@dataclass(frozen=True)
class Tree:
    """A document and its branches: token ids, the (start, end) of the anchor, token ids of each branch."""

    ids: list[int]
    anchor: tuple[int, int]
    branches: list[list[int]]

    @property
    def length(self) -> int:
        """Tokens in all."""
        return len(self.ids) + sum(map(len, self.branches))

    def inject(self) -> Injection:
        """Inject as the plugin does."""
        return inject(self.ids, [self.anchor], self.branches)


class Builder:
    """K-BERT's own ``add_knowledge_with_vm`` on our trees.

    Args:
        clone: a clone of K-BERT.

    Raises:
        SegDREError: if there is none.
    """

    def __init__(self, clone: Path) -> None:
        if not (clone / "brain" / "knowgraph.py").is_file():
            raise SegDREError(f"{clone}: no clone of K-BERT", "clone autoliuweijie/K-BERT and name it with --kbert")
        # its segmenter is not used; a stand-in will do where it is not installed
        self.stubbed = "pkuseg" not in sys.modules and not _installed("pkuseg")
        if self.stubbed:
            sys.modules["pkuseg"] = types.ModuleType("pkuseg")
            sys.modules["pkuseg"].pkuseg = lambda **_: None  # type: ignore[attr-defined]
        sys.path.insert(0, str(clone))
        bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # the clone stays as it is
        try:
            from brain.knowgraph import KnowledgeGraph
        finally:
            sys.path.remove(str(clone))
            sys.dont_write_bytecode = bytecode
        with contextlib.redirect_stdout(io.StringIO()):
            self.graph = KnowledgeGraph([])

    def __call__(self, words: list[str], table: dict[str, list[str]], length: int) -> tuple[list[int], np.ndarray]:
        """Build one tree.

        Args:
            words: the sentence in words.
            table: word -> texts of its branches.
            length: to which it is padded.

        Returns:
            Soft positions and visible matrix, float64 [length, length], in K-BERT's order: branches behind their word.
        """
        graph: Any = self.graph
        graph.lookup_table = table
        graph.tokenizer = types.SimpleNamespace(cut=lambda _: words)
        most = max(map(len, table.values()))
        _, (positions,), (matrix,), _ = graph.add_knowledge_with_vm([""], max_entities=most, max_length=length)
        return positions, matrix


def _installed(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


def text(ids: Sequence[int]) -> str:
    """Write tokens as characters."""
    return "".join(chr(FIRST + i) for i in ids)


def as_sentence(tree: Tree) -> tuple[list[str], dict[str, list[str]]]:
    """Put a tree into K-BERT's terms: words (the anchor is one, every other token another), and its knowledge."""
    start, end = tree.anchor
    anchor = text(tree.ids[start:end])
    words = [*text(tree.ids[:start]), anchor, *text(tree.ids[end:])]
    return words, {anchor: [text(branch) for branch in tree.branches]}


def read_trees(data: Path, encoder: Path, limit: int) -> tuple[list[Tree], dict[str, int]]:
    """Make trees of real documents; those too long for one window or without a dense triple are left out and counted.

    Args:
        data: a folder with ``dev.json``, ``rel2id.json`` and ``rel_info.json``.
        encoder: a folder with a tokenizer.
        limit: documents that are taken at most.

    Returns:
        The trees, and how many documents were taken and left out.
    """
    rel2id = read_json(data / "rel2id.json", "relations")
    tokenizer = AutoTokenizer.from_pretrained(str(encoder))
    verbalise = Verbaliser(tokenizer, read_json(data / "rel_info.json", "relation names"))
    trees: list[Tree] = []
    documents = load_documents(data / "dev.json", rel2id)[:limit]
    for document in documents:
        feature = build_features(document, tokenizer, rel2id)
        entity = gold_salient(document)
        triples = gold_dense_triples(document, entity)
        if entity is None or not triples or len(feature["input_ids"]) > MOST:
            continue
        branches = [tokens for tokens, _ in verbalise(document, entity, triples).branches]
        start, end = min(feature["entity_pos"][entity])
        trees.append(Tree(list(feature["input_ids"]), (start + 1, end + 1), branches))  # + 1: [CLS]
    return trees, {"documents": len(trees), "left_out": len(documents) - len(trees)}


def made_up(length: int, n_branches: int) -> Tree:
    """Make a tree of ``length`` document tokens and branches of four tokens."""
    return Tree(list(range(length)), (length // 4, length // 4 + 4), [list(range(9000, 9004))] * n_branches)


def attention_mask(trees: Sequence[Tree], device: torch.device) -> Tensor:
    """Return what a backbone's collate function makes of a batch: which tokens are not padding, long [batch, width]."""
    lengths = torch.tensor([[len(tree.ids)] for tree in trees])
    return (torch.arange(int(lengths.max())) < lengths).long().to(device)


def on_device(injections: Sequence[Injection], mask: Tensor) -> Tensor:
    """Build the visible matrices of a batch from integers, as the hooks do: bool [batch, L, L] on the mask's device."""
    node_ids, _, branch_ids, visibility = (part.to(mask.device) for part in assemble(injections, mask.shape[1]))
    return visible_tokens(node_ids, visibility, present_tokens(mask, branch_ids))


def from_host(matrices: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Pad matrices, stack them and bring them to the device: bool [batch, L, L]."""
    length = max(map(len, matrices))
    dense = np.zeros((len(matrices), length, length), dtype=bool)
    for row, matrix in zip(dense, matrices, strict=True):
        row[: len(matrix), : len(matrix)] = matrix
    return torch.from_numpy(dense).to(device)


def check(tree: Tree, builder: Builder) -> None:
    """Make sure that K-BERT's builder and the plugin agree on a tree.

    Args:
        tree: the tree.
        builder: K-BERT's.

    Raises:
        SegDREError: if soft positions or visible matrix differ.
    """
    positions, matrix = builder(*as_sentence(tree), tree.length)
    ours = tree.inject()
    end, added = tree.anchor[1], tree.length - len(tree.ids)
    # K-BERT inserts behind the anchor what we append
    order = [*range(end), *range(len(tree.ids), tree.length), *range(end, len(tree.ids))]
    visible = visible_matrix(ours.node_ids, ours.visibility)[np.ix_(order, order)]
    on = on_device([ours], attention_mask([tree], torch.device("cpu")))[0].numpy()
    same = (visible == (matrix > 0)).all() and (on == visible_matrix(ours.node_ids, ours.visibility)).all()
    if not same or ours.position_ids[order].tolist() != positions:
        raise SegDREError(f"{len(tree.ids)} tokens, {added} in branches: K-BERT and the plugin differ")


def sides(trees: Sequence[Tree], batch: int, builder: Builder, device: torch.device) -> dict[str, Callable[[], Any]]:
    """Return what is timed: each side goes through all trees, batch by batch."""
    batches = [trees[i : i + batch] for i in range(0, len(trees), batch)]
    given = [[as_sentence(tree) for tree in part] for part in batches]  # K-BERT's input; not timed
    masks = [attention_mask(part, device) for part in batches]
    lengths = [max(tree.length for tree in part) for part in batches]

    def kbert() -> None:
        for part, length in zip(given, lengths, strict=True):
            for sentence in part:
                builder(*sentence, length)

    def ours() -> None:
        for part, mask in zip(batches, masks, strict=True):
            on_device([tree.inject() for tree in part], mask)

    def dense() -> None:
        for part in batches:
            injections = [tree.inject() for tree in part]
            from_host([visible_matrix(i.node_ids, i.visibility) for i in injections], device)

    def alone() -> None:
        for tree in trees:
            tree.inject()

    return {KBERT: kbert, OURS: ours, DENSE: dense, HOST: alone}


def measure(trees: Sequence[Tree], batch: int, builder: Builder, device: torch.device, **how: Any) -> list[Row]:
    """Compare all sides on real documents, with the bytes that go to the device."""
    seconds = interleaved(sides(trees, batch, builder, device), **how)
    integers = squares = 0
    for i in range(0, len(trees), batch):
        parts = assemble([t.inject() for t in trees[i : i + batch]], max(len(t.ids) for t in trees[i : i + batch]))
        integers += sum(part.nbytes for part in parts)
        squares += len(trees[i : i + batch]) * max(t.length for t in trees[i : i + batch]) ** 2
    sent = {KBERT: squares, OURS: integers, DENSE: squares}
    rows = compare(f"{len(trees)} documents, batch {batch}", seconds, against=KBERT, bytes_to_device=sent)
    return [row | {"ms_a_document": 1000 * row["median_s"] / len(trees)} for row in rows]


def grow(builder: Builder, device: torch.device, **how: Any) -> list[Row]:
    """Time all sides as documents get longer and branches more: 64 made-up trees, eight in a batch."""
    cases = {
        "tokens (16 branches)": {n: made_up(n, 16) for n in (64, 128, 256, 512)},
        "branches (256 tokens)": {n: made_up(256, n) for n in (4, 16, 64, 128)},
    }
    rows: list[Row] = []
    for what, trees in cases.items():
        found = {size: interleaved(sides([tree] * 64, 8, builder, device), **how) for size, tree in trees.items()}
        exponents = {
            side: growth(list(trees), [float(np.median(seconds[side])) for seconds in found.values()])
            for side in (KBERT, OURS, DENSE, HOST)
        }
        for size, seconds in found.items():
            rows += compare(f"{size} {what}", seconds, against=KBERT, exponent=exponents)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with dev.json, rel2id.json, rel_info.json")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of an encoder, for its tokenizer")
    parser.add_argument("--kbert", type=Path, default=CLONE, help="clone of K-BERT (%(default)s)")
    parser.add_argument("--documents", type=int, default=100, help="real documents at most (%(default)s)")
    parser.add_argument("--batch", type=int, default=4, help="documents of a batch (%(default)s)")
    parser.add_argument("--repeats", type=int, default=9, help="timed rounds (%(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: without other processes (%(default)s)")
    parser.add_argument("--device", default="cpu", help="where masks are needed (%(default)s)")
    parser.add_argument("--json", type=Path, default=Path("injection.json"), help="where numbers go (%(default)s)")
    options = parser.parse_args(arguments)
    builder, device = Builder(options.kbert), torch.device(options.device)
    trees, counts = read_trees(options.data, options.encoder, options.documents)
    for tree in trees:
        check(tree, builder)
    tokens = {"tokens": sum(len(t.ids) for t in trees), "branches": sum(len(t.branches) for t in trees)}
    wait = torch.cuda.synchronize if device.type == "cuda" else None
    how = {"repeats": options.repeats, "synchronize": wait, "clock": CLOCKS[options.clock]}
    where = {"device": options.device, "repeats": options.repeats, "clock": options.clock}
    about = where | counts | tokens | {"batch": options.batch}
    about["pkuseg"] = "a stand-in: words are given to K-BERT" if builder.stubbed else "not used: words are given"
    report("Injection", measure(trees, options.batch, builder, device, **how), options.json, **about)
    target = options.json.with_stem(f"{options.json.stem}-growth")
    report("Injection: growth", grow(builder, device, **how), target, **where)


if __name__ == "__main__":
    main()

"""Features are compared with their documents: pairs and labels that a reader makes of something else are refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from segdre_plugin import SegDREError
from segdre_plugin.backbones.attach import attach_features
from segdre_plugin.backbones.reference import build_features, build_tokenizer
from segdre_plugin.data.splits import Split
from segdre_plugin.data.synthetic.corpus import write_corpus

ALL = replace(tiny.ATLOP, name="all", all_pairs=True, logits="loss")


@pytest.fixture
def corpus(tmp_path):
    """Two documents, what a reader makes of them, and the classes."""
    write_corpus(tmp_path, train=2, dev=1, test=1, seed=2)
    documents, rel2id, names = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("train_annotated", "rel2id", "rel_info")
    )
    tokenizer = build_tokenizer(documents, list(names.values()))
    return documents, [build_features(document, tokenizer, rel2id) for document in documents], rel2id


def attach(corpus, backbone=tiny.ATLOP, change=lambda feature: feature):
    documents, features, rel2id = corpus
    split = Split("train", Path("train.json"), documents)
    attach_features(split, [features[0], change(features[1])], backbone, "bert", False, rel2id)
    return split


def without(feature, k):
    return feature | {name: [x for i, x in enumerate(feature[name]) if i != k] for name in ("hts", "labels")}


def test_right_ones(corpus):
    assert len(attach(corpus).features) == 2
    arrays = attach(corpus, change=lambda one: one | {name: np.asarray(one[name]) for name in ("hts", "labels")})
    assert len(arrays.features) == 2
    order = np.random.default_rng(0).permutation(len(corpus[1][1]["hts"]))
    shuffled = lambda one: one | {name: [one[name][k] for k in order] for name in ("hts", "labels")}  # noqa: E731
    assert len(attach(corpus, change=shuffled).features) == 2


WRONG = {
    "one missing": (lambda one: without(one, 0), r"1 of \d+ pairs are missing, \[\("),
    "one twice": (
        lambda one: one | {name: [*one[name], one[name][0]] for name in ("hts", "labels")},
        "1 pairs occur twice",
    ),
    "no such entity": (lambda one: one | {"hts": [[0, 99], *one["hts"][1:]]}, r"pairs \[\(0, 99\)\] are not pairs of"),
    "with itself": (
        lambda one: one | {"hts": [*one["hts"], [1, 1]], "labels": [*one["labels"], one["labels"][-1]]},
        r"pairs \[\(1, 1\)\] are not pairs of its",
    ),
    "other classes": (
        lambda one: one | {"labels": [[row[0], *row[:0:-1]] for row in one["labels"]]},
        r"\d+ triples in its labels, \d+ in the document; \d+ differ",
    ),
    "labels of other pairs": (lambda one: one | {"labels": one["labels"][::-1]}, r"triples in its labels"),
    "fewer classes": (
        lambda one: one | {"labels": [row[:-1] for row in one["labels"]]},
        r"labels: expected \[pairs, \d+\]",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_ones(corpus, case):
    change, words = WRONG[case]
    title = corpus[0][1]["title"]
    with pytest.raises(
        SegDREError, match=rf"train.json: the backbone's reader gave other pairs or labels(.|\n)*{words}"
    ) as caught:
        attach(corpus, change=change)
    assert f"document 1 {title!r}" in str(caught.value)


def test_a_model_that_needs_all_pairs_may_have_those_with_themselves(corpus):
    n = len(corpus[0][1]["vertexSet"])
    none = [1] + [0] * (len(corpus[2]) - 1)

    def with_self(one):
        return one | {
            "hts": [*one["hts"], *([e, e] for e in range(n))],
            "labels": [*one["labels"], *[none] * n],
        }

    assert len(attach(corpus, ALL, with_self).features) == 2
    with pytest.raises(SegDREError, match="are not pairs of its"):
        attach(corpus, tiny.ATLOP, with_self)

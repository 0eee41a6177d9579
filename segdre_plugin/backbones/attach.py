"""The features that a backbone's reader built, checked against the documents of their split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from segdre_plugin.backbones.backbone import Backbone
from segdre_plugin.backbones.features import Feature, visible_entities
from segdre_plugin.data.splits import Split
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.vocabulary import Document, entities, label_triples

SUM_TOLERANCE = 0.02  # of a distribution that was stored in half precision


def attach_features(
    split: Split,
    features: Sequence[Feature],
    backbone: Backbone,
    transformer_type: str,
    skip_unusable: bool,
    rel2id: Mapping[str, int] | None = None,
) -> None:
    """Check the features that the backbone's reader built for a split, one for each document, and add them to it.

    With ``skip_unusable``, entities that the encoder does not see (by the backbone's windows) are accepted. With
    ``rel2id``, relation -> class, labels are compared with the documents'.

    Raises:
        SegDREError: if features and documents do not match (titles, pairs, labels), or an entity has no mention that
            the encoder sees.
    """
    titles = [feature.get("title") for feature in features]
    if titles != [document["title"] for document in split.documents]:
        raise SegDREError(
            f"{split.path}: the backbone's reader gave {len(features)} features that are not those of the "
            f"{len(split.documents)} documents",
            "check that the clone's prepro.py is the original one",
        )
    raise_all(
        [
            f"document {i} {document['title']!r}: {problem}"
            for i, (document, feature) in enumerate(zip(split.documents, features, strict=True))
            for problem in (*_pair_problems(document, feature, backbone), *_label_problems(document, feature, rel2id))
        ],
        f"{split.path}: the backbone's reader gave other pairs or labels than the documents have",
        f"is it the original one of {backbone.repository}, and does it read the same rel2id.json? Pairs of some entity "
        "types alone: --seg-pairs",
    )
    raise_all(
        [
            f"document {i} {feature['title']!r}: {problem}"
            for i, feature in enumerate(features)
            for problem in _token_problems(feature, backbone)
        ],
        f"{split.path}: token distributions (teacher attentions) that are not those of these documents",
        "make their file again, from these documents and with the same tokenizer",
    )
    if not skip_unusable:
        raise_all(
            [
                f"document {i} {document['title']!r}: entity {e} ({document['vertexSet'][e][0]['name']!r})"
                for i, (document, feature) in enumerate(zip(split.documents, features, strict=True))
                for e, seen in enumerate(visible_entities(feature, backbone, transformer_type))
                # some readers append to the entities what is not an entity of the document (AA: anaphors)
                if not seen and e < len(document["vertexSet"])
            ],
            f"{split.path}: entities without a mention inside the encoder's windows",
            "shorten these documents, raise --max_seq_length (two windows hold about 1,020 tokens; --seg-windows gives "
            "more), or leave the pairs of these entities out with --seg-skip-unusable (their gold triples still count)",
        )
    split.features = list(features)


def _pair_problems(document: Document, feature: Feature, backbone: Backbone) -> Iterator[str]:
    """Yield what is wrong with the pairs: each is one of two entities, once, and none is missing."""
    n = len(entities(document))
    pairs = [(int(head), int(tail)) for head, tail in feature["hts"]]
    due = {(h, t) for h in range(n) for t in range(n) if h != t}
    found = set(pairs) - ({(e, e) for e in range(n)} if backbone.all_pairs else set())
    if len(set(pairs)) < len(pairs):
        yield f"{len(pairs) - len(set(pairs))} pairs occur twice"
    if strange := sorted(found - due):
        yield f"pairs {strange[:3]} are not pairs of its {n} entities"
    if missing := sorted(due - found):
        yield f"{len(missing)} of {len(due)} pairs are missing, {missing[:3]} among them"


def _label_problems(document: Document, feature: Feature, rel2id: Mapping[str, int] | None) -> Iterator[str]:
    """Yield the difference between multi-hot labels of the pairs and the document's triples."""
    rows = feature.get("labels")
    if rel2id is None or rows is None or document.get("labels") is None or len(rows) != len(feature["hts"]):
        return  # where labels are packed, keep_pairs or collate knows how many there are
    hot = np.asarray(rows)
    if hot.ndim != 2 or hot.shape[1] != len(rel2id):
        if len(rows):
            yield f"labels: expected [pairs, {len(rel2id)}], got {list(hot.shape)}"
        return
    pairs = np.asarray(feature["hts"])
    found = {(*pairs[k].tolist(), relation) for k, relation in np.argwhere(hot[:, 1:] > 0).tolist()}
    due = {(triple.head, triple.tail, rel2id[triple.relation] - 1) for triple, _ in label_triples(document)}
    if found != due:
        yield f"{len(found)} triples in its labels, {len(due)} in the document; {len(found ^ due)} differ"


def _token_problems(feature: Feature, backbone: Backbone) -> Iterator[str]:
    """Yield the problems of the fields that hold a distribution over the document's tokens for each pair."""
    for name in backbone.token_fields:
        rows = feature.get(name)
        if rows is None:
            continue
        expected = (len(feature["hts"]), len(feature["input_ids"]))
        if tuple(rows.shape) != expected:
            yield f"{name} are {list(rows.shape)}, expected {list(expected)} [pairs, tokens]"
            continue
        sums = rows.sum(axis=1)
        strange = ~((abs(sums - 1) < SUM_TOLERANCE) | (sums == 0))  # so is NaN
        if strange.any():
            yield f"{name} of {int(strange.sum())} pairs do not sum to 1 over the document's tokens"

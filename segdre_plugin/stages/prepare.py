"""From the backbone's features to those of a wrapped model's stage; what a training loop calls before it collates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from segdre_plugin.backbones.attention import position_range
from segdre_plugin.backbones.features import (
    DENSE_PAIRS,
    Feature,
    add_branches,
    choose_pairs,
    pack_labels,
    visible_entities,
)
from segdre_plugin.backbones.hooks import wrap_state
from segdre_plugin.errors import SegDREError, raise_all
from segdre_plugin.injection import BoolArray
from segdre_plugin.salient import Salient, as_chain, dense_mask
from segdre_plugin.stages.branches import Triple, Verbaliser
from segdre_plugin.stages.pair_types import pair_mask


@dataclass(frozen=True)
class StageFeatures:
    """The features of a stage.

    Attributes:
        features: those with one pair or more.
        documents: for each feature, the index of its document.
        injected: for each document the triples that were injected into it (stage sparse).
        left_out: how many triples exceeded the token budget (stage sparse).
    """

    features: list[Feature]
    documents: list[int]
    injected: list[list[Triple]]
    left_out: int

    def __repr__(self) -> str:
        triples = sum(map(len, self.injected))
        return f"StageFeatures({len(self.features)} features, {triples} triples injected, {self.left_out} left out)"


def prepare_features(
    features: Sequence[Feature],
    documents: Sequence[Mapping[str, Any]],
    model: nn.Module,
    *,
    salient: Sequence[Salient] | None = None,
    triples: Sequence[Sequence[Triple]] | None = None,
    verbaliser: Verbaliser | None = None,
    pairs: Sequence[str] = (),
) -> StageFeatures:
    """Return features of the pairs of a wrapped model's stage, in stage sparse with branches; the old ones stay.

    Pairs of an entity without any mention that the encoder sees are left out, and so are documents without a pair.

    Args:
        features: the backbone's features, one a document.
        documents: the DocRED documents.
        model: the wrapped model; its stage decides.
        salient: the salient entity of each document, or its salient entities (stages dense and sparse, and the training
            of a base that shares its encoder with dense).
        triples: the dense triples to inject into each document, best-scored first (stage sparse).
        verbaliser: turns them into branches (stage sparse).
        pairs: types HEAD:TAIL of the candidate pairs; none: all pairs are candidates.

    Raises:
        SegDREError: if the model is not wrapped, lengths or titles differ, or the stage needs what is not given.
    """
    state = wrap_state(model)
    stage, backbone = state.stage, state.backbone
    needed = {"dense": ("salient",), "sparse": ("salient", "triples", "verbaliser")}.get(stage, ())
    passed = {"salient": salient, "triples": triples, "verbaliser": verbaliser}
    missing = [name for name in needed if passed[name] is None]
    if missing:
        raise SegDREError(f"prepare_features: stage {stage} needs {' and '.join(missing)}", "pass them")
    for name, parts in (("documents", documents), ("salient", salient), ("triples", triples)):
        if parts is not None and len(parts) != len(features):
            raise SegDREError(f"prepare_features: {len(parts)} {name} for {len(features)} features", "pass one of each")
    others = [
        f"{i}: feature {feature['title']!r}, document {document['title']!r}"
        for i, (feature, document) in enumerate(zip(features, documents, strict=True))
        if "title" in feature and feature["title"] != document["title"]
    ]
    raise_all(others, "prepare_features: features of other documents", "pass both in the same order", limit=5)

    config: Any = model.config
    kind = config.transformer_type
    max_positions, offset = position_range(getattr(model, backbone.encoder), kind)
    chosen: list[Feature] = []
    places: list[int] = []
    injected: list[list[Triple]] = [[] for _ in features]
    left_out = 0
    for i, feature in enumerate(features):
        chain = as_chain(salient[i]) if salient is not None else ()
        hts = np.asarray(feature["hts"], dtype=np.int64).reshape(-1, 2)
        visible = np.asarray(visible_entities(feature, backbone, kind), dtype=bool)
        keep = stage_pairs(feature, stage, chain) & visible[hts].all(axis=1) & (hts[:, 0] != hts[:, 1])
        if pairs:
            keep &= pair_mask(documents[i], pairs)[hts[:, 0], hts[:, 1]]
        if not keep.any():
            continue
        made = pack_labels(choose_pairs(feature, keep, backbone), backbone)
        if state.shared and salient is not None:
            made = made | {DENSE_PAIRS: dense_mask(made["hts"], chain)}
        if stage == "sparse":
            assert triples is not None
            assert verbaliser is not None
            words = verbaliser(documents[i], chain, triples[i] if chain else [])
            if chain:
                injected[i] = words.triples
            left_out += words.left_out
            made = add_branches(
                made,
                chain,
                words.branches,
                words.owners,
                backbone=backbone,
                transformer_type=kind,
                max_positions=max_positions,
                position_offset=offset,
                link=verbaliser.config.link,
            )
        chosen.append(made)
        places.append(i)
    return StageFeatures(chosen, places, injected, left_out)


def stage_pairs(feature: Feature, stage: str, salient: Salient) -> BoolArray:
    """Return which pairs of a document belong to a stage, bool [pairs].

    Base and identify take all pairs, dense those that involve a salient entity (section 3.4), sparse the others
    (section 3.5).
    """
    if stage in ("base", "identify"):
        return np.ones(len(feature["hts"]), dtype=bool)
    dense = dense_mask(feature["hts"], salient)
    return dense if stage == "dense" else ~dense

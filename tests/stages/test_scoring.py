"""What a model says of each pair has to be finite, in training as in prediction."""

import pytest
import tiny
import torch

from segdre_plugin import SegConfig, SegDREError, wrap_collate, wrap_model
from segdre_plugin.backbones.reference import collate_fn
from segdre_plugin.stages.scoring import score_counts, score_relations

HOW = {
    "collate_fn": wrap_collate(collate_fn, adapter=tiny.ATLOP),
    "batch_size": 2,
    "device": "cpu",
    "label": "",
}
ABSENT = 7  # a token of the second document alone


@pytest.fixture
def features():
    found = [tiny.feature(40, seed=seed) for seed in range(3)]
    for k, feature in enumerate(found):
        feature["input_ids"] = [9 if token == ABSENT else token for token in feature["input_ids"]]
        feature["input_ids"][1 + feature["entity_pos"][0][0][0]] = ABSENT if k == 1 else 9
    return found


@pytest.mark.parametrize("stage", ["base", "identify"])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_the_document_is_named(features, stage, value):
    model = wrap_model(tiny.model(), stage=stage, config=SegConfig(hidden=8))
    with torch.no_grad():
        model.model.embeddings.word_embeddings.weight[ABSENT] = value

    def score(chosen):
        if stage == "identify":
            return score_counts(model, chosen, **HOW)
        return score_relations(model, chosen, range(len(chosen)), **HOW)

    assert len(score([features[0], features[2]])) > 0
    with pytest.raises(SegDREError, match=rf"stage {stage}: logits that are not finite, .*in documents 'random 1'\n"):
        score(features)

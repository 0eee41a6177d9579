"""K-BERT inserts branches behind their anchor, we append them: the document's hidden states are the same."""

import pytest
import slow
import tiny
import torch

from segdre_plugin.backbones.attention import check_encoder, visible_tokens
from segdre_plugin.injection import inject

# name: tokens of the document, anchors, tokens of the branches
CASES = {
    "one branch": (20, [(4, 7)], [3]),
    "three branches, three mentions": (30, [(4, 7), (12, 16), (25, 28)], [3, 1, 5]),
    "nested and overlapping mentions": (24, [(2, 9), (4, 6), (8, 12)], [2, 4]),
    "the document's last tokens": (12, [(9, 11)], [4, 4]),
}


def case(kind, name):
    n, anchors, lengths = CASES[name]
    ids = tiny.feature(n, kind=kind, mentions=[[(0, 1)]])["input_ids"]
    tokens = iter(tiny.BRANCH_IDS)
    return ids, anchors, [[next(tokens) for _ in range(length)] for length in lengths]


def ours(encoder, kind, ids, anchors, branches, hide=True):
    """Run the appended layout through what the hooks use; give the document's states."""
    injection = inject(ids, anchors, branches, position_offset=tiny.OFFSET[kind])
    node_ids, input_ids, position_ids = (
        torch.from_numpy(part)[None] for part in (injection.node_ids, injection.input_ids, injection.position_ids)
    )
    visible = visible_tokens(node_ids, torch.from_numpy(injection.visibility)[None], torch.ones_like(node_ids) > 0)
    output = encoder(
        input_ids=input_ids,
        attention_mask=check_encoder(encoder, kind, 512)(visible if hide else torch.ones_like(visible), torch.float32),
        position_ids=position_ids,
        token_type_ids=torch.zeros_like(input_ids),
    )
    return output.last_hidden_state[0, : injection.n_document]


def kbert(encoder, kind, ids, anchors, branches):
    """Run the inserted layout, built token by token; give the document's states."""
    tokens = slow.inserted(*slow.tree(ids, anchors, branches, offset=tiny.OFFSET[kind]), anchors)
    states, _ = slow.encode(encoder, check_encoder(encoder, kind, 512), tokens, slow.matrix(tokens, anchors))
    return states[[i for i, token in enumerate(tokens) if token.branch is None]]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", tiny.KINDS)
@torch.no_grad()
def test_inserted_equals_appended(kind, name):
    encoder, document = tiny.encoder(kind), case(kind, name)
    torch.testing.assert_close(ours(encoder, kind, *document), kbert(encoder, kind, *document), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", tiny.KINDS)
@torch.no_grad()
def test_without_the_visible_matrix_they_differ(kind):
    # negative control: the agreement comes from the mask, and the branches do change the document
    encoder, document = tiny.encoder(kind), case(kind, "three branches, three mentions")
    due = kbert(encoder, kind, *document)
    assert (ours(encoder, kind, *document, hide=False) - due).abs().max() > 1e-2
    ids, anchors, _ = document
    assert (ours(encoder, kind, ids, anchors, []) - due).abs().max() > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny.KINDS)
@torch.no_grad()
def test_more_tokens_than_positions(kind):
    """512 tokens of a document and 110 of branches, with positions under 512 (the branches' saturate)."""
    encoder = tiny.encoder(kind)
    ids = tiny.feature(512, kind=kind, mentions=[[(0, 1)]])["input_ids"]
    anchors = [(400, 404), (20, 23)]
    tokens = [tiny.BRANCH_IDS[i % len(tiny.BRANCH_IDS)] for i in range(110)]
    branches = [tokens[:60], tokens[60:]]
    injection = inject(ids, anchors, branches, position_offset=tiny.OFFSET[kind])
    assert len(injection.input_ids) == 622
    assert injection.position_ids.max() == 511 + tiny.OFFSET[kind]
    document = (ids, anchors, branches)
    torch.testing.assert_close(ours(encoder, kind, *document), kbert(encoder, kind, *document), rtol=0, atol=1e-5)

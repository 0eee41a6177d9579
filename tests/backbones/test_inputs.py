"""encoder_inputs: a plain encoder reads an injected document as the rule for pairs of tokens says."""

import re

import pytest
import slow
import tiny
import torch
import transformers
from locate import REPOSITORY

from segdre_plugin import SegDREError, encoder_inputs
from segdre_plugin.backbones.attention import check_encoder
from segdre_plugin.injection import inject, visible_matrix

ANCHORS, BRANCHES = [(3, 5), (20, 21)], [[100, 101], [102, 103, 104]]


def document(n=30, kind="bert", branches=BRANCHES):
    ids = tiny.feature(n, kind=kind)["input_ids"]
    return ids, inject(ids, ANCHORS, branches, position_offset=tiny.OFFSET[kind])


@pytest.mark.parametrize("kind", tiny.KINDS)
@torch.no_grad()
def test_a_batch_equals_the_slow_version_one_by_one(kind):
    encoder = tiny.encoder(kind)
    made = [document(30, kind), document(45, kind), document(28, kind, [])]
    inputs = encoder_inputs(encoder, [injection for _, injection in made], transformer_type=kind)
    form = check_encoder(encoder, kind, 64)
    states = encoder(**inputs).last_hidden_state
    for row, (ids, injection) in zip(states, made, strict=True):
        branches = BRANCHES if len(injection.input_ids) > len(ids) else []
        tree = slow.tree(ids, ANCHORS, branches, 512, tiny.OFFSET[kind])
        tokens = slow.appended(*tree, ANCHORS)
        due, _ = slow.encode(encoder, form, tokens, slow.matrix(tokens, ANCHORS, [[] for _ in branches]))
        torch.testing.assert_close(row[: len(tokens)], due, rtol=0, atol=1e-5)


@torch.no_grad()
def test_hidden_tokens_get_no_attention_and_the_natural_way_would_give_them_some():
    encoder = tiny.encoder()
    _, injection = document()
    hidden = torch.from_numpy(~visible_matrix(injection.node_ids, injection.visibility))
    assert hidden.any()
    found = encoder(**encoder_inputs(encoder, [injection]), output_attentions=True).attentions
    assert all((layer[0, :, hidden] == 0).all() for layer in found)
    if int(transformers.__version__.split(".")[0]) >= 5:  # negative control: the matrix itself as 0 and 1
        inputs = encoder_inputs(encoder, [injection]) | {"attention_mask": (~hidden).float()[None, None]}
        assert encoder(**inputs, output_attentions=True).attentions[0][0, :, hidden].max() > 0


def test_the_hint_names_eager_attention():
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("transformers 4 falls back to eager attention by itself")
    encoder = tiny.encoder(attn_implementation="sdpa")
    with pytest.raises(SegDREError, match='attn_implementation="eager"'):
        encoder_inputs(encoder, [document()[1]])


def test_what_does_not_fit():
    encoder = tiny.encoder(positions=64)
    with pytest.raises(SegDREError, match="no document"):
        encoder_inputs(encoder, [])
    with pytest.raises(SegDREError, match="soft position 79, expected fewer than 64"):
        encoder_inputs(encoder, [document(80)[1]])


@torch.no_grad()
def test_the_block_of_the_readme():
    block = re.search(r"<!-- parts:.*?-->\n```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.S)
    assert block
    assert len([line for line in block[1].splitlines() if line and not line.startswith("#")]) <= 15
    names = {"encoder": tiny.encoder(vocabulary=2500)}
    exec(block[1], names)
    assert names["states"].shape == (10, 32)
    assert names["nll"].isfinite()
    assert names["expected"].shape == (2,)
    assert names["found"].f1 == 1.0

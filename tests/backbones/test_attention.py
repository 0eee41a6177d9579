"""The pairwise mask on real encoders of the installed transformers: what is hidden gets no attention at all."""

from types import SimpleNamespace

import pytest
import tiny
import torch
import transformers
from torch import nn

from segdre_plugin.backbones.attention import (
    additive_mask,
    binary_mask,
    check_outputs,
    encoder_dtype,
    force_eager,
    mask_form,
    position_range,
    visible_tokens,
)
from segdre_plugin.errors import SegDREError

MAJOR = int(transformers.__version__.split(".")[0])
LENGTH = 9


def run(encoder, mask, length=LENGTH):
    ids = torch.arange(5, 5 + length).expand(len(mask), length)
    with torch.no_grad():
        return encoder(
            input_ids=ids,
            attention_mask=mask,
            position_ids=torch.arange(2, 2 + length).expand_as(ids),
            token_type_ids=torch.zeros_like(ids),
            output_attentions=True,
        )


def random_visible():
    """Two documents of nine tokens and five nodes, the second with two tokens of padding."""
    generator = torch.Generator().manual_seed(1)
    node_ids = torch.randint(5, (2, LENGTH), generator=generator)
    visibility = torch.rand(2, 5, 5, generator=generator) < 0.4
    visibility |= visibility.transpose(1, 2) | torch.eye(5, dtype=torch.bool)
    present = torch.ones(2, LENGTH, dtype=torch.bool)
    present[1, -2:] = False
    return node_ids, visibility, present


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", tiny.KINDS)
class TestMask:
    def test_hides_exactly_what_it_should(self, kind, dtype):
        encoder = tiny.encoder(kind).to(dtype)
        visible = visible_tokens(*random_visible())
        output = run(encoder, mask_form(encoder)(visible, encoder_dtype(encoder)))
        assert len(output.attentions) == 2
        for layer in output.attentions:
            assert layer.dtype == dtype
            expected = visible[:, None].expand_as(layer)
            looks = expected.any(-1)  # padding may see nothing; its row is of no interest
            assert (layer[~expected & looks[..., None]] == 0).all()
            assert (layer[expected] > 0).all()

    def test_row_that_sees_nothing_is_finite(self, kind, dtype):
        encoder = tiny.encoder(kind).to(dtype)
        visible = visible_tokens(*random_visible())
        visible[0, 3] = False
        output = run(encoder, mask_form(encoder)(visible, dtype))
        assert all(torch.isfinite(part).all() for part in (output.last_hidden_state, *output.attentions))

    def test_form_depends_on_the_version(self, kind, dtype):
        assert mask_form(tiny.encoder(kind).to(dtype)) is (additive_mask if MAJOR >= 5 else binary_mask)


def test_visible_tokens_element_by_element():
    node_ids, visibility, present = random_visible()
    visible = visible_tokens(node_ids, visibility, present)
    for b in range(2):
        for i in range(LENGTH):
            for j in range(LENGTH):
                due = bool(visibility[b, node_ids[b, i], node_ids[b, j]] and present[b, j])
                assert bool(visible[b, i, j]) == due
    assert not visible[1, :, -2:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_forms(dtype):
    visible = torch.tensor([[[True, False], [False, True]]])
    additive, binary = additive_mask(visible, dtype), binary_mask(visible, dtype)
    lowest = torch.finfo(dtype).min
    assert additive.tolist() == [[[[0.0, lowest], [lowest, 0.0]]]]
    assert binary.tolist() == [[[1.0, 0.0], [0.0, 1.0]]]
    assert additive.dtype == binary.dtype == dtype


def test_the_mask_is_what_hides():
    # negative control: the same tokens with all visible attend everywhere
    encoder = tiny.encoder()
    everything = torch.ones(1, LENGTH, LENGTH, dtype=torch.bool)
    output = run(encoder, mask_form(encoder)(everything, torch.float32))
    assert all((layer > 0).all() for layer in output.attentions)


class Foreign(nn.Module):
    """An encoder that takes any mask and heeds none."""

    def __init__(self, attention=True, refuses=()):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace()
        self.attention, self.refuses = attention, refuses

    def forward(self, input_ids, **kwargs):
        for name in self.refuses:
            if name in kwargs:
                raise TypeError(f"forward() got an unexpected keyword argument {name!r}")
        n = input_ids.shape[1]
        return SimpleNamespace(attentions=(torch.full((1, 1, n, n), 1 / n),) if self.attention else None)


class TestForeignEncoders:
    def test_one_that_ignores_masks(self):
        with pytest.raises(SegDREError, match=r"Foreign.*no form of pairwise mask.*hidden pairs got attention"):
            mask_form(Foreign())

    def test_one_that_refuses_masks(self):
        with pytest.raises(SegDREError, match=r"additive_mask: TypeError.*binary_mask: TypeError"):
            mask_form(Foreign(refuses=("attention_mask",)))

    def test_one_without_attention(self):
        with pytest.raises(SegDREError, match="returns no attention weights"):
            check_outputs(Foreign(attention=False))
        with pytest.raises(SegDREError, match="no form of pairwise mask"):
            mask_form(Foreign(attention=False))

    def test_one_with_other_arguments(self):
        with pytest.raises(SegDREError, match=r"Foreign.*token_type_ids"):
            check_outputs(Foreign(refuses=("token_type_ids",)))

    def test_accepts_ours(self):
        assert check_outputs(tiny.encoder()) is None


@pytest.mark.parametrize("probe", [mask_form, check_outputs])
def test_probing_leaves_no_trace(probe):
    encoder = tiny.encoder(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train()
    encoder.encoder.layer[1].eval()
    flags = {name: module.training for name, module in encoder.named_modules()}
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    probe(encoder)
    assert {name: module.training for name, module in encoder.named_modules()} == flags
    assert set(flags.values()) == {True, False}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize(("kind", "offset"), [("bert", 0), ("roberta", 2)])
def test_position_range(kind, offset):
    encoder = tiny.encoder(kind, positions=40)
    n, first = position_range(encoder, kind)
    assert (n, first) == (40, offset)
    table = encoder.embeddings.position_embeddings.weight
    assert len(table) == first + n  # the last position is the table's last row


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("before", ["sdpa", "eager"])
def test_force_eager_and_back(kind, before):
    encoder = tiny.encoder(kind, attn_implementation=before)
    assert encoder.config._attn_implementation == before
    restore = force_eager(encoder)
    output = run(encoder, torch.ones(1, LENGTH))
    assert len(output.attentions) == 2
    assert all((layer > 0).all() for layer in output.attentions)
    restore()
    assert encoder.config._attn_implementation == before


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_mask_form_after_force_eager(kind):
    encoder = tiny.encoder(kind, attn_implementation="sdpa")
    force_eager(encoder)
    visible = visible_tokens(*random_visible())
    output = run(encoder, mask_form(encoder)(visible, torch.float32))
    hidden = ~visible[0].expand_as(output.attentions[-1][0])
    assert (output.attentions[-1][0][hidden] == 0).all()

"""The pairwise mask on real encoders of the installed transformers: what is hidden gets no attention at all."""

from types import SimpleNamespace

import pytest
import tiny
import torch
import transformers
from torch import nn

from segdre_plugin import wrap_model
from segdre_plugin.backbones import attention
from segdre_plugin.backbones.attention import (
    additive_mask,
    binary_mask,
    check_encoder,
    encoder_dtype,
    force_eager,
    position_range,
    visible_tokens,
)
from segdre_plugin.errors import SegDREError

VERSION = tuple(map(int, transformers.__version__.split(".")[:2]))
# how an encoder with local layers is refused: in older versions it takes no pairwise mask, or no token_type_ids
LOCAL = "of the attention in layer 1 moves" if VERSION >= (5, 23) else "no form of pairwise mask works"
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
        output = run(encoder, check_encoder(encoder, kind, 512)(visible, encoder_dtype(encoder)))
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
        output = run(encoder, check_encoder(encoder, kind, 512)(visible, dtype))
        assert all(torch.isfinite(part).all() for part in (output.last_hidden_state, *output.attentions))

    def test_form_depends_on_the_version(self, kind, dtype):
        assert check_encoder(tiny.encoder(kind).to(dtype), kind, 512) is (additive_mask if MAJOR >= 5 else binary_mask)


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
    kind = "bert"
    encoder = tiny.encoder(kind)
    everything = torch.ones(1, LENGTH, LENGTH, dtype=torch.bool)
    output = run(encoder, check_encoder(encoder, kind, 512)(everything, torch.float32))
    assert all((layer > 0).all() for layer in output.attentions)


SHAPE = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
}
BERT, ROBERTA = "bert", "roberta"
UNFIT = {
    "short position table": ("Bert", BERT, {"max_position_embeddings": 128}, "expected 512 positions or more, got 128"),
    "positions of RoBERTa, which begin later": (
        "Roberta",
        BERT,
        {"max_position_embeddings": 514, "pad_token_id": 1},
        "hidden states change by .* if positions are passed as ids",
    ),
    "positions of BERT, which begin at 0": ("Bert", ROBERTA, {"max_position_embeddings": 514}, "hidden states change"),
    "relative positions": ("DebertaV2", BERT, {"relative_attention": True, "pos_att_type": ["p2c"]}, "no form of pair"),
    "local attention": (
        "Longformer",
        ROBERTA,
        {"max_position_embeddings": 1026, "attention_window": 16, "pad_token_id": 0},
        r"expected attention weights \[512, 512\], got \[\[512, 17\]\]",
    ),
    "local layers": ("ModernBert", BERT, {"pad_token_id": 0}, LOCAL),
}


def build(family, **changes):
    config, model = (getattr(transformers, f"{family}{end}") for end in ("Config", "Model"))
    torch.manual_seed(0)
    encoder = model(config(**SHAPE | changes))
    force_eager(encoder)
    return encoder.eval()


class TestUnfitEncoders:
    @pytest.mark.parametrize("name", UNFIT)
    def test_are_refused(self, name):
        family, kind, changes, message = UNFIT[name]
        with pytest.raises(SegDREError, match=f"{family}Model as --transformer_type {kind}: .*{message}"):
            check_encoder(build(family, **changes), kind, 512)

    @pytest.mark.skipif(VERSION < (5, 23), reason="ModernBERT takes no pairwise mask at all, or no token_type_ids")
    def test_a_short_window_does_not_show_local_layers(self):
        # negative control: why the check reads a window of full length
        assert check_encoder(build("ModernBert", pad_token_id=0), BERT, 16)

    def test_weights_are_not_what_decides(self, monkeypatch):
        encoder = build("Bert")
        form = check_encoder(encoder, BERT, 512)
        for weight in encoder.parameters():
            nn.init.normal_(weight, std=0.2)
        monkeypatch.setattr(attention, "_CHECKED", {})
        assert check_encoder(encoder, BERT, 512) is form

    def test_checked_once(self, monkeypatch):
        monkeypatch.setattr(attention, "_CHECKED", {})
        calls, probe = [], attention.probe
        monkeypatch.setattr(attention, "probe", lambda *given: calls.append(given) or probe(*given))
        for stage in ("base", "dense", "sparse"):
            wrap_model(tiny.model(), stage=stage, fast=False)
        forms = 1 if VERSION >= (5, 0) else 2  # that are tried until one fits
        assert len(calls) == 1 + forms  # the window as the backbone passes it, and with a branch
        wrap_model(tiny.model(hidden_size=16), fast=False)
        assert len(calls) == 2 * (1 + forms)

    @pytest.mark.parametrize("stage", ["base", "identify", "dense", "sparse"])
    def test_every_stage_refuses_them(self, stage):
        model = tiny.model(positions=128)
        with pytest.raises(SegDREError, match="expected 512 positions or more, got 128"):
            wrap_model(model, stage=stage)


class Foreign(nn.Module):
    """An encoder that takes any mask and heeds none."""

    def __init__(self, attention=True, refuses=()):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(max_position_embeddings=512)
        self.attention, self.refuses = attention, refuses

    def forward(self, input_ids, **kwargs):
        for name in self.refuses:
            if name in kwargs:
                raise TypeError(f"forward() got an unexpected keyword argument {name!r}")
        n = input_ids.shape[1]
        attentions = (torch.full((1, 1, n, n), 1 / n),) if self.attention else None
        return SimpleNamespace(last_hidden_state=self.weight.expand(1, n, 1), attentions=attentions)


class TestForeignEncoders:
    def test_one_that_ignores_masks(self):
        with pytest.raises(SegDREError, match=r"Foreign.*no form of pairwise mask.*hidden pairs got attention"):
            check_encoder(Foreign(), BERT, 512)

    def test_one_that_refuses_masks(self):
        with pytest.raises(SegDREError, match=r"Foreign.*cannot be run: TypeError.*attention_mask"):
            check_encoder(Foreign(refuses=("attention_mask",)), BERT, 512)

    def test_one_without_attention(self):
        with pytest.raises(SegDREError, match="returns no attention weights"):
            check_encoder(Foreign(attention=False), BERT, 512)

    @pytest.mark.parametrize("name", ["token_type_ids", "position_ids"])
    def test_one_with_other_arguments(self, name):
        with pytest.raises(SegDREError, match=rf"Foreign.*additive_mask: TypeError.*{name}"):
            check_encoder(Foreign(refuses=(name,)), BERT, 512)

    def test_one_without_positions(self):
        encoder = Foreign()
        del encoder.config.max_position_embeddings
        with pytest.raises(SegDREError, match=r"Foreign.*no range of positions"):
            check_encoder(encoder, BERT, 512)


def test_probing_leaves_no_trace(monkeypatch):
    encoder = tiny.encoder(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train()
    encoder.encoder.layer[1].eval()
    flags = {name: module.training for name, module in encoder.named_modules()}
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    monkeypatch.setattr(attention, "_CHECKED", {})
    check_encoder(encoder, BERT, 512)
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
def test_mask_after_force_eager(kind):
    encoder = tiny.encoder(kind, attn_implementation="sdpa")
    force_eager(encoder)
    visible = visible_tokens(*random_visible())
    output = run(encoder, check_encoder(encoder, kind, 512)(visible, torch.float32))
    hidden = ~visible[0].expand_as(output.attentions[-1][0])
    assert (output.attentions[-1][0][hidden] == 0).all()

"""The reference model against slow loops in float64; against the real ATLOP in test_reference_upstream.py."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from segdre_plugin.backbones.reference import (
    AdaptiveThresholdLoss,
    ReferenceModel,
    build_encoder,
    build_features,
    build_tokenizer,
    collate_fn,
    prepare_config,
)
from segdre_plugin.data.synthetic.corpus import RELATIONS, generate, rel2id
from segdre_plugin.errors import SegDREError

CLASSES = len(rel2id())


@pytest.fixture(scope="module")
def documents():
    return generate(6, seed=3, sentences=(2, 3), entities=(4, 5))


@pytest.fixture(scope="module")
def tokenizer(documents):
    return build_tokenizer(documents, list(RELATIONS.values()))


def make_model(tokenizer, transformer_type="bert", window=512, **sizes):
    torch.manual_seed(0)
    encoder = build_encoder(len(tokenizer), hidden=16, layers=2, heads=2)
    config = prepare_config(encoder.config, tokenizer, CLASSES, transformer_type)
    # What the encoder can read, as RoBERTa says it: positions start behind the padding's.
    config.max_position_embeddings = window + (config.pad_token_id + 1) * (transformer_type == "roberta")
    return ReferenceModel(config, encoder, emb_size=8, block_size=4, num_labels=4, **sizes).double()


def make_batch(documents, tokenizer):
    return collate_fn([build_features(document, tokenizer, rel2id()) for document in documents])


def slow_logits(model, sequence, attention, entity_pos, hts):
    """Zhou et al. 2021, one pair, one head, one block at a time."""
    rows = []
    for states, weights, entities, pairs in zip(sequence, attention, entity_pos, hts, strict=True):
        pooled = []
        for mentions in entities:
            starts = [s + 1 for s, _ in mentions if s + 1 < len(states)]
            if starts:
                embedding = torch.stack([states[s].exp() for s in starts]).sum(0).log()
                focus = sum(weights[:, s] for s in starts) / len(starts)
            else:
                embedding, focus = torch.zeros_like(states[0]), torch.zeros_like(weights[:, 0])
            pooled.append((embedding, focus))
        for h, t in pairs:
            (head, head_focus), (tail, tail_focus) = pooled[h], pooled[t]
            shared = sum(a * b for a, b in zip(head_focus, tail_focus, strict=True)) / len(head_focus)
            shared = shared / (shared.sum() + 1e-5)
            context = sum(q * state for q, state in zip(shared, states, strict=True))
            z_h = torch.tanh(model.head_extractor(torch.cat([head, context])))
            z_t = torch.tanh(model.tail_extractor(torch.cat([tail, context])))
            size = model.block_size
            blocks = [torch.outer(z_h[k : k + size], z_t[k : k + size]) for k in range(0, model.emb_size, size)]
            rows.append(model.bilinear(torch.stack(blocks).flatten()))
    return torch.stack(rows)


def slow_loss(logits, labels):
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        positive = [r for r in range(1, len(row)) if label[r]]
        negative = [r for r in range(1, len(row)) if not label[r]]
        for r in positive:
            total = total - (row[r].exp() / sum(row[k].exp() for k in [*positive, 0])).log()
        total = total - (row[0].exp() / sum(row[k].exp() for k in [*negative, 0])).log()
    return total / len(logits)


def test_equals_the_slow_loop_in_value_and_gradient(documents, tokenizer):
    model = make_model(tokenizer)
    input_ids, mask, labels, entity_pos, hts = make_batch(documents[:2], tokenizer)
    entity_pos[0][0] = [(5000, 5002)]  # beyond the input: zero
    entity_pos[1][1] = [*entity_pos[1][1], (5000, 5002)]  # one mention more, not to be read

    loss, predictions = model(input_ids, mask, labels, entity_pos, hts)
    loss.backward()
    fast = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    logits = slow_logits(model, *model.encode(input_ids, mask), entity_pos, hts)
    expected = slow_loss(logits, [row for document in labels for row in document])
    expected.backward()
    torch.testing.assert_close(loss, expected)
    assert torch.equal(predictions, model.loss_fnt.get_label(logits, num_labels=4))
    slow = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert len(fast) == len(slow) == sum(1 for _ in model.parameters())
    for name, gradient in fast.items():
        torch.testing.assert_close(gradient, slow[name], msg=name)
        # A key's bias shifts a whole row of scores, which softmax does not see: the only gradient that is zero.
        assert gradient.abs().max() > 1e-12 or name.endswith("key.bias"), name


def test_context_and_embeddings_of_absent_entities_are_zero(documents, tokenizer):
    model = make_model(tokenizer)
    input_ids, mask, _, entity_pos, hts = make_batch(documents[:1], tokenizer)
    entity_pos[0][0] = [(5000, 5002)]
    sequence, attention = model.encode(input_ids, mask)
    hs, rs, ts = model.get_hrt(sequence, attention, entity_pos, hts)
    pairs = torch.tensor(hts[0])
    absent = (pairs == 0).any(dim=1)
    assert hs[pairs[:, 0] == 0].abs().max() == 0 == ts[pairs[:, 1] == 0].abs().max()
    assert rs[absent].abs().max() == 0
    assert (rs[~absent].abs().amax(dim=1) > 0).all()


def test_padding_changes_nothing(documents, tokenizer):
    model = make_model(tokenizer)
    together = make_batch(documents[:3], tokenizer)
    joint = model.get_hrt(*model.encode(*together[:2]), *together[3:])
    alone = [make_batch([document], tokenizer) for document in documents[:3]]
    single = zip(*(model.get_hrt(*model.encode(*batch[:2]), *batch[3:]) for batch in alone), strict=True)
    for one, parts in zip(joint, single, strict=True):
        torch.testing.assert_close(one, torch.cat(parts))


def test_documents_without_pairs(documents, tokenizer):
    model = make_model(tokenizer)
    lonely = {"title": "x", "sents": [["A", "town", "."]], "vertexSet": []}
    single = lonely | {"vertexSet": [[{"name": "A", "pos": [0, 1], "sent_id": 0, "type": "LOC"}]]}
    loss, predictions = model(*make_batch([lonely, single], tokenizer))
    assert loss == 0
    assert predictions.shape == (0, CLASSES)
    with_others, predictions = model(*make_batch([lonely, documents[0], single], tokenizer))
    torch.testing.assert_close(with_others, model(*make_batch(documents[:1], tokenizer))[0])
    assert len(predictions) == len(documents[0]["vertexSet"]) * (len(documents[0]["vertexSet"]) - 1)


def test_loss_against_its_definition_and_labels_untouched():
    torch.manual_seed(1)
    logits = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(7, 5) > 0.6).double()
    before = labels.clone()
    loss = AdaptiveThresholdLoss()(logits, labels)
    assert torch.equal(labels, before)
    expected = slow_loss(logits, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))
    huge = AdaptiveThresholdLoss()(logits.detach() * 1e4, labels)
    assert torch.isfinite(huge)


def test_get_label():
    loss = AdaptiveThresholdLoss()
    logits = torch.tensor([[0.0, 3.0, 2.0, 1.0], [0.0, -1.0, -2.0, 0.0]])
    assert loss.get_label(logits).tolist() == [[0, 1, 1, 1], [1, 0, 0, 0]]
    assert loss.get_label(logits, num_labels=2).tolist() == [[0, 1, 1, 0], [1, 0, 0, 0]]
    assert loss.get_label(logits, num_labels=9).tolist() == [[0, 1, 1, 1], [1, 0, 0, 0]]


class CountingEncoder(nn.Module):
    """Says for each token its id and its window row, and attends evenly to the tokens that are not padding."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, input_ids, attention_mask, output_attentions):
        self.calls.append(input_ids)
        rows = torch.arange(len(input_ids)).unsqueeze(1).expand_as(input_ids)
        states = torch.stack([input_ids, rows], dim=2).double()
        attention = (attention_mask / attention_mask.sum(1, keepdim=True))[:, None, None, :].double()
        return SimpleNamespace(last_hidden_state=states, attentions=(attention.expand(-1, 2, input_ids.shape[1], -1),))


@pytest.mark.parametrize(("transformer_type", "closing"), [("bert", 1), ("roberta", 2)])
def test_two_windows(tokenizer, transformer_type, closing):
    window, c = 10, 16
    model = make_model(tokenizer, transformer_type, window)
    model.model = encoder = CountingEncoder()
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    short = [cls, *range(200, 205), sep]
    long = [cls, *range(100, 114), sep]
    input_ids, mask, *_ = collate_fn(
        [{"input_ids": ids, "labels": 0, "entity_pos": 0, "hts": 0} for ids in (short, long)]
    )
    states, attention = model.encode(input_ids, mask)

    assert len(encoder.calls) == 1  # all windows at once, in document order
    body = window - closing
    assert encoder.calls[0].tolist() == [
        short + [0] * (window - len(short)),
        long[:body] + [sep] * closing,
        [cls, *long[1 - window :]],
    ]
    assert states.shape == (2, c, 2)
    assert attention.shape == (2, 2, c, c)
    assert torch.equal(states[:, :, 0], input_ids.double())  # every token is back at its place
    first = c - (window - 1)  # first document position of the second window's own tokens
    assert states[1, :, 1].tolist() == [1.0] * first + [1.5] * (body - first) + [2.0] * (c - body)
    torch.testing.assert_close(attention[1].sum(-1), torch.ones(2, c, dtype=torch.float64))
    middle = torch.tensor([1.0] * first + [2.0] * (body - first) + [1.0] * (c - body), dtype=torch.float64)
    torch.testing.assert_close(attention[1, 0, first], middle / middle.sum())
    assert attention[1, 0, 0, body:].abs().max() == 0
    with pytest.raises(SegDREError, match="two windows of 10"):
        model.encode(torch.ones(1, 21, dtype=torch.long), torch.ones(1, 21))


def test_errors_name_everything_that_is_wrong(tokenizer, documents):
    encoder = build_encoder(len(tokenizer), hidden=16, layers=1, heads=2)
    with pytest.raises(SegDREError, match=r"(?s)transformer_type is missing.*cls_token_id.*not a multiple"):
        ReferenceModel(encoder.config, encoder, emb_size=10, block_size=4)
    model = make_model(tokenizer)
    with pytest.raises(SegDREError, match="entity_pos and hts"):
        model(*make_batch(documents[:1], tokenizer)[:2])
    model.model.set_attn_implementation("sdpa")
    with pytest.raises(SegDREError, match="eager"):
        model(*make_batch(documents[:1], tokenizer))
    with pytest.raises(SegDREError, match="multiple of heads"):
        build_encoder(10, hidden=10, heads=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [{"h": 0, "t": 0, "r": "P17", "evidence": []}]}, "does not fit"),
        ({"labels": [{"h": 0, "t": 1, "r": "P0", "evidence": []}]}, "'P0' does not fit"),
        ({"vertexSet": [[{"name": "A", "pos": [2, 9], "sent_id": 0, "type": "LOC"}]]}, "lies outside the text"),
        ({"vertexSet": [[{"name": "A", "pos": [0, 1], "sent_id": 4, "type": "LOC"}]]}, "lies outside the text"),
    ],
)
def test_documents_that_do_not_fit(tokenizer, change, message):
    mention = {"name": "A", "pos": [0, 1], "sent_id": 0, "type": "LOC"}
    document = {"title": "x", "sents": [["A", "town", "."]], "vertexSet": [[mention], [mention]]} | change
    with pytest.raises(SegDREError, match=message):
        build_features(document, tokenizer, rel2id())


def test_tokenizer(tokenizer, documents):
    assert tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "*"]) == list(range(6))
    again = build_tokenizer(documents, list(RELATIONS.values()))
    assert again.get_vocab() == tokenizer.get_vocab()
    words = {word for document in documents for sentence in document["sents"] for word in sentence}
    words |= {word for name in RELATIONS.values() for word in name.split()}
    assert all(tokenizer.unk_token not in tokenizer.tokenize(word) for word in words)
    assert all(tokenizer.tokenize(word) == [word] for word in ("manufacturer", "headquarters"))
    assert tokenizer("a town")["input_ids"][:: len(tokenizer("a town")["input_ids"]) - 1] == [2, 3]

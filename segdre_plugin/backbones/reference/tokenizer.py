"""A tokenizer and an encoder for the embedded corpus: small enough to be learnt from it alone."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segdre_plugin.backbones.reference.features import MARKER
from segdre_plugin.errors import SegDREError

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", MARKER]
COMMON = 8  # a word in so many documents is one token
SYLLABLE = re.compile(r"[^aeiou]*[aeiou](?:[^aeiou]$)?|[^aeiou]+")  # an open syllable; the last one with its consonant
POSITIONS = 512
# How the encoder starts; chosen on the embedded corpus.
POSITION_SCALE = 4.0  # positions over words: attention starts nearby
QUERY_SCALE = 1.5
LONGEST = 500.0  # the slowest sinusoid, in radians^-1: 10,000 would waste dimensions on documents of 150 tokens


def build_tokenizer(documents: Iterable[Mapping[str, Any]], relation_names: Sequence[str]) -> Any:
    """Return a WordPiece tokenizer that lower-cases: common words whole, the others (names) by their syllables.

    The vocabulary is counted here, best in the training split alone, and not trained: the same documents give the same
    token ids, which ``tokenizers``' own WordPiece trainer does not promise. The words of relation names become tokens
    too, since injected branches hold them. Ids 0 to 5 are [PAD], [UNK], [CLS], [SEP], [MASK] and "*".
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordPiece(_vocabulary(documents, relation_names), unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    ids = [(token, SPECIAL_TOKENS.index(token)) for token in ("[SEP]", "[CLS]")]
    backend.post_processor = processors.BertProcessing(*ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=POSITIONS,
    )


def _vocabulary(documents: Iterable[Mapping[str, Any]], relation_names: Sequence[str]) -> dict[str, int]:
    """Count words and pieces; return token to id. The words of relation names are kept whole."""
    used_in: Counter[str] = Counter()  # word -> number of documents
    for document in documents:
        used_in.update({word.lower() for words in document["sents"] for word in words})
    whole = {word for word, count in used_in.items() if count >= COMMON}
    whole |= {word for name in relation_names for word in name.lower().split()}
    pieces = set()
    for word in used_in.keys() - whole:
        first, *others = SYLLABLE.findall(word)
        pieces |= {first, *(f"##{other}" for other in others)}
    letters = {letter for word in used_in for letter in word}
    spare = letters | {f"##{letter}" for letter in letters}  # for words of other splits that need other syllables
    return {token: k for k, token in enumerate([*SPECIAL_TOKENS, *sorted((whole | pieces | spare) - {MARKER})])}


def build_encoder(vocab_size: int, *, hidden: int = 64, layers: int = 2, heads: int = 4) -> Any:
    """Return a small ``BertModel`` to train from scratch on a few hundred documents: eager attention, 512 positions.

    With ordinary random weights it learns names by heart and not what stands next to what. So it starts from attention
    to like tokens: sinusoidal positions and equal query and key weights (after Trockman and Kolter 2023, "Mimetic
    initialization of self-attention layers"). Nothing ties them in training.

    The inner layer has twice the width ``hidden``. The weights come from torch's global generator: call
    ``torch.manual_seed`` first.

    Raises:
        SegDREError: if hidden is odd or not a multiple of heads.
    """
    from transformers import BertConfig, BertModel

    if hidden % heads or hidden % 2:
        raise SegDREError(f"hidden {hidden} is odd or not a multiple of heads {heads}", "choose sizes that divide")
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=POSITIONS,
        hidden_dropout_prob=0.0,  # measured: with dropout it learns next to nothing in the demo's time
        attention_probs_dropout_prob=0.0,
        initializer_range=hidden**-0.5,  # 0.02 is meant for 768: so narrow a layer would start with flat attention
        attn_implementation="eager",
    )
    encoder = BertModel(config, add_pooling_layer=False)
    with torch.no_grad():
        positions = _sinusoids(POSITIONS, hidden) * config.initializer_range * POSITION_SCALE
        encoder.embeddings.position_embeddings.weight.copy_(positions)
        for layer in encoder.encoder.layer:
            attention = layer.attention.self
            attention.query.weight.mul_(QUERY_SCALE)
            attention.key.weight.copy_(attention.query.weight)
    return encoder


def prepare_config(config: Any, tokenizer: Any, num_classes: int, transformer_type: str = "bert") -> Any:
    """Return the encoder's configuration, changed in place to have the fields that ATLOP-like models expect.

    Classes are the relations and the threshold class; ``transformer_type`` is "bert" or "roberta".
    """
    config.num_labels = num_classes
    config.cls_token_id = tokenizer.cls_token_id
    config.sep_token_id = tokenizer.sep_token_id
    config.transformer_type = transformer_type
    return config


def _sinusoids(positions: int, width: int) -> Tensor:
    """Sine and cosine of the position (Vaswani et al. 2017, section 3.5): [positions, width]."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(LONGEST) / width))
    angle = torch.arange(positions).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)

"""A tokenizer and an encoder for corpora that have none: trained on, and as small as, the embedded corpus."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segdre_plugin.errors import SegDREError
from segdre_plugin.reference.features import MARKER

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def build_tokenizer(
    documents: Iterable[Mapping[str, Any]], relation_names: Sequence[str], vocab_size: int = 1200
) -> Any:
    """Train a WordPiece tokenizer.

    Args:
        documents: DocRED documents, best the training split alone.
        relation_names: their words become tokens too, since injected branches hold them.
        vocab_size: most tokens.

    Returns:
        A ``PreTrainedTokenizerFast`` with [PAD] = 0, [UNK], [CLS], [SEP], [MASK] and the marker "*"; lower-case.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    lines = [" ".join(words) for document in documents for words in document["sents"]]
    # Words seen as often as the corpus is long are never cut; names, which are rarer, are cut into pieces.
    lines += [" ".join(relation_names)] * max(len(lines), 1)
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size, special_tokens=[*SPECIAL_TOKENS, MARKER], show_progress=False
    )
    backend.train_from_iterator(lines, trainer)
    cls_token, sep_token = (("[CLS]", backend.token_to_id("[CLS]")), ("[SEP]", backend.token_to_id("[SEP]")))
    backend.post_processor = processors.BertProcessing(sep_token, cls_token)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=512,
    )


def build_encoder(vocab_size: int, *, hidden: int = 96, layers: int = 3, heads: int = 4) -> Any:
    """Make a small BERT with random weights and eager attention, 512 positions.

    Args:
        vocab_size: tokens.
        hidden: width; the inner layer has twice that.
        layers: number of layers.
        heads: attention heads.

    Returns:
        A ``BertModel``. Its weights come from torch's global generator: call ``torch.manual_seed`` first.

    Raises:
        SegDREError: if hidden is not a multiple of heads.
    """
    from transformers import BertConfig, BertModel

    if hidden % heads:
        raise SegDREError(f"hidden {hidden} is not a multiple of heads {heads}", "choose sizes that divide")
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * hidden,
        max_position_embeddings=512,
        initializer_range=hidden**-0.5,  # 0.02 is meant for 768: so narrow a layer would start with flat attention
        attn_implementation="eager",
    )
    encoder = BertModel(config, add_pooling_layer=False)
    # Without pretraining, random positions would first have to learn what is next to what: start from sinusoids.
    encoder.embeddings.position_embeddings.weight.data.copy_(_sinusoids(512, hidden) * config.initializer_range)
    return encoder


def prepare_config(config: Any, tokenizer: Any, num_classes: int, transformer_type: str = "bert") -> Any:
    """Set the fields that ATLOP-like models expect on the encoder's configuration.

    Args:
        config: the encoder's configuration; changed in place.
        tokenizer: gives the ids of the start and the end token.
        num_classes: relations plus the threshold class.
        transformer_type: "bert" or "roberta".

    Returns:
        The same configuration.
    """
    config.num_labels = num_classes
    config.cls_token_id = tokenizer.cls_token_id
    config.sep_token_id = tokenizer.sep_token_id
    config.transformer_type = transformer_type
    return config


def _sinusoids(positions: int, width: int) -> Tensor:
    """Sine and cosine of the position (Vaswani et al. 2017, section 3.5): [positions, width]."""
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    angle = torch.arange(positions).unsqueeze(1) * rate
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width]

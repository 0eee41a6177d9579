"""Injected documents as the inputs of a plain transformers encoder, without a backbone around it (eq. 9-10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from segdre_plugin.backbones.attention import check_encoder, encoder_dtype, position_range, visible_tokens
from segdre_plugin.backbones.hooks import assemble
from segdre_plugin.errors import SegDREError
from segdre_plugin.injection import Injection

WINDOW = 512  # tokens with which the encoder is tried, or as many as it has positions


def encoder_inputs(encoder: nn.Module, injections: Sequence[Injection], *, transformer_type: str = "bert") -> Any:
    """Return the keyword arguments with which an encoder reads injected documents, the visible matrix in its own form.

    The natural ``attention_mask=visible_matrix(...)`` lets hidden tokens be seen without a word: each version of
    transformers has a form of its own for a mask over pairs of tokens. It is tried on this very encoder, once.

    Args:
        encoder: of the BERT or RoBERTa family, with eager attention.
        injections: a batch of documents, of :func:`segdre_plugin.injection.inject`.
        transformer_type: ``bert`` or ``roberta``, the family.

    Returns:
        input_ids, position_ids and token_type_ids, long [batch, L], and attention_mask, on the encoder's device.

    Raises:
        SegDREError: if no document is passed, a soft position exceeds the encoder's range, or the encoder does not
            support a mask over pairs of tokens.
    """
    if not injections:
        raise SegDREError("encoder_inputs: no document", "pass one Injection or more")
    config: Any = encoder.config
    form = check_encoder(encoder, transformer_type, min(WINDOW, position_range(encoder, transformer_type)[0]))
    last = max(int(injection.position_ids.max()) for injection in injections)
    if last >= config.max_position_embeddings:
        raise SegDREError(
            f"encoder_inputs: soft position {last}, expected fewer than {config.max_position_embeddings}",
            "pass max_positions and position_offset to inject()",
        )
    device = next(encoder.parameters()).device
    node_ids, positions, _, visibility = (
        part.to(device) for part in assemble(injections, max(injection.n_document for injection in injections))
    )
    ids = pad_sequence(
        [torch.from_numpy(injection.input_ids) for injection in injections], True, config.pad_token_id or 0
    )
    lengths = torch.tensor([len(injection.input_ids) for injection in injections])
    present = (torch.arange(ids.shape[1]) < lengths[:, None]).to(device)
    visible = visible_tokens(node_ids, visibility, present)
    return {
        "input_ids": ids.to(device),
        "position_ids": positions,
        "token_type_ids": torch.zeros_like(positions),
        "attention_mask": form(visible, encoder_dtype(encoder)),
    }

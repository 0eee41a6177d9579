"""Injected documents as the inputs of a plain transformers encoder, without a backbone around it (eq. 9-10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segdre_plugin.backbones.attention import check_encoder, encoder_dtype, position_range, visible_tokens
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
        SegDREError: if there is no document, a soft position lies outside the encoder's range, or the encoder does not
            fit.
    """
    if not injections:
        raise SegDREError("encoder_inputs: no document", "pass one Injection or more")
    config: Any = encoder.config
    longest = max(len(injection.input_ids) for injection in injections)
    form = check_encoder(encoder, transformer_type, min(WINDOW, position_range(encoder, transformer_type)[0]))
    last = max(int(injection.position_ids.max()) for injection in injections)
    if last >= config.max_position_embeddings:
        raise SegDREError(
            f"encoder_inputs: soft position {last}, expected fewer than {config.max_position_embeddings}",
            "pass max_positions and position_offset to inject()",
        )
    nodes = max(len(injection.visibility) for injection in injections)
    shape = (len(injections), longest)
    ids, positions = (np.full(shape, config.pad_token_id or 0, dtype=np.int64) for _ in range(2))
    node_ids, present = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=bool)
    visibility = np.zeros((len(injections), nodes, nodes), dtype=bool)
    for b, injection in enumerate(injections):
        n, size = len(injection.input_ids), len(injection.visibility)
        ids[b, :n], positions[b, :n], node_ids[b, :n] = injection.input_ids, injection.position_ids, injection.node_ids
        present[b, :n], visibility[b, :size, :size] = True, injection.visibility
    device = next(encoder.parameters()).device

    def moved(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    visible = visible_tokens(moved(node_ids), moved(visibility), moved(present))
    return {
        "input_ids": moved(ids),
        "position_ids": moved(positions),
        "token_type_ids": torch.zeros(shape, dtype=torch.long, device=device),
        "attention_mask": form(visible, encoder_dtype(encoder)),
    }

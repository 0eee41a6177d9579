"""The ATLOP architecture (Zhou et al. 2021), written from the paper, with the interface of the upstream models.

Sections of that paper: 3 (encoder, entity embeddings, grouped bilinear classifier), 4.1 (adaptive threshold: see
:mod:`segdre_plugin.backbones.losses`), 4.2 (localised context pooling).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from segdre_plugin.backbones.features import EntityPositions, Pairs
from segdre_plugin.backbones.losses import AdaptiveThresholdLoss
from segdre_plugin.backbones.windows import merge, split
from segdre_plugin.errors import SegDREError, raise_all

WINDOW = 512  # tokens that the upstream models read at once, also where an encoder has more positions
EPSILON = 1e-5  # keeps the context of a pair without common attention at zero


class ReferenceModel(nn.Module):
    """Score every class for every entity pair of a document.

    Args:
        config: the encoder's configuration; on top of Hugging Face's own fields it has ``transformer_type`` ("bert" or
            "roberta"), ``cls_token_id`` and ``sep_token_id``; ``num_labels`` counts the classes, threshold included.
        model: the encoder, with eager attention (others return no attention weights).
        emb_size: size of the head and the tail embedding.
        block_size: size of one block of the grouped bilinear classifier.
        num_labels: most relations predicted for one pair; -1 for no limit.

    Raises:
        SegDREError: if the configuration lacks a field or the sizes do not fit.
    """

    def __init__(
        self, config: Any, model: nn.Module, emb_size: int = 768, block_size: int = 64, num_labels: int = -1
    ) -> None:
        super().__init__()
        _check(config, emb_size, block_size)
        self.config = config
        self.model = model
        self.hidden_size: int = config.hidden_size
        self.loss_fnt = AdaptiveThresholdLoss()
        self.head_extractor = nn.Linear(2 * config.hidden_size, emb_size)
        self.tail_extractor = nn.Linear(2 * config.hidden_size, emb_size)
        self.bilinear = nn.Linear(emb_size * block_size, config.num_labels)
        self.emb_size = emb_size
        self.block_size = block_size
        self.num_labels = num_labels

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's states [n, c, d] and attention [n, heads, c, c].

        Documents that are longer than the encoder's window are read in two overlapping windows. All windows go through
        the encoder in one call, in document order. Ids, padded on the right, and mask, of 0 and 1, are [n, c].

        Raises:
            SegDREError: if a document does not fit into two windows.
        """
        roberta = self.config.transformer_type == "roberta"
        first_position = self.config.pad_token_id + 1 if roberta else 0  # RoBERTa counts positions from there
        window = min(WINDOW, self.config.max_position_embeddings - first_position)
        length = input_ids.shape[1]
        if length <= window:
            return self._read(input_ids, attention_mask)
        if length > 2 * window:
            raise SegDREError(
                f"a document of {length} tokens does not fit into two windows of {window} tokens",
                f"build the features with max_seq_length <= {2 * window}",
            )
        start = [self.config.cls_token_id]
        end = [self.config.sep_token_id] * (2 if roberta else 1)
        rows, masks, documents = split(input_ids, attention_mask, start, end, window)
        states, attention = self._read(rows, masks)
        return merge(states, attention, documents, length)

    def _read(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, output_attentions=True)
        if not output.attentions or output.attentions[-1] is None:
            raise SegDREError(
                "the encoder returned no attention weights, and localised context pooling needs them",
                'load the encoder with attn_implementation="eager"',
            )
        return output.last_hidden_state, output.attentions[-1]

    def get_hrt(
        self,
        sequence_output: Tensor,
        attention: Tensor,
        entity_pos: EntityPositions,
        hts: Pairs,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pool entities and the context of each pair (Zhou et al. 2021, sections 3 and 4.2).

        An entity is the logsumexp of the states at its mentions' start markers, its attention the mean over them. The
        context of a pair weighs the tokens that both entities attend to: q = sum over heads of A_s * A_o, normalised,
        and c = H^T q.

        States and attention are those of :meth:`encode`. ``entity_pos`` has for each document and entity the (start,
        end) of its mentions, without the offset of [CLS]; ``hts`` has for each document its pairs (head, tail).

        Returns:
            Heads, contexts and tails, each [pairs, d], the documents' pairs one after the other. An entity whose
            mentions all lie beyond the input is zero.
        """
        heads, contexts, tails = [], [], []
        for states, weights, entities, pairs in zip(sequence_output, attention, entity_pos, hts, strict=True):
            embedding, focus = _pool_entities(states, weights, entities)  # [entities, d], [entities, heads, c]
            head, tail = torch.as_tensor(pairs, dtype=torch.long, device=states.device).reshape(-1, 2).unbind(dim=1)
            shared = (focus[head] * focus[tail]).mean(dim=1)  # [pairs, c]
            shared = shared / (shared.sum(dim=1, keepdim=True) + EPSILON)
            heads.append(embedding[head])
            contexts.append(shared @ states)
            tails.append(embedding[tail])
        return torch.cat(heads), torch.cat(contexts), torch.cat(tails)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Sequence[Any] | None = None,
        entity_pos: EntityPositions | None = None,
        hts: Pairs | None = None,
        instance_mask: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Score the pairs and predict; with labels also compute the loss.

        Labels are [pairs, classes] for each document, multi-hot; the other inputs are those of :meth:`encode` and
        :meth:`get_hrt`. ``instance_mask`` is not read; upstream's training loops pass it.

        Returns:
            ``(loss, predictions)`` with labels, ``(predictions,)`` without; predictions [pairs, classes].

        Raises:
            SegDREError: if entity_pos or hts is missing.
        """
        if entity_pos is None or hts is None:
            raise SegDREError("entity_pos and hts are missing", "pass the batch that collate_fn returns")
        sequence_output, attention = self.encode(input_ids, attention_mask)
        hs, rs, ts = self.get_hrt(sequence_output, attention, entity_pos, hts)
        head = torch.tanh(self.head_extractor(torch.cat([hs, rs], dim=1)))
        tail = torch.tanh(self.tail_extractor(torch.cat([ts, rs], dim=1)))
        # Grouped bilinear: only products inside a block, so emb_size * block_size features and not emb_size squared.
        blocks = (-1, self.emb_size // self.block_size, self.block_size)
        products = head.reshape(blocks).unsqueeze(3) * tail.reshape(blocks).unsqueeze(2)
        logits = self.bilinear(products.flatten(start_dim=1))

        predictions = self.loss_fnt.get_label(logits, num_labels=self.num_labels)
        if labels is None:
            return (predictions,)
        # Labels are as wide as the relations, which logits are not in stage identify; a document may have no pair.
        gold = torch.cat([torch.as_tensor(label) for label in labels if len(label)] or [torch.zeros_like(logits)])
        precise = torch.promote_types(logits.dtype, torch.float32)  # the loss is not computed in half precision
        loss = self.loss_fnt(logits.to(precise), gold.to(logits.device, precise))
        return loss.to(sequence_output.dtype), predictions


def _pool_entities(
    states: Tensor, weights: Tensor, entities: Sequence[Sequence[tuple[int, int]]]
) -> tuple[Tensor, Tensor]:
    """Pool one document's states [c, d] and weights [heads, c, c]: [entities, d] and [entities, heads, c]."""
    length = len(states)
    starts = [[start + 1 for start, _ in mentions if start + 1 < length] for mentions in entities]  # + 1: [CLS]
    most = max((len(positions) for positions in starts), default=0)
    index = torch.zeros(len(starts), max(most, 1), dtype=torch.long)
    present = torch.zeros_like(index, dtype=torch.bool)
    for row, positions in enumerate(starts):
        index[row, : len(positions)] = torch.tensor(positions, dtype=torch.long)
        present[row, : len(positions)] = True
    index, present = index.to(states.device), present.to(states.device)

    missing = ~present.any(dim=1)  # no mention inside the input
    # Rows without any mention stay unmasked: a logsumexp over nothing has no gradient. They are set to zero below.
    hidden = ~present & ~missing.unsqueeze(1)
    embedding = states[index].masked_fill(hidden.unsqueeze(2), -torch.inf).logsumexp(dim=1)
    share = present / present.sum(dim=1, keepdim=True).clamp_min(1)  # [entities, mentions]
    focus = torch.einsum("em,hemc->ehc", share.to(weights.dtype), weights[:, index])
    return embedding.masked_fill(missing.unsqueeze(1), 0.0), focus


def _check(config: Any, emb_size: int, block_size: int) -> None:
    """Collect everything that is wrong with a model's arguments and raise once."""
    needed = (
        "hidden_size",
        "num_labels",
        "max_position_embeddings",
        "transformer_type",
        "cls_token_id",
        "sep_token_id",
    )
    problems = [f"config.{name} is missing" for name in needed if getattr(config, name, None) is None]
    kind = getattr(config, "transformer_type", None)
    if kind not in (None, "bert", "roberta"):
        problems.append(f'config.transformer_type is {kind!r}, known are "bert" and "roberta"')
    if block_size < 1 or emb_size % block_size:
        problems.append(f"emb_size {emb_size} is not a multiple of block_size {block_size}")
    raise_all(
        problems,
        "the reference model cannot be built",
        "prepare_config(config, tokenizer, num_classes) sets the fields",
    )

"""From a DocRED document to the features and batches that ATLOP-like models read.

The features equal those of upstream's ``read_docred``: the same keys, the same order of pairs, the same positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from segdre_plugin.errors import SegDREError

MARKER = "*"  # before and after every mention; an entity is read at the first one (Zhou et al. 2021, section 3)


def build_features(
    document: Mapping[str, Any], tokenizer: Any, rel2id: Mapping[str, int], *, max_seq_length: int = 1024
) -> dict[str, Any]:
    """Turn one document into a feature.

    Args:
        document: a DocRED document (title, sents, vertexSet, and labels where there is gold).
        tokenizer: a Hugging Face tokenizer with a start and an end token.
        rel2id: relation id to class; class 0 is "no relation".
        max_seq_length: most tokens, special tokens included; later tokens are cut.

    Returns:
        ``input_ids``: token ids with the special tokens; ``entity_pos``: for each entity the (start, end) of its
        mentions in tokens, without the start token, end exclusive, markers included; ``hts``: pairs [head, tail], first
        those with a label in order of their first one, then the others in row order; ``labels``: [pairs][classes],
        multi-hot; ``title``.

    Raises:
        SegDREError: if a mention or a label does not fit the document or rel2id.
    """
    tokens, positions = _tokenize(document, tokenizer)
    entity_pos = [
        [(positions[m["sent_id"]][m["pos"][0]], positions[m["sent_id"]][m["pos"][1]]) for m in mentions]
        for mentions in document["vertexSet"]
    ]
    hts, labels = _pairs(document, rel2id)
    ids = tokenizer.convert_tokens_to_ids(tokens[: max_seq_length - 2])
    return {
        "input_ids": [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id],
        "entity_pos": entity_pos,
        "labels": labels,
        "hts": hts,
        "title": document["title"],
    }


def _tokenize(document: Mapping[str, Any], tokenizer: Any) -> tuple[list[str], list[list[int]]]:
    """Return the tokens, with markers, and of each word and each sentence's end the index of its first token.

    Raises:
        SegDREError: if a mention lies outside its sentence.
    """
    opens, closes = set(), set()
    for mention in (m for mentions in document["vertexSet"] for m in mentions):
        sentence, (start, end) = mention["sent_id"], mention["pos"]
        if not 0 <= sentence < len(document["sents"]) or not 0 <= start < end <= len(document["sents"][sentence]):
            raise SegDREError(
                f"document {document['title']!r}: mention {mention.get('name')!r} at sentence {sentence}, "
                f"words [{start}, {end}) lies outside the text",
                "pos is [start, end) in words of the sentence sent_id; correct or drop the mention",
            )
        opens.add((sentence, start))
        closes.add((sentence, end - 1))
    tokens: list[str] = []
    positions: list[list[int]] = []
    for i, sentence_words in enumerate(document["sents"]):
        firsts = []
        for j, word in enumerate(sentence_words):
            firsts.append(len(tokens))
            tokens += [MARKER] * ((i, j) in opens) + tokenizer.tokenize(word) + [MARKER] * ((i, j) in closes)
        positions.append([*firsts, len(tokens)])
    return tokens, positions


def _pairs(document: Mapping[str, Any], rel2id: Mapping[str, int]) -> tuple[list[list[int]], list[list[int]]]:
    """List all ordered pairs with their multi-hot classes, labelled pairs first."""
    n_entities, n_classes = len(document["vertexSet"]), max(rel2id.values()) + 1
    gold: dict[tuple[int, int], list[int]] = {}
    for label in document.get("labels", ()):
        pair = (label["h"], label["t"])
        inside = all(0 <= entity < n_entities for entity in pair)
        if label["r"] not in rel2id or not inside or pair[0] == pair[1]:
            raise SegDREError(
                f"document {document['title']!r}: label {pair} {label['r']!r} does not fit "
                f"({n_entities} entities, {len(rel2id)} relations)",
                "h and t are two different indices into vertexSet, r is a key of rel2id",
            )
        gold.setdefault(pair, [0] * n_classes)[rel2id[label["r"]]] = 1
    others = [(h, t) for h in range(n_entities) for t in range(n_entities) if h != t and (h, t) not in gold]
    nothing = [1] + [0] * (n_classes - 1)
    return [list(pair) for pair in [*gold, *others]], [*gold.values(), *(list(nothing) for _ in others)]


def collate_fn(batch: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor, list[Any], list[Any], list[Any]]:
    """Put features, as :func:`build_features` returns them, into one batch.

    Returns:
        ``input_ids`` [n, c] padded with 0, ``attention_mask`` float [n, c], and lists of labels, entity_pos and hts.
    """
    longest = max(len(feature["input_ids"]) for feature in batch)
    input_ids = torch.zeros(len(batch), longest, dtype=torch.long)
    attention_mask = torch.zeros(len(batch), longest)
    for row, feature in enumerate(batch):
        length = len(feature["input_ids"])
        input_ids[row, :length] = torch.tensor(feature["input_ids"])
        attention_mask[row, :length] = 1.0
    labels, entity_pos, hts = ([feature[key] for feature in batch] for key in ("labels", "entity_pos", "hts"))
    return input_ids, attention_mask, labels, entity_pos, hts

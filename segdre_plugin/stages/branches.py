"""Dense triples in words: which of them are injected, and the tokens of their branches (section 3.5, eq. 9)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segdre_plugin.errors import SegDREError
from segdre_plugin.salient import Salient, as_chain
from segdre_plugin.stages.config import SegConfig
from segdre_plugin.vocabulary import Triple, labels

Branch = tuple[list[int], int]  # token ids, the entity that the branch names


@dataclass(frozen=True)
class DocumentBranches:
    """The branches of one document.

    Attributes:
        triples: the triples that became branches, in their order.
        branches: for each its token ids and the entity that it names.
        owners: for each the salient entity on which it hangs.
        left_out: how many triples exceeded the token budget.
    """

    triples: list[Triple]
    branches: list[Branch]
    owners: list[int]
    left_out: int


class Verbaliser:
    """Turns dense triples into branches.

    Args:
        tokenizer: the encoder's tokenizer.
        relation_names: relation id -> name in words.
        config: alpha, token budget and templates.
    """

    def __init__(self, tokenizer: Any, relation_names: Mapping[str, str], config: SegConfig | None = None) -> None:
        self.tokenizer = tokenizer
        self.relation_names = relation_names
        self.config = config or SegConfig()
        self._pieces: dict[str, list[int]] = {}

    def __repr__(self) -> str:
        config = self.config
        return f"Verbaliser({config.template_from!r}, {config.template_to!r}, {len(self.relation_names)} relations)"

    def __call__(self, document: Mapping[str, Any], salient: Salient, triples: Sequence[Triple]) -> DocumentBranches:
        """Return the branches of the best ``ceil(alpha * len(triples))`` triples, as far as the budget reaches."""
        share = round(self.config.alpha * len(triples), 9)  # 0.55 of 100 triples is 55, not 55.00000000000001
        chosen = triples[: math.ceil(share)]
        branches: list[Branch] = []
        owners: list[int] = []
        budget = self.config.branch_budget
        for triple in chosen:
            branch = self.branch(document, salient, triple)
            budget -= len(branch[0])
            if budget < 0:
                break
            branches.append(branch)
            owners.append(owner(salient, triple))
        return DocumentBranches(list(chosen[: len(branches)]), branches, owners, len(chosen) - len(branches))

    def branch(self, document: Mapping[str, Any], salient: Salient, triple: Triple) -> Branch:
        """Return the token ids of a dense triple's branch, and the entity that it names.

        Raises:
            SegDREError: if the triple does not involve the salient entity, or its relation has no name.
        """
        title = document.get("title")
        try:
            text, other = branch_text(document, salient, triple, self.relation_names, self.config)
        except SegDREError as error:
            raise SegDREError(f"document {title!r}: {error}") from None
        return [piece for word in text.split() for piece in self._word(word)], other

    def _word(self, word: str) -> list[int]:
        """Tokenise a word on its own, as the backbones do with the words of a document."""
        if word not in self._pieces:
            self._pieces[word] = self.tokenizer.convert_tokens_to_ids(self.tokenizer.tokenize(word))
        return self._pieces[word]


def owner(salient: Salient, triple: Triple) -> int:
    """Return the salient entity on which a dense triple hangs: the first one that is its head or tail.

    Raises:
        SegDREError: if none is.
    """
    chain = as_chain(salient)
    head, _, tail = triple
    found = next((entity for entity in chain if entity in (head, tail)), None)
    if found is None:
        entities = " or ".join(map(str, chain)) or "(none)"
        raise SegDREError(
            f"the triple {tuple(triple)} does not involve the salient entity {entities}",
            "only dense triples are injected",
        )
    return found


def branch_text(
    document: Mapping[str, Any], salient: Salient, triple: Triple, names: Mapping[str, str], config: SegConfig
) -> tuple[str, int]:
    """Return a dense triple in words, and the entity that they name; ``names`` are those of relation ids.

    Raises:
        SegDREError: if the triple does not involve a salient entity, or its relation has no name.
    """
    head, relation, tail = triple
    outgoing = owner(salient, triple) == head
    if relation not in names:
        raise SegDREError(f"relation {relation!r} has no name", "add it to rel_info.json (id -> name)")
    template, other = (config.template_from, tail) if outgoing else (config.template_to, head)
    name = entity_name(document, other)
    return template.format(head=name, tail=name, relation=names[relation]), other


def entity_name(document: Mapping[str, Any], entity: int) -> str:
    """Return the name by which a branch calls an entity: its longest mention, the first of equally long ones."""
    return str(max((mention["name"] for mention in document["vertexSet"][entity]), key=len))


def gold_dense_triples(document: Mapping[str, Any], salient: Salient) -> list[Triple]:
    """Return a document's distinct gold triples that involve its salient entities, in the order of its labels."""
    chain = as_chain(salient)
    triples = (Triple(label["h"], label["r"], label["t"]) for label in labels(document))
    return list(dict.fromkeys(triple for triple in triples if triple.head in chain or triple.tail in chain))

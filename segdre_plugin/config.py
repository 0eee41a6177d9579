"""The settings of the method, with the paper's values as defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass

from segdre_plugin.errors import SegDREError
from segdre_plugin.losses import UPSTREAM

STAGES = ("base", "identify", "dense", "sparse")


@dataclass(frozen=True)
class SegConfig:
    """Settings of the stages.

    Attributes:
        hidden: width of the count head's hidden layer (section 3.3).
        alpha: share of the dense triples that is injected, best-scored first (eq. 9).
        branch_budget: most tokens that the branches of one document may have; what exceeds it is left out and counted.
        link: let the mentions of the entity that a branch names see that branch (no in the paper).
        template_from: text of a branch for (salient, relation, tail).
        template_to: text of a branch for (head, relation, salient).
        loss: what base, dense and sparse are trained with; "atl" is the backbone's own (:mod:`segdre_plugin.losses`).
    """

    hidden: int = 768
    alpha: float = 1.0
    branch_budget: int = 512
    link: bool = False
    template_from: str = "{relation} {tail}"
    template_to: str = "{head} {relation}"
    loss: str = UPSTREAM

    def __post_init__(self) -> None:
        if self.hidden < 1:
            raise SegDREError(f"hidden is {self.hidden}", "give a positive width; the paper has 768")
        if not (math.isfinite(self.alpha) and 0 <= self.alpha <= 1):
            raise SegDREError(f"alpha is {self.alpha}", "give a share from 0 (inject nothing) to 1 (inject all)")
        if self.branch_budget < 0:
            raise SegDREError(f"branch_budget is {self.branch_budget}", "give a number of tokens, 0 or more")
        for name in ("template_from", "template_to"):
            text = getattr(self, name)
            try:
                filled = text.format(head="head", relation="relation", tail="tail")
            except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
                raise SegDREError(
                    f"{name} is {text!r}: {error}", "use only the fields {head}, {relation} and {tail}"
                ) from None
            if not filled.strip():
                raise SegDREError(f"{name} is empty", "use the fields {head}, {relation} and {tail}")

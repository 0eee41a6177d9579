"""The settings of the method, with the paper's values as defaults."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from segdre_plugin.backbones.losses import UPSTREAM
from segdre_plugin.errors import SegDREError
from segdre_plugin.stages.strategies import Strategy, get_strategy

STAGES = ("base", "identify", "dense", "sparse")
TRAIN_SALIENT = ("gold", "same")
STARTS = ("encoder", "base")
LATER = ("loss", "salient", "salient_k", "train_salient", "start")  # settings that runs made before them do not name


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
        salient: the strategy that chooses the salient entity (:mod:`segdre_plugin.stages.strategies`).
        salient_k: most salient entities of a document (one in the paper).
        train_salient: the salient entities of training documents: ``gold`` ones (as in the paper), or those that the
            ``same`` strategy chooses as in dev and test.
        loss: of base, dense and sparse; "atl" is the backbone's own (:mod:`segdre_plugin.backbones.losses`).
        start: what dense and sparse start from: the pretrained ``encoder`` with new layers above it (as in the paper),
            or the trained ``base`` model.
    """

    hidden: int = 768
    alpha: float = 1.0
    branch_budget: int = 512
    link: bool = False
    template_from: str = "{relation} {tail}"
    template_to: str = "{head} {relation}"
    salient: str = "zip"
    salient_k: int = 1
    train_salient: str = "gold"
    loss: str = UPSTREAM
    start: str = "encoder"

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
        if self.salient_k < 1:
            raise SegDREError(f"salient_k is {self.salient_k}", "give 1 (as in the paper) or more")
        for name, choices in (("train_salient", TRAIN_SALIENT), ("start", STARTS)):
            if getattr(self, name) not in choices:
                raise SegDREError(f"{name} is {getattr(self, name)!r}", f"choose from {', '.join(choices)}")
        strategy = self.strategy  # refuses a name that is unknown
        if self.train_salient == "same" and strategy.predicts:
            raise SegDREError(
                f"train_salient is 'same', but strategy {self.salient} rests on predictions, and train has none",
                "leave train_salient at 'gold', or take a strategy that needs no predictions",
            )

    @property
    def strategy(self) -> Strategy:
        """Return the strategy that chooses salient entities."""
        return get_strategy(self.salient)

    @property
    def models(self) -> tuple[str, ...]:
        """Return the stages that have a model: identify may do without."""
        return tuple(stage for stage in STAGES if stage != "identify" or self.strategy.head)

    @property
    def later(self) -> dict[str, Any]:
        """Return those of the settings in LATER that are not as in the paper: only they are written down."""
        return {name: getattr(self, name) for name in LATER if getattr(self, name) != getattr(SegConfig, name)}

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> SegConfig:
        """Take what is a setting of the method out of others; what is missing is as in the paper."""
        return cls(**{f.name: settings[f.name] for f in fields(cls) if f.name in settings})

"""Losses with an adaptive threshold, and the registry behind ``--seg-loss``.

The paper calls its method orthogonal to existing ones, losses among them (section 2). Any loss that learns a threshold
class can train the stages base, dense and sparse: class 0 is that class, and the margin of a class is its logit minus
the threshold's. Below, s_0 is the threshold class's logit, s_r that of class r, and P and N are a pair's positive and
negative classes (class 0 in neither); each loss is the mean over the pairs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segdre_plugin.errors import SegDREError

UPSTREAM = "atl"  # the backbone's own loss, which is ATL in ATLOP and DREEAM: nothing is swapped


class ThresholdLoss(nn.Module):
    """The decision rule that goes with a threshold class (Zhou et al. 2021, section 4.1); losses add ``forward``."""

    def get_label(self, logits: Tensor, num_labels: int = -1) -> Tensor:
        """Return the classes above the threshold class, [pairs, classes] of 0 and 1 in the logits' dtype and shape.

        At most ``num_labels`` classes a pair, best first (ties with the last one pass); -1 for no limit. Column 0 is 1
        where no relation is predicted.
        """
        predicted = logits > logits[:, :1]
        if num_labels > 0:
            smallest = logits.topk(min(num_labels, logits.shape[1]), dim=1).values[:, -1:]
            predicted &= logits >= smallest
        predicted[:, 0] = ~predicted.any(dim=1)
        return predicted.to(logits.dtype)

    def get_score(self, logits: Tensor, num_labels: int = -1) -> tuple[Tensor, Tensor]:
        """Return the best classes of each pair and their logits, the threshold class among them, as DREEAM asks for.

        Logits, falling, and classes (long) are [pairs, num_labels]; -1 for all.
        """
        classes = logits.shape[1]
        scores, chosen = logits.topk(min(num_labels, classes) if num_labels > 0 else classes, dim=1)
        return scores, chosen


class AdaptiveThresholdLoss(ThresholdLoss):
    """Adaptive thresholding, ATL (Zhou et al. 2021, section "Adaptive Thresholding"); the reference model's own loss.

    L1 = - sum_{r in P} log( exp(s_r) / sum_{r' in P + 0} exp(s_r') )
    L2 = -              log( exp(s_0) / sum_{r' in N + 0} exp(s_r') )

    and the loss of a pair is L1 + L2. Value and gradient equal those of the authors' published implementation.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, of logits and multi-hot labels, each [pairs, classes]; 0 without pairs.

        Column 0 of the labels (no relation) is not read: P and N hold real classes only.
        """
        is_threshold = torch.zeros_like(logits, dtype=torch.bool)
        is_threshold[:, 0] = True
        positive = (labels > 0) & ~is_threshold
        over_positive = logits.masked_fill(~(positive | is_threshold), -torch.inf).logsumexp(dim=1)  # over P + TH
        over_negative = logits.masked_fill(positive, -torch.inf).logsumexp(dim=1)  # over N + TH
        loss1 = ((over_positive.unsqueeze(1) - logits) * positive).sum(dim=1)
        loss2 = over_negative - logits[:, 0]
        return (loss1 + loss2).sum() / max(len(logits), 1)


class MarginLoss(ThresholdLoss):
    """A loss that reads margins only: the mean over pairs of :meth:`of_pairs`."""

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss, a scalar, of logits and multi-hot labels, each [pairs, classes]; 0 without pairs.

        Column 0 of the labels is not read. Half types are computed in float32.
        """
        margins, positive = _margins(logits, labels)
        losses = self.of_pairs(margins, positive)
        return losses.sum() / max(len(losses), 1)

    def of_pairs(self, margins: Tensor, positive: Tensor) -> Tensor:
        """Return the loss of each pair, [pairs].

        ``margins``, of the relations over the threshold class, and ``positive``, bool, are [pairs, classes - 1].
        """
        raise NotImplementedError


class BalancedSoftmaxLoss(MarginLoss):
    """Balanced softmax (Su 2020, with a class 0 as the threshold; in relation extraction: Zhang et al. 2021, DocuNet).

    L = log( exp(s_0) + sum_{r in N} exp(s_r) ) + log( exp(-s_0) + sum_{r in P} exp(-s_r) )

    Only differences to s_0 matter, so it is computed on margins. Both sources then set s_0 to zero; here it stays the
    logit of the threshold class, by which the backbones predict.
    """

    def of_pairs(self, margins: Tensor, positive: Tensor) -> Tensor:
        """Return the loss of each pair, [pairs]."""
        threshold = torch.zeros_like(margins[:, :1])  # s_0 - s_0
        negatives = torch.cat([threshold, margins.masked_fill(positive, -torch.inf)], dim=1)
        positives = torch.cat([threshold, (-margins).masked_fill(~positive, -torch.inf)], dim=1)
        return negatives.logsumexp(dim=1) + positives.logsumexp(dim=1)


class HingeBalanceLoss(MarginLoss):
    """Adaptive hinge balance loss, HingeABL (Wang et al. 2023, Findings of EMNLP).

    Each class is compared with the threshold on its own, and weighs as much as it falls short of a margin m:

    h_r = max(0, m + s_0 - s_r) for r in P,  max(0, m + s_r - s_0) for r in N
    w_r = h_r / sum_{r' in P} h_r' for r in P,  h_r / sum_{r' in N} h_r' for r in N  (0 where all h_r' are 0)
    L = - sum_{r in P} w_r log sigmoid(s_r - s_0) - sum_{r in N} w_r log sigmoid(s_0 - s_r)

    This is the loss of the authors' published implementation (m is 5 there), gradients through the weights included. It
    was compared with that code and not with the paper's equations: see docs/losses.md.

    ``margin`` is m, in logits; one that is not positive raises SegDREError.
    """

    def __init__(self, margin: float = 5.0) -> None:
        super().__init__()
        if not margin > 0:
            raise SegDREError(f"HingeBalanceLoss: margin is {margin}", "pass a positive number of logits")
        self.margin = margin

    def of_pairs(self, margins: Tensor, positive: Tensor) -> Tensor:
        """Return the loss of each pair, [pairs]."""
        right = torch.where(positive, margins, -margins)  # how far on the right side of the threshold
        losses = -F.logsigmoid(right)
        hinge = F.relu(self.margin - right)
        total = margins.new_zeros(len(margins))
        for side in (positive, ~positive):
            of_side = hinge * side
            weighed = of_side.sum(dim=1, keepdim=True)
            weights = of_side / torch.where(weighed > 0, weighed, 1.0)
            total = total + (weights * losses).sum(dim=1)
        return total


_FACTORIES: dict[str, Callable[[], nn.Module]] = {
    "balanced-softmax": BalancedSoftmaxLoss,
    "hinge-abl": HingeBalanceLoss,
}


def register_loss(name: str, factory: Callable[[], nn.Module]) -> None:
    """Add a loss, so that ``--seg-loss NAME`` and ``SegConfig(loss=NAME)`` find it.

    ``factory`` makes it, without arguments; :func:`build_loss` lists what it has to be.

    Raises:
        SegDREError: if the name is taken.
    """
    if name in loss_names():
        raise SegDREError(f"a loss {name!r} already exists", "register it under another name")
    _FACTORIES[name] = factory


def loss_names() -> tuple[str, ...]:
    """Return the names of all losses."""
    return (UPSTREAM, *_FACTORIES)


def check_loss(name: str) -> None:
    """Refuse an unknown loss with SegDREError."""
    if name not in loss_names():
        hint = f"losses: {', '.join(loss_names())}; add your own with segdre_plugin.backbones.losses.register_loss"
        raise SegDREError(f"unknown loss {name!r}", hint)


def build_loss(name: str, replaced: nn.Module) -> nn.Module:
    """Return the loss that replaces a backbone's own; ``replaced`` itself for ``"atl"``.

    Raises:
        SegDREError: if the name is unknown, or the registered loss is not a module, lacks a method of ``replaced``,
            or has parameters or buffers (which would not be in checkpoints of the backbone).
    """
    check_loss(name)
    if name == UPSTREAM:
        return replaced
    loss = _FACTORIES[name]()
    if not isinstance(loss, nn.Module):
        raise SegDREError(f"loss {name!r} is a {type(loss).__name__}", "register what makes a torch.nn.Module")
    missing = [m for m in ("get_label", "get_score") if hasattr(replaced, m) and not hasattr(loss, m)]
    if missing:
        found = f"loss {name!r}: {type(loss).__name__} lacks {' and '.join(missing)}"
        raise SegDREError(found, "derive it from segdre_plugin.backbones.losses.ThresholdLoss")
    if loss.state_dict():
        found = f"loss {name!r}: {type(loss).__name__} has parameters or buffers: {', '.join(loss.state_dict())}"
        raise SegDREError(found, "keep them out of the loss: checkpoints hold what the backbone's own do")
    return loss


def _margins(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the margins of all classes but the threshold class, and which of them are positive.

    Margins, float of 32 bits or more, and bool, are each [pairs, classes - 1], of logits and labels [pairs, classes].

    Raises:
        SegDREError: if the shapes differ.
    """
    if logits.ndim != 2 or logits.shape != labels.shape:
        found = f"logits {list(logits.shape)}, labels {list(labels.shape)}"
        raise SegDREError(f"expected logits and labels [pairs, classes], got {found}")
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return precise[:, 1:] - precise[:, :1], labels[:, 1:] > 0

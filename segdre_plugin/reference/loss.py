"""The adaptive thresholding loss (Zhou et al. 2021, section 4.1) and the decision rule that belongs to it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AdaptiveThresholdLoss(nn.Module):
    """Learn one threshold a pair as the logit of an extra class TH, which is class 0.

    Zhou et al. 2021, section 4.1: with P the positive and N the negative classes of a pair,

        L1 = - sum_{r in P} log( exp(l_r)  / sum_{r' in P + TH} exp(l_r') )
        L2 = -              log( exp(l_TH) / sum_{r' in N + TH} exp(l_r') )

    and the loss is the mean of L1 + L2 over the pairs.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: [pairs, classes].
            labels: [pairs, classes], multi-hot; column 0 (no relation) is not read: P and N hold real classes only.

        Returns:
            A scalar; 0 when there is no pair.
        """
        is_threshold = torch.zeros_like(logits, dtype=torch.bool)
        is_threshold[:, 0] = True
        positive = (labels > 0) & ~is_threshold
        over_positive = logits.masked_fill(~(positive | is_threshold), -torch.inf).logsumexp(dim=1)  # over P + TH
        over_negative = logits.masked_fill(positive, -torch.inf).logsumexp(dim=1)  # over N + TH
        loss1 = ((over_positive.unsqueeze(1) - logits) * positive).sum(dim=1)
        loss2 = over_negative - logits[:, 0]
        return (loss1 + loss2).sum() / max(len(logits), 1)

    def get_label(self, logits: Tensor, num_labels: int = -1) -> Tensor:
        """Predict the classes above the threshold class (Zhou et al. 2021, section 4.1).

        Args:
            logits: [pairs, classes].
            num_labels: at most so many classes a pair, best first (ties with the last one pass); -1 for no limit.

        Returns:
            [pairs, classes] of 0 and 1 in the logits' dtype; column 0 is 1 where no relation is predicted.
        """
        predicted = logits > logits[:, :1]
        if num_labels > 0:
            smallest = logits.topk(min(num_labels, logits.shape[1]), dim=1).values[:, -1:]
            predicted &= logits >= smallest
        predicted[:, 0] = ~predicted.any(dim=1)
        return predicted.to(logits.dtype)

"""Linear count regression, the count head's rival (paper section 6.1, table 5, "Regression (linear)").

The same stage with one output a pair in the place of the two of the zero-inflated Poisson distribution
(:mod:`segdre_plugin.zip_head`), and the squared error of the count in the place of its likelihood.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from segdre_plugin.errors import SegDREError
from segdre_plugin.zip_head import CountLoss


class SquaredCountLoss(CountLoss):
    """Squared error of the count, with the interface of the backbones' adaptive-threshold loss.

    It goes with a ``CountHead`` of one output, which is the count itself and may be below 0.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared error of the counts, a scalar, float32 for half types; ``labels`` stays as it is.

        Args:
            logits: output of ``CountHead``, [N, 1].
            labels: multi-hot relation labels, [N, classes]; class 0 is NA and is not counted.

        Raises:
            SegDREError: if shapes do not fit, or N is 0.
        """
        if labels.ndim != 2 or logits.shape != (labels.shape[0], 1) or len(labels) == 0:
            found = f"logits {list(logits.shape)}, labels {list(labels.shape)}"
            raise SegDREError(f"SquaredCountLoss: expected logits [N, 1] and labels [N, classes], got {found}")
        expected = self.get_label(logits)
        return F.mse_loss(expected, labels[:, 1:].sum(1).to(expected))

    def get_label(self, logits: Tensor, num_labels: int = -1) -> Tensor:
        """Return the expected count of every pair, [N]; float32 for logits of a half type.

        Args:
            logits: output of ``CountHead``, [N, 1].
            num_labels: taken because the backbones pass it; has no meaning for counts.

        Raises:
            SegDREError: if the logits are not [N, 1].
        """
        if logits.ndim != 2 or logits.shape[1] != 1:
            raise SegDREError(
                f"SquaredCountLoss: expected logits [N, 1], got {list(logits.shape)}", "wrap the classifier too"
            )
        return logits[:, 0].float() if logits.element_size() < 4 else logits[:, 0]

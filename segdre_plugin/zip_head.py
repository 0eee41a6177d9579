"""The zero-inflated Poisson (ZIP) count head of salient entity identification (paper section 3.3, equations 3-7).

``CountHead`` stands where a backbone has its relation classifier and ``CountLoss`` where it has its loss; together they
turn the backbone into a regressor of the number of relations of an entity pair. ``zip_nll`` and ``zip_mean`` are the
distribution itself. Everything works on logits: pi = sigmoid(pi_logit) and lambda = softplus(rate_logit) (equation 5)
are never formed inside a logarithm, so that values and gradients stay finite where the probabilities are 0 or 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segdre_plugin.errors import SegDREError

# Beyond it softplus(x) = x (above) and log softplus(x) = x (below) to the last bit of a float64, and exp(x) still fits
# a float32. torch's own threshold of 20 is good for float32 only.
_LINEAR_BEYOND = 40.0


def zip_nll(pi_logit: Tensor, rate_logit: Tensor, counts: Tensor, reduction: str = "mean") -> Tensor:
    """Compute the negative log-likelihood of counts under a zero-inflated Poisson distribution (paper equation 6).

    Value and gradient are finite for logits in [-1e4, 1e4] and any count (the gradient grows like the count and float16
    cannot hold more than 65,504). Logits of a half type are computed, and the result is returned, in float32.

    Args:
        pi_logit: logit of the zero component's probability pi; any shape.
        rate_logit: softplus of it is the Poisson rate lambda (relations per pair); broadcastable with ``pi_logit``.
        counts: observed counts y, whole numbers >= 0 of any dtype; broadcastable with the logits.
        reduction: ``"mean"`` over all elements, ``"sum"`` (as the paper writes it) or ``"none"``.

    Returns:
        In nats: a scalar for ``"mean"`` and ``"sum"``, the broadcast shape for ``"none"``.

    Raises:
        SegDREError: if shapes do not broadcast, logits are not floating point, counts are negative, fractional or not
            finite, the reduction is unknown, or there is nothing to take the mean of.
    """
    if reduction not in ("mean", "sum", "none"):
        raise SegDREError(f"zip_nll: unknown reduction {reduction!r}", "use 'mean', 'sum' or 'none'")
    pi_logit, rate_logit = _working_precision(pi_logit, rate_logit)
    y = counts.to(pi_logit)
    shape = _broadcast_shape(pi_logit=pi_logit, rate_logit=rate_logit, counts=y)
    bad = ~torch.isfinite(y) | (y < 0) | (y != y.floor())  # one test, so that a device is waited for once
    if bool(bad.any()):
        example = y[bad][0].item()
        raise SegDREError(f"zip_nll: counts must be finite whole numbers >= 0, got {example}", "check the labels")
    if reduction == "mean" and shape.numel() == 0:
        raise SegDREError(f"zip_nll: no element to take the mean of, shape {list(shape)}", "leave empty batches out")

    # eq. 6: -log P(y), P(0) = pi + (1 - pi) exp(-lambda), P(y > 0) = (1 - pi) exp(-lambda) lambda^y / y!
    log_pi = F.logsigmoid(pi_logit)
    log_not_pi = F.logsigmoid(-pi_logit)
    rate = _softplus(rate_logit)
    log_zero = torch.logaddexp(log_pi, log_not_pi - rate)  # log[pi + (1 - pi) exp(-lambda)]
    log_positive = log_not_pi - rate + y * _log_softplus(rate_logit) - torch.lgamma(y + 1)
    nll = -torch.where(y == 0, log_zero, log_positive)
    if reduction == "none":
        return nll
    return nll.mean() if reduction == "mean" else nll.sum()


def zip_mean(pi_logit: Tensor, rate_logit: Tensor) -> Tensor:
    """Compute the expected count (1 - pi) * lambda of a zero-inflated Poisson distribution (paper equation 7).

    Args:
        pi_logit: logit of the zero component's probability pi; any shape.
        rate_logit: softplus of it is the Poisson rate lambda; broadcastable with ``pi_logit``.

    Returns:
        Expected relations per pair, of the broadcast shape; float32 for logits of a half type.

    Raises:
        SegDREError: if the logits do not broadcast or are not floating point.
    """
    pi_logit, rate_logit = _working_precision(pi_logit, rate_logit)
    _broadcast_shape(pi_logit=pi_logit, rate_logit=rate_logit)
    return torch.sigmoid(-pi_logit) * _softplus(rate_logit)


class CountHead(nn.Module):
    """Count regression head on a backbone's bilinear features (paper equations 4 and 5).

    It has the paper's parameters: a linear layer from the features z_s (x) z_o to ``hidden`` scores (equation 4) and
    one from there to the two logits (equation 5). There is no activation between them, so the product of the two weight
    matrices is the same function with the same gradients, at about 2/hidden of the cost per pair.

    Args:
        in_features: size of the bilinear features, i.e. ``in_features`` of the classifier that it replaces.
        hidden: size of the count score x; 768 in the paper.
        outputs: numbers per pair: two logits here, one count in :mod:`segdre_plugin.stages.linear_head`.

    Raises:
        SegDREError: if a size is below 1.
    """

    def __init__(self, in_features: int, hidden: int = 768, outputs: int = 2) -> None:
        super().__init__()
        if min(in_features, hidden, outputs) < 1:
            found = f"in_features={in_features}, hidden={hidden}, outputs={outputs}"
            raise SegDREError(f"CountHead: sizes must be >= 1, got {found}")
        self.in_features = in_features
        self.hidden = nn.Linear(in_features, hidden)
        self.output = nn.Linear(hidden, outputs)

    def __repr__(self) -> str:
        sizes = self.in_features, self.hidden.out_features, self.output.out_features
        return f"CountHead(in_features={sizes[0]}, hidden={sizes[1]}, outputs={sizes[2]})"

    def forward(self, features: Tensor) -> Tensor:
        """Return pi_logit and rate_logit of every pair, [..., 2] (or [..., outputs]), from features [..., in_features].

        Raises:
            SegDREError: if the last dimension is not ``in_features``.
        """
        if features.ndim == 0 or features.shape[-1] != self.in_features:
            found = f"expected features [..., {self.in_features}], got {list(features.shape)}"
            raise SegDREError(f"CountHead: {found}", "build the head with the classifier's in_features")
        weight = self.output.weight @ self.hidden.weight  # [outputs, in_features]
        bias = self.output.weight @ self.hidden.bias + self.output.bias  # [outputs]
        return F.linear(features, weight, bias)


class CountLoss(nn.Module):
    """ZIP loss with the interface of the backbones' adaptive-threshold loss (paper equations 6 and 7).

    The backbones call ``loss_fnt(logits, labels)``, ``loss_fnt.get_label(logits, num_labels=...)`` and, DREEAM,
    ``loss_fnt.get_score(logits, num_labels)``; with this module in that place their forward pass needs no change.
    """

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the mean negative log-likelihood of the pairs' relation counts; ``labels`` is left as it is.

        Args:
            logits: output of ``CountHead``, [N, 2].
            labels: multi-hot relation labels, [N, classes]; class 0 is NA and is not counted.

        Returns:
            The loss in nats per pair, a scalar.

        Raises:
            SegDREError: if shapes do not fit, N is 0, or the labels do not sum to whole numbers >= 0.
        """
        if labels.ndim != 2 or logits.shape != (labels.shape[0], 2):
            found = f"logits {list(logits.shape)}, labels {list(labels.shape)}"
            raise SegDREError(f"CountLoss: expected logits [N, 2] and labels [N, classes], got {found}")
        return zip_nll(logits[:, 0], logits[:, 1], labels[:, 1:].float().sum(1))

    def get_label(self, logits: Tensor, num_labels: int = -1) -> Tensor:
        """Return the expected relations of each pair (paper equation 7), [N], from the output of ``CountHead``, [N, 2].

        ``num_labels`` is accepted because the backbones pass it, and ignored.

        Raises:
            SegDREError: if the logits are not [N, 2].
        """
        if logits.ndim != 2 or logits.shape[1] != 2:
            raise SegDREError(f"CountLoss: expected logits [N, 2], got {list(logits.shape)}", "wrap the classifier too")
        return zip_mean(logits[:, 0], logits[:, 1])

    def get_score(self, logits: Tensor, num_labels: int = -1) -> tuple[Tensor, Tensor]:
        """Return what ``get_label`` returns in the form of DREEAM's top scores and top classes.

        Returns:
            Expected relations per pair, [N, 1], and zeros (long) in place of class indices, [N, 1].
        """
        scores = self.get_label(logits).unsqueeze(1)
        return scores, torch.zeros_like(scores, dtype=torch.long)


def _broadcast_shape(**tensors: Tensor) -> torch.Size:
    try:
        return torch.broadcast_shapes(*(tensor.shape for tensor in tensors.values()))
    except RuntimeError:
        found = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in tensors.items())
        hint = "pass two logits, and one count, for each pair"
        raise SegDREError(f"ZIP: shapes do not broadcast: {found}", hint) from None


def _working_precision(pi_logit: Tensor, rate_logit: Tensor) -> tuple[Tensor, Tensor]:
    """Return both logits in one dtype of at least 32 bits.

    Raises:
        SegDREError: if one is not floating point.
    """
    dtype = torch.promote_types(pi_logit.dtype, rate_logit.dtype)
    if not (pi_logit.is_floating_point() and rate_logit.is_floating_point()):
        found = f"{pi_logit.dtype} and {rate_logit.dtype}"
        raise SegDREError(f"ZIP: logits must be floating point, got {found}", "pass the count head's output")
    dtype = torch.promote_types(dtype, torch.float32)
    return pi_logit.to(dtype), rate_logit.to(dtype)


def _softplus(x: Tensor) -> Tensor:
    return F.softplus(x, threshold=_LINEAR_BEYOND)


def _log_softplus(x: Tensor) -> Tensor:
    """Compute log(softplus(x)), finite where softplus(x) underflows; the clamp keeps NaN out of the unused gradient."""
    return torch.where(x < -_LINEAR_BEYOND, x, _softplus(x.clamp(min=-_LINEAR_BEYOND)).log())

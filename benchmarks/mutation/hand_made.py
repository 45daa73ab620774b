"""Mutants made by hand: one plausible mistake in each of the method's main equations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HandMade:
    """A mistake in an equation: the text of a module that occurs once, and its replacement."""

    mistake: str
    module: str
    before: str
    after: str


HAND_MADE = (
    HandMade(
        "the ELBO adds the KL divergence", "nbridge/models/base.py",
        'terms["kl"] = kl_weight * self.kl_to_prior(q)', 'terms["kl"] = -kl_weight * self.kl_to_prior(q)',
    ),
    HandMade(
        "the KL divergence to the prior lacks 1/2", "nbridge/nn/distributions.py",
        "((q.stddev.square() + q.mean.square() - 1) / 2 - q.stddev.log())", "((q.stddev.square() + q.mean.square() - 1) - q.stddev.log())",
    ),
    HandMade(
        "the KL divergence has a standard deviation for a variance", "nbridge/nn/distributions.py",
        "((ratio.square() + ((q.mean", "((ratio + ((q.mean",
    ),
    HandMade(
        "the KL divergence of distillation is reversed", "nbridge/models/bridged.py",
        "masked_mean(diagonal_kl(teacher(features), q), present", "masked_mean(diagonal_kl(q, teacher(features)), present",
    ),
    HandMade(
        "the contrast normalises over one axis twice", "nbridge/models/joint.py",
        "(pairs.logsumexp(-2) + pairs.logsumexp(-1)", "(pairs.logsumexp(-1) + pairs.logsumexp(-1)",
    ),
    HandMade(
        "the flow's likelihood lacks the log-determinant", "nbridge/nn/flow_bridge.py",
        "(y * (-widening).exp()).square() / 2 + widening", "(y * (-widening).exp()).square() / 2",
    ),
    HandMade(
        "the mixture's weights lack the log-determinant", "nbridge/nn/distributions.py",
        "means.square() / variances - (variances * total).log()", "means.square() / variances",
    ),
    HandMade(
        "the teacher of incomplete rows gets a gradient", "nbridge/models/joint.py",
        "fixed = diagonal_normal(q.mean.detach(), q.stddev.detach())", "fixed = diagonal_normal(q.mean, q.stddev)",
    ),
    HandMade(
        "the flow sends a gradient to the guides", "nbridge/models/flow_bridged.py",
        "self._product(loc.detach(), log_variance.detach(), given)", "self._product(loc, log_variance, given)",
    ),
    HandMade(
        "the flow serves the weights of the last update, not their average", "nbridge/nn/flow_bridge.py",
        "self.network if self.training else self.average", "self.network",
    ),
    HandMade(
        "the product of posteriors counts the prior once for each modality", "nbridge/nn/distributions.py",
        "torch.maximum(precision.sum(0) - (present.sum(0)[..., None] - 1), precision.amax(0))",
        "torch.maximum(precision.sum(0), precision.amax(0))",
    ),
    HandMade(
        "the product of experts lacks the prior", "nbridge/nn/distributions.py",
        "torch.logaddexp(torch.logsumexp(log_precision, -3), torch.zeros_like(log_variance[0]))", "torch.logsumexp(log_precision, -3)",
    ),
    HandMade(
        "importance sampling lacks log K", "nbridge/evaluation/weights.py",
        "(self.first - math.log(self.done)).cpu()", "self.first.cpu()",
    ),
    HandMade(
        "importance weights lack the density of the proposal", "nbridge/evaluation/weights.py",
        "(noise.square().sum(-1).double() - distance.square().sum(-1)) / 2", "(-distance.square().sum(-1)).double() / 2",
    ),
    HandMade(
        "the temperature of classes is inverted", "nbridge/nn/likelihoods.py",
        "raw if factor is None else raw / factor", "raw if factor is None else raw * factor",
    ),
    HandMade(
        "the conformal quantile is that of n rows, not n + 1", "nbridge/models/conformal.py",
        "(rows + 1) * levels - _ROUNDING", "rows * levels - _ROUNDING",
    ),
)  # fmt: skip

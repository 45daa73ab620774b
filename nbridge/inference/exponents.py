r"""Exponents of experts: how far a product of posteriors may trust each of its factors, fitted on validation rows.

A product multiplies what single modalities say as if all were equally reliable and independent. A modality whose encoder overfits is
precise and wrong, and modalities that repeat each other are counted twice, so that observing more can make answers worse. Once training is
over, each source i therefore gets an exponent, the most probable one given the predictive log-likelihood of hidden modalities:

.. math:: q(z \mid x_S) \propto p(z)^{1 - \sum_S a_i} \prod_{i \in S} q_i(z \mid x_i)^{a_i}, \qquad a_i = e^{\alpha_i} |S|^{-\gamma}

.. math:: \max_{\alpha, \gamma} \; \sum_{b} \sum_{j \in O \setminus S} w_j \log \frac{1}{K} \sum_k p(x_{bj} \mid z_{bk})
    - \frac{\|\alpha\|^2 + \gamma^2}{2 \tau^2}, \qquad z_{bk} \sim q(z \mid x_{bS})

where S is a random part, of random size, of what a row has, O. One number a source, and one for all that says how much experts repeat each
other; nothing is trained again. The noise is drawn once, so that the objective is a deterministic function of its few parameters.

For a model of three modalities or more that learned by contrast (`nbridge.models.joint`) the objective has the same contrast, with the same
weight: InfoNCE between each draw and the mean of the product of the hidden modalities. Likelihood alone gives up the few nats shared
with the given ones for a likelier background: with half of the views of PolyMNIST missing in training, exponents of .15 gain 60 of 590
nats, and the draws lose the digit.

Axes: K samples, M modalities, B rows, D latent dimensions.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.models.base import MultimodalVAE
from nbridge.models.joint import JointVAE, contrast_by_row
from nbridge.models.subsets import random_subset
from nbridge.nn.distributions import product_of_posteriors

DRAWS, ITEMS = 8, 1024
"""Draws of z of each item, and items: rows with one random part each."""
NUMBERS = 2**24
"""Numbers that decoders give in one evaluation of the objective: a bound for its cost."""
SPREAD = 0.5
"""Standard deviation of the logarithm of an exponent before any row is seen."""
BOUNDS = (-2.0, 2.0)
"""Bounds of the logarithm of an exponent: beyond them, a modality is not to be used at all, or something else is wrong."""
LARGEST = 1.0
"""Upper bound of gamma: with it, experts count as one however many there are."""
ITERATIONS = 15


def reset_exponents(model: MultimodalVAE) -> None:
    """Sets every exponent to 1, in place."""
    if model.exponents is not None:
        model.exponents.fill_(1.0)


def fit_exponents(model: MultimodalVAE, rows: Rows) -> dict[str, float]:
    """Fits the exponents of a model's experts, in place, to rows that training has not seen.

    It draws from torch's own generator: items, parts of rows, and z.

    Arguments:
        model: A trained model, in eval mode.
        rows: Prepared rows, with any pattern of observed modalities; those with two or more count.

    Returns:
        The exponent of each modality where it alone is given; empty where the model multiplies no experts or no row can teach one.
    """
    reset_exponents(model)
    batch = rows.representative()
    several = (model.presence(batch).sum(0) >= 2).nonzero()[:, 0]
    if model.exponents is None or not len(several):
        return {}
    width = sum(math.prod(likelihood.raw_shape) for likelihood in model.likelihoods.values())
    number = max(1, min(ITEMS, NUMBERS // (DRAWS * width)))
    several = several.repeat(math.ceil(number / len(several)))
    chosen = several[torch.randperm(len(several), device=several.device)[:number]]
    logs, gamma = _Objective(model, batch.index(chosen), chosen).best()
    sizes = torch.arange(len(model.names) + 1, dtype=torch.float32).clamp(min=1)
    model.exponents.copy_(torch.from_numpy(np.exp(logs)) * sizes[:, None] ** -gamma)
    return dict(zip(model.names, model.exponents[1].tolist(), strict=True))


def contrast_weight(model: MultimodalVAE) -> float:
    """The weight of the contrast that a model learned by, in nats; 0 without.

    Of two modalities one is hidden, and its likelihood already measures all that they share.
    """
    return model.contrast_weight if isinstance(model, JointVAE) and len(model.names) > 2 else 0.0


def mean_of_hidden(experts: tuple[Tensor, Tensor], hidden: Tensor) -> Tensor:
    """What the contrast holds draws against, shape (B, D): the mean of the product of what is hidden, with N(0, I) and exponents of 1.

    Arguments:
        experts: Means and log-variances, each of shape (M, B, D).
        hidden: The modalities that are hidden, boolean, shape (M, B).
    """
    return product_of_posteriors(*experts, hidden)[0]


class _Objective:
    """The negative log-posterior of the exponents, per item, and its gradient."""

    def __init__(self, model: MultimodalVAE, batch: Batch, rows: Tensor) -> None:
        with torch.no_grad():
            experts = model.experts(batch)
        assert experts is not None, "a model with exponents multiplies experts"
        self.model, self.experts = model, experts
        present = model.presence(batch)
        self.given = random_subset(present)
        hidden = {name: mask.nonzero()[:, 0] for name, mask in zip(model.names, present & ~self.given, strict=True)}
        # Picked once: the objective is asked for many times.
        self.targets = {name: (picked, batch.index(picked)) for name, picked in hidden.items() if model.weights[name] and len(picked)}
        self.noise = torch.randn(DRAWS, *experts[0].shape[1:], device=experts[0].device)
        # Items repeat rows: what was seen once counts once, and no row is a negative of itself.
        first = torch.from_numpy(np.unique(rows.cpu().numpy(), return_index=True)[1]).to(rows.device)
        self.shrinkage = 1 / len(first)
        self.contrast = None
        if weight := contrast_weight(model):
            self.contrast = weight, first, mean_of_hidden(experts, present & ~self.given)[first], model.alike(batch.index(first))

    def best(self) -> tuple[np.ndarray, float]:
        """Logarithms of the exponents and gamma."""
        from scipy.optimize import minimize  # Not above: it takes a quarter of a second.

        names = len(self.model.names)
        # Where one modality alone is ever given, gamma has nothing to act on.
        largest = LARGEST if int(self.given.sum(0).max()) > 1 else 0.0
        bounds = [BOUNDS] * names + [(0.0, largest)]
        found = minimize(self, np.zeros(names + 1), jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS})
        if not np.isfinite(found.fun):
            # Decoders that overflow say nothing of how reliable experts are.
            return np.zeros(names), 0.0
        return found.x[:names], float(found.x[names])

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        parameters = torch.tensor(point, dtype=torch.float32, device=self.noise.device, requires_grad=True)
        with torch.enable_grad():
            loss = self._negative_log_posterior(parameters)
            gradient = torch.autograd.grad(loss, parameters)[0]
        return loss.item(), gradient.double().cpu().numpy()

    def _negative_log_posterior(self, parameters: Tensor) -> Tensor:
        sizes = self.given.sum(0).clamp(min=1).to(parameters.dtype)
        exponents = (parameters[:-1, None] - parameters[-1] * sizes.log()).exp()[..., None]
        mean, log_variance = product_of_posteriors(*self.experts, self.given, exponents)
        z = mean + (log_variance / 2).exp() * self.noise
        score = z.new_zeros(())
        for name, (rows, batch) in self.targets.items():
            scores = self.model.log_prob(name, z[:, rows], batch).logsumexp(0)
            score = score + self.model.weights[name] * scores.sum() / self.given.shape[1]
        if self.contrast:
            weight, first, hidden, alike = self.contrast
            score = score - weight * contrast_by_row(z[:, first], hidden, alike=alike).mean()
        return self.shrinkage * (parameters / SPREAD).square().sum() / 2 - score

r"""PCA of a latent space: projection to the plane of the first two principal components, and back.

.. math:: p = (z - \bar z) \, [d_1, d_2], \qquad z = \bar z + p_1 d_1^T + p_2 d_2^T

Axes: B rows, D latent dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class LatentPCA:
    """The plane of the first two principal components, in double precision.

    Arguments:
        centre: The mean of the points, shape (D,).
        directions: The two orthonormal directions, shape (2, D).
        shares: The share of the variance along each direction.
    """

    centre: Tensor
    directions: Tensor
    shares: tuple[float, float]

    @classmethod
    def fit(cls, means: Tensor) -> Self:
        """Fits the plane to points, shape (B, D) with D at least 2.

        The largest weight of each direction is positive, so that equal points give equal planes.
        """
        means = means.double().cpu()
        centre = means.mean(0)
        _, spread, directions = torch.linalg.svd(means - centre, full_matrices=False)
        largest = directions.abs().argmax(1, keepdim=True)
        directions = directions * directions.gather(1, largest).sign()
        shares = (spread.square() / spread.square().sum().clamp(min=1e-300)).tolist()
        return cls(centre, directions[:2], (shares[0], shares[1]))

    def transform(self, z: Tensor) -> Tensor:
        r"""Projects z, shape (\*, D), to the plane, shape (\*, 2)."""
        return (z.double().cpu() - self.centre) @ self.directions.T

    def inverse_transform(self, points: Tensor) -> Tensor:
        r"""Maps points on the plane, shape (\*, 2), to z, shape (\*, D)."""
        return self.centre + points.double().cpu() @ self.directions

"""Custom modality: wind directions, with an encoder and a likelihood for circular data, in which 359 degrees is close to 1 degree.

Run `python examples/custom_modality.py`. In a YAML spec, name the classes in the same way; pass modules to `nbridge.BridgedVAE`.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, VonMises, constraints

import nbridge


class CircleEncoder(nbridge.Encoder):
    """Encodes angles by their cosine and sine and one linear layer."""

    def __init__(self, shape: tuple[int, ...], features: int, *, slope: float = 0.1) -> None:
        super().__init__()
        self.features = features
        self.network = nn.Sequential(nn.Linear(2 * math.prod(shape), features), nn.LeakyReLU(slope))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(torch.cat([x.cos(), x.sin()], dim=1).flatten(1))


class Direction(nbridge.Likelihood):
    """Von Mises distribution of angles in radians, in [-pi, pi]."""

    parameters_per_element = 3  # cosine and sine of the mean direction, and the logarithm of the concentration
    support = constraints.interval(-math.pi - 1e-5, math.pi + 1e-5)

    def forward(self, raw: Tensor) -> Distribution:
        cosine, sine, log_concentration = self.split(raw)
        return Independent(VonMises(torch.atan2(sine, cosine + 1e-6), log_concentration.clamp(-3, 5).exp()), len(self.shape))

    def expectation(self, distribution: Distribution) -> Tensor:
        return torch.stack([distribution.mean.cos(), distribution.mean.sin()], dim=-1)  # angles are averaged as unit vectors

    def point(self, expectation: Tensor) -> Tensor:
        return torch.atan2(expectation[..., 1], expectation[..., 0])


def main(epochs: int = 30) -> None:
    torch.manual_seed(0)
    angle = (torch.rand(1500, 1) * 2 - 1) * math.pi
    rows = {"angle": angle, "speed": torch.cat([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(1500, 2)}
    angles = {"shape": 1, "encoder": "custom_modality:CircleEncoder", "likelihood": "custom_modality:Direction"}
    speeds = {"shape": 2, "encoder": "mlp", "likelihood": "normal"}
    training = {"stages": {"joint": {"epochs": epochs}, "bridges": {"epochs": epochs}}}
    run = nbridge.train({"latent_dim": 8, "modalities": {"angle": angles, "speed": speeds}, "training": training}, rows)
    test = (run.splits.train if run.splits.test is None else run.splits.test).sample()
    error = run.model.impute(test.hide("angle")).values["angle"] - test.values["angle"]
    median, most = torch.atan2(error.sin(), error.cos()).abs().rad2deg().quantile(torch.tensor([0.5, 0.9])).tolist()
    print(f"error of the imputed angle: median {median:.1f}, 90th percentile {most:.1f} degrees")


if __name__ == "__main__":
    main()

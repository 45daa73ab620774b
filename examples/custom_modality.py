"""A modality of your own: wind directions, with an encoder and a likelihood that know that 359 degrees is close to 1 degree.

Run `python examples/custom_modality.py`. In a spec the same classes are named by `type: "custom_modality:Direction"`.
"""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, VonMises, constraints

import nbridge
from nbridge.decoders import MLPDecoder
from nbridge.encoders import MLPEncoder
from nbridge.likelihoods import Normal


class CircleEncoder(nbridge.Encoder):
    """Cosine and sine of each angle, then one linear layer."""

    def __init__(self, shape: tuple[int, ...], features: int, *, slope: float = 0.1) -> None:
        super().__init__()
        self.features = features
        self.network = nn.Sequential(nn.Linear(2 * math.prod(shape), features), nn.LeakyReLU(slope))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(torch.cat([x.cos(), x.sin()], dim=1).flatten(1))


class Direction(nbridge.Likelihood):
    """Angles in radians, in [-pi, pi]."""

    parameters_per_element = 3  # cosine and sine of the mean direction, and how concentrated the angles are around it
    support = constraints.interval(-math.pi - 1e-5, math.pi + 1e-5)

    def forward(self, raw: Tensor) -> Distribution:
        cosine, sine, log_concentration = self.split(raw)
        elements = VonMises(torch.atan2(sine, cosine + 1e-6), log_concentration.clamp(-3, 5).exp(), validate_args=False)
        return Independent(elements, len(self.shape))


def main(epochs: int = 30) -> None:
    torch.manual_seed(0)
    angle = (torch.rand(1500, 1) * 2 - 1) * math.pi
    rows = nbridge.Batch.complete({"angle": angle, "speed": torch.cat([angle.cos(), angle.sin()], dim=1) + 0.1 * torch.randn(1500, 2)})

    likelihoods = {"angle": Direction((1,)), "speed": Normal((2,))}
    decoders = {name: nbridge.Decoder(MLPDecoder(8, likelihood.raw_shape), likelihood) for name, likelihood in likelihoods.items()}
    encoders = {"angle": CircleEncoder((1,), 32), "speed": MLPEncoder((2,), 32)}
    widths = {name: encoder.features for name, encoder in encoders.items()}
    model = nbridge.BridgedVAE(encoders, decoders, nbridge.Fusion(widths, 8), nbridge.BridgeBank(widths))
    settings = nbridge.TrainingSpec.model_validate({"stages": {"joint": {"epochs": epochs}, "bridges": {"epochs": epochs}}})
    nbridge.fit(model, rows.slice(0, 1200), rows.slice(1200, 1300), settings)
    error = nbridge.impute(model, rows.slice(1300, 1500).hide("angle")).values["angle"] - angle[1300:]
    print(f"median error of the imputed angle: {torch.atan2(error.sin(), error.cos()).abs().median().rad2deg():.1f} degrees")


if __name__ == "__main__":
    main()

"""Custom likelihood: Student's t, for sensor data with outliers that are nearly impossible under a normal distribution.

Run `python examples/custom_likelihood.py` with `sp_sw_har` in $NBRIDGE_DATA. In a YAML spec, name the class in the same way:
`likelihood: {type: "custom_likelihood:StudentT", freedom: 3}`. `nbridge.testing.check_likelihood` checks that it is valid.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.distributions import StudentT as StudentsT

import nbridge
from nbridge.data.numpy.archive import read_npz
from nbridge.evaluation.crossmodal import predict


class StudentT(nbridge.Likelihood):
    """Heavy-tailed distribution around the decoder's output, on the scale of the training rows."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: tuple[int, ...], *, freedom: float = 3.0) -> None:
        super().__init__(shape)
        self.freedom = freedom
        self.log_scale = nn.Parameter(torch.zeros(self.shape))
        self.register_buffer("mean", torch.zeros(self.shape))
        self.register_buffer("deviation", torch.ones(self.shape))

    def fit(self, x: Tensor, observed: Tensor) -> None:
        count = observed.sum(0).clamp(min=1)
        self.mean = x.where(observed, 0.0).sum(0) / count
        self.deviation = ((x - self.mean).where(observed, 0.0).square().sum(0) / count).sqrt().clamp(min=1e-6)

    def standardize(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.deviation

    def forward(self, raw: Tensor) -> Distribution:
        scale = self.deviation * self.log_scale.clamp(-7, 7).exp()
        return Independent(StudentsT(self.freedom, self.mean + self.deviation * raw, scale), len(self.shape))


def main(epochs: int = 10, windows: int | None = None) -> None:
    recorded = read_npz("sp_sw_har/sp_sw_har_50hz_w64.npz")
    rows = {name: recorded[name][:windows].astype(np.float32) for name in ("watch_gyro", "phone_gyro")}
    for likelihood in ("normal", "custom_likelihood:StudentT"):
        series = {"shape": [3, 64], "encoder": {"type": "conv", "channels": [16, 32]}, "likelihood": likelihood}
        stages = {"joint": {"epochs": epochs}, "bridges": {"epochs": epochs}}
        run = nbridge.train({"latent_dim": 16, "modalities": dict.fromkeys(rows, series), "training": {"stages": stages}}, rows)
        assert run.splits.test is not None
        found = predict(run.model.network, run.splits.test.sample(), ["watch_gyro"], "phone_gyro")
        print(f"{likelihood}: log p(phone | watch) {found.log_likelihood:.1f} nats per window")


if __name__ == "__main__":
    main()

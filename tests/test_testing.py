"""The built-in parts pass the conformance suite that is shipped for other people's, and the suite catches what it should."""

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from nbridge.encoders import ConvEncoder, EmbeddingEncoder, Encoder, MLPEncoder
from nbridge.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Laplace, Likelihood, NegativeBinomial, Poisson
from nbridge.likelihoods import Normal as NormalLikelihood
from nbridge.testing import check_encoder, check_likelihood

ENCODERS = {
    "mlp": (MLPEncoder((3,), 5), (3,)),
    "mlp of an image": (MLPEncoder((2, 4, 3), 5, hidden=(7, 6), dropout=0.2), (2, 4, 3)),
    "mlp without normalisation": (MLPEncoder((3,), 5, hidden=(), batch_norm=False, activation="tanh"), (3,)),
    "conv of a series": (ConvEncoder((3, 9), 5, channels=(4,)), (3, 9)),
    "conv of an image": (ConvEncoder((1, 7, 5), 5, channels=(4, 6)), (1, 7, 5)),
    "conv of a volume": (ConvEncoder((2, 3, 4, 5), 5, channels=(4,), batch_norm=False), (2, 3, 4, 5)),
    "embedding": (EmbeddingEncoder((4,), 5, hidden=(6,)), (4,)),
}
LIKELIHOODS = {
    "bernoulli": (Bernoulli((3,)), torch.tensor([[0.0, 0.25, 1.0]] * 2)),
    "categorical, class indices": (Categorical((4,)), torch.tensor([0, 3, 1])),
    "categorical, one-hot": (Categorical((4,)), torch.eye(4)),
    "normal, learned scale": (NormalLikelihood((2, 3)), torch.randn(5, 2, 3) * 100 + 1000),
    "normal, predicted scale": (NormalLikelihood((2, 3), scale="predicted"), None),
    "normal, fixed scale": (NormalLikelihood((2,), scale=0.5, standardize=False), None),
    "normal, double precision": (NormalLikelihood((2,)), torch.tensor([[1.0, 2.0]] * 3, dtype=torch.float64)),
    "laplace": (Laplace((3,), scale="predicted"), None),
    "discretized logistic of bytes": (DiscretizedLogistic((1, 2, 2), high=255.0), torch.randint(0, 256, (5, 1, 2, 2), dtype=torch.uint8)),
    "poisson": (Poisson((3,)), torch.tensor([[0, 7, 1000]] * 3)),
    "negative binomial": (NegativeBinomial((3,)), torch.tensor([[0.0, 7.0, 1000.0]] * 3)),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_built_in_encoders_conform(name: str):
    check_encoder(*ENCODERS[name])


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_built_in_likelihoods_conform(name: str):
    likelihood, x = LIKELIHOODS[name]
    check_likelihood(likelihood)
    check_likelihood(likelihood, x)


class _Encoder(Encoder):
    def __init__(self, wrong: str) -> None:
        super().__init__()
        self.features, self.wrong = 2, wrong
        self.linear, self.spare = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.wrong == "changes its input":
            x.mul_(2)
        h = self.linear(x) + (0 if self.wrong == "no gradient" else self.spare(x))
        mixed = {"rows mixed": h - h.mean(0), "shape": h[:, :1], "not finite": h / 0}
        return mixed.get(self.wrong, h)

    def mirror(self) -> dict[str, object]:
        return {"type": "nothing"} if self.wrong == "mirror" else super().mirror()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("changes its input", "changes its input in place"),
        ("no gradient", "parameter spare.weight gets no gradient"),
        ("rows mixed", "depend on the other rows"),
        ("shape", r"features have shape \(6, 1\), expected \(B, features\) = \(6, 2\)"),
        ("not finite", "not finite"),
        ("mirror", "names a decoder that does not exist"),
    ],
)
def test_a_faulty_encoder_is_told_what_is_wrong(wrong: str, message: str):
    with pytest.raises(AssertionError, match=message):
        check_encoder(_Encoder(wrong), (3,))


class _Likelihood(Likelihood):
    def __init__(self, wrong: str) -> None:
        super().__init__((3,))
        self.wrong = wrong

    def forward(self, raw: Tensor) -> Distribution:
        if self.wrong == "event":
            return Normal(raw, 1.0)
        scale = raw.exp() if self.wrong == "overflow" else torch.ones_like(raw)
        return Independent(Normal(raw, scale, validate_args=False), 1, validate_args=False)

    def canonical(self, x: Tensor) -> Tensor:
        return x + 1 if self.wrong == "canonical" else super().canonical(x)

    def standardize(self, x: Tensor) -> Tensor:
        return x.long() if self.wrong == "standard form" else x

    def blank(self, rows: int) -> Tensor:
        return super().blank(rows) + (float("nan") if self.wrong == "blank" else 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("event", "batch shape"),
        ("overflow", "not finite for raw numbers"),
        ("canonical", r"canonical\(\) changes canonical values"),
        ("standard form", "not floating point"),
        ("blank", "a blank row is outside the support"),
    ],
)
def test_a_faulty_likelihood_is_told_what_is_wrong(wrong: str, message: str):
    with pytest.raises(AssertionError, match=message):
        check_likelihood(_Likelihood(wrong))

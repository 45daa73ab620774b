"""The built-in parts pass the conformance suite that is shipped for other people's, and the suite catches what it should."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from nbridge.data.batch import Batch
from nbridge.models.base import MultimodalVAE, Stage
from nbridge.models.parts import Parts
from nbridge.nn.decoders import Decoder, MLPDecoder
from nbridge.nn.distributions import diagonal_normal
from nbridge.nn.encoders import ConvEncoder, EmbeddingEncoder, Encoder, MLPEncoder
from nbridge.nn.fusion import Fusion
from nbridge.nn.likelihoods import Bernoulli, Categorical, DiscretizedLogistic, Laplace, Likelihood, NegativeBinomial, Poisson
from nbridge.nn.likelihoods import Normal as NormalLikelihood
from nbridge.testing import check_encoder, check_likelihood, check_model

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

    def log_prob(self, raw: Tensor, x: Tensor, cells: Tensor | None = None) -> Tensor:
        if self.wrong == "cells":
            return super().log_prob(raw, x)
        return super().log_prob(raw, x, cells) + (self.wrong == "density")

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
        ("density", r"log_prob\(\) differs from the distribution's$"),
        ("cells", r"log_prob\(\) differs from the distribution's where cells are not observed"),
        ("canonical", r"canonical\(\) changes canonical values"),
        ("standard form", "not floating point"),
        ("blank", "a blank row is outside the support"),
    ],
)
def test_a_faulty_likelihood_is_told_what_is_wrong(wrong: str, message: str):
    with pytest.raises(AssertionError, match=message):
        check_likelihood(_Likelihood(wrong))


# Models


class _Model(MultimodalVAE):
    """A joint VAE of two modalities, zeros for what is absent; what it does wrong, it does in one place."""

    def __init__(self, wrong: str = "") -> None:
        names = ("x", "y")
        encoders = {name: MLPEncoder((3,), 4, hidden=()) for name in names}
        decoders = {name: Decoder(MLPDecoder(2, (3,), hidden=(4,)), NormalLikelihood((3,))) for name in names}
        super().__init__(encoders, decoders, 2)
        self.wrong, self.seen = wrong, 0.0
        self.head = Fusion(dict.fromkeys(names, 4), 2, hidden=(5,))
        if wrong in ("spare parameter", "features of the trained"):
            self.spare = nn.Linear(3, 3)
        if wrong == "plain dict":
            self.heads = {"x": Fusion({"x": 4}, 2)}
        if wrong == "plain tensor":
            self.head.temperature = torch.ones(1)
        if wrong == "weights":
            self.weights = {"x": 1.0}

    @classmethod
    def from_parts(cls, parts: Parts, **options: Any) -> _Model:
        raise NotImplementedError

    def posterior(self, batch: Batch, samples: int = 1) -> Independent:
        if self.wrong == "changes rows":
            batch.present["x"].zero_()
        q = super().posterior(batch, samples)
        prepared = self.prepare(batch)
        if self.wrong == "samples":
            return diagonal_normal(q.mean[0], q.stddev[0])
        return self.infer(prepared).expand((samples, len(batch))) if self.wrong == "no prior" else q

    def infer(self, batch: Batch) -> Independent:
        features = self.encode(batch)
        if self.wrong == "reads what is absent":
            features = {name: encoder(batch.values[name]) for name, encoder in self.encoders.items()}
        q = self.head(features)
        match self.wrong:
            case "scale":
                return diagonal_normal(q.mean, q.stddev * batch.present["y"][:, None])
            case "mixes rows":
                return diagonal_normal(q.mean - q.mean.mean(0), q.stddev)
            case "knows its place":
                return diagonal_normal(q.mean + torch.arange(len(batch))[:, None], q.stddev)
            case "keeps something":
                self.seen = max(self.seen, self.head.network.layers[0].weight.max().item())
                return diagonal_normal(q.mean + self.seen, q.stddev)
        return q

    def log_joint(self, batch: Batch, z: Tensor) -> Tensor:
        log_joint = super().log_joint(batch, z)
        if self.wrong == "log_joint of all":
            return log_joint + self.decoder("x").log_prob(z, self.prepare(batch).values["x"])
        return log_joint.sum(0) if self.wrong == "log_joint summed" else log_joint

    def stages(self) -> tuple[Stage, ...]:
        modules: dict[str, tuple[nn.Module, ...]] = {
            "foreign module": (nn.Linear(2, 2),),
            "frozen encoder in training mode": (self.head, self.decoders),
            "frozen encoder thaws": (self.head, self.decoders),
            "features of the trained": (self.head, self.decoders, self.spare) if self.wrong == "features of the trained" else (),
            "features too many": (self.head, self.decoders),
        }
        rows = {"rows counted": lambda batch: self.presence(batch).sum(0), "no rows": lambda batch: torch.zeros(len(batch)) > 0}
        features = self._features if self.wrong.startswith("features") else None
        stage = Stage(
            "all", modules.get(self.wrong, (self,)), self._loss, rows.get(self.wrong, lambda batch: self.presence(batch).any(0)), features
        )
        return {"no stage": (), "twins": (stage, stage)}.get(self.wrong, (stage,))

    def _features(self, batch: Batch) -> dict[str, Tensor]:
        x = batch.values["x"]
        return {"h": self.spare(x) if self.wrong == "features of the trained" else torch.cat([x, x])}

    def _meddle(self, batch: Batch) -> None:
        match self.wrong:
            case "changes its batch":
                batch.values["x"].add_(1)
            case "changes a parameter":
                self.head.network.layers[0].bias.data.add_(1)
            case "frozen encoder in training mode":
                self.encoders.train()
            case "frozen encoder thaws":
                self.encoders.requires_grad_(True)
            case "moves to eval mode":
                self.head.eval()

    def _loss(self, batch: Batch, features: Mapping[str, Tensor], kl_weight: float) -> dict[str, Tensor]:
        self._meddle(batch)
        terms = self.negative_elbo(self.head(self.encode(batch)), batch, kl_weight)
        match self.wrong:
            case "learns from what is absent":
                z = self.head(self.encode(batch)).rsample()
                terms["y"] = -self.decoder("y").log_prob(z, batch.values["y"]).mean()
            case "no scalar":
                terms["kl"] = terms["kl"].expand(2)
            case "not finite":
                terms["kl"] = terms["kl"] / 0
            case "gradient not finite":
                terms["kl"] = terms["kl"] + (0 * self.head.network.layers[0].bias).sqrt().sum()
            case "no terms":
                return {}
            case "other terms":
                return terms if self.head.training else {"kl": terms["kl"]}
        return terms


FAULTS = {
    "weights": "weights have names x, encoders x, y: expected the same names in this order",
    "plain dict": "heads holds a module that is not registered, so it is neither trained nor saved",
    "plain tensor": "head.temperature holds a tensor that is not registered",
    "samples": r"the posterior has batch and event shape \(10,\), \(2,\), expected \(K, B\) and \(D,\), \(\(3, 10\), \(2,\)\)",
    "scale": "the posterior is not finite, or its scale not positive, where x is present",
    "no prior": "with nothing present, the posterior is not the prior",
    "mixes rows": "in eval mode a row's posterior depends on the other rows or their presence",
    "knows its place": "in eval mode the order of rows changes the posterior",
    "changes rows": "the model changes its input rows in place",
    "reads what is absent": r"infer\(\) reads absent values",
    "log_joint summed": r"log_joint has shape \(10,\), expected \(K, B\) = \(3, 10\)",
    "log_joint of all": r"with nothing present, log_joint is not log p\(z\)",
    "keeps something": "loading a state dict does not restore the posterior",
    "no stage": r"stages\(\) returns no stage",
    "twins": "stages all, all: names must be unique",
    "foreign module": "stage all trains a Linear that is not a submodule of the model",
    "rows counted": r"stage all: rows\(\) is torch.int64 of shape \(10,\), expected torch.bool of shape \(B,\) = \(10,\)",
    "no rows": "stage all selects 0 of the test rows; pass rows of which it selects 2 or more",
    "features too many": "stage all: feature 'h' has 18 rows for 9",
    "features of the trained": "stage all: feature 'h' depends on parameters that the stage trains",
    "no terms": "stage all: the loss has no terms",
    "no scalar": "stage all: term 'kl' of the loss is not a scalar tensor",
    "not finite": "stage all: term 'kl' of the loss is not finite",
    "gradient not finite": "stage all: the gradient of head.network.layers.0.bias is not finite",
    "other terms": r"stage all: terms \['kl'\] in eval mode, \['kl', 'x', 'y'\] in training",
    "spare parameter": "stage all: no gradient for spare.bias, spare.weight; remove what it does not train from its modules",
    "changes its batch": "stage all: the loss changes its batch in place",
    "changes a parameter": "stage all: the loss changes head.network.layers.0.bias in place",
    "frozen encoder in training mode": "stage all: the loss leaves encoders in another mode",
    "frozen encoder thaws": "stage all: the loss leaves requires_grad of encoders.x.network.layers.0.weight changed",
    "moves to eval mode": "stage all: the loss leaves head in another mode",
    "learns from what is absent": "stage all: absent values affect the loss or its gradients",
}


def test_a_model_of_ones_own_conforms_and_is_given_back_as_it_came() -> None:
    model = _Model()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    check_model(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("wrong", FAULTS)
def test_a_faulty_model_is_told_what_is_wrong(wrong: str) -> None:
    with pytest.raises(AssertionError, match=f"^{FAULTS[wrong]}"):
        check_model(_Model(wrong))


def test_a_model_is_tried_on_the_rows_that_are_given() -> None:
    x = torch.randn(8, 3)
    check_model(_Model(), Batch.complete({"x": x, "y": x + 1}))
    some = Batch({"x": x, "y": torch.full_like(x, torch.nan)}, {"x": torch.arange(8) < 5, "y": torch.zeros(8, dtype=torch.bool)})
    check_model(_Model(), some)
    check_model(_Model(), Batch.complete({"y": x}))
    with pytest.raises(AssertionError, match=r"^stage all selects 0 of the test rows"):
        check_model(_Model(), Batch({"x": x[:1]}, {"x": torch.tensor([False])}))

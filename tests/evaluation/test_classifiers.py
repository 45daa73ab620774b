"""Classifiers: what they learn, from which rows, and what their accuracy counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbridge
from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.evaluation.classifiers import Classifier, classifier_for, train_classifier, train_classifiers
from nbridge.nn.encoders import MLPEncoder
from nbridge.nn.likelihoods import Bernoulli, Categorical, Normal
from nbridge.training.build import build_data

DIGITS = {
    "latent_dim": 2,
    "data": {"source": "digits"},
    "modalities": {
        "image": {"shape": [1, 8, 8], "encoder": "mlp", "likelihood": "bernoulli"},
        "top": {"shape": [1, 4, 8], "encoder": "mlp", "likelihood": "bernoulli"},
        "label": {"shape": 10, "encoder": "mlp", "likelihood": "categorical"},
    },
}


@pytest.fixture(scope="module")
def spec() -> nbridge.Spec:
    return nbridge.Spec.model_validate(DIGITS)


@pytest.fixture(scope="module")
def model(spec: nbridge.Spec) -> nbridge.MultimodalVAE:
    torch.manual_seed(0)
    return nbridge.build_model(spec).eval()


@pytest.fixture(scope="module")
def splits(spec: nbridge.Spec, model: nbridge.MultimodalVAE) -> Any:
    return build_data(spec, model)


def points(number: int, seed: int = 0) -> Batch:
    """Points whose sign tells a class, and whose signs are attributes."""
    x = 5 + 3 * torch.randn(number, 3, generator=torch.Generator().manual_seed(seed))
    return Batch.complete({"x": x, "side": (x[:, 0] > 5).long(), "signs": (x > 5).float()})


def fitted(batch: Batch) -> Normal:
    likelihood = Normal((3,))
    likelihood.fit(batch.values["x"], torch.ones_like(batch.values["x"], dtype=torch.bool))
    return likelihood


def encoder(seed: int = 0) -> MLPEncoder:
    torch.manual_seed(seed)
    return MLPEncoder((3,), 8, hidden=(16,))


def random_mask(rows: int, rate: float, seed: int) -> torch.Tensor:
    return torch.rand(rows, 3, generator=torch.Generator().manual_seed(seed)) < rate


def test_whole_digits_are_told_and_halves_less_well(spec: nbridge.Spec, model: nbridge.MultimodalVAE, splits: Any):
    judges = train_classifiers(spec, model, splits.train, splits.test, "label", epochs=6)
    assert list(judges) == ["image", "top"]
    assert judges["image"].accuracy > 0.9
    assert 0.7 < judges["top"].accuracy < judges["image"].accuracy
    assert {(judge.rows, judge.train_rows) for judge in judges.values()} == {(len(splits.test), len(splits.train))}
    images, labels = splits.test.values["image"], splits.test.values["label"]
    classifier = judges["image"].classifier
    assert classifier(images).shape == (len(images), 10)
    assert classifier.features(images).shape == (len(images), classifier.encoder.features)
    assert judges["image"].accuracy == pytest.approx((classifier(images).argmax(-1) == labels).double().mean().item())


def test_the_seed_decides_and_the_rows_held_out_do_not(spec: nbridge.Spec, model: nbridge.MultimodalVAE, splits: Any):
    def weights(test: Batch, seed: int) -> dict[str, torch.Tensor]:
        judge = train_classifiers(spec, model, splits.train.select("top", "label"), test, "label", epochs=1, seed=seed)["top"]
        return judge.classifier.state_dict()

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = weights(splits.test, 0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = weights(splits.test.slice(3, 9), 0), weights(splits.test, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.network.network.layers.0.weight"], other["head.network.network.layers.0.weight"])


def test_accuracy_is_of_rows_held_out(spec: nbridge.Spec, model: nbridge.MultimodalVAE, splits: Any):
    """Labels that mean nothing are learnt by heart from training rows, and are not told of others."""
    train, test = (
        Batch.complete(
            {"image": part.values["image"][:150], "label": torch.randint(10, (150,), generator=torch.Generator().manual_seed(seed))}
        )
        for seed, part in enumerate((splits.train, splits.test))
    )
    judge = train_classifiers(spec, model, train, test, "label", epochs=150)["image"]
    assert judge.classifier.accuracy(train, "image", "label") > 0.6
    assert judge.accuracy < 0.25


def test_only_rows_with_both_modalities_teach_and_count(spec: nbridge.Spec, model: nbridge.MultimodalVAE, splits: Any):
    train, test = (part.slice(0, 100).select("top", "label") for part in (splits.train, splits.test))
    seen = torch.arange(100) % 2 == 0
    holed = Batch(
        {"top": train.values["top"].masked_fill(~seen[:, None, None, None], torch.nan), "label": train.values["label"]},
        {"top": seen, "label": torch.ones_like(seen)},
    )
    half = Batch(test.values, {"top": torch.ones_like(seen), "label": seen})
    judge = train_classifiers(spec, model, holed, half, "label", epochs=2)["top"]
    assert (judge.rows, judge.train_rows) == (50, 50)
    alone = train_classifiers(spec, model, train.index(seen), test.index(seen), "label", epochs=2)["top"]
    assert judge.accuracy == alone.accuracy
    assert torch.equal(judge.classifier(test.values["top"]), alone.classifier(test.values["top"]))


def test_rows_are_capped_and_a_modality_never_beside_the_label_has_no_judge(spec: nbridge.Spec, model: nbridge.MultimodalVAE, splits: Any):
    judges = train_classifiers(spec, model, splits.train.hide("top"), splits.test, "label", rows=70, epochs=1)
    assert {name: judge.train_rows for name, judge in judges.items()} == {"image": 70}
    assert train_classifiers(spec, model, splits.train, splits.test.hide("label"), "label", epochs=1) == {}
    assert classifier_for(judges, "image") is judges["image"]
    with pytest.raises(DataError, match="no classifier for modality 'top', only for image"):
        classifier_for(judges, "top")


def test_what_comes_out_is_the_head_over_the_activated_features():
    likelihood = fitted(points(50))
    classifier = Classifier(encoder(), likelihood, Categorical((2,)), activation="relu").eval()
    x = points(7, seed=1).values["x"]
    features = F.relu(classifier.encoder((x - likelihood.shift) / likelihood.unit))
    linear = next(module for module in classifier.head.modules() if isinstance(module, nn.Linear))
    assert torch.equal(classifier.features(x), features)
    assert torch.allclose(classifier(x), features @ linear.weight.T + linear.bias)
    assert torch.equal(classifier.predict(x)[:, 0], classifier(x).argmax(-1))


def test_training_leaves_the_models_likelihoods_alone_and_the_classifier_frozen():
    likelihood, rows = fitted(points(50)), points(64)
    before = {name: tensor.clone() for name, tensor in likelihood.state_dict().items()}
    classifier = train_classifier(encoder(), likelihood, Categorical((2,)), rows, "x", "side", epochs=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in likelihood.state_dict().items())
    assert likelihood.log_scale.requires_grad
    assert torch.equal(classifier.likelihood.shift, likelihood.shift)
    assert not classifier.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_attributes_are_told_one_by_one():
    train, test = points(1000), points(1500, seed=1)
    classifier = train_classifier(
        encoder(), fitted(train), Bernoulli((3,), attributes=True), train, "x", "signs", epochs=5, learning_rate=1e-2
    )
    right = (classifier(test.values["x"]) > 0) == (test.values["signs"] > 0.5)
    assert classifier.accuracy(test, "x", "signs") == pytest.approx(right.double().mean().item())
    assert classifier.accuracy(test, "x", "signs") > 0.9


def test_cells_that_are_not_observed_neither_teach_nor_count():
    train = points(400)
    # With so few attributes observed, holes that were read as "no" would teach "no" everywhere.
    cells = {"x": random_mask(400, 0.9, seed=2), "signs": random_mask(400, 0.35, seed=3)}
    label, found = Bernoulli((3,), attributes=True), []
    for filler in (torch.nan, 7.0):
        values = {name: train.values[name].masked_fill(~mask, filler) for name, mask in cells.items()}
        rows = Batch(values, {name: torch.ones(400, dtype=torch.bool) for name in values}, cells)
        classifier = train_classifier(encoder(), fitted(train), label, rows, "x", "signs", epochs=20, learning_rate=1e-2)
        found.append((classifier.accuracy(rows, "x", "signs"), classifier(train.values["x"])))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])
    right = classifier.predict(values["x"], cells["x"]) == train.values["signs"]
    assert found[0][0] == pytest.approx(right[cells["signs"]].double().mean().item())
    assert right[cells["x"]].double().mean() > 0.9


def test_one_hot_labels_are_told_as_indices_are():
    train = points(200)
    one_hot = Batch.complete({"x": train.values["x"], "side": F.one_hot(train.values["side"], 2).float()})
    one, other = (train_classifier(encoder(), fitted(train), Categorical((2,)), rows, "x", "side", epochs=2) for rows in (train, one_hot))
    assert torch.equal(one(train.values["x"]), other(train.values["x"]))
    assert one.accuracy(train, "x", "side") == one.accuracy(one_hot, "x", "side")


def test_mistakes_are_named(spec: nbridge.Spec, model: nbridge.MultimodalVAE, splits: Any):
    rows = points(3)
    with pytest.raises(DataError) as caught:
        train_classifier(encoder(), Normal((3,)), Bernoulli((3,)), rows, "x", "signs")
    assert str(caught.value) == (
        "label 'signs': Bernoulli values are neither classes nor attributes; use a modality with likelihood categorical, or bernoulli "
        "with attributes: true"
    )
    with pytest.raises(DataError) as caught:
        train_classifier(encoder(), Normal((3,)), Categorical((2,)), rows.slice(0, 1), "x", "side")
    assert str(caught.value) == "a classifier of side given x needs 2 or more training rows with both, got 1"
    with pytest.raises(DataError) as caught:
        Classifier(encoder(), Normal((3,)), Categorical((2,))).accuracy(rows.hide("side"), "x", "side")
    assert str(caught.value) == "accuracy of a classifier: no row has both x and side"
    with pytest.raises(DataError, match=r"no modality 'lable' in this model\. Did you mean 'label'\?"):
        train_classifiers(spec, model, splits.train, splits.test, "lable")
    with pytest.raises(DataError, match="label 'top': Bernoulli values are neither classes nor attributes"):
        train_classifiers(spec, model, splits.train, splits.test, "top")

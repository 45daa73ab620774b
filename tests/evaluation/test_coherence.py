"""Coherence and joint agreement against models whose draws are known."""

from __future__ import annotations

import pytest
import torch
from toys import CLASSES, Toy, attributes, labelled_rows, of_nothing, of_the_label, reader

from nbridge.data.batch import Batch
from nbridge.errors import DataError
from nbridge.evaluation.classifiers import ScoredClassifier
from nbridge.evaluation.coherence import coherence, joint_agreement

JUDGES = {name: ScoredClassifier(reader(), 0.99, 40, 200) for name in ("a", "b")}


def test_a_model_that_knows_the_label_is_coherent_and_one_that_knows_nothing_is_at_chance():
    rows = labelled_rows(400)
    found = coherence(Toy(of_the_label), rows, ["label"], "a", "label", reader())
    assert (found.coherence, found.accuracy, found.rows, found.samples) == (1, 1, 400, 10)
    chance = coherence(Toy(of_nothing), rows, ["label"], "a", "label", reader())
    # 4,000 independent draws: four standard errors are 0.027.
    assert chance.coherence == pytest.approx(1 / CLASSES, abs=0.03)
    assert chance.accuracy == 1


def test_coherence_is_the_share_of_draws_with_the_true_label():
    rows, model = labelled_rows(30), Toy(lambda batch, samples: 0.5 * of_the_label(batch, samples), scale=0.4)
    torch.manual_seed(3)
    z = model.posterior(rows.only("label"), 20).sample()
    expected = (z.argmax(-1) == rows.values["label"]).double().mean().item()
    assert 0.3 < expected < 0.9
    assert coherence(model, rows, ["label"], "b", "label", reader(), samples=20, seed=3).coherence == pytest.approx(expected)


def test_the_classifiers_accuracy_is_that_on_the_same_rows():
    rows = labelled_rows(40)
    wrong = rows.values["a"].clone()
    wrong[10:15] = wrong[10:15].roll(1, 1)
    present = dict(rows.present, a=torch.arange(40) >= 10, label=torch.arange(40) < 30)
    batch = Batch({**rows.values, "a": wrong}, present)
    found = coherence(Toy(of_the_label), batch, ["label"], "a", "label", reader())
    assert (found.coherence, found.accuracy, found.rows) == (1, 15 / 20, 30)
    assert coherence(Toy(of_the_label), batch.hide("a"), ["label"], "a", "label", reader()).accuracy is None


def test_noise_of_the_likelihood_is_added_only_when_asked_for():
    rows = labelled_rows(100)
    assert coherence(Toy(of_the_label), rows, ["label"], "a", "label", reader()).coherence == 1
    assert 0.5 < coherence(Toy(of_the_label), rows, ["label"], "a", "label", reader(), noise=True).coherence < 0.95


def test_of_attributes_the_mean_share_counts_and_only_those_that_are_observed():
    z = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    model = Toy(lambda batch, samples: z.expand(samples, len(batch), -1), label=attributes())
    y = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
    rows = Batch.complete({"a": z.expand(3, -1), "label": y})
    found = coherence(model, rows, [], "b", "label", reader(attributes()))
    assert (found.coherence, found.accuracy) == (7 / 12, None)
    cells = torch.tensor([[True] * 4, [True, False, True, True], [False, True, True, True]])
    holed = Batch({"a": z.expand(3, -1), "label": y.masked_fill(~cells, torch.nan)}, rows.present, {"label": cells})
    found = coherence(model, holed, [], "a", "label", reader(attributes()))
    assert (found.coherence, found.accuracy) == (7 / 10, 7 / 10)


def test_modalities_of_one_draw_agree_whatever_they_say_and_those_of_their_own_draws_by_chance():
    rows = labelled_rows(400)
    for given, absent in ((["label"], ("a", "b")), (["a"], ("b", "label")), ([], ("a", "b", "label"))):
        found = joint_agreement(Toy(of_nothing), rows, given, JUDGES, "label")
        assert (found.absent, found.agreement) == (absent, 1)
        assert found.control == pytest.approx(CLASSES ** (1 - len(absent)), abs=0.03)
        assert found.coherence == pytest.approx(1 / CLASSES, abs=0.03)
        assert found.accuracies == {name: 0.99 for name in absent if name != "label"}


def test_modalities_of_a_model_that_knows_the_label_agree_under_every_draw():
    found = joint_agreement(Toy(of_the_label), labelled_rows(20), ["label"], JUDGES, "label")
    assert (found.agreement, found.control, found.coherence, found.rows) == (1, 1, 1, 20)


def test_attributes_agree_one_by_one():
    model = Toy(lambda batch, samples: 2.0 * torch.randint(2, (samples, len(batch), CLASSES)) - 1, label=attributes())
    judges = {name: ScoredClassifier(reader(attributes()), 1.0, 1, 1) for name in ("a", "b")}
    rows = Batch.complete({"label": torch.ones(400, CLASSES)})
    found = joint_agreement(model, rows, [], judges, "label")
    assert found.agreement == 1
    assert found.control == pytest.approx(1 / 4, abs=0.02)
    assert found.coherence == pytest.approx(1 / 2, abs=0.02)
    positive = Toy(lambda batch, samples: torch.ones(samples, len(batch), CLASSES), label=attributes())
    cells = torch.tensor([[True, True, True, False]])
    holed = Batch({"label": torch.tensor([[1.0, 1.0, 0.0, torch.nan]])}, {"label": torch.tensor([True])}, {"label": cells})
    assert joint_agreement(positive, holed, [], judges, "label").coherence == pytest.approx(2 / 3)


def test_scores_do_not_depend_on_how_rows_are_cut(monkeypatch: pytest.MonkeyPatch):
    model, rows = Toy(lambda batch, samples: batch.values["a"].expand(samples, -1, -1)), labelled_rows(50, noise=0.5)
    whole = coherence(model, rows, ["a"], "b", "label", reader()), joint_agreement(model, rows, ["a"], JUDGES, "label")
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 7)
    assert whole == (coherence(model, rows, ["a"], "b", "label", reader()), joint_agreement(model, rows, ["a"], JUDGES, "label"))
    assert 0.5 < whole[0].coherence < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "c"}, "no modality 'c' in this model. Modalities: a, b, label"),
        ({"label": "lable"}, "no modality 'lable' in this model. Did you mean 'label'? Modalities: a, b, label"),
        (
            {"label": "b"},
            "label 'b': Normal values are neither classes nor attributes; use a modality with likelihood categorical, or bernoulli with "
            "attributes: true",
        ),
        ({"target": "label"}, "target 'label' is the label, which needs no classifier; use nbridge.evaluation.crossmodal.predict"),
        ({"samples": 0}, "samples is 0, expected 1 or more"),
        ({"given": ["b"]}, "no row has b, label together: b is absent from every row"),
    ],
)
def test_mistakes_are_named(options: dict, message: str):
    settings = {"given": ["label"], "target": "a", "label": "label", "samples": 1} | options
    with pytest.raises(DataError) as caught:
        coherence(Toy(of_the_label), labelled_rows(8).hide("b"), classifier=reader(), **settings)
    assert str(caught.value) == message


def test_agreement_needs_two_absent_modalities_and_a_judge_for_each():
    model, rows = Toy(of_nothing), labelled_rows(8)
    with pytest.raises(DataError) as caught:
        joint_agreement(model, rows, ["a", "label"], JUDGES, "label")
    assert str(caught.value) == "agreement needs 2 or more absent modalities, got 1: a, label given of a, b, label"
    with pytest.raises(DataError) as caught:
        joint_agreement(model, rows, ["a"], {"a": JUDGES["a"]}, "label")
    assert str(caught.value) == (
        "no classifier for modality 'b', only for a: it needs training and held-out rows with both the modality and the label"
    )
    with pytest.raises(DataError, match="samples is -1, expected 1 or more"):
        joint_agreement(model, rows, ["label"], JUDGES, "label", samples=-1)


def test_values_outside_their_support_are_named():
    rows = Batch.complete({"label": torch.tensor([0, CLASSES])})
    with pytest.raises(DataError, match="modality 'label', row 1: value 4 is outside the support of Categorical"):
        coherence(Toy(of_the_label), rows, ["label"], "a", "label", reader())

"""A model with texts in evaluation, verdicts, reports, the explorer, exports and the hub: exact texts are counted, and nothing fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from local_hub import TOKEN, serving

import nbridge
from nbridge.errors import DataError, RunError
from nbridge.evaluation.results import Settings
from nbridge.evaluation.targets import TextAnswers
from nbridge.evaluation.versus_baseline import compare_with_baselines
from nbridge.explore import controls, inputs, responses
from nbridge.explore.requests import Given, Impute, Prior
from nbridge.explore.session import session_of
from nbridge.inference.intervals import summarise
from nbridge.nn.text_likelihood import Text
from nbridge.report.page import write_report

NAMES = ("one", "two", "three")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> nbridge.Run:
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 300)
    caption = [f"{' ' * rng.integers(0, 3)}{NAMES[one]}" for one in label]
    x = np.eye(3)[label] + 0.1 * rng.normal(size=(300, 3))
    small = {"type": "mlp", "hidden": [16]}
    text = {"shape": 9, "encoder": {"type": "text", "width": 16, "layers": 1}, "likelihood": {"type": "text", "width": 32}, "features": 16}
    spec = {
        "latent_dim": 4,
        "modalities": {
            "x": {"shape": 3, "encoder": small, "likelihood": "normal", "features": 16},
            "caption": text,
            "label": {"shape": 3, "encoder": small, "likelihood": "categorical", "features": 16},
        },
        "training": {"batch_size": 64, "learning_rate": 5e-3, "stages": {"joint": {"updates": 250}, "bridges": {"updates": 100}}},
    }  # fmt: skip
    return nbridge.train(spec, {"x": x, "caption": caption, "label": label}, out=tmp_path_factory.mktemp("text") / "run")


def test_texts_are_imputed_and_counted_as_right_whatever_their_place(run: nbridge.Run):
    done = run.model.evaluate(run.splits, Settings(draws=20, samples=20, generated=2, rows=60, density_rows=20))
    scores = {(one.target, one.given): one.figures for one in done.measurements if one.metric == "predictive"}
    figures = scores[("caption",), ("x",)]
    assert figures["accuracy"] > 0.9
    assert figures["token accuracy"] > 0.9
    # A text has log 3 nats of its place, which nothing else tells.
    assert -1.6 < figures["log-likelihood"] < -1.0
    assert "accuracy" not in scores[("x",), ("caption",)]
    assert scores[("label",), ("caption",)]["accuracy"] > 0.95
    assert {one.metric for one in done.measurements} >= {"likelihood", "conditional", "coherence", "diversity", "agreement", "calibration"}
    assert all(np.isfinite(figure) for one in done.measurements for figure in one.figures.values())
    for one in done.measurements:
        # As coherent as the judge sees real rows, which is little after its few steps on these.
        if one.metric == "coherence":
            assert one.figures["coherence"] > one.figures["classifier's accuracy"] - 0.1


def test_the_verdict_compares_exact_texts_with_the_most_frequent_one(run: nbridge.Run):
    verdict = compare_with_baselines(run.model.network, run.spec, run.splits)
    text = next(one for one in verdict.modalities if one.target == "caption")
    assert text.figure == "accuracy"
    assert text.predictor == "neighbours"
    assert text.constant < 0.6
    assert text.model > 0.9


def test_answers_are_equal_for_equal_texts_and_new_for_new_ones():
    likelihood = Text((6,), vocabulary=(" ", "a", "b"))
    numbers = [[3, 4, 1, 0, 0, 0], [4, 3, 1, 0, 0, 0], [5, 1, 0, 0, 0, 0]]
    answers = TextAnswers(likelihood, np.array(numbers, dtype=float))
    assert answers.count == 2
    found = answers.of(np.array([numbers[1], [5, 5, 1, 0, 0, 0], [np.nan] * 6, numbers[2]]))[:, 0]
    assert found[0] == answers.of(np.array(numbers[:1], dtype=float))[0, 0]
    assert np.isnan(found[2])
    assert len({*found[[0, 1, 3]]}) == 3


def test_a_text_is_no_label_of_classifiers(run: nbridge.Run):
    with pytest.raises((DataError, ValueError), match="neither classes nor attributes"):
        run.model.evaluate(run.splits, Settings(label="caption", metrics=("coherence",)))


def test_texts_have_no_intervals(run: nbridge.Run):
    rows = run.splits.test.sample(4).hide("caption", "x")
    found = summarise(run.model.network, rows, draws=19)
    assert not found.of("caption")
    assert found.of("x")


def test_a_report_shows_true_and_imputed_texts(run: nbridge.Run):
    page = write_report(run, rows=40).read_text(encoding="utf-8")
    section = page.partition("Imputed texts")[2].partition("</section>")[0]
    assert "right tokens" in section
    assert any(f">{' ' * blanks}{name}<" in section for name in NAMES for blanks in range(3))


def test_the_explorer_takes_and_gives_texts(run: nbridge.Run):
    session = session_of(run)
    shown = next(one for one in controls.describe(session)["modalities"] if one["name"] == "caption")
    assert (shown["kind"], shown["most"], shown["unit"]) == ("text", 8, "characters")
    told = responses.impute(session, Impute(given={"caption": Given(text=" two")}))["modalities"]
    assert int(np.argmax(told["label"]["probabilities"])) == 1
    written = responses.impute(session, Impute(given={"label": Given(label=2)}))["modalities"]["caption"]
    assert written["best"].strip() == "three"
    assert len(written["texts"]) == responses.SHOWN
    assert set(responses.prior(session, Prior())["modalities"]["caption"]) == {"best", "texts"}
    assert inputs.row_of(session, 0)["values"]["caption"]["text"].strip() in NAMES
    for text, message in (
        ("one" * 9, "27 characters, expected at most 8"),
        ("???", "no character is in the vocabulary"),
        (" ", "empty text"),
    ):
        with pytest.raises(DataError, match=message):
            responses.impute(session, Impute(given={"caption": Given(text=text)}))
    with pytest.raises(DataError, match="expected text or row"):
        responses.impute(session, Impute(given={"caption": Given(label=1)}))


def test_texts_are_inputs_of_an_export_and_not_its_outputs(run: nbridge.Run, tmp_path: Path):
    with pytest.raises(RunError, match=r"targets 'caption': texts are written token by token.*targets=\['x', 'label'\]"):
        run.model.export(tmp_path / "all.pt2")
    run.model.export(tmp_path / "some.pt2", targets=["label"])
    graph = torch.export.load(tmp_path / "some.pt2").module()
    rows = run.splits.test.sample(5)
    present = torch.ones(5, dtype=torch.bool)
    given = {"x": torch.zeros(5, 3), "x__present": ~present, "caption": rows.values["caption"].long(), "caption__present": present}
    found = graph(**given, label=torch.zeros(5, dtype=torch.long), label__present=~present)["label__completed"]
    assert torch.equal(found, run.model.impute(rows.only("caption")).values["label"])


def test_a_model_of_texts_comes_back_from_the_hub(run: nbridge.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("huggingface_hub")
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars

    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    disable_progress_bars()
    with serving() as hub:
        run.model.push("user/captions", token=TOKEN, endpoint=hub.endpoint)
        model = nbridge.load("user/captions", token=TOKEN, endpoint=hub.endpoint)
    rows = {"label": np.array([0, 1, 2])}
    assert [text.strip() for text in model.impute(rows)["caption"]] == list(NAMES)
    assert np.array_equal(model.impute(rows, samples=3)["caption"], run.model.impute(rows, samples=3)["caption"])

"""Comparisons: the same figures whatever interrupts them, the same rows and the same jury for all models, and a table that says so."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbridge
from nbridge.common.atomic_files import write_json
from nbridge.errors import DataError, RunError, SpecError
from nbridge.evaluation.results import OptionError, Settings, read_evaluation
from nbridge.runs import comparison
from nbridge.runs.comparison import TimeLimitReached, compare
from nbridge.runs.comparison_table import Comparison, ModelResults, SeedValues
from nbridge.training.callbacks import Callback
from nbridge.training.records import EpochRecord

PART = "features: 4, encoder: {type: mlp, hidden: [4]}"
SPEC = f"""
latent_dim: 2
data: {{source: npz, path: DATA}}
modalities:
  x: {{shape: 3, {PART}, likelihood: normal}}
  image: {{shape: 4, {PART}, likelihood: bernoulli}}
  label: {{shape: 3, {PART}, likelihood: categorical}}
fusion: {{hidden: [4]}}
bridges: {{hidden: [4]}}
training: {{batch_size: 16, checkpoint_seconds: 1000, stages: {{joint: {{epochs: 2}}, bridges: {{epochs: 2}}}}}}
"""
MODELS = ("vae", "bridged", "mvae")
EPOCHS = {"vae": 2, "bridged": 4, "mvae": 2}
SEEDS = 2
QUICK = Settings(metrics=("likelihood", "predictive", "coherence"), samples=3, draws=5, generated=2, rows=10)
ROWS = 60


class Listener(Callback):
    """Counts epochs, and interrupts after some of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.epochs = 0
        self.stop_after = stop_after

    def on_validation(self, record: EpochRecord) -> None:
        self.epochs += 1
        if self.epochs == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("spec"), np.random.default_rng(0)
    label = np.arange(ROWS) % 3
    np.savez(folder / "data.npz", x=rng.normal(size=(ROWS, 3)) + label[:, None], image=rng.random((ROWS, 4)), label=label)
    (folder / "tiny.yaml").write_text(SPEC.replace("DATA", str(folder / "data.npz")))
    return folder / "tiny.yaml"


def run(
    spec: Path, out: Path, models: Sequence[str] | Mapping[str, Sequence[str]] = MODELS, settings: Settings = QUICK, **options: Any
) -> Comparison:
    return compare(spec, models, out, **{"seeds": SEEDS, "settings": settings, "device": "cpu", **options})


@pytest.fixture(scope="module")
def whole(spec: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Path]:
    """A comparison that nothing interrupted, and its folder, which tests leave as it is."""
    folder = tmp_path_factory.mktemp("whole") / "comparison"
    return run(spec, folder), folder


def figures(folder: Path) -> Any:
    """What was written, but for the time that it took; strictly JSON."""
    content = json.loads((folder / "comparison.json").read_text(encoding="utf-8"), parse_constant=_refuse)
    for model in content["models"]:
        assert all(second >= 0 for second in model.pop("seconds"))
    return content


def part(content: Any, models: Sequence[str], seeds: int) -> list[Any]:
    """The figures of some models, of the first seeds."""
    few = [model for model in content["models"] if model["name"] in models]
    return [{**model, "figures": [{**line, "values": line["values"][:seeds]} for line in model["figures"]]} for model in few]


def _refuse(word: str) -> None:
    raise AssertionError(word)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_of_metrics(folder: Path) -> list[str]:
    lines = [json.loads(line) for path in sorted(folder.rglob("metrics.jsonl")) for line in path.read_text().splitlines()]
    return [json.dumps({key: value for key, value in line.items() if key != "seconds"}) for line in lines]


# What is written


def test_a_comparison_holds_a_run_for_each_model_and_seed_and_every_figure_of_each(whole: tuple[Comparison, Path]):
    done, folder = whole
    runs = {str(path.parent.relative_to(folder)) for path in folder.rglob("evaluation.json")}
    assert runs == {f"{name}/seed-{seed}" for name in MODELS for seed in range(SEEDS)}
    content = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    assert content == done.as_dict()
    assert Settings.from_dict(content["settings"]) == QUICK
    assert (content["seeds"], content["rows"], content["of_rows"]) == (SEEDS, 10, 12)
    assert [model["name"] for model in content["models"]] == list(MODELS)
    for model in content["models"]:
        evaluations = [read_evaluation(folder / model["name"] / f"seed-{seed}" / "evaluation.json") for seed in range(SEEDS)]
        for line in model["figures"]:
            measured = [
                next(one for one in evaluation.measurements if one.title == line["measurement"]) for evaluation in evaluations if evaluation
            ]
            assert line["values"] == [one.figures[line["figure"]] for one in measured]
        assert sum(len(one.figures) for one in evaluations[0].measurements) == len(model["figures"])
        loaded = nbridge.load(folder / model["name"] / "seed-0")
        assert model["parameters"] == sum(parameter.numel() for parameter in loaded.network.parameters())
        seconds = [
            sum(
                json.loads(line)["seconds"] for line in (folder / model["name"] / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()
            )
            for seed in range(SEEDS)
        ]
        assert model["seconds"] == pytest.approx(seconds)


def test_seeds_and_models_differ_and_their_runs_are_those_of_train(whole: tuple[Comparison, Path], spec: Path):
    _, folder = whole
    alone = nbridge.train(spec, overrides=["model=mvae", "training.seed=1"])
    found = alone.model.network.state_dict()
    for name, tensor in nbridge.load(folder / "mvae" / "seed-1").network.state_dict().items():
        assert tensor.equal(found[name])
    for one in figures(folder)["models"]:
        assert any(line["values"][0] != line["values"][1] for line in one["figures"])


def test_models_are_evaluated_on_the_same_rows(whole: tuple[Comparison, Path]):
    _, folder = whole
    evaluations = {name: read_evaluation(folder / name / "seed-0" / "evaluation.json") for name in MODELS}
    assert all(evaluations.values())
    prints = {name: dict(evaluation.fingerprints) for name, evaluation in evaluations.items() if evaluation}
    assert prints["bridged"] == prints["mvae"]
    assert prints["vae"] == {"x": prints["mvae"]["x"]}
    for evaluation in evaluations.values():
        assert {one.rows for one in evaluation.measurements if one.metric == "likelihood"} == {10}


def test_the_table_is_whole_and_shows_what_a_model_lacks(whole: tuple[Comparison, Path]):
    done, folder = whole
    lines = (folder / "comparison.md").read_text(encoding="utf-8").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table[0] == "| | vae | bridged | mvae |"
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {5}
    cells = {row[1]: row[2:5] for row in ([cell.strip() for cell in re.split(r"(?<!\\)\|", line)] for line in table[2:])}
    own = cells[r"log p(x) by q(z\|x): log-likelihood"]
    assert own == [str(one.figures["log p(x) by q(z|x)", "log-likelihood"]) for one in done.results]
    assert re.fullmatch(r"-\d+\.\d{2,3} ± \d+\.\d{2,3}", own[0])
    assert cells[r"log p(image) by q(z\|image): log-likelihood"][0] == "-"
    assert "-" not in cells[r"log p(image) by q(z\|image): log-likelihood"][1:]
    assert cells["training: parameters"] == [f"{one.parameters:,}" for one in done.results]
    notes = [line for line in lines if line.startswith("- ")]
    assert notes[0] == (
        "- Figures: mean ± standard deviation over 2 seeds; the first 10 of 12 test rows; "
        "K = 3 importance samples, 5 draws, 2 generated; seed 0"
    )
    assert [note.split(":")[0] for note in notes[1:]] == ["- likelihood", "- predictive", "- coherence"]


def test_what_no_model_has_is_told_and_what_one_of_them_lacks_is_not(spec: Path, tmp_path: Path):
    settings = replace(QUICK, metrics=("likelihood", "imputation", "diversity"), draws=39, rows=3)
    done = run(spec, tmp_path, ["vae", "mvae"], settings, seeds=1)
    reasons = {
        f"diversity of {name} given label": f"diversity needs 4 or more complete rows of label, {name}, got 3" for name in ("x", "image")
    }
    assert done.skipped == figures(tmp_path)["skipped"] == reasons
    assert [line for line in done.markdown().splitlines() if "left out" in line] == [
        f"- left out: {what}; {why}" for what, why in reasons.items()
    ]


def test_another_split_has_files_of_its_own(spec: Path, tmp_path: Path):
    settings = replace(QUICK, metrics=("likelihood",))
    run(spec, tmp_path, ["vae"], settings, seeds=1)
    before = contents(tmp_path)
    listener = Listener()
    done = run(spec, tmp_path, ["vae"], replace(settings, split="train"), seeds=1, callbacks=[listener])
    assert listener.epochs == 0
    after = contents(tmp_path)
    assert set(after) - set(before) == {"comparison-train.md", "comparison-train.json", "vae/seed-0/evaluation-train.json"}
    assert {name: after[name] for name in before} == before
    assert "mean of one" not in (text := done.markdown())
    assert "- Figures: one training run each; the first 10 of 42 train rows; " in text


# Interruptions


def test_a_training_that_was_interrupted_in_any_epoch_goes_on_to_the_same_figures(
    spec: Path, whole: tuple[Comparison, Path], tmp_path: Path
):
    two = ("vae", "bridged")
    heard, calls, over = 0, 0, False
    while not over:
        listener, over, calls = Listener(stop_after=5), True, calls + 1
        try:
            run(spec, tmp_path, two, callbacks=[listener])
        except KeyboardInterrupt:
            over = False
        heard += listener.epochs
    # Each epoch was trained once: what interrupts between two epochs loses none of them.
    assert heard == SEEDS * (EPOCHS["vae"] + EPOCHS["bridged"])
    assert calls == heard // 5 + 1
    assert figures(tmp_path)["models"] == part(figures(whole[1]), two, SEEDS)
    assert all(lines_of_metrics(tmp_path / name) == lines_of_metrics(whole[1] / name) for name in two)


def test_every_call_gets_on_however_little_time_it_has(spec: Path, whole: tuple[Comparison, Path], tmp_path: Path):
    heard = []
    for _ in range(EPOCHS["bridged"] + 1):
        listener = Listener()
        with pytest.raises(TimeLimitReached, match=r"^stopped after 0 minutes; run the same command to continue$"):
            run(spec, tmp_path, ["bridged"], seeds=1, minutes=0, callbacks=[listener])
        heard.append(listener.epochs)
        assert not (tmp_path / "comparison.json").exists()
    # An epoch each, then the end of the training, then the evaluation.
    assert heard == [1] * EPOCHS["bridged"] + [0]
    run(spec, tmp_path, ["bridged"], seeds=1, minutes=0)
    assert figures(tmp_path)["models"] == part(figures(whole[1]), ["bridged"], 1)
    # All is there: no time is needed.
    run(spec, tmp_path, ["bridged"], seeds=1, minutes=0)


def test_what_was_killed_before_it_was_evaluated_is_evaluated_and_not_trained_again(
    spec: Path, whole: tuple[Comparison, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def die(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    two = ("vae", "mvae")
    with monkeypatch.context() as context:
        context.setattr(comparison, "evaluate", die)
        with pytest.raises(KeyboardInterrupt):
            run(spec, tmp_path, two, seeds=1)
    assert (tmp_path / "vae" / "seed-0" / "model" / "config.json").is_file()
    assert not (tmp_path / "vae" / "seed-0" / "evaluation.json").exists()
    before = contents(tmp_path / "vae" / "seed-0")
    listener, lines = Listener(), []
    run(spec, tmp_path, two, seeds=1, callbacks=[listener], announce=lines.append)
    assert listener.epochs == EPOCHS["mvae"]
    assert [line.removeprefix(f"{tmp_path}/") for line in lines] == [
        "vae/seed-0: evaluating", "mvae/seed-0: training", "mvae/seed-0: evaluating",
    ]  # fmt: skip
    assert {name: content for name, content in contents(tmp_path / "vae" / "seed-0").items() if name in before} == before
    assert figures(tmp_path)["models"] == part(figures(whole[1]), two, 1)


def test_what_is_there_is_neither_trained_nor_evaluated_nor_opened_again(
    spec: Path, whole: tuple[Comparison, Path], monkeypatch: pytest.MonkeyPatch
):
    done, folder = whole
    before = contents(folder)
    for name in ("train", "resume", "open_run", "evaluate"):
        monkeypatch.setattr(comparison, name, None)
    assert run(spec, folder, announce=pytest.fail) == done
    assert contents(folder) == before
    # One more seed, one more model: only they are missing.
    with pytest.raises(TypeError):
        run(spec, folder, seeds=3)


def test_an_evaluation_is_taken_again_where_it_was_made_otherwise(spec: Path, tmp_path: Path):
    settings = replace(QUICK, metrics=("likelihood",))
    run(spec, tmp_path, ["vae"], settings)
    path = tmp_path / "vae" / "seed-1" / "evaluation.json"

    def heard(settings: Settings = settings) -> list[str]:
        lines, listener = [], Listener()
        run(spec, tmp_path, ["vae"], settings, announce=lines.append, callbacks=[listener])
        assert listener.epochs == 0
        return [line.removeprefix(f"{tmp_path}/") for line in lines]

    assert heard() == []
    both = ["vae/seed-0: evaluating", "vae/seed-1: evaluating"]
    assert heard(replace(settings, samples=4)) == both
    assert heard(settings) == both
    path.write_text(path.read_text().replace(f'"version": "{nbridge.__version__}"', '"version": "0.0.1"'))
    assert heard() == both[1:]
    path.write_text("{")
    assert heard() == both[1:]


# Rows and juries


def test_models_on_other_rows_are_not_compared(spec: Path, tmp_path: Path):
    settings = replace(QUICK, metrics=("likelihood",))
    with pytest.raises(RunError) as caught:
        run(spec, tmp_path, {"one": ["model=vae"], "two": ["model=vae", "data.seed=1"]}, settings, seeds=1)
    assert str(caught.value) == (
        f"{tmp_path}/two/seed-0: evaluated on other rows of x than {tmp_path}/one/seed-0; use the same data for all models, "
        "and remove runs evaluated on older data"
    )


def test_one_jury_judges_all_models_whatever_their_encoders(spec: Path, tmp_path: Path, trainings: list[str]):
    models = {"small": ["model=mvae"], "wide": ["model=mvae", "modalities.x.features=9"], "bridged": ["model=bridged"]}
    settings = replace(QUICK, metrics=("coherence",))
    done = run(spec, tmp_path, models, settings, seeds=1)
    assert trainings == ["x", "image"]
    accuracies = [one.figures["coherence of x given label", "classifier's accuracy"].values for one in done.results]
    assert len(set(accuracies)) == 1
    again = run(spec, tmp_path, models, replace(settings, generated=3), seeds=1)
    assert trainings == ["x", "image"]
    for path in tmp_path.glob("*/seed-0/evaluation.json"):
        path.unlink()
    for path in (tmp_path / "classifiers").iterdir():
        path.unlink()
    assert run(spec, tmp_path, models, replace(settings, generated=3), seeds=1).results == again.results
    assert trainings == ["x", "image"] * 2


# Models of one's own


def test_models_of_ones_own_lie_in_folders_with_tame_names(spec: Path, tmp_path: Path):
    models = {"bridged (paper) | eq. 8": ["model=bridged", "bridges.objective=paper"], "../VAE": ["model=vae"]}
    done = run(spec, tmp_path, models, replace(QUICK, metrics=("likelihood",)), seeds=1)
    assert [one.name for one in done.results] == list(models)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"bridged_paper_eq._8", "VAE"}
    resolved = nbridge.read_spec(tmp_path / "bridged_paper_eq._8" / "seed-0" / "spec.resolved.yaml")
    assert resolved.bridges.objective == "paper"
    assert done.markdown().splitlines()[0] == r"| | bridged (paper) \| eq. 8 | ../VAE |"


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "unknown model": (
        ["bridged", "jmvaee"],
        {},
        "models jmvaee: unknown model 'jmvaee'. Did you mean 'jmvae'? Known: bivcca, bridged, jmvae, joint, mvae, telbo, vae. "
        "For your own class write 'package.module:Class'.",
    ),
    "a model twice": (["vae", "mvae", "vae"], {}, "models vae: given twice"),
    "no model": ([], {}, "models: none given. Known: bivcca, bridged, jmvae, joint, mvae, telbo, vae"),
    "no models of one's own": ({}, {}, "models: none given. Known: bivcca, bridged, jmvae, joint, mvae, telbo, vae"),
    "a model where classifiers lie": (
        {"Classifiers": ["model=vae"]},
        {},
        "models 'Classifiers': the folder 'classifiers' is reserved for classifiers; choose another name",
    ),
    "no seeds": (["vae"], {"seeds": 0}, "seeds 0: expected 1 or more"),
    "too many seeds": (["vae"], {"seeds": 10**12}, "seeds 1000000000000: expected 10000 or fewer"),
    "one folder for two": (
        {"a b": ["model=vae"], "A/b": ["model=vae"]},
        {},
        "models 'A/b': has the same folder 'A_b' as 'a b'; choose another name",
    ),
    "no folder": ({"../": ["model=vae"]}, {}, "models '../': expected a printable name with letters or digits, at most 100 characters"),
    "lines": ({"a\nb": ["model=vae"]}, {}, "models 'a?b': expected a printable name with letters or digits, at most 100 characters"),
    "no samples": (["vae"], {"settings": replace(QUICK, samples=0)}, "samples 0: expected 1 or more"),
    "unknown modality": (
        ["vae", "mvae"],
        {"settings": replace(QUICK, given=(("lable",),))},
        "given lable: no modality 'lable'. Did you mean 'label'? Modalities: x, image, label",
    ),
    "no label": (
        ["vae", "mvae"],
        {"settings": replace(QUICK, label="image")},
        "label 'image': Bernoulli values are neither classes nor attributes; "
        "use a modality with likelihood categorical, or bernoulli with attributes: true",
    ),
    "a metric that none supports": (
        ["vae"],
        {"settings": replace(QUICK, metrics=("predictive",))},
        "metrics predictive: it needs two or more modalities; modalities: x (Normal)",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_cannot_be_compared_is_told_before_anything_is_made(mistake: str, spec: Path, tmp_path: Path):
    models, options, message = REFUSED[mistake]
    with pytest.raises(OptionError) as caught:
        run(spec, tmp_path / "new", models, **options)
    assert str(caught.value) == message
    assert not (tmp_path / "new").exists()


def test_a_mistake_in_the_last_spec_costs_no_training(spec: Path, tmp_path: Path):
    with pytest.raises(SpecError) as caught:
        run(spec, tmp_path / "new", {"vae": ["model=vae"], "paper": ["bridges.objective=papr"]})
    assert str(caught.value).startswith("models paper: --set bridges.objective=papr: bridges.objective: ")
    with pytest.raises(SpecError) as caught:
        run(spec, tmp_path / "new", {"mvae": ["model=mvae"], "other": ["model={type: vae, modality: y}"]})
    assert str(caught.value) == "models other: model: modality 'y' is not in the spec; it has x, image, label"
    assert not (tmp_path / "new").exists()


def test_a_folder_with_runs_of_another_spec_is_left_alone(spec: Path, whole: tuple[Comparison, Path]):
    _, folder = whole
    before = contents(folder)
    with pytest.raises(RunError) as caught:
        run(spec, folder, overrides=["training.stages.bridges.epochs=9"])
    assert str(caught.value) == (
        f"{folder}/vae/seed-0: contains a run of another spec (training.stages.bridges.epochs differs); "
        "choose another folder with --out, or remove this one"
    )
    assert contents(folder) == before


def test_a_failure_names_the_run(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object, **options: object) -> None:
        raise DataError("no row has x")

    monkeypatch.setattr(comparison, "evaluate", fail)
    with pytest.raises(DataError) as caught:
        run(spec, tmp_path, ["mvae"])
    assert str(caught.value) == f"{tmp_path}/mvae/seed-0: no row has x"
    with pytest.raises(nbridge.NBridgeError) as told:
        run(spec, tmp_path / "diverging", {"mvae": ["model=mvae", "training.learning_rate=1e30"]})
    assert str(told.value).startswith(f"{tmp_path}/diverging/mvae/seed-0: stage joint, epoch ")


# Spread


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5))
def test_a_spread_is_mean_and_standard_deviation(values: list[float]):
    spread = SeedValues(tuple(values))
    assert spread.mean == pytest.approx(np.mean(values))
    if len(values) == 1:
        assert spread.deviation is None
    else:
        assert spread.deviation == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((1.0,), "1.000"),
        ((-10.0, -12.0), "-11.00 ± 1.41"),
        ((0.5, 0.7, 0.6), "0.600 ± 0.100"),
        ((0.5, math.nan, 0.7), "0.600 ± 0.141 (2 of 3)"),
        ((math.nan, -math.inf, 3.0), "3.000 (1 of 3)"),
        ((math.nan, math.inf), "-"),
    ],
)
def test_a_spread_as_a_cell(values: tuple[float, ...], text: str):
    assert str(SeedValues(values)) == text


def test_seeds_may_differ_in_what_could_be_measured(spec: Path, tmp_path: Path):
    settings = replace(QUICK, metrics=("predictive",))
    run(spec, tmp_path, ["mvae"], settings)
    path = tmp_path / "mvae" / "seed-0" / "evaluation.json"
    content = json.loads(path.read_text())
    missing = content["measurements"].pop(0)
    content["measurements"][0]["figures"]["log-likelihood"] = None
    write_json(path, content)
    done = run(spec, tmp_path, ["mvae"], settings)
    (mvae,) = done.results
    lost = mvae.figures["predictive of x given image", "log-likelihood"]
    assert (missing["target"], missing["given"]) == (["x"], ["image"])
    assert math.isnan(lost.values[0])
    assert lost.mean == lost.values[1]
    measurement = f"predictive of {content['measurements'][0]['target'][0]} given {content['measurements'][0]['given'][0]}"
    assert math.isnan(mvae.figures[measurement, "log-likelihood"].values[0])
    assert "- (n of 2): over the n seeds with a finite value" in done.markdown().splitlines()
    assert re.search(r"\| predictive of x given image: log-likelihood \| \S+ \(1 of 2\) \|", done.markdown())
    written = {(line["measurement"], line["figure"]): line["values"] for line in figures(tmp_path)["models"][0]["figures"]}
    assert written["predictive of x given image", "log-likelihood"] == [None, lost.values[1]]


@given(st.lists(st.text(st.sampled_from("ab|\\"), min_size=1, max_size=4), min_size=1, max_size=3, unique=True))
def test_names_keep_the_table_whole(names: list[str]):
    figure = {("log p(x) by q(z|x)", "log-likelihood"): SeedValues((1.0,))}
    results = tuple(ModelResults(name, 1, SeedValues((0.1,)), figure) for name in names)
    table = [line for line in Comparison(results, 1, Settings(), 1, 1, {}).markdown().splitlines() if line.startswith("|")]
    unescaped: Callable[[str], str] = lambda line: re.sub(r"\\.", "", line)  # noqa: E731
    assert {unescaped(line).count("|") for line in table} == {len(names) + 2}

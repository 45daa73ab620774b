"""The suite of benchmarks: its systems, its figures by hand-made examples, and a tiny run from end to end."""

from __future__ import annotations

import doctest
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nbridge
from benchmarks.suite import __main__ as suite
from benchmarks.suite import baseline, judges, measure, rivals, systems, table
from benchmarks.suite.figures import figures_of
from benchmarks.suite.judges import Panel
from benchmarks.suite.measure import MOST, Answer, Served, questions, violations
from benchmarks.suite.results import Results, key_of
from benchmarks.suite.systems import System, parse_systems, spec_of
from benchmarks.suite.tasks import TASKS, VIEWS, Task
from nbridge.data.batch import Batch
from nbridge.data.benchmarks.digits import Digits
from nbridge.data.split import Dataset
from nbridge.errors import NBridgeError
from nbridge.training.build import build_model

ABLATION = "own:bridges.encoders=own,model.coupling=1"
OPTIONS = ("--tasks", "digits", "--systems", f"jmvae,{ABLATION}", "--seeds", "1", "--budget", "20")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two systems on digits, at 20 updates a stage, judged by classifiers that hardly learned."""
    folder = tmp_path_factory.mktemp("suite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judges, "STEPS", 20)
        patch.setattr(judges, "cache_folder", lambda: folder / "cache")
        patch.setattr(measure, "DRAWS", 8)
        assert suite.main([*OPTIONS, "--out", str(folder / "suite.json")]) == 0
    return folder / "suite.json"


@pytest.mark.parametrize("module", [measure, systems], ids=lambda module: module.__name__)
def test_the_examples_of_the_suite_hold(module):
    found = doctest.testmod(module)
    assert found.attempted
    assert not found.failed


# Systems


def test_systems_are_names_and_ablations_whose_values_may_hold_commas():
    found = parse_systems("default, a:model={type: bridged, coupling: 2},training.seed=3 , jmvae,b:bridges.encoders=own")
    assert [(system.name, system.overrides) for system in found] == [
        ("default", ()),
        ("a", ("model={type: bridged, coupling: 2}", "training.seed=3")),
        ("jmvae", ("model=jmvae",)),
        ("b", ("bridges.encoders=own",)),
    ]
    assert [system.key for system in found][::2] == ["default", "jmvae"]


@pytest.mark.parametrize("text", ["nothing", "default,model.coupling=1", "jmvae,training.seed=1"])
def test_a_system_that_is_none_is_one_line(text):
    with pytest.raises(NBridgeError, match=r"--systems: .* is none of default, paper"):
        parse_systems(text)


def test_a_spec_says_names_shapes_likelihoods_the_sizes_of_init_and_how_long_to_train_and_nothing_else():
    task = TASKS["mnist"]
    spec = spec_of(task, System("default"), seed=2, budget=30)
    mlp = {"type": "mlp", "hidden": [128]}
    encoders = {"image": "conv", "label": mlp}
    plain = nbridge.Spec.model_validate({
        "latent_dim": 32,
        "modalities": {
            modality: {"shape": shape, "encoder": encoders[modality], "likelihood": what, "features": 128}
            for modality, (shape, what) in task.modalities.items()
        },
        "fusion": mlp,
        "bridges": mlp,
    })  # fmt: skip
    assert spec.modalities == plain.modalities
    assert (spec.model, spec.latent_dim, spec.fusion, spec.bridges) == (plain.model, plain.latent_dim, plain.fusion, plain.bridges)
    changed = {"seed", "stages"}
    assert spec.training.model_dump(exclude=changed) == plain.training.model_dump(exclude=changed)
    assert spec.training.seed == 2


def test_what_a_system_overrides_of_one_network_leaves_the_others():
    (system,) = parse_systems("wide:bridges.hidden=[8],bridges.objective=paper")
    spec = spec_of(TASKS["digits"], system, seed=0, budget=30)
    assert spec.bridges.bank.kwargs["hidden"] == (8,)
    assert spec.fusion.kwargs["hidden"] == (128,)
    assert all(one.encoder.kwargs["hidden"] == (128,) for one in spec.modalities.values())


def test_all_systems_have_equally_many_updates():
    task = TASKS["digits"]
    for text in ("default", "paper", "jmvae", "telbo", "mvae", "joint", ABLATION):
        (system,) = parse_systems(text)
        stages = spec_of(task, system, seed=0, budget=90).training.stages
        assert sum(stage.updates or 0 for stage in stages.values()) == 180, text


def test_what_an_ablation_says_of_stages_is_left():
    (system,) = parse_systems("short:training.stages.joint.epochs=3")
    stages = spec_of(TASKS["digits"], system, seed=0, budget=90).training.stages
    assert stages["joint"].epochs == 3
    assert (stages["bridges"].epochs, stages["bridges"].updates) == (None, 90)


# Questions and monotonicity


def test_few_modalities_are_asked_everything_and_many_a_nested_sample():
    four = questions("abcd")
    assert len(four) == len(set(four)) == 4 * (2**3 - 1)
    many = questions("abcdefgh")
    sizes = [len(given) for given, _ in many]
    assert max(sizes.count(size) for size in range(1, 8)) <= MOST
    assert set(sizes) == set(range(1, 8))
    assert all(target not in given for given, target in many)
    assert {target for _, target in many} == set("abcdefgh")
    # Each set of two or more of the sample stands above a smaller one of it, except where all of a size are asked.
    for given, target in many:
        if 1 < len(given) < 7:
            assert any(t == target and set(less) < set(given) for less, t in many)


def test_violations_are_counted_over_nested_sets_and_paired_rows():
    rows = torch.arange(100)
    noise = torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def answer(given: str, target: str, shift: float, some: torch.Tensor = rows) -> Answer:
        # The noise of rows is far larger than the difference, which pairing shows nevertheless.
        return Answer(tuple(given), target, some, 50 * noise[some] + shift + 0.1 * noise[some].flip(0))

    better = [answer("a", "d", 0.0), answer("ab", "d", 0.5), answer("abc", "d", 1.0)]
    assert violations(better) == (0, 3)
    worse = [answer("a", "d", 0.0), answer("ab", "d", -0.5), answer("c", "d", 5.0), answer("ab", "e", 0.0)]
    assert violations(worse) == (1, 1)
    part = [answer("a", "d", 0.0, rows[::2]), answer("ab", "d", -0.5, rows[50:])]
    assert violations(part) == (1, 1)
    assert violations([answer("a", "d", 0.0), answer("ab", "d", 0.0)]) == (0, 1)
    assert violations([answer("a", "d", 0.0, rows[:50]), answer("ab", "d", -1.0, rows[50:])]) == (0, 0)


def test_figures_are_means_over_questions_and_calibration_pools_predictions():
    task = TASKS["digits"]
    right = torch.tensor([True, True, False, False])
    sure = torch.tensor([1.0, 1.0, 0.5, 0.5])
    rows = torch.arange(4)
    one = Answer(("top",), "label", rows, torch.full((4,), -1.0, dtype=torch.float64), right=right, confidence=sure)
    two = Answer(("bottom",), "label", rows, torch.full((4,), -2.0, dtype=torch.float64), right=~right, confidence=sure)
    found = figures_of(task, [Served(("top",), rows, (one,)), Served(("bottom",), rows, (two,))], Batch.complete({"x": rows}))
    label = found["targets"]["label"]["1"]
    assert label["ll"] == pytest.approx(-1.5)
    assert label["accuracy"] == pytest.approx(0.5)
    # Of the sure ones half are right, and of the others half as well.
    assert label["ece"] == pytest.approx(0.25)
    assert found["kinds"]["classes"] == found["targets"]["label"]
    assert "agreement" not in found


def test_what_is_measured_is_what_is_served_with_the_spread_of_each_number_given(monkeypatch):
    monkeypatch.setattr(measure, "DRAWS", 4)
    task = TASKS["digits"]
    model = build_model(spec_of(task, System("default"), 0, 20))
    # Beyond all certainty where one modality is given, none at all where two are.
    model.likelihoods["label"].spread.copy_(torch.tensor([1.0, 1e-4, 1e4]))
    test = Digits().load(task.shapes).batch.sample(20)
    answers = [one for served in measure.serve(model, task, test, {}) for one in served.answers if one.target == "label"]
    for one in answers:
        assert one.log_likelihood is not None
        assert one.confidence is not None
        if len(one.given) == 1:
            assert one.log_likelihood.mean() < -100
        else:
            assert one.log_likelihood.numpy() == pytest.approx(math.log(0.1), abs=1e-3)
            assert one.confidence.numpy() == pytest.approx(0.1, abs=1e-3)


# The free baseline


def _linear_task() -> tuple[Task, Dataset]:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(600, 3, generator=generator)
    b = 2 * a[:, :2] + 0.1 * torch.randn(600, 2, generator=generator) + 5
    values = {"a": a, "b": b, "sign": (a[:, 0] > 0).long(), "yes": (a[:, 1:2] > 0).float()}
    attributes = {"type": "bernoulli", "attributes": True}
    modalities = {"a": ((3,), "normal"), "b": ((2,), "normal"), "sign": ((2,), "categorical"), "yes": ((1,), attributes)}
    data = Dataset(Batch.complete(values))
    return Task("linear", "linear", modalities, lambda _: data), data


def test_the_baseline_finds_what_is_linear(monkeypatch):
    task, _ = _linear_task()
    monkeypatch.setattr("benchmarks.suite.tasks.TASKS", {"linear": task})
    answers = {(one.given, one.target): one for served in baseline.baseline(task, 0) for one in served.answers}
    b = answers[("a",), "b"]
    assert b.log_likelihood is not None
    assert b.square is not None
    # The density of noise of spread .1 at its own draws.
    expected = -2 * (0.5 + math.log(0.1 * math.sqrt(2 * math.pi)))
    assert b.log_likelihood.mean().item() == pytest.approx(expected, abs=0.15)
    assert b.square.mean().sqrt().item() == pytest.approx(0.05, abs=0.01)
    assert b.inside is not None
    assert b.inside.mean().item() == pytest.approx(0.9, abs=0.05)
    for name in ("sign", "yes"):
        one = answers[("a",), name]
        assert one.right is not None
        assert one.right.double().mean() > 0.95
        assert one.log_likelihood is not None
        assert one.log_likelihood.mean() > -0.2
    alone = answers[("yes",), "sign"]
    assert alone.log_likelihood is not None
    assert alone.log_likelihood.mean().item() == pytest.approx(-math.log(2), abs=0.05)


# A run from end to end


def test_a_run_has_all_figures_by_the_number_given(kept):
    runs = json.loads(kept.read_text())
    run = runs[key_of("digits", ABLATION, 0, 20)]
    assert set(runs) == {key_of("digits", "baseline", 0, 0), key_of("digits", "jmvae", 0, 20), key_of("digits", ABLATION, 0, 20)}
    assert set(run["kinds"]) == {"classes", "images"}
    assert set(run["kinds"]["classes"]) == {"1", "2"}
    assert {"ll", "accuracy", "ece"} <= set(run["kinds"]["classes"]["1"])
    assert {"ll", "coherence", "variety"} <= set(run["kinds"]["images"]["2"])
    assert run["monotonicity"]["pairs"] == 6
    assert set(run["agreement"]) == {"1"}
    assert 0 < run["ceilings"]["real"]["judges"] <= 1
    assert run["overrides"] == ["bridges.encoders=own", "model.coupling=1"]
    assert runs[key_of("digits", "baseline", 0, 0)]["kinds"]["classes"]["2"]["accuracy"] > 0.95


def test_what_is_kept_is_not_run_again(kept, monkeypatch, capsys):
    before = kept.read_bytes()

    def refuse(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(nbridge, "train", refuse)
    assert suite.main([*OPTIONS, "--out", str(kept)]) == 0
    assert kept.read_bytes() == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "**digits in halves + label**"
    assert [line.split(" | ")[0] for line in lines[4:7]] == ["| free baseline (1)", "| jmvae (1)", f"| {ABLATION} (1)"]


def test_a_run_that_fails_leaves_the_others(tmp_path, monkeypatch, capsys):
    def fail(*_, **__):
        raise NBridgeError("the loss is nan")

    monkeypatch.setattr(nbridge, "train", fail)
    assert suite.main(["--tasks", "digits", "--systems", "default", "--seeds", "1", "--out", str(tmp_path / "s.json")]) == 0
    assert capsys.readouterr().out.startswith("digits | default | 0 | 1500: failed: the loss is nan\n")
    assert list(json.loads((tmp_path / "s.json").read_text())) == [key_of("digits", "baseline", 0, 0)]


def test_a_task_that_is_none_is_one_line(tmp_path, capsys):
    assert suite.main(["--tasks", "digits,no", "--out", str(tmp_path / "s.json")]) == 2
    assert capsys.readouterr().err.startswith("--tasks: 'no' is none of digits, mnist, ")


def test_results_of_two_writers_are_both_kept(tmp_path):
    one, other = Results(tmp_path / "s.json"), Results(tmp_path / "s.json")
    assert "a | b | 0 | 1" not in one
    one.put("a | b | 0 | 1", {"ll": -1.23456789})
    other.put("a | b | 1 | 1", {"ll": {"1": 2}})
    assert one.read() == {"a | b | 0 | 1": {"ll": -1.2346}, "a | b | 1 | 1": {"ll": {"1": 2}}}


# The table


def _run(accuracy: float, ll: float, broken: int = 0) -> dict:
    found = {"1": {"accuracy": accuracy, "ll": ll}, "2": {"accuracy": accuracy + 0.1, "ll": ll + 0.1}}
    return {"kinds": {"classes": found}, "targets": {"label": found}, "monotonicity": {"broken": broken, "pairs": 6}, "train_seconds": 3.0}


def test_a_table_shows_means_spreads_and_what_is_gained_on_the_baseline():
    results = {
        key_of("digits", "baseline", 0, 0): _run(0.7, -1.0),
        key_of("digits", "baseline", 1, 0): _run(0.7, -2.0),
        key_of("digits", "default", 0, 20): _run(0.6, -0.5),
        key_of("digits", "default", 1, 20): _run(0.8, -1.5, broken=1),
        key_of("digits", "jmvae", 0, 20): _run(0.9, -1.5),
        key_of("digits", "jmvae", 0, 99): _run(0.1, -9.0),
        key_of("mfeat", "default", 0, 20): _run(0.1, -9.0),
    }
    lines = table.tables(results, [TASKS["digits"]], None, 20).splitlines()
    assert lines[2] == "| given 1/2 (seeds) | class: LL | class: accuracy | violations | CPU seconds |"
    assert lines[4] == "| free baseline (2) | -1.50 ± 0.71 / -1.40 ± 0.71 | 0.700 ± 0.000 / 0.800 ± 0.000 | 0 of 6 | 3 |"
    assert lines[5] == "| default (2) | +0.50 ± 0.00 / +0.50 ± 0.00 | 0.700 ± 0.141 / 0.800 ± 0.141 | 0.5 of 6 | 3 |"
    assert lines[6] == "| jmvae (1) | -0.50 / -0.50 | 0.900 / 1.000 | 0 of 6 | 3 |"
    # By likelihood first; by accuracy second, and .2 behind at a spread of .1.
    assert lines[8].endswith("class: LL 1 1; class: accuracy 2 2; violations 0.5 of 6.")


def test_a_rank_says_what_is_near_the_first_and_what_is_below_the_baseline():
    results = {
        key_of("digits", "baseline", 0, 0): _run(0.9, -1.0),
        key_of("digits", "default", 0, 20): _run(0.6, -1.1),
        key_of("digits", "default", 1, 20): _run(0.8, -1.3),
        key_of("digits", "jmvae", 0, 20): _run(0.75, -1.4),
    }
    last = table.tables(results, [TASKS["digits"]], None, 20).splitlines()[-1]
    assert last.endswith("class: LL 1! 1!; class: accuracy 2=! 2=!; violations 0 of 6.")


def test_a_table_may_have_columns_of_each_modality_and_the_systems_asked_for():
    results = {key_of("digits", name, 0, 20): _run(0.6, -0.5) for name in ("default", "jmvae", "mvae")}
    text = table.tables(results, [TASKS["digits"]], parse_systems("mvae,default"), 20, targets=True)
    assert "| label: LL | label: accuracy |" in text
    assert "jmvae" not in text
    assert text.index("| mvae (1)") < text.index("| default (1)")


# Rivals


class _Told(nn.Module):
    """A judge that reads the class from the brightness of an image: class c is c / 10."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -(10 * x.mean((1, 2, 3))[:, None] - torch.arange(10)).abs()


def test_pictures_of_a_rival_are_judged_by_the_number_given(tmp_path):
    label = torch.tensor([1, 2, 3, 4] * 5)
    noise = torch.rand(20, 3, 14, 14, generator=torch.Generator().manual_seed(0)) / 50

    def images(classes: torch.Tensor) -> torch.Tensor:
        return classes[:, None, None, None] / 10 + noise

    test = Batch.complete({**dict.fromkeys(VIEWS, images(label)), "label": label})
    panel = Panel(TASKS["polymnist"], dict.fromkeys(VIEWS, _Told()))
    wrong = torch.where(torch.arange(20) < 5, 9, label)
    arrays = {"shared/view0/view1": label, "shared/view0/view2": wrong, "own/view0/view1": wrong, "shared/view0+view1/view2": label}
    pictures = {key: (255 * images(classes)).round().to(torch.uint8).numpy() for key, classes in arrays.items()}
    np.savez(tmp_path / "jnf.npz", allow_pickle=False, **pictures)
    found = rivals.figures_of_pictures(tmp_path / "jnf.npz", panel, test)
    assert found["kinds"]["images"]["1"]["coherence"] == pytest.approx((1 + 0.75) / 2)
    assert found["kinds"]["images"]["2"]["coherence"] == 1
    assert found["kinds"]["images"]["2"]["variety"] == pytest.approx(1, abs=0.05)
    assert found["agreement"] == {"1": {"agreement": 0.75}}


@pytest.mark.parametrize(
    ("system", "epochs", "latent_dim", "beta"), [("jnf", 20, 32, 1.0), ("mmvaeplus", 20, 32, 1.0), ("mmvaeplus_authors", 20, 64, 2.5)]
)
def test_a_rival_has_as_many_updates_and_the_sizes_of_the_default(tmp_path, system, epochs, latent_dim, beta):
    modalities = {name: {"shape": (3, 14, 14), "encoder": "conv", "likelihood": "laplace"} for name in VIEWS}
    spec = nbridge.Spec.model_validate({"modalities": modalities, "training": {"seed": 3}})
    half = torch.arange(2560) < 1280
    train = Batch({name: torch.zeros(2560, 1) for name in VIEWS}, {name: half | (name != "view0") for name in VIEWS})
    task = rivals.described_for(system, spec, train, 200, tmp_path)
    assert task.systems == (system.partition("_")[0],)
    # JNF's complete rows are 10 batches, of two stages; those of MMVAE+ are 20, of one.
    assert (task.epochs, task.latent_dim, task.beta, task.seed) == (epochs, latent_dim, beta, 3)
    default = nbridge.build_model(spec)
    sizes = {
        name: [tuple(p.shape) for p in network.parameters()] for name, network in (("encoder", task.encoder()), ("decoder", task.decoder()))
    }
    assert sizes["encoder"] == [tuple(p.shape) for p in default.encoders["view0"].parameters()]
    if latent_dim == spec.latent_dim:
        assert sizes["decoder"] == [tuple(p.shape) for p in default.decoder("view0").network.parameters()]


def test_a_rival_without_its_environment_is_left_out(tmp_path, capsys):
    path = tmp_path / "s.json"
    Results(path).put(key_of("digits", "baseline", 0, 0), _run(0.5, -1.0))
    assert suite.main(["--tasks", "digits", "--systems", "jnf", "--seeds", "1", "--out", str(path)]) == 0
    assert "failed: jnf takes --multivae PYTHON" in capsys.readouterr().out
    assert suite.main(["--tasks", "digits", "--systems", "jnf", "--seeds", "1", "--out", str(path), "--multivae", "python"]) == 0
    assert "failed: jnf is for PolyMNIST alone" in capsys.readouterr().out

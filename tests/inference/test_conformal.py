"""Conformal intervals: they hold their share of values for any model and any number of rows, and depend on rows that nothing else saw."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nbridge
from nbridge.data.batch import Batch
from nbridge.data.rows import Rows
from nbridge.inference.calibration import conform, uncalibrate
from nbridge.inference.intervals import summarise
from nbridge.models.base import MultimodalVAE
from nbridge.models.conformal import DRAWS, LEVEL_STEPS, Conformal, scores
from nbridge.nn.likelihoods import Normal, Poisson
from nbridge.spec.reader import spec_from_dict
from nbridge.training import trainer as training

MODALITIES = {
    "x": {"shape": 3, "encoder": "mlp", "likelihood": "normal", "features": 4},
    "c": {"shape": 2, "encoder": "mlp", "likelihood": "poisson", "features": 4},
    "y": {"shape": 3, "encoder": "mlp", "likelihood": "categorical", "features": 4},
}


def spec(**training: object) -> nbridge.Spec:
    stages = {"joint": {"epochs": 1}, "bridges": {"epochs": 1}}
    return nbridge.Spec.model_validate({
        "latent_dim": 2, "modalities": MODALITIES, "fusion": {"hidden": [8]}, "bridges": {"hidden": [8]},
        "training": {"batch_size": 16, "stages": stages, "conformal": True, **training},
    })  # fmt: skip


def wrong_model() -> MultimodalVAE:
    """A model whose decoders ignore z: x has mean 0 and spread 1, c the rate 1, whatever rows hold."""
    torch.manual_seed(0)
    model = nbridge.build_model(spec()).eval()
    for name in model.names:
        for parameter in model.decoder(name).network.parameters():
            nn.init.zeros_(parameter)
    return model


def rows_of(number: int, generator: torch.Generator) -> Batch:
    """Rows unlike what that model says: x shifted, wide and skewed, c with far larger and zero counts, and cells that agree in a row."""
    each = torch.randn(number, 1, generator=generator)
    x = 1 + 3 * (torch.randn(number, 3, generator=generator) + each).exp()
    c = torch.poisson((each.exp() * 4).expand(number, 2), generator=generator)
    y = torch.randint(3, (number,), generator=generator)
    return Batch.complete({"x": x, "c": c, "y": y})


@pytest.mark.parametrize(("rows", "level"), [(9, 0.9), (19, 0.9), (25, 0.5), (60, 0.8), (40, 0.95)])
@pytest.mark.parametrize("cells", [1, 6])
def test_intervals_hold_at_least_their_share_over_many_repetitions(rows: int, level: float, cells: int):
    generator, likelihood, repetitions, new = torch.Generator().manual_seed(0), Normal((cells,)), 400, 40
    # The cells of a row share most of their error, and the model's draws are much too narrow, and off.
    each = torch.randn(repetitions, rows + new, 1, generator=generator)
    x = 0.5 + 3 * each + torch.randn(repetitions, rows + new, cells, generator=generator)
    draws = torch.randn(repetitions, DRAWS, rows + new, cells, generator=generator)
    inside = []
    for truth, drawn in zip(x, draws, strict=True):
        conformal = Conformal(["x"], 2)
        seen = scores(likelihood, drawn[:, :rows], truth[:rows])
        conformal.fit("x", 1, seen, torch.ones_like(seen, dtype=torch.bool))
        lower, upper = conformal.ends("x", likelihood, drawn[:, rows:], [level], torch.ones(new, dtype=torch.long))
        inside.append(((lower[0] <= truth[rows:]) & (truth[rows:] <= upper[0])).double().mean().item())
    error = np.std(inside) / math.sqrt(repetitions)
    assert np.mean(inside) >= level - 3 * error
    # No wider than it must be: of one cell exactly one rank more.
    assert np.mean(inside) <= level + 1 / (rows + 1) + 0.01 + 3 * error


def test_of_one_cell_the_scale_is_the_score_of_rank_n_plus_1_times_the_level():
    found = torch.randn(30, generator=torch.Generator().manual_seed(1)).abs()
    conformal = Conformal(["x"], 3)
    conformal.fit("x", 2, found[:, None], torch.ones(30, 1, dtype=torch.bool))
    ordered = found.sort().values
    for level in (0.1, 0.5, 0.9, 0.95, 0.967):
        expected = ordered[math.ceil(31 * level - 1e-9) - 1]
        assert conformal.scale("x", [level], torch.tensor([2]))[0, 0] == expected
    # 31 times .97 is more than 30 rows have; nothing is known of other numbers given.
    assert conformal.scale("x", [0.97, 0.9999], torch.tensor([2])).isinf().all()
    assert conformal.scale("x", [0.1], torch.tensor([0, 1])).isinf().all()


def test_a_level_that_is_stored_is_not_rounded_up_and_one_between_two_is():
    conformal = Conformal(["x"], 1)
    conformal.fit("x", 0, torch.arange(1.0, 5000)[:, None], torch.ones(4999, 1, dtype=torch.bool))
    levels = [step / LEVEL_STEPS for step in range(1, LEVEL_STEPS)]
    assert conformal.scale("x", levels, torch.tensor([0]))[:, 0].tolist() == [5.0 * step for step in range(1, LEVEL_STEPS)]
    assert conformal.scale("x", [0.0701], torch.tensor([0])).item() == 5 * 71
    # A sum that is .3 but for its last digit is that level.
    assert conformal.scale("x", [0.1 + 0.2], torch.tensor([0])).item() == 5 * 300


def test_ends_are_the_scale_times_the_half_width_of_each_side_from_the_median():
    generator = torch.Generator().manual_seed(3)
    draws = torch.randn(DRAWS, 4, 2, generator=generator).exp()
    conformal = Conformal(["x"], 1)
    conformal.fit("x", 0, torch.rand(30, 1, generator=generator) * 3, torch.ones(30, 1, dtype=torch.bool))
    lower, upper = conformal.ends("x", Normal((2,)), draws, [0.5, 0.9], torch.zeros(4, dtype=torch.long))
    ordered = draws.sort(0).values
    low, median, high = (ordered[round(share * (DRAWS + 1)) - 1] for share in (0.16, 0.5, 0.84))
    scales = conformal.scale("x", [0.5, 0.9], torch.zeros(1, dtype=torch.long))[:, :, None]
    torch.testing.assert_close(lower, median - scales * (median - low))
    torch.testing.assert_close(upper, median + scales * (high - median))


def test_each_row_counts_once_whatever_the_number_of_its_observed_cells():
    generator = torch.Generator().manual_seed(2)
    found, cells = torch.rand(25, 4, generator=generator), torch.rand(25, 4, generator=generator) < 0.6
    cells[0] = False
    conformal = Conformal(["x"], 1)
    conformal.fit("x", 0, found.masked_fill(~cells, 1e9), cells)
    rows = [found[row][cells[row]] for row in range(25) if cells[row].any()]
    for level in (0.3, 0.9):
        kept = conformal.scale("x", [level], torch.tensor([0])).item()

        def share(scale: float) -> float:
            return sum((row <= scale + 1e-7).double().mean().item() for row in rows)

        assert share(kept) >= (len(rows) + 1) * level - 1e-6
        assert share(max(s for row in rows for s in row.tolist() if s < kept - 1e-7)) < (len(rows) + 1) * level


def test_counts_that_a_model_is_certain_of_have_a_width_and_stay_in_the_support():
    likelihood, draws = Poisson((1,)), torch.zeros(DRAWS, 1, 1)
    assert scores(likelihood, draws, torch.tensor([[3.0]])).item() == 3
    conformal = Conformal(["c"], 1)
    conformal.fit("c", 0, torch.full((19, 1), 2.0), torch.ones(19, 1, dtype=torch.bool))
    lower, upper = conformal.ends("c", likelihood, draws, [0.9, 0.99], torch.tensor([0]))
    assert lower.flatten().tolist() == [0, 0]
    assert upper.flatten().tolist() == [2, math.inf]


def test_a_wrong_model_serves_intervals_that_hold_for_every_number_given():
    model, generator = wrong_model(), torch.Generator().manual_seed(3)
    repetitions, given = 30, {0: [], 1: ["y"], 2: ["c", "y"]}
    inside: dict[tuple[str, int], list[float]] = {}
    plain: list[float] = []
    for repetition in range(repetitions):
        torch.manual_seed(repetition)
        conform(model, model.prepare(rows_of(19, generator)))
        new = rows_of(40, generator)
        for name, number in (("x", 1), ("x", 2), ("x", 0), ("c", 1)):
            done = summarise(model, new.only(*given[number]), levels=(0.9,), draws=DRAWS, seed=repetition)
            held = (done.lower[name][0] <= new.values[name]) & (new.values[name] <= done.upper[name][0])
            inside.setdefault((name, number), []).append(held.double().mean().item())
    model.conformal = None
    new = rows_of(400, generator)
    done = summarise(model, new.only("y"), levels=(0.9,))
    plain.append(((done.lower["x"][0] <= new.values["x"]) & (new.values["x"] <= done.upper["x"][0])).double().mean().item())
    assert plain[0] < 0.3
    for group, held in inside.items():
        assert np.mean(held) >= 0.9 - 3 * np.std(held) / math.sqrt(repetitions), group


def test_too_few_rows_for_a_level_give_no_ends_but_those_of_the_support():
    model = wrong_model()
    conform(model, model.prepare(rows_of(18, torch.Generator().manual_seed(4))))
    done = summarise(model, rows_of(3, torch.Generator().manual_seed(5)).only("y"), levels=(0.9, 0.95))
    assert done.upper["x"][0].isfinite().all()
    assert (done.lower["x"][1] == -math.inf).all()
    assert (done.upper["x"][1] == math.inf).all()
    assert (done.lower["c"][1] == 0).all()
    assert (done.upper["c"][1] == math.inf).all()


def test_nothing_but_intervals_depends_on_the_rows_that_they_are_fitted_to(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(6)
    train, validation = rows_of(64, generator), rows_of(40, generator)
    numbered, places = Batch.complete({"row": torch.arange(40)}), []
    inner = training.halves

    def watched(rows: Rows, seed: int) -> tuple[Rows, Rows]:
        places.append(inner(numbered, seed)[1].sample().values["row"])
        return inner(rows, seed)

    monkeypatch.setattr(training, "halves", watched)
    trained = []
    for factor in (1.0, 5.0):
        torch.manual_seed(0)
        model = nbridge.build_model(spec())
        x = validation.values["x"].clone()
        if places:
            x[places[0]] *= factor
        nbridge.fit(model, train, Batch.complete({**validation.values, "x": x}), spec().training)
        trained.append(model.state_dict())
    assert len(places[0]) == 20
    changed = {name for name, tensor in trained[0].items() if not torch.equal(tensor, trained[1][name])}
    # Counts are served from x.
    assert "conformal.of_x" in changed
    assert changed <= {"conformal.of_x", "conformal.of_c"}
    assert trained[0]["conformal.of_x"][1, 499].isfinite()


def test_a_run_keeps_its_intervals_and_a_model_without_them_cannot_be_loaded_into_one_with_them(tmp_path: Path):
    rows = rows_of(120, torch.Generator().manual_seed(7))
    run = nbridge.train(spec(), rows, out=tmp_path / "run")
    again = nbridge.load(tmp_path / "run")
    assert again.network.conformal is not None
    assert again.network.conformal.names == ("x", "c")
    one, other = (summarise(model, rows.only("y"), levels=(0.5,)) for model in (run.model.network, again.network))
    assert torch.equal(one.lower["x"], other.lower["x"])
    assert one.lower["x"].isfinite().all()
    config = tmp_path / "run" / "model" / "config.json"
    config.write_text(config.read_text().replace('"conformal": true', '"conformal": false'))
    with pytest.raises(nbridge.RunError, match=r"tensor conformal.of_c is not in the model \(2 extra in all\)"):
        nbridge.load(tmp_path / "run")
    uncalibrate(run.model.network)
    assert summarise(run.model.network, rows.only("y"), levels=(0.5,)).upper["x"].isinf().all()


def test_what_conformal_intervals_need_is_said_in_a_line():
    rows = rows_of(40, torch.Generator().manual_seed(8))
    with pytest.raises(nbridge.SpecError, match=r"training: conformal needs validation rows, and data.validation is 0"):
        spec_from_dict({**spec().as_dict(), "data": {"source": "memory", "validation": 0}})
    # A column may assign rows to validation; whether it does, training finds out.
    parted = spec_from_dict({**spec().as_dict(), "data": {"source": "memory", "validation": 0, "split": "fold"}})
    assert parted.training.conformal
    model = nbridge.build_model(spec())
    with pytest.raises(nbridge.DataError, match=r"training.conformal: no validation rows; raise data.validation"):
        nbridge.fit(model, rows, None, spec().training)
    with pytest.raises(nbridge.DataError, match=r"training.conformal: needs at least two validation rows, got 1"):
        nbridge.fit(model, rows, rows.slice(0, 1), spec().training)
    with pytest.raises(nbridge.DataError, match=r"training.conformal: this model was built without it; build it from a spec"):
        nbridge.fit(nbridge.build_model(spec(conformal=False)), rows, rows, spec().training)
    with pytest.raises(nbridge.DataError, match=r"draws is 39, but the conformal intervals of this model need at least 99"):
        summarise(model, rows.only("y"), draws=39)

"""Intervals and deviations are those of the predictive distribution, and what is observed is certain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from completing import impute_arrays, impute_rows
from oracles import LinearGaussian, exact_model
from scipy import stats
from test_file_completion import KINDS, leftovers, read, write

import nbridge
from nbridge.data.batch import Batch
from nbridge.data.imputed import BY_LEVEL, STATISTICS
from nbridge.errors import DataError
from nbridge.inference.impute import rows_at_a_time
from nbridge.inference.intervals import DRAWS, check_levels, parse_levels, statistics_of, summarise
from nbridge.inference.served import Served

LEVELS = (0.5, 0.9, 0.95)
NAN = float("nan")


def made(**parts: tuple[int | list[int], Any]) -> nbridge.MultimodalVAE:
    """A model of parts given by shape and likelihood; fresh weights will do."""
    torch.manual_seed(0)
    small = {"features": 4, "encoder": {"type": "mlp", "hidden": [4]}}
    modalities = {name: {**small, "shape": shape, "likelihood": likelihood} for name, (shape, likelihood) in parts.items()}
    return nbridge.build_model(nbridge.Spec.model_validate({"latent_dim": 2, "modalities": modalities})).eval()


@pytest.fixture(scope="module")
def model() -> nbridge.MultimodalVAE:
    return made(x=(3, "normal"), count=(2, "poisson"), image=([1, 2, 2], "bernoulli"), label=(3, "categorical"))


# Closed forms


@pytest.mark.parametrize("seen", [(), ("a",), ("a", "c")])
@pytest.mark.parametrize("seed", [0, 1])
def test_figures_are_those_of_the_predictive_distribution_of_a_linear_gaussian_model(seed: int, seen: tuple[str, ...]):
    oracle = LinearGaussian.random({"a": 3, "b": 2, "c": 2}, 2, seed)
    x = {name: value[0] for name, value in oracle.sample(1, seed).items()}
    batch = Batch.complete({name: torch.as_tensor(value)[None] for name, value in x.items()}).only(*seen)
    draws = 3999
    summary = summarise(exact_model(oracle), batch, levels=LEVELS, draws=draws, seed=seed)
    assert summary.levels == LEVELS
    targets = [name for name in x if name not in seen]
    mean, covariance = oracle.conditional(targets, {name: x[name] for name in seen})
    deviation = np.sqrt(np.diag(covariance))

    def found(figures: dict[str, torch.Tensor]) -> np.ndarray:
        return np.concatenate([figures[name].numpy()[..., 0, :] for name in targets], -1)

    # Five standard errors of each figure, in units of the deviation.
    np.testing.assert_allclose((found(summary.mean) - mean) / deviation, 0, atol=5 / draws**0.5)
    np.testing.assert_allclose(found(summary.sd) / deviation, 1, atol=5 / (2 * draws) ** 0.5)
    for number, level in enumerate(LEVELS):
        tail = (1 - level) / 2
        end = stats.norm.ppf(1 - tail)
        error = 5 * (tail * (1 - tail) / draws) ** 0.5 / stats.norm.pdf(end)
        np.testing.assert_allclose((found(summary.lower)[number] - mean) / deviation, -end, atol=error)
        np.testing.assert_allclose((found(summary.upper)[number] - mean) / deviation, end, atol=error)


@pytest.mark.parametrize(("draws", "levels"), [(19, (0.5, 0.9)), (DRAWS, LEVELS)])
def test_intervals_cover_as_often_as_they_say(draws: int, levels: tuple[float, ...]):
    oracle = LinearGaussian.random({"a": 2, "b": 1}, 2, 3)
    rows = {name: torch.as_tensor(value) for name, value in oracle.sample(3000, 5).items()}
    summary = summarise(exact_model(oracle), Batch.complete(rows).hide("b"), levels=levels, draws=draws)
    for level, lower, upper in zip(levels, summary.lower["b"], summary.upper["b"], strict=True):
        share = ((lower <= rows["b"]) & (rows["b"] <= upper)).double().mean().item()
        # The ranks make it 1 - 2 r / (m + 1), the level or the next above; four standard errors over rows.
        rank = int((1 - level) / 2 * (draws + 1) + 1e-9)
        assert abs(share - (1 - 2 * rank / (draws + 1))) < 4 * (level * (1 - level) / 3000) ** 0.5


def test_intervals_of_counts_cover_at_least_what_they_say():
    counts = made(x=(1, "normal"), count=(2, "poisson"))
    batch = Batch.complete({"x": torch.randn(500, 1), "count": torch.zeros(500, 2)}).hide("count")
    truth = nbridge.Model(counts).impute(batch, samples=1, seed=9).values["count"][0]
    summary = summarise(counts, batch, levels=(0.5, 0.9))
    for level, lower, upper in zip((0.5, 0.9), summary.lower["count"], summary.upper["count"], strict=True):
        assert ((lower <= truth) & (truth <= upper)).double().mean() > level - 4 * (level * (1 - level) / 1000) ** 0.5
        assert torch.equal(lower, lower.round())


# What is observed


def test_observed_cells_are_certain_and_bit_identical(model: nbridge.MultimodalVAE):
    rng = np.random.default_rng(0)
    x = torch.as_tensor(rng.normal(size=(5, 3)))
    cells = torch.ones(5, 3, dtype=torch.bool)
    cells[0, 1] = cells[3] = False
    present = {"x": torch.tensor([True, True, True, True, False]), "count": torch.ones(5, dtype=torch.bool)}
    for junk in (0.0, NAN):
        values = {"x": torch.where(cells, x, junk), "count": torch.arange(10).reshape(5, 2)}
        summary = summarise(model, Batch(values, present, {"x": cells}), levels=(0.5, 0.9))
        observed = cells & present["x"][:, None]
        for figure in (summary.mean, *({"x": end} for ends in (summary.lower, summary.upper) for end in ends["x"])):
            assert figure["x"].dtype == torch.float64
            assert torch.equal(figure["x"][observed], x[observed])
            assert figure["x"].isfinite().all()
        assert torch.equal(summary.sd["x"] == 0, observed)
        assert torch.equal(summary.mean["count"], values["count"].double())
        assert torch.equal(summary.upper["count"][1], values["count"].double())
        assert (summary.sd["count"] == 0).all()
        assert (summary.lower["image"] <= summary.upper["image"]).all()


def test_classes_have_probabilities_and_observed_ones_are_certain(model: nbridge.MultimodalVAE):
    for label in (torch.tensor([2, 0, 1, 1]), torch.eye(3)[[2, 0, 1, 1]]):
        batch = Batch({"label": label}, {"label": torch.tensor([True, False, True, False])})
        summary = summarise(model, batch)
        assert {name for what in ("mean", "sd", "lower", "upper") for name in getattr(summary, what)} == {"x", "count", "image"}
        probability = summary.probability["label"]
        assert torch.equal(probability[[0, 2]], torch.eye(3)[[2, 1]])
        torch.testing.assert_close(probability.sum(1), torch.ones(4))
    # The same distribution, by counting draws: 4,000 of them are off by less than four standard errors of .008.
    drawn = nbridge.Model(model).impute(batch, samples=4000).values["label"][:, 1].argmax(-1)
    more = summarise(model, batch, draws=4000).probability["label"][1]
    torch.testing.assert_close(drawn.bincount(minlength=3) / 4000, more, rtol=0, atol=0.032)


# Parts


def test_rows_in_parts_equal_all_rows_at_once(model: nbridge.MultimodalVAE, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nbridge.inference.impute.ELEMENTS", 5 * 64 * 12)
    batch = Batch.complete({"x": torch.randn(13, 3)})
    unit = rows_at_a_time(model)
    assert (unit, rows_at_a_time(model, 150)) == (5, 2)
    whole = summarise(model, batch, draws=150, seed=4)
    for start, stop in ((0, 5), (5, 13), (10, 13)):
        part = summarise(model, batch.slice(start, stop), draws=150, seed=4, first=start)
        for what in STATISTICS:
            for name, figure in getattr(part, what).items():
                expected = getattr(whole, what)[name]
                assert torch.equal(figure, expected[:, start:stop] if what in BY_LEVEL else expected[start:stop]), (what, name)
    assert len(whole.mean["count"].unique(dim=0)) == 13
    with pytest.raises(DataError, match=r"^first is 3, expected a multiple of 5 \(rows_at_a_time\)$"):
        summarise(model, batch, first=3)


def test_memory_holds_a_few_rows_of_one_modality_at_a_time(model: nbridge.MultimodalVAE, monkeypatch: pytest.MonkeyPatch):
    drawn: list[int] = []

    def statistics(draws: torch.Tensor, levels: Any) -> dict[str, torch.Tensor]:
        drawn.append(draws.numel())
        return statistics_of(draws, levels)

    monkeypatch.setattr("nbridge.inference.intervals.statistics_of", statistics)
    monkeypatch.setattr("nbridge.inference.impute.ELEMENTS", 20_000)
    summarise(model, Batch.complete({"label": torch.zeros(300)}), draws=399)
    assert len(drawn) == 3 * 81  # of 12 numbers a row four rows fit, and an imputation is cut into parts of 26
    assert max(drawn) <= 20_000


def test_no_rows_in_gives_no_rows_out(model: nbridge.MultimodalVAE):
    summary = summarise(model, Batch.complete({"x": torch.zeros(0, 3)}))
    assert summary.lower["image"].shape == (1, 0, 1, 2, 2)
    assert summary.probability["label"].shape == (0, 3)


# Arrays and files


def rows() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    given = {
        "x": rng.normal(size=(9, 3)),
        "count": rng.poisson(3, (9, 2)),
        "count__present": np.arange(9) % 3 > 0,
        "image": rng.random((9, 4)).astype(np.float32),
        "label": np.where(np.arange(9) % 2, np.arange(9) % 3, NAN),
        "id": np.arange(9),
    }
    given["x"][2, 1], given["x"][4] = NAN, NAN
    return given


def test_arrays_get_figures_in_their_own_layout(model: nbridge.MultimodalVAE):
    given = rows()
    plain, done = impute_arrays(model, given), impute_arrays(model, given, intervals=(0.9,))
    added = {f"{name}__{what}" for name in ("x", "count", "image") for what in ("mean", "sd", "lower", "upper")} | {"label__probability"}
    assert set(done) == set(plain) | added
    for name, array in plain.items():
        np.testing.assert_array_equal(done[name], array)
    kinds = {"x": np.float64, "count": np.float64, "image": np.float32}
    for name, kind in kinds.items():
        absent = np.isnan(given[name]) if name != "count" else np.broadcast_to(~given["count__present"][:, None], (9, 2))
        for what in ("mean", "sd", "lower", "upper"):
            figure = done[f"{name}__{what}"]
            assert figure.dtype == kind
            assert figure.shape == given[name].shape
            np.testing.assert_array_equal(figure[~absent], 0 if what == "sd" else given[name][~absent])
        assert (done[f"{name}__sd"][absent] > 0).all()
        assert (done[f"{name}__lower"] <= done[f"{name}__upper"]).all()
    # Means of counts are no counts.
    assert (done["count__mean"] != done["count__mean"].round()).any()
    assert done["label__probability"].shape == (9, 3)
    several = impute_arrays(model, given, intervals=LEVELS)
    assert several["x__lower"].shape == (3, 9, 3)
    np.testing.assert_array_equal(several["x__lower"][1], done["x__lower"])
    assert (np.diff(several["x__upper"], axis=0) >= 0).all()
    never = impute_arrays(model, {"label": given["label"]}, intervals=(0.9,))
    assert never["image__upper"].shape == (9, 1, 2, 2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("intervals", [(0.9,), (0.5, 0.9)])
def test_a_file_in_blocks_and_in_shards_has_the_figures_of_its_arrays(
    kind: str, intervals: tuple[float, ...], model: nbridge.MultimodalVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("nbridge.inference.impute.ROWS", 2)
    monkeypatch.setattr("nbridge.inference.complete.BLOCK", 5)
    given, table = rows(), kind == "table.parquet"
    source = write(tmp_path / kind, given)
    nbridge.Model(model).impute(source, out=tmp_path / f"out.{kind}", intervals=intervals, draws=39, seed=3)
    shards = []
    for part in (1, 2, 3):
        nbridge.Model(model).impute(source, out=tmp_path / f"{part}.{kind}", intervals=intervals, draws=39, seed=3, shard=(part, 3))
        shards.append(read(tmp_path / f"{part}.{kind}"))
    expected, found = impute_arrays(model, given, intervals=intervals, draws=39, seed=3), read(tmp_path / f"out.{kind}")
    assert set(found) == set(expected)
    for key, array in expected.items():
        leveled = key.endswith(("__lower", "__upper")) and len(intervals) > 1
        other = np.moveaxis(array, 0, 1) if leveled and table else array
        assert found[key].dtype == array.dtype
        np.testing.assert_array_equal(found[key].reshape(other.shape), other, err_msg=key)
        together = np.concatenate([shard[key] for shard in shards], int(leveled and not table))
        np.testing.assert_array_equal(together, found[key], err_msg=key)
    assert leftovers(tmp_path) == []


def test_figures_of_an_earlier_run_are_replaced(model: nbridge.MultimodalVAE, tmp_path: Path):
    np.savez(tmp_path / "rows.npz", **rows())
    nbridge.Model(model).impute(tmp_path / "rows.npz", out=tmp_path / "once.npz", intervals=(0.9,), draws=39)
    told = nbridge.Model(model).impute(tmp_path / "once.npz", out=tmp_path / "twice.npz", intervals=(0.5,), draws=39)
    assert told.passed == ("id",)
    # Nothing is absent any more.
    assert (np.load(tmp_path / "twice.npz")["x__sd"] == 0).all()


# Mistakes

MISTAKES = {
    ((), 39): "intervals: no level, expected one or more, such as 0.9",
    ((0.9, 0.0), 39): "intervals: level 0, expected a probability between 0 and 1, such as 0.9",
    ((1.0,), 39): "intervals: level 1, expected a probability between 0 and 1, such as 0.9",
    ((NAN,), 39): "intervals: level nan, expected a probability between 0 and 1, such as 0.9",
    ((95,), 39): "intervals: level 95, expected a probability between 0 and 1, such as 0.9; for 95 % write 0.95",
    ((0.5, 0.95), 38): "intervals: level 0.95 needs at least 39 draws, got 38",
    ((0.9,), 18): "intervals: level 0.9 needs at least 19 draws, got 18",
    ((0.9999,), 399): "intervals: level 0.9999 needs at least 19,999 draws, got 399",
    ((0.9,), 0): "draws is 0, expected 1 or more",
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_levels_that_cannot_be_told_are_refused(mistake: tuple[tuple[float, ...], int], model: nbridge.MultimodalVAE):
    levels, draws = mistake
    with pytest.raises(DataError) as error:
        summarise(model, Batch.complete({"x": torch.zeros(2, 3)}), levels=levels, draws=draws)
    assert str(error.value) == MISTAKES[mistake]


def test_as_many_draws_as_a_level_needs_suffice():
    for level in (0.5, 0.8, 0.9, 0.95, 0.98, 0.99):
        needed = round(2 / (1 - level)) - 1
        assert check_levels([level], needed) == (level,)
        with pytest.raises(DataError, match=f"needs at least {needed} draws"):
            check_levels([level], needed - 1)


def test_intervals_beside_draws_are_refused(model: nbridge.MultimodalVAE):
    message = "intervals and samples cannot be combined; leave out one of them"
    with pytest.raises(DataError) as error:
        impute_rows(Served(model), rows(), samples=3, intervals=(0.9,))
    assert str(error.value) == message


def test_levels_are_read_from_text():
    assert parse_levels("0.5, .9") == (0.5, 0.9)
    with pytest.raises(DataError) as error:
        parse_levels("0.5,high")
    assert str(error.value) == "intervals 0.5,high: expected probabilities between 0 and 1, such as 0.9 or 0.5,0.9"

"""No public function changes, or depends on, state that the whole process shares: random numbers, types, modes, warnings, threads."""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_info
from torch import Tensor, distributions, nn
from torch.distributions import Independent
from torch.nn import functional as F

import nbridge
from nbridge.common import randomness
from nbridge.common.autograd import gradients
from nbridge.common.process_state import ignored_warnings, log_level, one_thread, torch_threads
from nbridge.evaluation.results import Settings
from nbridge.models.base import MultimodalVAE
from nbridge.nn.networks import MLP

PART = {"features": 6, "encoder": {"type": "mlp", "hidden": [8], "dropout": 0.2}}
SPEC: dict[str, Any] = {
    "latent_dim": 3,
    "modalities": {
        "x": {"shape": 3, "likelihood": "normal", **PART},
        "counts": {"shape": 2, "likelihood": "negative_binomial", **PART},
        "levels": {"shape": 2, "likelihood": "discretized_logistic", **PART},
        "label": {"shape": 3, "likelihood": "categorical", **PART},
    },
    "prior": "mixture",
    "training": {"stages": {"joint": {"updates": 5, "batch_size": 32}, "bridges": {"updates": 5, "batch_size": 32}}},
}
NOISY = {"features": 4, "encoder": "own_draws_parts:NoisyEncoder"}
OWN: dict[str, Any] = {
    "latent_dim": 2,
    "modalities": {
        "x": {"shape": 3, "likelihood": "own_draws_parts:OwnNormal", **NOISY},
        "label": {"shape": 3, "likelihood": "categorical", **PART},
    },
    "training": {"stages": {"joint": {"epochs": 2, "batch_size": 32}, "bridges": {"epochs": 2, "batch_size": 32}}},
}


def rows(number: int = 160) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    label = np.arange(number) % 3
    arrays = {
        "x": rng.normal(size=(number, 3)) + label[:, None],
        "counts": rng.poisson(1 + 2 * label[:, None], (number, 2)).astype(float),
        "levels": rng.integers(0, 256, (number, 2)) / 255,
        "label": label.astype(float),
    }
    arrays["x"][::4] = np.nan
    arrays["counts"][1::4] = np.nan
    arrays["label"][2::4] = np.nan
    return arrays


def of(names: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: rows()[name] for name in names}


@cache
def trained() -> nbridge.Run:
    return nbridge.train(SPEC, rows())


def model() -> MultimodalVAE:
    return trained().model.network


def fitted() -> nbridge.NBridgeImputer:
    return nbridge.NBridgeImputer({"x": [0, 1, 2], "counts": [3, 4]}, epochs=2, random_state=0).fit(table())


def table() -> np.ndarray:
    return np.hstack([rows()["x"], rows()["counts"]])


def tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.state_dict())


def _imputed(batch: nbridge.Batch, **options: Any) -> dict[str, Tensor]:
    return dict(trained().model.impute(batch, **options).values)


def _imputed_file(folder: Path) -> dict[str, np.ndarray]:
    np.savez(folder / "in.npz", **rows())
    trained().model.impute(folder / "in.npz", folder / "out.npz", seed=3, intervals=(0.9,), draws=20)
    with np.load(folder / "out.npz") as file:
        found = {name: file[name] for name in file.files}
    (folder / "out.npz").unlink()
    return found


def _loaded(folder: Path) -> dict[str, Tensor]:
    from nbridge.training.checkpoint import save_model

    if not (folder / "config.json").is_file():
        save_model(folder, model(), trained().spec)
    return tensors(nbridge.load(folder).network)


def _resumed(folder: Path) -> dict[str, Tensor]:
    if not (folder / "run").is_dir():
        nbridge.train(SPEC, rows(), out=folder / "run")
    return tensors(nbridge.resume(folder / "run", rows()).model.network)


def _fitted(folder: Path) -> dict[str, Tensor]:
    spec = nbridge.Spec.model_validate({**SPEC, "prior": "normal"})
    fresh = nbridge.build_model(spec, seed=5)
    nbridge.fit(fresh, trained().splits.train, trained().splits.validation, spec.training)
    return tensors(fresh)


def _embedded(folder: Path) -> dict[str, Tensor]:
    q = trained().model.embed(trained().splits.train, samples=2)
    return {"mean": q.mean, "deviation": q.stddev}


def _evaluated(folder: Path) -> dict[str, float]:
    run = trained()
    done = run.model.evaluate(run.splits, Settings(samples=3, draws=39, generated=2, rows=12))
    return {f"{one.title}: {name}": value for one in done.measurements for name, value in one.figures.items()}


def _compared(folder: Path) -> dict[str, Any]:
    from nbridge.evaluation.versus_baseline import compare_with_baselines

    return {one.target: (one.model, one.baseline, one.lead) for one in compare_with_baselines(*_subject()).modalities}


def _subject() -> tuple[Any, ...]:
    return trained().model.network, trained().spec, trained().splits


PUBLIC: dict[str, Callable[[Path], Mapping[str, Any]]] = {
    "train": lambda _: tensors(nbridge.train(SPEC, rows()).model.network),
    "train in epochs": lambda _: tensors(nbridge.train({**SPEC, "training": OWN["training"]}, rows()).model.network),
    "train flow": lambda _: tensors(
        nbridge.train({**SPEC, "prior": "normal", "bridges": {"type": "flow", "width": 16}}, rows()).model.network
    ),
    "train mvae": lambda _: tensors(nbridge.train({**SPEC, "prior": "normal", "model": "mvae"}, rows()).model.network),
    "train own modules": lambda _: tensors(nbridge.train(OWN, of(OWN["modalities"])).model.network),
    "fit": _fitted,
    "resume": _resumed,
    "load": _loaded,
    "build_model": lambda _: tensors(nbridge.build_model(nbridge.Spec.model_validate(SPEC))),
    "impute": lambda _: _imputed(trained().splits.train),
    "impute draws": lambda _: _imputed(trained().splits.train, samples=3, seed=1),
    "impute_arrays": lambda _: dict(trained().model.impute(rows(), samples=2, seed=2)),
    "impute_arrays with intervals": lambda _: dict(trained().model.impute(rows(), intervals=(0.9,), draws=20)),
    "impute_file": _imputed_file,
    "generate": lambda _: trained().model.generate(5, seed=1),
    "generate given": lambda _: trained().model.generate(5, {"label": 1}, seed=1),
    "embed": _embedded,
    "evaluate": _evaluated,
    "verdict": _compared,
    "NBridgeImputer": lambda _: {"draws": fitted().sample(table(), 2), "filled": fitted().transform(table())},
    "init": lambda _: {"spec": nbridge.init(rows()).spec.as_dict()},
}
EVERY = pytest.mark.parametrize("name", PUBLIC)
SERVING = ["impute", "impute draws", "impute_arrays", "impute_file", "generate", "embed", "evaluate", "verdict"]


@pytest.fixture(scope="module", autouse=True)
def _begun() -> None:
    """What is made once is made before any test changes the state."""
    trained()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Mapping[str, Any]]:
    """What a function gives when it runs alone."""

    @cache
    def result(name: str) -> Mapping[str, Any]:
        return PUBLIC[name](tmp_path_factory.mktemp("alone"))

    return result


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Bit for bit, with the same types."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, Tensor | np.ndarray):
            assert value.dtype == other[name].dtype, name
            np.testing.assert_array_equal(np.asarray(value), np.asarray(other[name]), err_msg=name)
        else:
            np.testing.assert_equal(value, other[name], err_msg=name)


def state() -> dict[str, Any]:
    """All that a process shares, as far as libraries used here have it."""
    numpy_state = np.random.get_state()  # noqa: NPY002 (the global generator is the subject)
    loggers = {name: one for name, one in logging.root.manager.loggerDict.items() if isinstance(one, logging.Logger)}
    return {
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": (numpy_state[1].tolist(), *numpy_state[2:]),
        "python generator": random.getstate(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "default type": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark, torch.backends.cudnn.enabled),
        "products": (torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")),
        "functions": torch._C._len_torch_function_stack(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "BLAS": sorted((one["filepath"], one["num_threads"]) for one in threadpool_info()),
        "warnings": list(warnings.filters),
        "root logger": (logging.root.level, list(logging.root.handlers), logging.root.manager.disable),
        "loggers": {name: (one.level, list(one.handlers), one.disabled) for name, one in loggers.items()},
        "matplotlib": dict(mpl.rcParams),
        "environment": dict(os.environ),
        "numpy errors": np.geterr(),
        "signals": [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)],
        "largest image": Image.MAX_IMAGE_PIXELS,
        "folder": Path.cwd(),
        "hooks": (sys.excepthook, threading.excepthook),
        "collector": gc.isenabled(),
    }


def changed(before: Mapping[str, Any]) -> set[str]:
    """What differs from an earlier state; a logger may have been added by a module that was imported since."""
    after = state()
    after["loggers"] = {name: one for name, one in after["loggers"].items() if name in before["loggers"]}
    return {what for what, value in before.items() if after[what] != value}


def seeded_globally(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (the global generator is the subject)
    random.seed(seed)


@EVERY
def test_nothing_that_the_process_shares_is_changed(name: str, tmp_path: Path, alone: Callable[[str], Mapping[str, Any]]):
    alone(name)  # Libraries that are imported for the first time may well change something.
    seeded_globally(1234)
    before = state()
    found = PUBLIC[name](tmp_path)
    assert changed(before) == set()
    # Nor does what is given depend on the caller's generators.
    same(found, alone(name))


def in_threads(work: list[Callable[[], Any]]) -> list[Any]:
    """What each piece of work gives in a thread of its own, all begun at one moment and switched often."""
    start, found, failed = threading.Barrier(len(work)), [None] * len(work), list[BaseException]()

    def run(number: int) -> None:
        start.wait()
        try:
            found[number] = work[number]()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(work))]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    for error in failed:
        raise error
    return found


@EVERY
def test_three_threads_with_one_seed_each_give_what_one_gives(name: str, tmp_path: Path, alone: Callable[[str], Mapping[str, Any]]):
    folders = [tmp_path / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir()
    before = state()
    for found in in_threads([lambda folder=folder: PUBLIC[name](folder) for folder in folders]):
        same(found, alone(name))
    assert changed(before) == set()


def test_threads_with_other_seeds_do_other_work_at_the_same_time():
    def draws(seed: int) -> dict[str, Tensor]:
        return _imputed(trained().splits.train, samples=3, seed=seed)

    for seed, found in enumerate(in_threads([lambda seed=seed: draws(seed) for seed in range(3)])):
        same(found, draws(seed))


@pytest.mark.parametrize("name", ["train", "impute draws", "generate", "build_model", "NBridgeImputer"])
def test_a_thread_of_the_caller_draws_what_it_would_draw_alone(name: str, tmp_path: Path):
    done = threading.Event()

    def work() -> None:
        try:
            PUBLIC[name](tmp_path)
        finally:
            done.set()

    def draw() -> tuple[list[float], list[float], list[float]]:
        seeded_globally(7)
        drawn: tuple[list[float], list[float], list[float]] = ([], [], [])
        while not done.is_set() or len(drawn[0]) < 100:
            drawn[0].append(float(torch.randn(())))
            drawn[1].append(float(np.random.normal()))  # noqa: NPY002 (the global generator is the subject)
            drawn[2].append(random.random())
        return drawn

    drawn = in_threads([work, draw])[1]
    seeded_globally(7)
    assert drawn[0] == [float(torch.randn(())) for _ in drawn[0]]
    assert drawn[1] == [float(np.random.normal()) for _ in drawn[1]]  # noqa: NPY002 (the global generator is the subject)
    assert drawn[2] == [random.random() for _ in drawn[2]]


@contextmanager
def default_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@EVERY
def test_float32_whatever_the_default_type(name: str, tmp_path: Path, alone: Callable[[str], Mapping[str, Any]]):
    expected = alone(name)
    with default_float64():
        found = PUBLIC[name](tmp_path)
        assert torch.get_default_dtype() == torch.float64
    same(found, expected)


@pytest.mark.parametrize(
    ("mode", "name"), [*((torch.inference_mode, name) for name in PUBLIC), (torch.no_grad, "train"), (torch.no_grad, "evaluate")]
)
def test_the_mode_of_the_caller_is_no_matter(mode: Any, name: str, tmp_path: Path, alone: Callable[[str], Mapping[str, Any]]):
    expected = alone(name)
    with mode():
        found = PUBLIC[name](tmp_path)
        assert not torch.is_grad_enabled()
    same(found, expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_tensors_and_models_made_in_the_callers_mode_train(mode: Any):
    with mode():
        given = {name: torch.as_tensor(values) * 1.0 for name, values in of(OWN["modalities"]).items()}
        run = nbridge.train(OWN, given)
        loaded = nbridge.build_model(run.spec)
    same(tensors(run.model.network), tensors(nbridge.train(OWN, of(OWN["modalities"])).model.network))
    for parameter in (*run.model.network.parameters(), *loaded.parameters()):
        assert parameter.requires_grad
        assert not parameter.is_inference()


@pytest.mark.parametrize("name", SERVING)
def test_a_model_in_train_mode_serves_as_in_eval_mode_and_stays_in_train_mode(
    name: str, tmp_path: Path, alone: Callable[[str], Mapping[str, Any]]
):
    expected = alone(name)
    model().train()
    # One part that the caller froze by hand.
    model().decoders.eval()
    modes = {module: module.training for module in model().modules()}
    try:
        same(PUBLIC[name](tmp_path), expected)
        assert {module: module.training for module in model().modules()} == modes
        folders = [tmp_path / str(number) for number in range(3)]
        for folder in folders:
            folder.mkdir()
        for found in in_threads([lambda folder=folder: PUBLIC[name](folder) for folder in folders]):
            same(found, expected)
        assert {module: module.training for module in model().modules()} == modes
    finally:
        model().eval()


def test_a_failure_puts_everything_back(monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> Independent:
        raise RuntimeError("no posterior")

    model().train()
    before = state()
    try:
        with monkeypatch.context() as patch:
            patch.setattr(type(model()), "posterior", fail)
            with pytest.raises(RuntimeError, match="no posterior"):
                _imputed(trained().splits.train, samples=2)
        assert all(module.training for module in model().modules())
        assert changed(before) == set()
        assert randomness.generator() is None
    finally:
        model().eval()


def test_flags_of_the_caller_are_kept_and_obeyed(alone: Callable[[str], Mapping[str, Any]], tmp_path: Path):
    expected = alone("train")
    torch.use_deterministic_algorithms(mode=True)
    torch.set_float32_matmul_precision("high")
    try:
        same(PUBLIC["train"](tmp_path), expected)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.use_deterministic_algorithms(mode=False)
        torch.set_float32_matmul_precision("highest")


def test_without_a_random_state_every_fit_is_another_and_the_callers_generator_stays():
    np.random.seed(0)  # noqa: NPY002 (the global generator is the subject)
    imputers = [nbridge.NBridgeImputer({"x": [0, 1, 2], "counts": [3, 4]}, epochs=1) for _ in range(2)]
    one, other = (imputer.fit(table()).transform(table()) for imputer in imputers)
    assert not np.array_equal(one, other)
    assert np.random.random() == np.random.RandomState(0).random()  # noqa: NPY002 (the global generator is the subject)


# Draws

X = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
POSITIVE = X.exp()
DRAWS: dict[str, Callable[[], Tensor]] = {
    "normal": lambda: distributions.Normal(X, POSITIVE).sample((2,)),
    "normal with gradients": lambda: distributions.Normal(X, POSITIVE).rsample(),
    "bernoulli": lambda: distributions.Bernoulli(logits=X).sample(),
    "categorical": lambda: distributions.Categorical(logits=X).sample((3,)),
    "poisson": lambda: distributions.Poisson(POSITIVE).sample(),
    "negative binomial": lambda: distributions.NegativeBinomial(POSITIVE, logits=X).sample(),
    "laplace": lambda: distributions.Laplace(X, POSITIVE).sample(),
    "dirichlet": lambda: distributions.Dirichlet(POSITIVE).sample(),
    "student": lambda: distributions.StudentT(POSITIVE, X, 1.0).sample(),
    "von mises": lambda: distributions.VonMises(X, POSITIVE).sample(),
    "gumbel": lambda: distributions.Gumbel(X, POSITIVE).sample(),
    "multivariate normal": lambda: distributions.MultivariateNormal(X, torch.eye(3)).sample(),
    "linear": lambda: nn.Linear(5, 7).weight.data,
    "convolution": lambda: nn.Conv2d(2, 3, 3).weight.data,
    "embedding": lambda: nn.Embedding(4, 5).weight.data,
    "dropout": lambda: nn.Dropout(0.3)(X),
    "dropout of MLP": lambda: MLP(3, 3, hidden=(4,), dropout=0.5)(X).detach(),
    "permutation": lambda: torch.randperm(50),
    "uniform": lambda: X.new_empty(9).uniform_(-2, 3),
    "like": lambda: torch.randn_like(X),
    "random slopes": lambda: nn.RReLU()(X),
    "attention": lambda: nn.MultiheadAttention(3, 1, dropout=0.5)(X, X, X)[0].data,
}
"""By way of drawing, numbers drawn."""
OTHER_NUMBERS = {"like", "random slopes", "attention"}
"""Draws by functions that take no generator."""


@pytest.mark.parametrize("name", DRAWS)
def test_own_draws_are_those_of_the_global_generator_with_the_same_seed(name: str):
    torch.manual_seed(5)
    expected = DRAWS[name]()
    torch.manual_seed(6)
    before = torch.get_rng_state()
    with randomness.own_draws(5):
        found, more = DRAWS[name](), DRAWS[name]()
        randomness.reseed(5)
        again = DRAWS[name]()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found, again)
    assert not torch.equal(found, more)
    assert torch.equal(found, expected) == (name not in OTHER_NUMBERS)


@pytest.mark.parametrize("redirect", [True, False])
def test_what_training_draws_by_is_the_same_with_and_without_redirection(redirect: bool):
    def drawn() -> list[Tensor]:
        return [
            randomness.randn(3, 2),
            randomness.randn_like(X),
            randomness.rand(4),
            randomness.randperm(9),
            torch.tensor(randomness.randint(2, 90)),
            randomness.normal(X, POSITIVE),
            randomness.dropout(X, 0.4),
        ]

    torch.manual_seed(3)
    expected = drawn()
    with randomness.own_draws(3, redirect=redirect):
        found = drawn()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("own", [True, False])
def test_dropout_is_that_of_torch(p: float, own: bool):
    torch.manual_seed(2)
    expected = F.dropout(X, p)
    with ExitStack() as stack:
        torch.manual_seed(2)
        if own:
            stack.enter_context(randomness.own_draws(2, redirect=False))
        assert torch.equal(randomness.dropout(X, p), expected)


def test_sources_are_of_their_thread_and_of_their_block():
    with randomness.own_draws(1):
        outer = torch.randn(2)
        with randomness.own_draws(2):
            inner = torch.randn(2)
        rest = torch.randn(2)
        assert in_threads([randomness.generator]) == [None]
    with randomness.own_draws(1):
        assert torch.equal(torch.randn(2), outer)
        assert torch.equal(torch.randn(2), rest)
    with randomness.own_draws(2):
        assert torch.equal(torch.randn(2), inner)
    assert randomness.generator() is None


def test_a_generator_that_is_named_is_the_one_that_is_used():
    with randomness.own_draws(1):
        found = torch.randn(3, generator=torch.Generator().manual_seed(9))
    assert torch.equal(found, torch.randn(3, generator=torch.Generator().manual_seed(9)))


def test_redirected_code_makes_float32_where_it_names_no_type():
    makers: list[Callable[[], Tensor]] = [
        lambda: torch.zeros(2),
        lambda: torch.ones(2),
        lambda: torch.empty(2),
        lambda: torch.eye(2),
        lambda: torch.full((2,), 0.5),
        lambda: torch.tensor([0.5, 1.5]),
        lambda: torch.as_tensor(0.5),
        lambda: torch.arange(0.0, 1.0, 0.5),
        lambda: torch.linspace(0, 1, 3),
        lambda: torch.rand(2),
        lambda: torch.randn(2),
        lambda: nn.Linear(2, 2).weight,
    ]
    with default_float64(), randomness.own_draws(0):
        assert {maker().dtype for maker in makers} == {torch.float32}
        assert torch.tensor(np.ones(2)).dtype == torch.float64
        assert torch.full((2,), torch.tensor(1.0, dtype=torch.float64)).dtype == torch.float64
        assert torch.zeros(2, dtype=torch.float64).dtype == torch.float64
        assert torch.tensor([1, 2]).dtype == torch.long
        assert torch.arange(3).dtype == torch.long


@pytest.mark.parametrize(
    ("module", "answer"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.LeakyReLU(), nn.Softplus()), False),
        (MLP(2, 2, hidden=(3,), dropout=0.5), False),
        (nn.Dropout(0.5), True),
        (nn.LSTM(2, 2, 2, dropout=0.5), True),
        (nn.RReLU(), True),
        (nn.MultiheadAttention(2, 1), True),
        (type("Own", (nn.Linear,), {})(2, 2), True),
    ],
)
def test_which_modules_may_draw_by_themselves(module: nn.Module, answer: bool):
    assert randomness.draws_itself(nn.ModuleList([module])) is answer


def test_no_model_of_this_library_draws_by_itself_in_training():
    for kind in ("bridged", "jmvae", "telbo", "mvae", "bivcca", "joint"):
        spec = {**SPEC, "prior": "normal", "model": kind}
        assert not randomness.draws_itself(nbridge.build_model(nbridge.Spec.model_validate(spec))), kind
    flow = {**SPEC, "prior": "normal", "bridges": {"type": "flow"}}
    assert not randomness.draws_itself(nbridge.build_model(nbridge.Spec.model_validate(flow)))


# What only the process has


def test_overlapping_threads_leave_warnings_threads_and_loggers_as_they_were():
    before = state()

    def work() -> None:
        for _ in range(20):
            with ignored_warnings(UserWarning), log_level("nbridge.test", logging.ERROR), one_thread():
                warnings.warn("ignored", stacklevel=1)
                assert logging.getLogger("nbridge.test").level == logging.ERROR
            with torch_threads(2):
                assert torch.get_num_threads() == 2

    in_threads([work] * 3)
    assert logging.getLogger("nbridge.test").level == logging.NOTSET
    assert changed(before) == set()
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_gradients_are_enabled_in_any_mode():
    with torch.inference_mode(), gradients():
        x = torch.ones(2, requires_grad=True)
        x.square().sum().backward()
        assert x.grad is not None
    assert torch.is_grad_enabled()

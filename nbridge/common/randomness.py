"""Random numbers from generators that belong to one call in one thread, never from torch's global generator.

`own_draws` opens a `Source` for the current thread. Code of this library that draws in training, where time matters, asks for numbers
here (`randn`, `rand`, `randperm`, `randint`, `dropout`, `normal`). All else, such as the draws of `torch.distributions`, the initial
weights of layers, and the modules of a user, calls torch as usual, and `own_draws` redirects it: a `TorchFunctionMode`, which belongs to
the thread as well, passes the source's generator to every torch function that takes one. Functions that take none seed the global generator
under a lock and put it back.

A generator gives the same numbers as torch's global one after `torch.manual_seed` with the same seed. Without a source everything draws
from the global generator, as any other code with torch does.

Redirected code makes float32 tensors where it names no type, whatever `torch.get_default_dtype()` is.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from nbridge.common.process_state import GENERATOR

Device = torch.device | str | None


class Source:
    """A seed with a generator for each device that numbers are drawn on; if ``shared``, torch's global generator is used instead."""

    def __init__(self, seed: int, *, shared: bool = False) -> None:
        self.shared = shared
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begins again with another seed."""
        self._seed = seed
        self._generators: dict[torch.device, Generator] = {}
        if self.shared:
            torch.manual_seed(seed)

    def generator(self, device: torch.device) -> Generator:
        """The generator of a device."""
        if device not in self._generators:
            self._generators[device] = Generator(device).manual_seed(self._seed)
        return self._generators[device]


class _Current(threading.local):
    """What the current thread draws from."""

    source: Source | None = None
    redirected: bool = False


_CURRENT = _Current()


@contextmanager
def own_draws(seed: int, *, redirect: bool = True) -> Iterator[None]:
    """Lets this thread draw from generators with a seed of their own.

    With ``redirect``, torch's own functions are redirected too, which costs about two microseconds for each call of one; without it only
    the functions of this file draw from the source.
    """
    with _using(Source(seed)), _Redirected() if redirect and not _CURRENT.redirected else nullcontext():
        yield


@contextmanager
def compiled_draws(seed: int, devices: Iterable[torch.device]) -> Iterator[None]:
    """The same for code that `torch.compile` made, which knows the global generator alone: that is seeded too, and put back.

    Threads that do this wait for each other. The generators of ``devices`` are put back too.
    """
    with GENERATOR, torch.random.fork_rng(list(devices)), _using(Source(seed, shared=True)):
        yield


@contextmanager
def _using(source: Source) -> Iterator[None]:
    before, _CURRENT.source = _CURRENT.source, source
    try:
        yield
    finally:
        _CURRENT.source = before


def reseed(seed: int) -> None:
    """Seeds what this thread draws from: its source."""
    assert _CURRENT.source is not None, "only inside own_draws"
    _CURRENT.source.seed(seed)


def generator(device: Device = None) -> Generator | None:
    """What to draw from on a device; None, torch's global generator, without a source and in compiled code."""
    if torch.compiler.is_compiling() or _CURRENT.source is None or _CURRENT.source.shared:
        # Beside compiled code all else draws from the global generator as well, so that there is one stream of numbers.
        return None
    place = torch.get_default_device() if device is None else torch.device(device)
    # On the meta device there are no numbers to draw.
    return None if place.type == "meta" else _CURRENT.source.generator(place)


def randn(*size: int, device: Device = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal numbers."""
    # Not torch.randn, for which compiled code has a generator of its own: this way it draws what other code draws.
    return torch.empty(size, device=device, dtype=dtype).normal_(generator=generator(device))


def randn_like(x: Tensor) -> Tensor:
    """Standard normal numbers of a tensor's shape, type and device."""
    return randn(*x.shape, device=x.device, dtype=x.dtype)


def rand(*size: int, device: Device = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Numbers that are uniform in [0, 1)."""
    return torch.rand(*size, device=device, dtype=dtype, generator=generator(device))


def randperm(number: int, device: Device = None) -> Tensor:
    """A permutation of the whole numbers below a number."""
    return torch.randperm(number, device=device, generator=generator(device))


def randint(low: int, high: int) -> int:
    """A whole number from ``low`` to ``high - 1``."""
    return int(torch.randint(low, high, (), generator=generator()))


def normal(loc: Tensor, scale: Tensor) -> Tensor:
    """Draws of normal distributions, one for each mean and standard deviation, without gradients."""
    return torch.normal(loc, scale, generator=generator(loc.device))


def dropout(x: Tensor, p: float) -> Tensor:
    """Sets each number to 0 with probability p and divides the others by 1 - p."""
    source = generator(x.device)
    if source is None or not 0 < p < 1:
        return F.dropout(x, p, training=True)
    return x * torch.empty_like(x).bernoulli_(1 - p, generator=source).div_(1 - p)


def draws_itself(module: nn.Module) -> bool:
    """Whether calling a module may draw numbers by another way than through this file.

    No module of this library does, nor do torch's own layers other than those with dropout or noise of their own. Of any other module it
    is not known, so the answer is True.
    """
    return not all(_is_redirected_or_deterministic(type(one)) for one in module.modules())


def _is_redirected_or_deterministic(kind: type[nn.Module]) -> bool:
    if not kind.__module__.startswith("torch.nn.modules."):
        return kind.__module__.startswith("nbridge.")
    random = (nn.RReLU, nn.MultiheadAttention, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)
    return kind.__module__.split(".")[-1] not in ("dropout", "rnn", "transformer") and kind not in random


# What is redirected


def _named(owner: object, names: str) -> set[Callable[..., Any]]:
    return {getattr(owner, name) for name in names.split() if hasattr(owner, name)}


def _that_take_a_generator(owner: object) -> set[Callable[..., Any]]:
    return {one for one in vars(owner).values() if inspect.isfunction(one) and "generator" in inspect.signature(one).parameters}


_DRAW = (
    _named(torch, "bernoulli binomial multinomial normal poisson rand randint randn randperm _standard_gamma _sample_dirichlet")
    | _named(Tensor, "bernoulli bernoulli_ cauchy_ exponential_ geometric_ log_normal_ multinomial normal_ random_ uniform_")
    | _that_take_a_generator(nn.init)
)
_DROPOUT = _named(F, "dropout") | _named(torch, "dropout")
_DRAW_GLOBALLY = (
    _named(torch, "alpha_dropout alpha_dropout_ dropout_ feature_alpha_dropout feature_alpha_dropout_ feature_dropout feature_dropout_")
    | _named(torch, "gru lstm native_dropout pca_lowrank rand_like randint_like randn_like rnn_relu rnn_tanh rrelu rrelu_ svd_lowrank")
    | _named(F, "alpha_dropout dropout1d dropout2d dropout3d feature_alpha_dropout fractional_max_pool2d fractional_max_pool3d rrelu")
    | _named(F, "fractional_max_pool2d_with_indices fractional_max_pool3d_with_indices gumbel_softmax multi_head_attention_forward")
    | _named(F, "scaled_dot_product_attention")
)
_MAKE = _named(torch, "empty eye linspace logspace ones rand randn zeros")
_MAKE_OF_VALUES = _named(torch, "arange as_tensor full scalar_tensor tensor")
_CHANGED = _DRAW | _DROPOUT | _DRAW_GLOBALLY | _MAKE | _MAKE_OF_VALUES


class _Redirected(TorchFunctionMode):
    """Passes the source's generator to torch's functions, and float32 to those that would take the default type."""

    def __enter__(self) -> _Redirected:
        _CURRENT.redirected = True
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        _CURRENT.redirected = False
        super().__exit__(*exception)

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func not in _CHANGED:
            return func(*args, **(kwargs or {}))
        options = dict(kwargs or {})
        if func in _MAKE and options.get("dtype") is None and options.get("out") is None:
            options["dtype"] = torch.float32
        if func in _DRAW:
            if options.get("generator") is None:
                options["generator"] = generator(_device_of(args, options))
        elif func in _DROPOUT:
            return _dropout(func, args, options)
        elif func in _DRAW_GLOBALLY:
            return _by_the_global_generator(func, args, options)
        made = func(*args, **options)
        if func in _MAKE_OF_VALUES and made.dtype != torch.float32 and _has_default_type(made, args, options):
            return func(*args, **options, dtype=torch.float32)
        return made


def _device_of(args: Sequence[Any], options: Mapping[str, Any]) -> Device:
    tensor = next((one for one in (*args, *options.values()) if isinstance(one, Tensor)), None)
    return options.get("device") if tensor is None else tensor.device


def _has_default_type(made: Tensor, args: Sequence[Any], options: Mapping[str, Any]) -> bool:
    """Whether a tensor has the default type because nothing named another."""
    named = "dtype" in options or any(hasattr(one, "dtype") for one in (*args, *options.values()))
    return made.is_floating_point() and not named


def _dropout(func: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> Tensor:
    bound = _DROPOUT_SIGNATURE.bind(*args, **options)
    bound.apply_defaults()
    x, p, training = (bound.arguments[name] for name in ("input", "p", "training"))
    if not training or bound.arguments["inplace"]:
        return _by_the_global_generator(func, args, options) if training else x
    return dropout(x, p)


_DROPOUT_SIGNATURE = inspect.signature(F.dropout)


def _by_the_global_generator(func: Callable[..., Any], args: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The global generator, seeded by the source, for a function that takes none."""
    device = torch.device(_device_of(args, options) or torch.get_default_device())
    seed = int(torch.randint(2**62, (), generator=generator()))
    with GENERATOR, torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return func(*args, **options)

"""State that the whole process shares and that libraries change only there: one thread at a time changes it, and puts it back.

Each kind of state has a lock of its own, so that a thread that waits for one kind never keeps another from a second kind. What a lock
cannot give is protection from threads that do not take it: while one is held, the rest of the process sees the changed state.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

GENERATOR = threading.RLock()
"""Held while torch's global generator is seeded and put back."""
_LOGGING, _THREADS, _WARNINGS = threading.RLock(), threading.RLock(), threading.RLock()


@contextmanager
def ignored_warnings(*categories: type[Warning]) -> Iterator[None]:
    """Ignores warnings of some categories, or all of them where none is named."""
    with _WARNINGS, warnings.catch_warnings():
        for category in categories or (Warning,):
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Limits BLAS and OpenMP to one thread: faster for small fits, and sums have the same bits whatever the number of cores."""
    from threadpoolctl import threadpool_limits  # Not above: it looks through all loaded libraries.

    with _THREADS, threadpool_limits(1):
        yield


@contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Gives torch a number of threads; where it has another, threads that ask for this wait for each other."""
    import torch  # Not above: code that starts without torch imports this file.

    if torch.get_num_threads() == number:
        yield
        return
    with _THREADS:
        before = torch.get_num_threads()
        torch.set_num_threads(number)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextmanager
def log_level(name: str, level: int) -> Iterator[None]:
    """Gives a logger another level."""
    logger = logging.getLogger(name)
    with _LOGGING:
        before = logger.level
        logger.setLevel(level)
        try:
            yield
        finally:
            logger.setLevel(before)

"""Shared code of both libraries' runners: a job as JSON, a report as JSON, and measurements of a process.

Imports only the standard library and torch, so that it also runs in multivae's environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Job:
    """One process's work.

    Arguments:
        task: ``import``, ``speed``, ``likelihood`` or ``start``.
        rows: The npz file with ``NAME_train`` and ``NAME_test`` for each modality.
        modalities: By name, the size and the likelihood, ``bernoulli`` or ``categorical``.
        models: What to train.
        hidden: Widths of the hidden layers of every encoder; decoders have them in reverse.
        epochs: Passes over the training rows, for each stage.
        precision: Of matrix products; multivae knows float32 alone.
        threads: Of torch.
        started: The moment at which the process was started, by the clock that all processes share.
        latent_dim: Dimension of z.
        batch_size: Rows of a step.
        learning_rate: Adam's.
        samples: Draws of z for each row in the likelihood.
    """

    task: str
    rows: str = ""
    modalities: dict[str, tuple[int, str]] | None = None
    models: tuple[str, ...] = ()
    hidden: tuple[int, ...] = ()
    epochs: int = 1
    precision: str = "float32"
    threads: int = 1
    started: float = 0.0
    latent_dim: int = 128
    batch_size: int = 128
    learning_rate: float = 1e-3
    samples: int = 100

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def now() -> float:
    """Seconds by a clock that all processes of a machine share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def serve(tasks: dict[str, Callable[[Job], Any]]) -> None:
    """Runs the job in the first argument and prints the report as the last line."""
    job = Job(**json.loads(sys.argv[1]))
    import torch

    torch.set_num_threads(job.threads)
    sys.stdout.write("\n" + json.dumps(tasks[job.task](job)) + "\n")


def rate(steps: int, seconds: list[float]) -> float:
    """Steps per second from the seconds of each epoch, without the first, which is a warm-up."""
    return steps / fmean(seconds[1:] or seconds)


def first_step() -> list[float]:
    """A list that receives the time of the first step of any optimiser."""
    from torch.optim.optimizer import register_optimizer_step_post_hook

    moments: list[float] = []

    def note(*_: object) -> None:
        moments.append(now())
        handle.remove()

    handle = register_optimizer_step_post_hook(note)
    return moments


def peak() -> float:
    """Peak memory of this process so far, in MiB."""
    # Not getrusage, whose peak is inherited from the parent process.
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def multiply_adds(step: Callable[[], Any]) -> int:
    """Multiply-adds of a step's matrix products, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return counter.get_total_flops() // 2


def quiet() -> None:
    """No progress bars, no accelerator."""
    os.environ.update(TQDM_DISABLE="1", CUDA_VISIBLE_DEVICES="")

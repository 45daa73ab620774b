# pyright: reportMissingImports=false
"""MMVAE+ in the long run: a training loop around multivae's model that stops in time and can be resumed.

`benchmarks.polymnist.long` runs it with the python of an environment that holds multivae. multivae's own trainer cannot resume exactly: its
checkpoints hold the best weights with the optimiser of the last ones. Here the last weights are kept, as the authors keep them, and each
step has its own seed, so that nothing depends on where a run was stopped.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.polymnist.multivae_runner import build, decode
from benchmarks.polymnist.task import VIEWS, Subset, Task, device_name, keep_pictures
from nbridge.common.atomic_files import replacing, write_json

TASK = Task(
    shape=(3, 28, 28), latent_dim=64, beta=2.5, scale=0.75, learning_rate=1e-3,
    encoder_channels=(32, 64), channels=(64, 32), features=128, hidden=128,
)  # fmt: skip
"""The authors' settings; the last line has the sizes of nbridge's default, for `mmvaeplus_conv`."""

Rows = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Colours, zeros where absent, and which rows have each view."""


def model_of(system: str, seed: int) -> Any:
    """The model on the authors' networks, which multivae has, or on those of nbridge's default."""
    task, half = replace(TASK, seed=seed), TASK.latent_dim // 2
    if system == "mmvaeplus_conv":
        return build("mmvaeplus", task)
    from multivae.models.nn.mmnist import DecoderResnetMMNIST, EncoderResnetMMNIST

    return build("mmvaeplus", task, lambda _: EncoderResnetMMNIST(half, half), lambda _: DecoderResnetMMNIST(2 * half))


def batch(rows: Rows, index: Tensor | slice) -> Any:
    """Some rows as multivae takes them, with masks where a view is absent from any of them."""
    data, masks = ({name: x[index] for name, x in part.items()} for part in rows)
    return SimpleNamespace(data=data) if torch.stack(list(masks.values())).all() else SimpleNamespace(data=data, masks=masks)


def train(model: Any, rows: Rows, path: Path, updates: int, deadline: float, seed: int) -> dict[str, Any]:
    """Trains until the number of updates or the time limit is reached, at least one update; incomplete batches are dropped."""
    optimizer = torch.optim.Adam(model.parameters(), lr=TASK.learning_rate, amsgrad=True)
    state: dict[str, Any] = {"done": 0, "seconds": 0.0}
    if path.is_file():
        state = torch.load(path, map_location=model.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    number = len(rows[0][VIEWS[0]])
    size = min(TASK.batch_size, number)
    since, loss, over = time.time(), torch.zeros(()), state["done"] == updates
    while not over:
        epoch, place = divmod(state["done"], number // size)
        order = torch.randperm(number, generator=torch.Generator().manual_seed(seed * 100_003 + epoch))
        torch.manual_seed(seed * 10_000_019 + state["done"])
        loss = model(batch(rows, order[place * size : (place + 1) * size].to(model.device))).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        state["done"] += 1
        over = state["done"] == updates or time.time() > deadline
        # Also every minute, in case the run is killed.
        if over or time.time() > since + 60:
            if not loss.isfinite():
                raise SystemExit(f"update {state['done']}: the loss is {loss.item()}")
            print(f"  update {state['done']:,} of {updates:,}: loss {loss.item() / size:.1f}", flush=True)
            state["seconds"] += time.time() - since
            state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            with replacing(path) as temporary:
                torch.save(state, temporary)
            since = time.time()
    return state


def serve(model: Any, test: Rows, path: Path, seed: int) -> None:
    """Writes the images to be scored."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (multivae draws from it)
    # Few rows at a time: the model draws one of the given views for all of them.
    parts = [batch(test, slice(start, start + 100)) for start in range(0, len(test[0][VIEWS[0]]), 100)]

    def generate(given: Subset, views: Sequence[str]) -> dict[str, Tensor]:
        drawn = [model.encode(part, cond_mod=list(given)) for part in parts]
        return {name: torch.cat([decode(model, z, name).cpu() for z in drawn]) for name in views}

    with torch.no_grad():
        keep_pictures(path, generate, rebuilt=True)


def main() -> None:
    system, name, updates, deadline, seed = sys.argv[1:]
    folder, device = Path(name), torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")  # TF32, if the device supports it
    task = replace(TASK, rows=str(folder / "rows.npz"))

    def rows(part: str) -> Rows:
        values, present = ({view: x.to(device) for view, x in one.items()} for one in task.read(part))
        return values, present

    model = model_of(system, int(seed)).to(device).train()
    model.device = device
    state = train(model, rows("train"), folder / f"{system}.pt", int(updates), float(deadline), int(seed))
    if state["done"] == int(updates):
        serve(model.eval(), rows("test"), folder / f"{system}.npz", int(seed))
        write_json(folder / f"{system}.json", {"updates": state["done"], "seconds": round(state["seconds"]), "device": device_name()})


if __name__ == "__main__":
    main()

"""What one of several processes does in `test_distributed`; started with the variables that torchrun sets.

ranks work FOLDER memory    gradients, statistics, parts of batches and a training without noise, written to FOLDER
ranks work FOLDER network   gradients and statistics alone, between processes that share no memory
ranks nbridge ...           the command line without shared memory, where the process of rank 1 fails in epoch 3
"""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import torch
from processes import share_fork_server
from processes import work as run_program
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import Normal

import nbridge
from nbridge.acceleration import shared_memory
from nbridge.acceleration.distributed import World, join_processes
from nbridge.acceleration.gradients import shared_loss
from nbridge.acceleration.normalisation import synchronised
from nbridge.data.batch import Batch
from nbridge.models import joint
from nbridge.models.base import MultimodalVAE
from nbridge.models.joint import JointVAE
from nbridge.nn import distributions
from nbridge.nn.networks import StackedBatchNorm, StackedMLP
from nbridge.training import stage_rows
from nbridge.training.records import EpochRecord
from nbridge.training.stage import StageRun
from nbridge.training.trainer import fit, only_trainable

ROWS = 24
MODALITIES = {
    "a": {"shape": 3, "features": 8, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "normal"},
    "b": {"shape": [1, 4, 4], "features": 6, "encoder": {"type": "conv", "channels": [4]}, "likelihood": "bernoulli"},
    "c": {"shape": 4, "features": 8, "encoder": {"type": "mlp", "hidden": [8]}, "likelihood": "categorical"},
}
ALL_TERMS = {"type": "mlp", "hidden": [8], "objective": {"elbo": 1, "distill": 0.5, "match": 0.1, "cross": 2}}
# Without random parts of rows: processes draw others than one process does, and the same figures are asked of both.
STILL = {"type": "bridged", "coupling": 0, "leave_one_out": 0, "contrast": 0}
SYSTEMS = {
    "bridged": {"model": STILL, "bridges": {**ALL_TERMS, "encoders": "shared", "subsets": "singletons"}},
    "bridged, own encoders": {"model": STILL, "bridges": {**ALL_TERMS, "encoders": "own", "subsets": "singletons"}},
    "telbo": {"model": {"type": "telbo", "one_stage": True}},
    "telbo_apart": {"model": "telbo"},
    "jmvae": {"model": "jmvae"},
    "mvae": {"model": {"type": "mvae", "random_subsets": 0}},
    "bivcca": {"model": "bivcca"},
}


def spec_of(system: str) -> nbridge.Spec:
    stages = {"joint": {"epochs": 4}, "bridges": {"epochs": 4}}
    training = {"batch_size": 24, "gradient_clip": 50.0, "stages": stages}
    return nbridge.Spec.model_validate(
        {"latent_dim": 4, "modalities": MODALITIES, "fusion": {"hidden": [8]}, "training": training, **SYSTEMS[system]}
    )


def rows(number: int, *, complete: bool) -> Batch:
    generator = torch.Generator().manual_seed(5)
    c = torch.randint(0, 4, (number,), generator=generator)
    a = torch.randn(number, 3, generator=generator) + c[:, None]
    b = ((torch.rand(number, 1, 4, 4, generator=generator) + c[:, None, None, None] / 4) > 0.8).float()
    batch = Batch.complete({"a": a, "b": b, "c": c})
    if complete:
        return batch
    present = {name: torch.rand(number, generator=generator) < 0.6 for name in batch.names}
    # In the first quarter every row is complete: a process may see nothing absent where others do.
    return Batch(batch.values, {name: mask | (torch.arange(number) < number // 4) for name, mask in present.items()})


def without_noise() -> None:
    for kind in (Normal, distributions._SeededNormal):
        kind.rsample = lambda self, sample_shape=torch.Size(): self.loc.expand(self._extended_shape(sample_shape))
    # The first modality that a row has, in the place of a random part of it.
    joint.random_subset = lambda present: present & (present.cumsum(0) == 1)


def build(system: str) -> MultimodalVAE:
    return nbridge.build_model(spec_of(system), seed=3)


def gradients(world: World) -> dict[str, Tensor]:
    """Gradients, running statistics and terms of one step of every stage, of all processes together."""
    found: dict[str, Tensor] = {}
    for system in SYSTEMS:
        model = build(system)
        for stage in model.stages():
            batch = model.prepare(rows(4 * ROWS, complete=False))
            batch = batch.index(stage.rows(batch))
            own = batch.index(world.shard(torch.arange(len(batch) - len(batch) % 2)))
            with only_trainable(model, stage.modules), synchronised(model, world):
                for module in stage.modules:
                    module.train()
                loss = shared_loss(stage.loss, stage.modules, world, complete=False)
                with torch.no_grad():
                    features = stage.features(own) if stage.features else {}
                terms = loss(own, features, 1.0)
                torch.stack(list(terms.values())).sum().backward()
                for name, parameter in model.named_parameters():
                    if parameter.grad is not None:
                        found[f"{system}/{stage.name}/gradient/{name}"] = parameter.grad.clone()
                for name, buffer in model.named_buffers():
                    found[f"{system}/{stage.name}/buffer/{name}"] = buffer.clone()
                mean = world.total(torch.stack([term.detach() for term in terms.values()])) / world.size
                found |= {f"{system}/{stage.name}/term/{name}": term.clone() for name, term in zip(terms, mean, strict=True)}
                model.zero_grad()
    return found


def normalised(world: World) -> dict[str, Tensor]:
    """Outputs, gradients and statistics of normalisations alone, for rows far from zero, with and without marks."""
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(1)
    inputs = 1000 + torch.randn(3, 12, 5, generator=generator, dtype=torch.float64)
    marks = torch.rand(3, 12, generator=generator) < 0.5
    marks[1] = False  # too few rows: running statistics take over
    marks[0, :6] = True  # the first process counts all of its rows of map 0
    factor = torch.randn(3, 12, 5, generator=generator, dtype=torch.float64)
    part = world.shard(torch.arange(12))
    cases = {"all": None, "some": marks, "images": None, "average": None}
    for case, counts in cases.items():
        layer: nn.Module = StackedBatchNorm(3, 5).double()
        x, weight = inputs[:, part], factor[:, part]
        if case in ("images", "average"):
            layer = nn.BatchNorm2d(3, momentum=None if case == "average" else 0.1, affine=case == "images").double()
            x, weight = x.transpose(0, 1)[..., None], weight.transpose(0, 1)[..., None]
        x = x.clone().requires_grad_()
        with synchronised(layer, world):
            y = layer(x) if counts is None else layer(x, counts[:, part])
            (y * weight).sum().backward()
            layer.eval()
            served = layer(x)
        tensors = {"y": y, "x.grad": x.grad, "served": served} | {name: p.grad for name, p in layer.named_parameters()}
        found |= {f"{case}/{name}": tensor.detach().contiguous() for name, tensor in tensors.items()}
        found |= {f"{case}/{name}": buffer.clone() for name, buffer in layer.named_buffers()}
    return found


class Recorded(JointVAE):
    """Writes down which rows each step sees; the first number of modality ``a`` is the row's own."""

    def _joint_loss(self, batch: Batch, features: object, kl_weight: float) -> dict[str, Tensor]:
        if self.encoders.training:
            self.seen.append(batch.values["a"][:, 0].int().tolist())
        return super()._joint_loss(batch, features, kl_weight)


def parts_of_batches(world: World) -> list[list[int]]:
    """The rows of each step of three epochs of four steps, over 50 rows."""
    base = build("bridged")
    model = Recorded(base.encoders, base.decoders, base.fusion)
    model.seen = []
    batch = rows(50, complete=True)
    batch.values["a"][:, 0] = torch.arange(50)
    settings = nbridge.TrainingSpec.model_validate({"batch_size": 12, "stages": {"joint": {"epochs": 3}}})
    fit(model, batch, None, settings, world=world)
    return model.seen


def still_biases(model: nn.Module) -> None:
    """Freezes what normalisation takes away again: Adam would walk at random along it, by the last bits of gradients that are zero."""
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            for layer, following in pairwise(module):
                if isinstance(following, nn.BatchNorm1d | nn.BatchNorm2d):
                    layer.bias.requires_grad_(False)
        if isinstance(module, StackedMLP):
            for linear in module.linears[: len(module.norms)]:
                linear.bias.requires_grad_(False)


def curve(world: World, *, complete: bool, updates: int | None = None) -> list[dict[str, object]]:
    """The records of a training without noise, by epochs or, with a budget in updates, by rounds."""
    records: list[EpochRecord] = []
    model = build("bridged")
    still_biases(model)
    settings = spec_of("bridged").training
    if updates is not None:
        settings = nbridge.TrainingSpec.model_validate({"batch_size": 24, "gradient_clip": 50.0, "updates": updates, "patience": 3})
    stage_rows.CHUNK = 16  # several chunks of validation rows, and an odd number of them
    fit(model, rows(120, complete=complete), rows(40, complete=complete), settings, log=records.append, world=world)
    return [{key: value for key, value in record.as_dict().items() if key != "seconds"} for record in records]


def without_shared_memory() -> None:
    shared_memory.DIRECTORY = Path("/no/such/place")


def work(folder: Path, way: str) -> None:
    without_noise()
    if way == "network":
        without_shared_memory()
    with join_processes() as world:
        assert (world.memory is None) == (way == "network")
        save_file(gradients(world), folder / f"gradients{world.rank}.safetensors")
        save_file(normalised(world), folder / f"normalised{world.rank}.safetensors")
        if way == "memory":
            told = {"parts": parts_of_batches(world), "complete": curve(world, complete=True), "some": curve(world, complete=False)}
            told["updates"] = curve(world, complete=False, updates=12)
            (folder / f"told{world.rank}.json").write_text(json.dumps(told))


def failing_command() -> None:
    from nbridge.cli.main import main

    keep_best = StageRun._keep_best

    def fail(self: StageRun, score: float | None) -> bool:
        if os.environ["RANK"] == "1" and self.state.epoch == 3:
            raise ZeroDivisionError("of all things")
        return keep_best(self, score)

    StageRun._keep_best = fail
    without_shared_memory()
    main()


def command(environment: dict[str, str], folder: str, streams: list[str], *arguments: str) -> None:
    from nbridge.cli.main import main

    launcher = {name: value for name, value in os.environ.items() if name not in environment}
    run_program(main, ["nbridge", *arguments], {**environment, **launcher}, folder, *streams)


def launched() -> None:
    """What torchrun does, but that its processes are forked by the fork server in place of started anew."""
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    share_fork_server(sys.argv[0])
    here = ("--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--nproc-per-node", "2", "-m", "nbridge")
    config, _, _ = config_from_args(parse_args([*here, *sys.argv[1:]]))
    config.start_method = "forkserver"
    streams = [str(Path(f"/proc/self/fd/{number}").readlink()) for number in (1, 2)]
    elastic_launch(config, command)(dict(os.environ), str(Path.cwd()), streams, *sys.argv[1:])


def main() -> None:
    verb = sys.argv.pop(1)
    work(Path(sys.argv[1]), sys.argv[2]) if verb == "work" else failing_command()

"""`evaluate.py transfer`: attacks made on each of several networks and shown to all of them, as a matrix."""

import hashlib
import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from analysis.report import write_report
from analysis.transfer import figure, table
from attacks import Attack
from cli.members import common_classes, common_data, divided, named
from cli.names import UsageError, resolve
from cli.parser import read_suite
from cli.processes import device_of
from cli.progress import Progress, duration
from cli.settings import OPTIONS, Settings
from cli.targets import Target, refusing, target_at
from datamodules.pixels import unit_range
from defenses import is_random
from defenses.randomness import has_shared_draws
from evaluation import Cost, Records, Setting, aligned, rows_of
from evaluation.records import write_atomically
from evaluation.sessions import environment, note_session
from evaluation.transfer import Matrix, cells, matrices

_TAKEN = ("--suite", "--eps", "--n", "--draws", "--split", "--batch_size", "--seed", "--out")
_MOST = 500  # images, where no number is asked for: each attack is made once for every network
_TRIED = 32  # images in the passes that are timed before anything begins


@dataclass(frozen=True)
class _Job:
    """One transfer, ready to be run.

    Attributes:
        words: the command line that said so.
        split: images and labels, by index.
        classes: how many.
        matrix: what is done to a batch.
        device: where.
        environment: hardware and versions, as JSON values.
    """

    words: tuple[str, ...]
    split: Any
    classes: int
    matrix: Matrix
    device: torch.device
    environment: dict[str, Any]

    @property
    def records(self) -> Records:
        return self.matrix.records

    @property
    def n(self) -> int:
        return int(self.records.manifest["n"])

    @property
    def attacks(self) -> int:
        """Attacks on an image: each on each network."""
        return len(self.matrix.models) * len(self.matrix.attacks)

    @property
    def batches(self) -> list[list[int]]:
        """Indices of the images of each batch."""
        size = int(self.records.manifest["batch_size"])
        return [list(range(first, min(first + size, self.n))) for first in range(0, self.n, size)]

    def images(self, chosen: list[int]) -> tuple[Tensor, Tensor]:
        """Images [B, C, H, W] in [0, 1] and labels [B], on the device."""
        return _images(self.split, chosen, self.device)


def main(words: list[str]) -> None:
    """Run the command.

    Args:
        words: those after `transfer`: two or more networks, each a run or RECIPE=WEIGHTS_FILE, and options.

    Raises:
        UsageError: fewer than two networks are named, one is not there, they do not belong together, or an option is
            wrong or not for this command.
    """
    places, options = divided(words)
    if len(places) < 2:
        raise UsageError(f"transfer takes at least two networks, each RUN or RECIPE=WEIGHTS, got {len(places)}")
    if foreign := [one for one in (word.partition("=")[0] for word in options) if one in OPTIONS and one not in _TAKEN]:
        raise UsageError(f"transfer takes no {foreign[0]}; it takes {', '.join(_TAKEN)}")
    settings = Settings.of(words, resolve(options, take=_TAKEN).taken)
    if settings.suite is None or len(settings.radii) > 1:
        raise UsageError("transfer takes a suite with attacks, and one radius at most")
    attacks = read_suite(settings.suite, settings.radii[0] if settings.radii else None)
    targets = named([target_at(place, options, _TAKEN) for place in places])
    # A GPU would round the factors of convolutions to 10 bits (TF32); reported numbers are float32.
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    job = _prepared(targets, attacks, settings)
    with refusing(job.records.claim):
        note_session(job.records.folder, job.environment)
        _announce(job)
        _run(job)
        _report(job)


def _prepared(targets: dict[str, Target], attacks: dict[str, Attack], settings: Settings) -> _Job:
    first = next(iter(targets.values()))
    data = common_data(targets, settings.split)
    split = refusing(first.cli.datamodule.split, settings.split)
    n = settings.n or min(_MOST, len(split))
    if n > len(split):
        raise UsageError(f"--n {n}: the {settings.split} split has {len(split)} images")
    device = device_of(first.cli.config_init.trainer, "transfer")
    models = {name: _on(target.network, device) for name, target in targets.items()}
    classes = common_classes(models, _images(split, [0], device)[0])
    draws = {name: (settings.draws or 100) if is_random(model) else 1 for name, model in models.items()}
    manifest = {
        "adversaries": cells(list(targets), list(attacks)),
        "attacks": {name: repr(attack) for name, attack in attacks.items()},
        "batch_size": settings.batch_size or (100 if device.type == "cpu" else 500),
        "data": data,
        "n": n,
        "networks": [_facts(name, target, draws[name]) for name, target in targets.items()],
        "seed": settings.seed,
        "split": settings.split,
    }
    matrix = Matrix(models, attacks, _records(settings, manifest), settings.seed, draws)
    return _Job(settings.words, split, classes, matrix, device, environment(device, devices=1))


def _images(split: Any, chosen: list[int], device: torch.device) -> tuple[Tensor, Tensor]:
    pixels, labels = split[chosen]
    x = unit_range(pixels.to(device))
    return x.contiguous(memory_format=torch.channels_last), labels.to(device)


def _on(network: nn.Module, device: torch.device) -> nn.Module:
    moved: nn.Module = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def _facts(name: str, target: Target, draws: int) -> dict[str, Any]:
    return {
        "name": name,
        "draws": draws,
        "model": target.cli.config.model.init_args.network.as_dict(),
        "random": is_random(target.network),
        "recipe": target.recipe,
        "shared": has_shared_draws(target.network),
        "weights_sha256": hashlib.sha256(target.source.read_bytes()).hexdigest(),
    }


def _records(settings: Settings, manifest: dict[str, Any]) -> Records:
    """The folder of this transfer: the same command finds it again."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{settings.suite.stem if settings.suite else ''}_{settings.split}{manifest['n']}_{digest}"
    folder = settings.out or Path("runs") / "transfer" / name
    records: Records = refusing(Records, folder, manifest)
    for part in records.dropped:
        print(f"{folder / part}: was damaged and is done again", file=sys.stderr)
    return records


def _announce(job: _Job) -> None:
    """Say what this costs before it begins, and how much of it is done."""
    matrix, batches = job.matrix, job.batches
    x, _ = job.images(list(range(min(job.n, _TRIED))))
    costs = matrix.expected(x, job.classes)
    each = sum(costs.values(), Cost())
    attacks = f"{len(matrix.attacks)} attack{'s' if len(matrix.attacks) > 1 else ''}"
    print(f"{job.n} images, {attacks} on each of {len(matrix.models)} networks, shown to all of them")
    passes = f"about {each.forward:,} passes an image, {each.gradient:,} of them with a gradient"
    print(f"{passes}; {each.forward * job.n:,} in all")
    if done := _done(job):
        print(f"{done:,} of {job.n * job.attacks:,} attacked images are done already")
    left = sum(
        len(chosen) * costs[name].seconds for number, chosen in enumerate(batches) for name in matrix.missing(number)
    )
    print(f"about {duration(left)} on {job.environment['device_name']}, before the report", flush=True)


def _done(job: _Job) -> int:
    """Attacked images, each under each attack counted, that all networks have judged."""
    return sum(
        len(chosen) * sum(name != "clean" for name in set(job.matrix.adversaries) - set(job.matrix.missing(number)))
        for number, chosen in enumerate(job.batches)
    )


def _run(job: _Job) -> None:
    progress = Progress(job.n * job.attacks, "attacked images", _done(job))
    for number, chosen in enumerate(job.batches):
        if not (missing := job.matrix.missing(number)):
            continue
        images = job.images(chosen)
        for name in missing:
            job.matrix.examine(name, number, chosen[0], images)
            progress.advance(len(chosen) if name != "clean" else 0, name)
    progress.close()


def _report(job: _Job) -> None:
    """The matrices, printed, drawn and written, from the table and nothing else."""
    records, manifest = job.records, job.records.manifest
    records.check(job.n)
    per_image, cost = records.finish(), records.cost()
    settings = {
        one["name"]: Setting(one["random"], one["shared"], seed=manifest["seed"]) for one in manifest["networks"]
    }
    found = matrices(rows_of(records.table()), list(job.matrix.attacks), settings)
    results = {
        "transfer": found,
        "manifest": manifest,
        "environment": job.environment,
        "command": f"python evaluate.py transfer {shlex.join(job.words)}",
        "cost": {"forward": cost.forward, "backward": cost.gradient, "seconds": cost.seconds},
    }
    path, drawing = records.folder / "results.json", records.folder / "transfer.svg"
    write_atomically(path, f"{json.dumps(results, indent=2, allow_nan=False)}\n".encode())
    for attack, matrix in found.items():
        print(f"\n{attack}: accuracy in % [95 % interval], attack made on the row, shown to the column; n = {job.n}")
        print(aligned(table(matrix)))
    print(f"\n{cost.forward:,} passes, {cost.gradient:,} of them with a gradient: {duration(cost.seconds)}")
    figure(found).savefig(drawing)
    for file in (per_image, path, drawing, write_report(records.folder)):
        print(f"wrote {file}")

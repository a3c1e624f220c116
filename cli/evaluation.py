"""One evaluation from beginning to end: plan, attack and judge, numbers, checks, report."""

import hashlib
import json
import platform
import shlex
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import date
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch

from analysis.report import write_report
from attacks import Attack
from callbacks import EndOnSigterm, Requeue, at_radii
from cli.checks import checked
from cli.evaluator import Evaluator, Work
from cli.names import UsageError, changed
from cli.parser import read_suite
from cli.processes import no_survivors, slurm_job, trainer_of
from cli.progress import duration
from cli.settings import Settings
from cli.targets import Target, refusing
from defenses import Stream, drawing_from, is_random
from defenses.randomness import has_shared_draws
from evaluation import Cost, Records, format_table, numbers_of, per_image, rows_of, setting_of, timed, write_results
from evaluation.checks import format_checks

if TYPE_CHECKING:
    import pytorch_lightning as pl

_TRIED = 32  # images in the passes that are timed before an evaluation begins


@dataclass(frozen=True)
class Job:
    """One evaluation, ready to be run."""

    target: Target
    settings: Settings
    attacks: dict[str, Attack]
    split: Any
    records: Records
    trainer: "pl.Trainer"
    surrogate: Target | None

    @property
    def n(self) -> int:
        """Images at most."""
        return int(self.records.manifest["n"])


def evaluate(target: Target, settings: Settings, surrogate: Target | None = None) -> None:
    """Evaluate, on as many devices as asked for, and print the table."""
    # A GPU would round the factors of convolutions to 10 bits (TF32); reported numbers are float32.
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    job = _prepared(target, settings, surrogate)
    first = job.trainer.is_global_zero
    with refusing(job.records.claim) if first else nullcontext():
        work, costs = _planned(job)
        if first:
            _announce(job, work, costs)
        with no_survivors(job.trainer):
            job.trainer.test(Evaluator(target.network, job.split, job.attacks, job.records, work), verbose=False)
            job.trainer.strategy.barrier()  # nobody reads the table before all have written
        if first:
            _conclude(job)


def _prepared(target: Target, settings: Settings, surrogate: Target | None) -> Job:
    attacks, radii = _attacks(settings)
    split = refusing(target.cli.datamodule.split, settings.split)
    if settings.n is not None and settings.n > len(split):
        raise UsageError(f"--n {settings.n}: the {settings.split} split has {len(split)} images")
    trainer = trainer_of(
        {
            **target.cli.config_init.trainer,
            "precision": "32-true",
            "logger": False,
            "callbacks": [Requeue(None) if slurm_job() else EndOnSigterm()],
            "enable_checkpointing": False,
            "enable_progress_bar": False,  # the evaluator has one that counts images
        }
    )
    manifest = _manifest(target, settings, attacks, radii, settings.n or len(split), trainer)
    return Job(target, settings, attacks, split, _records(target, settings, manifest), trainer, surrogate)


def _attacks(settings: Settings) -> tuple[dict[str, Attack], dict[str, dict[str, float]]]:
    """The suite's attacks by name; where several radii are asked for, each at each of them."""
    if settings.suite is None:
        return {}, {}
    found: tuple[dict[str, Attack], dict[str, dict[str, float]]] = refusing(
        at_radii, read_suite(settings.suite, None), settings.radii
    )
    return found


def _manifest(
    target: Target,
    settings: Settings,
    attacks: dict[str, Attack],
    radii: dict[str, dict[str, float]],
    n: int,
    trainer: "pl.Trainer",
) -> dict[str, Any]:
    """All that the numbers depend on."""
    data, random = target.cli.config.data, is_random(target.network)
    arguments = {k: v for k, v in data.init_args.as_dict().items() if k in ("val_images", "seed")}
    draws = settings.draws or (100 if random else 1)
    if settings.votes > draws:
        raise UsageError(f"--votes {settings.votes}: the judge asks only {draws} times; add --draws {settings.votes}")
    return {
        "adversaries": ["clean", *attacks],
        "attacks": {name: repr(attack) for name, attack in attacks.items()},
        "bounded": [name for name, attack in attacks.items() if getattr(attack, "ball", None) is not None],
        "batch_size": settings.batch_size or _batch_size(settings, trainer),
        "data": {"class_path": data.class_path, **(arguments if settings.split != "test" else {})},
        "draws": draws,
        "early_exit": settings.early_exit and not random,
        "keep": min(n, settings.keep),
        "model": target.cli.config.model.init_args.network.as_dict(),
        "n": n,
        "radii": radii,
        "random": random,
        "recipe": target.recipe,
        "seed": settings.seed,
        "shared": has_shared_draws(target.network),
        "split": settings.split,
        "votes": settings.votes,
        "weights_sha256": hashlib.sha256(target.source.read_bytes()).hexdigest(),
    }


def _batch_size(settings: Settings, trainer: "pl.Trainer") -> int:
    # A batch is what a killed evaluation loses, and what a budget is filled with. A GPU wants larger ones.
    if settings.budget is not None:
        return 20
    return 100 if trainer.strategy.root_device.type == "cpu" else 500


def _records(target: Target, settings: Settings, manifest: dict[str, Any]) -> Records:
    """The folder of this evaluation: the same command finds it again, another one gets another."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]
    name = settings.suite.stem if settings.suite else "clean"
    folder = settings.out or target.folder / "evaluations" / f"{name}_{settings.split}{manifest['n']}_{digest}"
    records: Records = refusing(Records, folder, manifest)
    for part in records.dropped:
        print(f"{folder / part}: was damaged and is done again", file=sys.stderr)
    return records


def _planned(job: Job) -> tuple[Work, dict[str, Cost]]:
    """What an image costs under each adversary, measured on this device, and the work that follows."""
    manifest, device = job.records.manifest, job.trainer.strategy.root_device
    network = job.target.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    few = [job.split[i][0] for i in range(min(job.n, _TRIED))]
    x = torch.stack(few).to(device)
    x = x if x.is_floating_point() else x.float() / 255
    with drawing_from(Stream.named("timed")):
        forward, gradient = timed(network, x.contiguous(memory_format=torch.channels_last))
    attacked = per_image(network, job.attacks, x[0], job.target.cli.datamodule.num_classes)
    judged = Cost(forward=manifest["draws"])
    costs = {"clean": judged, **{name: cost + judged for name, cost in attacked.items()}}
    seconds = {
        name: (cost.forward - cost.gradient) * forward + cost.gradient * gradient for name, cost in costs.items()
    }
    until = None if job.settings.budget is None else time.monotonic() + job.settings.budget
    work = Work(
        n=job.n,
        batch_size=manifest["batch_size"],
        seed=manifest["seed"],
        draws=manifest["draws"],
        early_exit=manifest["early_exit"],
        keep=manifest["keep"],
        seconds=seconds,
        until=until,
    )
    return work, costs


def _announce(job: Job, work: Work, costs: dict[str, Cost]) -> None:
    """Say what this costs before it begins.

    Raises:
        UsageError: the budget is too small for a single batch.
    """
    each = sum(costs.values(), Cost())
    done = len(job.records.complete()) * work.batch_size
    left, processes = max(job.n - done, 0), job.trainer.world_size
    seconds = sum(work.seconds.values())
    passes = f"about {each.forward:,} passes an image, {each.gradient:,} of them with a gradient"
    print(f"{job.n} images, {len(costs)} adversaries: {passes}; {each.forward * job.n:,} in all")
    if done:
        print(f"{min(done, job.n)} images are done already")
    most = " at most" if work.early_exit else ""
    where = f"{processes} x {_device_name(job.trainer)}"
    print(f"about {duration(left * seconds / processes)}{most} on {where}, before checks and report", flush=True)
    if (budget := job.settings.budget) is None:
        return
    if left and (batch := min(work.batch_size, left) * seconds) > budget:
        raise UsageError(
            f"--budget {budget:g}s: one batch of {work.batch_size} images takes about {batch:.0f} s; "
            "allow more, or take a smaller --batch_size or another --suite"
        )
    print(f"budget {duration(budget)}: about {min(left, int(budget / seconds) * processes)} images", flush=True)


def _conclude(job: Job) -> None:
    """Everything from the table: the printed numbers and results.json."""
    records = job.records
    if job.settings.budget is None:
        records.check(job.n)
    per_image_file = records.finish()
    table = records.table(complete=True)
    if not table.num_rows:
        raise UsageError(f"--budget {job.settings.budget:g}s: no batch was done in time; the same command goes on")
    rows = rows_of(table)
    # Lightning leaves the network on the CPU.
    network = job.target.network.to(job.trainer.strategy.root_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    surrogate = job.surrogate.network if job.surrogate else None
    level = job.settings.checks if job.attacks else "none"
    checks = checked(network, job.split, job.attacks, records, rows, level, surrogate)
    numbers = numbers_of(rows, setting_of(records.manifest), records.manifest["radii"])
    n, cost = numbers.summaries[0].n, records.cost()
    results = write_results(
        records.folder,
        numbers,
        records.manifest,
        environment=_environment(job.trainer),
        command=f"python evaluate.py {shlex.join(job.settings.words)}",
        checks=[asdict(check) for check in checks],
        cost={"forward": cost.forward, "backward": cost.gradient, "seconds": cost.seconds},
    )
    print(format_table(numbers.summaries, _caption(job, n), numbers.worst_case))
    rate = f"{cost.forward / cost.seconds:.0f} a second and device" if cost.seconds else "not timed"
    print(f"{cost.forward:,} passes, {cost.gradient:,} of them with a gradient: {rate}")
    if checks:
        print(f"\n{format_checks(checks)}\n")
    if job.settings.wandb:
        from callbacks.wandb_evaluation import log_evaluation  # imports wandb

        log_evaluation(
            records.folder, f"{job.target.recipe}/{records.folder.name}", job.target.recipe, job.target.source
        )
    print(f"wrote {per_image_file}\nwrote {results}\nwrote {write_report(records.folder)}")
    print(f"next: python evaluate.py {shlex.join(_next(job, n))}")


def _next(job: Job, done: int) -> list[str]:
    if done < job.n:
        return list(job.settings.words)
    seed = job.settings.seed + 1
    elsewhere = {"--out": f"{job.settings.out}_seed{seed}"} if job.settings.out else {}
    return changed(job.settings.words, {"--seed": str(seed), **elsewhere})


def _caption(job: Job, n: int) -> str:
    manifest = job.records.manifest
    data, draws = manifest["data"]["class_path"].rsplit(".", 1)[-1], manifest["draws"]
    passes = f"{draws} judge draws per image" if draws > 1 else "1 pass per image"
    source = f"{job.target.recipe} ({job.target.source})"
    head = f"{source}, {data} {manifest['split']}, n = {n}, {passes}, seed {manifest['seed']}"
    return "\n".join(["", head, *(f"{name}: {attack}" for name, attack in job.attacks.items())])


def _device_name(trainer: "pl.Trainer") -> str:
    device = trainer.strategy.root_device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"


def _environment(trainer: "pl.Trainer") -> dict[str, Any]:
    return {
        "date": date.today().isoformat(),
        "device": str(trainer.strategy.root_device),
        "device_name": _device_name(trainer),
        "devices": trainer.world_size,
        "machine": platform.machine(),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "pytorch_lightning": version("pytorch-lightning"),
        "threads": torch.get_num_threads(),
        "torch": version("torch"),
    }

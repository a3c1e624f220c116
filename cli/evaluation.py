"""One evaluation from beginning to end: plan, attack and judge, numbers, checks, report."""

import shlex
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from analysis.report import write_report
from cli.checks import checked, expected
from cli.evaluator import Evaluator, Work
from cli.job import Job, prepared
from cli.names import UsageError, changed
from cli.processes import no_survivors
from cli.progress import duration
from cli.settings import Settings
from cli.targets import Target, refusing
from datamodules.pixels import unit_range
from defenses import Stream, drawing_from
from evaluation import Cost, Numbers, format_table, numbers_of, per_image, rows_of, setting_of, timed, write_results
from evaluation.checks import Check, format_checks
from evaluation.sessions import environment

if TYPE_CHECKING:
    import pytorch_lightning as pl

_TRIED = 32  # images in the passes that are timed before an evaluation begins
_MOST_FOR_CHECKS = 1 / 3  # of a budget


@dataclass(frozen=True)
class Plan:
    """What is going to be done, and what it is likely to take.

    Attributes:
        work: for the attacks and the judge.
        costs: of an image, by adversary.
        checks: cost of all checks, `seconds` among it.
        until: `time.monotonic()` when the budget ends; None: no budget.
    """

    work: Work
    costs: dict[str, Cost]
    checks: Cost
    until: float | None


def evaluate(target: Target, settings: Settings, surrogate: Target | None = None) -> None:
    """Evaluate, on as many devices as asked for, and print the table."""
    # A GPU would round the factors of convolutions to 10 bits (TF32); reported numbers are float32.
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    job = prepared(target, settings, surrogate)
    first = job.trainer.is_global_zero
    with refusing(job.records.claim) if first else nullcontext():
        plan = _planned(job)
        if first:
            _announce(job, plan)
        with no_survivors(job.trainer):
            job.trainer.test(Evaluator(target.network, job.split, job.attacks, job.records, plan.work), verbose=False)
            job.trainer.strategy.barrier()  # nobody reads the table before all have written
        if first:
            _conclude(job, plan)


def _planned(job: Job) -> Plan:
    """What an image costs under each adversary, measured on this device, and the work that follows."""
    manifest, device = job.records.manifest, job.trainer.strategy.root_device
    network = job.target.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    few = [job.split[i][0] for i in range(min(job.n, _TRIED))]
    x = unit_range(torch.stack(few).to(device))
    with drawing_from(Stream.named("timed")):
        forward, gradient = timed(network, x.contiguous(memory_format=torch.channels_last))

    def seconds(cost: Cost) -> float:
        return (cost.forward - cost.gradient) * forward + cost.gradient * gradient

    judged = Cost(forward=manifest["draws"])
    attacked = per_image(network, job.attacks, x[0], job.target.cli.datamodule.num_classes)
    costs = {"clean": judged, **{name: cost + judged for name, cost in attacked.items()}}
    surrogate = job.surrogate.network if job.surrogate else None
    checks = expected(network, job.attacks, x[0].shape, manifest, job.checks, surrogate)
    checks = replace(checks, seconds=seconds(checks))
    until = None if job.settings.budget is None else time.monotonic() + job.settings.budget
    work = Work(
        n=job.n,
        batch_size=manifest["batch_size"],
        seed=manifest["seed"],
        draws=manifest["draws"],
        early_exit=manifest["early_exit"],
        keep=manifest["keep"],
        seconds={name: seconds(cost) for name, cost in costs.items()},
        until=None if until is None else until - _reserved(job, checks),
    )
    return Plan(work, costs, checks, until)


def _reserved(job: Job, checks: Cost) -> float:
    """Seconds of the budget that are kept for the checks."""
    return min(checks.seconds, _MOST_FOR_CHECKS * (job.settings.budget or 0))


def _announce(job: Job, plan: Plan) -> None:
    """Say what this costs before it begins.

    Raises:
        UsageError: the budget is too small for a single batch.
    """
    work, checks = plan.work, plan.checks
    each = sum(plan.costs.values(), Cost())
    done = len(job.records.complete()) * work.batch_size
    left, processes = max(job.n - done, 0), job.trainer.world_size
    seconds = sum(work.seconds.values())
    passes = f"about {each.forward:,} passes an image, {each.gradient:,} of them with a gradient"
    print(f"{job.n} images, {len(plan.costs)} adversaries: {passes}; {each.forward * job.n:,} in all")
    if done:
        print(f"{min(done, job.n)} images are done already")
    most = " at most" if work.early_exit else ""
    where = f"{processes} x {_device_name(job.trainer)}"
    print(f"about {duration(left * seconds / processes)}{most} on {where}, before checks and report", flush=True)
    if checks.forward:
        passes = f"about {checks.forward:,} passes{most}, {checks.gradient:,} of them with a gradient"
        print(f"checks ({job.checks}): {passes}; about {duration(checks.seconds)}{most}", flush=True)
    _announce_budget(job, plan, left, seconds)


def _announce_budget(job: Job, plan: Plan, left: int, seconds: float) -> None:
    """How far the budget goes; `seconds`: of an image under all adversaries."""
    if (budget := job.settings.budget) is None:
        return
    kept = _reserved(job, plan.checks)
    saying = f", {duration(kept)} of it kept for the checks" if kept else ""
    if left and (batch := min(plan.work.batch_size, left) * seconds) > budget - kept:
        raise UsageError(
            f"--budget {budget:g}s{saying}: one batch of {plan.work.batch_size} images takes about {batch:.0f} s; "
            "allow more, or take a smaller --batch_size or another --suite"
        )
    images = min(left, int((budget - kept) / seconds) * job.trainer.world_size)
    print(f"budget {duration(budget)}{saying}: about {images} images", flush=True)


def _conclude(job: Job, plan: Plan) -> None:
    """Everything from the table: the printed numbers, results.json and the report; then the checks, and both again."""
    records = job.records
    if job.settings.budget is None:
        records.check(job.n)
    per_image_file = records.finish()
    table = records.table(complete=True)
    if not table.num_rows:
        raise UsageError(f"--budget {job.settings.budget:g}s: no batch was done in time; the same command goes on")
    rows = rows_of(table)
    numbers = numbers_of(rows, setting_of(records.manifest), records.manifest["radii"])
    n = numbers.summaries[0].n
    # Before the checks: whatever happens to them, the numbers are there.
    written = _written(job, numbers, [])
    _print_numbers(job, numbers)
    # Lightning leaves the network on the CPU.
    network = job.target.network.to(job.trainer.strategy.root_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    surrogate = job.surrogate.network if job.surrogate else None
    checks = checked(network, job.split, job.attacks, records, rows, job.checks, surrogate, plan.until)
    if checks:
        written = _written(job, numbers, checks)
        print(f"\n{format_checks(checks)}\n")
    if job.settings.wandb:
        from callbacks.wandb_evaluation import log_evaluation  # imports wandb

        log_evaluation(
            records.folder, f"{job.target.recipe}/{records.folder.name}", job.target.recipe, job.target.source
        )
    print("\n".join(f"wrote {path}" for path in (per_image_file, *written)))
    print(f"next: python evaluate.py {shlex.join(_next(job, n))}")


def _written(job: Job, numbers: Numbers, checks: list[Check]) -> tuple[Path, Path]:
    """results.json and report.html, with these checks."""
    cost = job.records.cost()
    results = write_results(
        job.records.folder,
        numbers,
        job.records.manifest,
        environment=environment(job.trainer.strategy.root_device, job.trainer.world_size),
        command=f"python evaluate.py {shlex.join(job.settings.words)}",
        checks=[asdict(check) for check in checks],
        cost={"forward": cost.forward, "backward": cost.gradient, "seconds": cost.seconds},
    )
    return results, write_report(job.records.folder)


def _print_numbers(job: Job, numbers: Numbers) -> None:
    cost = job.records.cost()
    print(format_table(numbers.summaries, _caption(job, numbers.summaries[0].n), numbers.worst_case))
    rate = f"{cost.forward / cost.seconds:.0f} a second and device" if cost.seconds else "not timed"
    print(f"{cost.forward:,} passes, {cost.gradient:,} of them with a gradient: {rate}", flush=True)


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

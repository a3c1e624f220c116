"""The adversaries that checks add to a suite: which, what they cost, and their rows."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attacks import Attack, Exact, Square
from defenses import is_random
from evaluation.batch import Rows, rows_of
from evaluation.checks import probes
from evaluation.checks.binarization import cost_of_binarization
from evaluation.checks.check import reason
from evaluation.checks.diagnostics import (
    Diagnostic,
    Level,
    RandomPoints,
    Reference,
    as_adversary,
    bare,
    diagnostics,
    gradients,
    reference,
    unbounded,
)
from evaluation.checks.subject import NOISE, Subject, judge_draws
from evaluation.cost import Cost
from evaluation.judge import examine
from evaluation.records import Records


def planned(
    at: Reference,
    network: nn.Module,
    suite: dict[str, Attack],
    level: Level,
    surrogate: nn.Module | None,
    image: torch.Size,
) -> dict[str, Diagnostic]:
    """All adversaries of the checks, by name; arguments as of `diagnostics`, and the shape of an image, [C, H, W]."""
    return {**diagnostics(at, network, suite, level, surrogate), "unbounded": unbounded(at, image, level)}


def cost_of_checks(
    network: nn.Module,
    suite: dict[str, Attack],
    image: torch.Size,
    draws: int,
    level: Level,
    surrogate: nn.Module | None = None,
) -> Cost:
    """Passes of all checks for each of the images that they are made on: an estimate.

    Those through a surrogate count as passes of the network. The suite's longest attack is taken for its strongest.

    Args:
        network: what is evaluated; nothing is asked of it.
        suite: of the evaluation, by name.
        image: shape of one, [C, H, W].
        draws: passes of the judge in the evaluation.
        level: of the checks.
        surrogate: another network, from which attacks are transferred.
    """
    at, random = reference(suite, None), is_random(network)
    if at is None:
        return Cost(forward=1)  # the logits are looked at in any case
    plan = planned(at, network, suite, level, surrogate, image)
    judged = judge_draws(random, draws, level)
    judge = sum(judged if diagnostic.judged == Exact() else 1 for diagnostic in plan.values())
    costs = [_passes(network, diagnostic.attack) for diagnostic in plan.values()]
    if level == "full":
        own = _passes(network, at.adversary)
        costs += [own, cost_of_binarization(random, own.gradient, judged)]
    return sum(costs, probes.cost(network, NOISE[level]) + Cost(forward=judge))


class Extra(NamedTuple):
    """What the adversaries of a plan left.

    Attributes:
        rows: by name.
        failed: why there are none, for each that could not be run.
        folder: where they lie.
    """

    rows: dict[str, Rows]
    failed: dict[str, str]
    folder: Path


def examined(subject: Subject, plan: dict[str, Diagnostic], at: Reference, surrogate: nn.Module | None) -> Extra:
    """Run all adversaries of a plan on what they have not been run on."""
    manifest = _manifest(subject, plan, at, surrogate)
    records = Records(_folder(subject, manifest), manifest)
    total = sum(gradients(diagnostic.attack) for diagnostic in plan.values())
    subject.say(
        f"checks ({subject.level}): {len(plan)} adversaries on {subject.n} images,"
        f" at most {total} gradients an image beside answers"
    )
    tried = {name: _tried(subject, records, name, diagnostic) for name, diagnostic in plan.items()}
    failed = {name: why for name, why in tried.items() if why is not None}
    for why in dict.fromkeys(failed.values()):
        subject.say(f"checks: given up ({why}): {', '.join(name for name in failed if failed[name] == why)}")
    rows = {name: rows for name, rows in rows_of(records.table()).items() if name not in failed}
    return Extra(rows, failed, records.folder)


def _folder(subject: Subject, manifest: Mapping[str, object]) -> Path:
    """Where these checks lie; others of the same evaluation, with another surrogate for instance, lie beside them."""
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]
    return subject.folder / "checks" / f"{subject.level}_{subject.n}_{digest}"


def _tried(subject: Subject, records: Records, name: str, diagnostic: Diagnostic) -> str | None:
    """Run one adversary on what it has not been run on; returns what went wrong, if anything did."""
    try:
        _run(subject, records, name, diagnostic)
    except Exception as error:  # whatever it is: it costs this adversary and no other
        return reason(error)
    return None


def _run(subject: Subject, records: Records, name: str, diagnostic: Diagnostic) -> None:
    first = 0
    model = diagnostic.judged.of(subject.network)
    assert isinstance(model, nn.Module), "a view of a module is one"
    draws = subject.judged if model is subject.network else 1
    for number, (x, y) in enumerate(subject.batches):
        if not records.done(name, number):
            subject.in_time()
            found = examine(
                model, (x, y), first, f"checks/{name}", diagnostic.attack, subject.seed, draws, not subject.random
            )
            records.write(name, number, found.rows)
        first += len(x)


def _passes(network: nn.Module, attack: Attack | None) -> Cost:
    """What an adversary of `diagnostics` asks for each image that it does not break before."""
    assert attack is not None, "all of them attack"
    adversary, inner = as_adversary(attack), bare(attack)
    draws = adversary.draws if is_random(adversary.view.of(network)) else 1
    if isinstance(inner, RandomPoints | Square):
        return Cost(forward=draws * (inner.trials if isinstance(inner, RandomPoints) else inner.queries))
    asked = gradients(attack) // adversary.draws * draws
    return Cost(forward=asked, gradient=asked)


def _manifest(
    subject: Subject, plan: dict[str, Diagnostic], at: Reference, surrogate: nn.Module | None
) -> dict[str, object]:
    return {
        "adversaries": list(plan),
        "attacks": {name: repr(diagnostic.attack) for name, diagnostic in plan.items()},
        "batches": [len(x) for x, _ in subject.batches],
        "draws": subject.judged,
        "level": subject.level,
        "reference": repr(at.adversary),
        "seed": subject.seed,
        "surrogate": None if surrogate is None else _digest(surrogate),
        "weights": _digest(subject.network),
    }


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]

"""All checks of an evaluation: its diagnostics run as a small evaluation of their own, and what follows from them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from attacks import Attack, evaluating
from evaluation.batch import Rows, rows_of
from evaluation.checks import comparisons, course, probes
from evaluation.checks.binarization import BINARIZATION, binarization
from evaluation.checks.check import Check, of_images
from evaluation.checks.comparisons import Tables
from evaluation.checks.diagnostics import (
    Diagnostic,
    Level,
    RandomPoints,
    Reference,
    diagnostics,
    gradients,
    reference,
    unbounded,
)
from evaluation.judge import examine
from evaluation.records import Records

Say = Callable[[str], None]
_QUICK_DRAWS = 32  # passes of the judge at most: differences of accuracies ask for images, not for draws
_QUICK_NOISE, _FULL_NOISE = 20, 100  # noisy versions of each image


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        network: images in [0, 1] -> logits.
        batches: the evaluation's first images, in its order, and labels, on the network's device.
        folder: of the evaluation.
        random, shared: whether the network is; whether a batch shares its draws.
        seed, draws: of the evaluation.
        level: how much is spent.
        say: takes lines for whoever waits.
    """

    network: nn.Module
    batches: Sequence[tuple[Tensor, Tensor]]
    folder: Path
    random: bool
    shared: bool
    seed: int
    draws: int
    level: Level
    say: Say

    @property
    def n(self) -> int:
        """Images."""
        return sum(len(x) for x, _ in self.batches)


def run_checks(
    network: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    folder: Path,
    attacks: dict[str, Attack],
    rows: dict[str, Rows],
    *,
    random: bool,
    shared: bool,
    seed: int,
    draws: int,
    level: Level,
    surrogate: nn.Module | None = None,
    progress: Say = print,
) -> list[Check]:
    """Doubt an evaluation: run what it takes, and say what was found.

    "quick" costs at most about 400 gradients per image, as a rule half, and some 1,000 further passes; "full" doubles
    the suite's strongest attack in steps, draws and restarts, tries 10,000 random points and makes the binarization
    test. Rows lie in ``checks/`` of the folder; checks that were killed go on where they stopped.

    Args:
        network: images in [0, 1] -> logits.
        batches: images [B, C, H, W] and labels [B] on the network's device: the first of the evaluation, in its order.
        folder: of the evaluation.
        attacks: the suite, by name.
        rows: what the suite left, with "clean".
        random: whether the network is.
        shared: whether the images of a batch share the j-th draw.
        seed: of the evaluation.
        draws: passes of the judge in the evaluation.
        level: see above.
        surrogate: another network for the same classes, from which attacks are transferred.
        progress: takes lines for whoever waits.

    Raises:
        ValueError: the rows do not hold the images of the batches, or the folder holds checks of something else.
    """
    subject = Subject(network, batches, folder, random, shared, seed, draws, level, progress)
    rows = _first_images(rows, subject.n)
    checks = _sanity(subject, rows["clean"])
    at = reference(attacks, rows)
    if at is None or any(check.verdict == "doubt" for check in checks[:2]):
        why = "no attack of the suite has a ball" if at is None else "see the doubts above: no attack can be run"
        return [*checks, *(question.not_run(why) for question in _QUESTIONS)]
    with evaluating(surrogate if surrogate is not None else nn.Identity()):
        plan = diagnostics(at, network, attacks, level, surrogate)
        plan["unbounded"] = unbounded(at, batches[0][0].shape[1:], level)
        extra = _examined(subject, plan, surrogate)
    tables = Tables(rows, extra, attacks, at, random, shared)
    return [*checks, *_from_model(subject, tables), *_from_rows(tables, plan), *_full(subject, at)]


def _sanity(subject: Subject, clean: Rows) -> list[Check]:
    classes = clean.counts.shape[1]
    return [
        probes.inputs(subject.batches, classes),
        probes.logits(subject.network, subject.batches[0][0], subject.seed),
        probes.clean_accuracy(clean, classes),
    ]


def _from_model(subject: Subject, tables: Tables) -> list[Check]:
    seen, alive = probes.look(subject.network, subject.batches, tables.at, subject.seed), tables.alive
    samples = _FULL_NOISE if subject.level == "full" else _QUICK_NOISE
    return [
        probes.gradients(seen, tables.attacked, alive),
        probes.draws(seen, subject.random),
        probes.softmax(seen, tables.at, alive),
        probes.stability(subject.network, subject.batches, alive, subject.seed, samples),
    ]


def _from_rows(tables: Tables, plan: dict[str, Diagnostic]) -> list[Check]:
    attacked, alive, points = tables.attacked, tables.alive, plan["random_points"].attack
    assert isinstance(points, RandomPoints)
    return [
        course.loss_rises(attacked, alive),
        course.unfinished(attacked, alive, tables.at, tables.random),
        course.silent_success(attacked, alive, tables.at, tables.random),
        course.view_only(attacked, alive, tables.at),
        comparisons.single_step(tables),
        *(comparisons.budget(tables, quantity) for quantity in ("steps", "draws", "restarts")),
        comparisons.radii(tables),
        comparisons.unbounded(tables, attacked.counts.shape[1]),
        comparisons.black_box(tables),
        comparisons.random_points(tables, points.trials),
        comparisons.transfer(tables),
        comparisons.adaptive(tables),
        comparisons.beside(tables, "frozen_noise"),
        comparisons.beside(tables, "bare"),
    ]


def _full(subject: Subject, at: Reference) -> list[Check]:
    if subject.level != "full":
        return [BINARIZATION.not_run("on demand: --checks full")]
    subject.say("checks: binarization test")
    folder = _folder(subject) / "binarization"
    return [binarization(subject.network, subject.batches, folder, at, subject.seed, _draws(subject))]


def _examined(subject: Subject, plan: dict[str, Diagnostic], surrogate: nn.Module | None) -> dict[str, Rows]:
    """Rows of all diagnostics; one whose model answers NaN on the way is left out."""
    records = Records(_folder(subject), _manifest(subject, plan, surrogate))
    total = sum(gradients(diagnostic.attack) for diagnostic in plan.values())
    subject.say(
        f"checks ({subject.level}): {len(plan)} adversaries on {subject.n} images,"
        f" at most {total} gradients an image beside answers"
    )
    failed = {name for name, diagnostic in plan.items() if not _ran(subject, records, name, diagnostic)}
    return {name: rows for name, rows in rows_of(records.table()).items() if name not in failed}


def _ran(subject: Subject, records: Records, name: str, diagnostic: Diagnostic) -> bool:
    first = 0
    model = diagnostic.judged.of(subject.network)
    assert isinstance(model, nn.Module), "a view of a module is one"
    draws = _draws(subject) if model is subject.network else 1
    for number, (x, y) in enumerate(subject.batches):
        if not records.done(name, number):
            try:
                found = examine(
                    model, (x, y), first, f"checks/{name}", diagnostic.attack, subject.seed, draws, not subject.random
                )
            except FloatingPointError as error:
                subject.say(f"checks: {name} was given up: {error}")
                return False
            records.write(name, number, found.rows)
        first += len(x)
    return True


def _manifest(subject: Subject, plan: dict[str, Diagnostic], surrogate: nn.Module | None) -> dict[str, object]:
    return {
        "adversaries": list(plan),
        "attacks": {name: str(diagnostic.attack) for name, diagnostic in plan.items()},
        "batches": [len(x) for x, _ in subject.batches],
        "draws": _draws(subject),
        "level": subject.level,
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


def _folder(subject: Subject) -> Path:
    return subject.folder / "checks" / f"{subject.level}_{subject.n}"


def _draws(subject: Subject) -> int:
    if not subject.random:
        return 1
    return subject.draws if subject.level == "full" else min(subject.draws, _QUICK_DRAWS)


def _first_images(rows: dict[str, Rows], n: int) -> dict[str, Rows]:
    """The rows of the images 0 to n - 1.

    Raises:
        ValueError: one is missing, or there is no "clean".
    """
    if "clean" not in rows:
        raise ValueError(f"checks need the clean images' rows, got {', '.join(rows)}")
    chosen = {name: of_images(found, found.index < n) for name, found in rows.items()}
    for name, found in chosen.items():
        if not np.array_equal(found.index, np.arange(n)):
            raise ValueError(f"checks are made on images 0 to {n - 1}; {name} holds {found.n} of them")
    return chosen


_QUESTIONS = (
    probes.GRADIENTS,
    probes.DRAWS,
    probes.SOFTMAX,
    probes.STABLE,
    course.RISES,
    course.UNFINISHED,
    course.SILENT,
    course.TRANSFERRED,
    comparisons.SINGLE,
    comparisons.RADII,
    comparisons.UNBOUNDED,
    comparisons.BLACK,
    comparisons.POINTS,
    comparisons.TRANSFER,
    comparisons.ADAPTIVE,
    comparisons.FROZEN,
    comparisons.BARE,
    BINARIZATION,
)

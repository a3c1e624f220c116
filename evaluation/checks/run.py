"""All checks of an evaluation: its diagnostics run as a small evaluation of their own, and what follows from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from attacks import Attack, evaluating
from evaluation.batch import Rows
from evaluation.checks import comparisons, course, probes
from evaluation.checks.binarization import BINARIZATION, binarization
from evaluation.checks.check import Check, NotRun, Question, reason
from evaluation.checks.diagnostics import Level, RandomPoints, reference
from evaluation.checks.extra import examined, planned
from evaluation.checks.subject import NOISE, Say, Subject
from evaluation.checks.tables import Tables


@dataclass(frozen=True)
class _Asked:
    """All that a question may look at: the subject, the rows, random points tried, the folder of the checks."""

    subject: Subject
    tables: Tables
    points: int
    folder: Path

    @cached_property
    def seen(self) -> probes.Seen:
        """The gradients that the attack would follow."""
        self.subject.in_time()
        return probes.look(self.subject.network, self.subject.batches, self.tables.at, self.subject.seed)


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
    until: float | None = None,
    progress: Say = print,
) -> list[Check]:
    """Doubt an evaluation: run what it takes, and say what was found.

    "quick" costs at most about 400 gradients per image, as a rule half, and some 1,600 further passes; "full" doubles
    the suite's strongest attack in steps, draws and restarts, tries 10,000 random points and makes the binarization
    test. Rows lie in ``checks/`` of the folder; checks that were killed go on where they stopped. One that fails, for
    whatever reason, is "not run" and says so.

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
        until: `time.monotonic()` after which nothing long is begun: what is missing then is "not run"; None: no limit.
        progress: takes lines for whoever waits.

    Raises:
        ValueError: the rows do not hold the images of the batches, or the folder holds checks of something else.
    """
    subject = Subject(network, batches, folder, random, shared, seed, draws, level, until, progress)
    rows = _first_images(rows, subject.n)
    checks = _sanity(subject, rows["clean"])
    at = reference(attacks, rows)
    if at is None or any(check.verdict == "doubt" for check in checks[:2]):
        why = "no attack of the suite has a ball" if at is None else "see the doubts above: no attack can be run"
        return [*checks, *(question.not_run(why) for question in _QUESTIONS)]
    with evaluating(surrogate if surrogate is not None else nn.Identity()):
        plan = planned(at, network, attacks, level, surrogate, batches[0][0].shape[1:])
        extra = examined(subject, plan, at, surrogate)
    points = plan["random_points"].attack
    assert isinstance(points, RandomPoints)
    tables = Tables(rows, extra.rows, extra.failed, attacks, at, random, shared)
    asked = _Asked(subject, tables, points.trials, extra.folder)
    return [*checks, *(_guarded(question, partial(ask, asked)) for question, ask in _QUESTIONS.items())]


def _guarded(question: Question, ask: Callable[[], Check]) -> Check:
    """One check; whatever keeps it from being made costs neither the others nor the numbers of the evaluation."""
    try:
        return ask()
    except Exception as error:
        return question.not_run(reason(error))


def _sanity(subject: Subject, clean: Rows) -> list[Check]:
    classes, batches = clean.counts.shape[1], subject.batches
    return [
        _guarded(probes.INPUTS, lambda: probes.inputs(batches, classes)),
        _guarded(probes.LOGITS, lambda: probes.logits(subject.network, batches, subject.seed)),
        _guarded(probes.CLEAN, lambda: probes.clean_accuracy(clean, classes)),
    ]


def _stability(asked: _Asked) -> Check:
    subject = asked.subject
    subject.in_time()
    return probes.stability(
        subject.network, subject.batches, asked.tables.alive, subject.seed, samples=NOISE[subject.level]
    )


def _budget(asked: _Asked, quantity: str) -> Check:
    return comparisons.budget(asked.tables, quantity)


def _binarization(asked: _Asked) -> Check:
    subject = asked.subject
    if subject.level != "full":
        raise NotRun("on demand: --checks full")
    subject.say("checks: binarization test")
    return binarization(
        subject.network,
        subject.batches,
        asked.folder / "binarization",
        asked.tables.at,
        subject.seed,
        subject.judged,
        in_time=subject.in_time,
    )


def _first_images(rows: dict[str, Rows], n: int) -> dict[str, Rows]:
    """The rows of the images 0 to n - 1.

    Raises:
        ValueError: one is missing, or there is no "clean".
    """
    if "clean" not in rows:
        raise ValueError(f"checks need the clean images' rows, got {', '.join(rows)}")
    chosen = {name: found.at(found.index < n) for name, found in rows.items()}
    for name, found in chosen.items():
        if not np.array_equal(found.index, np.arange(n)):
            raise ValueError(f"checks are made on images 0 to {n - 1}; {name} holds {found.n} of them")
    return chosen


# All questions after the first three, in the order in which they are reported.
_QUESTIONS: dict[Question, Callable[[_Asked], Check]] = {
    probes.GRADIENTS: lambda a: probes.gradients(a.seen, a.tables.attacked, a.tables.alive),
    probes.DRAWS: lambda a: probes.draws(a.seen, a.subject.random),
    probes.SOFTMAX: lambda a: probes.softmax(a.seen, a.tables.at, a.tables.alive),
    probes.STABLE: _stability,
    course.RISES: lambda a: course.loss_rises(a.tables.attacked, a.tables.alive),
    course.UNFINISHED: lambda a: course.unfinished(a.tables.attacked, a.tables.alive, a.tables.at, a.tables.random),
    course.SILENT: lambda a: course.silent_success(a.tables.attacked, a.tables.alive, a.tables.at, a.tables.random),
    course.TRANSFERRED: lambda a: course.view_only(a.tables.attacked, a.tables.alive, a.tables.at),
    comparisons.SINGLE: lambda a: comparisons.single_step(a.tables),
    **{question: partial(_budget, quantity=quantity) for quantity, question in comparisons.MORE.items()},
    comparisons.RADII: lambda a: comparisons.radii(a.tables),
    comparisons.UNBOUNDED: lambda a: comparisons.unbounded(a.tables, a.tables.attacked.counts.shape[1]),
    comparisons.BLACK: lambda a: comparisons.black_box(a.tables),
    comparisons.POINTS: lambda a: comparisons.random_points(a.tables, a.points),
    comparisons.TRANSFER: lambda a: comparisons.transfer(a.tables),
    comparisons.ADAPTIVE: lambda a: comparisons.adaptive(a.tables),
    comparisons.FROZEN: lambda a: comparisons.beside(a.tables, "frozen_noise"),
    comparisons.BARE: lambda a: comparisons.beside(a.tables, "bare"),
    BINARIZATION: _binarization,
}

"""Checks that set adversaries beside each other on the same images: who may not be stronger than whom."""

import numpy as np

from evaluation.batch import Rows
from evaluation.checks.check import LEVEL, Check, Question, accuracy, difference, percent, too_many
from evaluation.checks.probes import ATHALYE, CARLINI, PINTOR
from evaluation.checks.tables import Tables
from evaluation.intervals import wilson

SINGLE = Question("single step", ATHALYE)
MORE = {quantity: Question(f"more {quantity}", CARLINI) for quantity in ("steps", "draws", "restarts")}
RADII = Question("larger radius", ATHALYE)
UNBOUNDED = Question("unbounded", f"{ATHALYE}; I6 of {PINTOR}")
BLACK = Question("black box", f"{ATHALYE}; 0.2 points as AutoAttack")
POINTS = Question("random points", f"{ATHALYE}; {CARLINI}")
TRANSFER = Question("transfer", CARLINI)
ADAPTIVE = Question("adaptive view", f"{CARLINI}; Tramer et al. 2020, https://arxiv.org/abs/2002.08347")
FROZEN = Question("frozen noise", "Liu et al. 2024, https://arxiv.org/abs/2404.14309; Carlini et al. 2019")
BARE = Question("noise and channels off", "He et al. 2019, https://arxiv.org/abs/1811.09310, table without noise")
_BLIND = "; no attack of the suite sees fresh draws of the model"
_UNCHANGED = 0.005  # more budget may lower accuracy by half a point
_BLACK_MARGIN = 0.002
_BLACK_ONLY = 0.01  # of all images
_POINTS_ONLY = 0.005  # of the images that survive


def single_step(tables: Tables) -> Check:
    """One step must not be stronger than many."""
    if (one := tables.extra.get("single_step")) is None:
        return SINGLE.not_run(tables.why_not("single_step"))
    if tables.at.attack.steps < 2:
        return SINGLE.not_run("the attack itself has a single step")
    gap = difference(tables.attacked, one, tables.shared)
    text = f"{percent(accuracy(tables.attacked))} after all steps, {percent(accuracy(one))} after one, {gap}"
    return SINGLE.answered(gap.low > 0, text, gap.figures)


def budget(tables: Tables, quantity: str) -> Check:
    """Twice the steps, draws or restarts must not lower accuracy; or all of them against half.

    Args:
        tables: see there.
        quantity: "steps", "draws" or "restarts".
    """
    question = MORE[quantity]
    if (double := tables.extra.get(f"double_{quantity}")) is not None:
        return _converged(question, tables, tables.attacked, double, f"the {quantity}", f"twice the {quantity}")
    if (half := tables.extra.get(f"half_{quantity}")) is not None:
        return _converged(question, tables, half, tables.attacked, f"half the {quantity}", f"all {quantity}")
    fixed = quantity == "draws" and not (tables.random and tables.at.adversary.view.faithful)
    why = "what the attack sees is not random" if fixed else "too long for a quick check; --checks full does it"
    return question.not_run(tables.why_not(f"double_{quantity}", f"half_{quantity}", otherwise=why))


def radii(tables: Tables) -> Check:
    """A larger radius must not raise accuracy."""
    found = [(float(name.removeprefix("radius_x")), rows) for name, rows in tables.extra.items() if "radius_x" in name]
    ordered = [rows for _, rows in sorted(found, key=lambda pair: pair[0])]
    if len(ordered) < 2:
        names = [name for name in tables.failed if "radius_x" in name]
        return RADII.not_run(tables.why_not(*names, otherwise="fewer than 2 radii are distinct"))
    gaps = [
        difference(larger, smaller, tables.shared)
        for place, larger in enumerate(ordered)
        for smaller in ordered[:place]
    ]
    worst = max(gaps, key=lambda gap: gap.low)
    values = ", ".join(f"{100 * accuracy(rows):.1f}" for rows in ordered)
    text = f"accuracy % at {len(ordered)} growing radii: {values}; the largest rise is {worst}"
    figures = {f"accuracy_x{factor:g}": accuracy(rows) for factor, rows in sorted(found, key=lambda pair: pair[0])}
    return RADII.answered(worst.low > 0, text, {**figures, **worst.figures})


def unbounded(tables: Tables, classes: int) -> Check:
    """Where every image is allowed, none may stay right; of a random model, no more than chance."""
    if (rows := tables.extra.get("unbounded")) is None:
        return UNBOUNDED.not_run(tables.why_not("unbounded"))
    value, limit = accuracy(rows), 1 / classes if tables.random else 0.0
    low = wilson(round(value * rows.n), rows.n, LEVEL).low
    doubt = low > limit if tables.random else value > 0
    text = f"{percent(value)} of {rows.n} images stay right although every image is allowed; at most {percent(limit)}"
    return UNBOUNDED.answered(doubt, text, {"accuracy": value, "limit": limit, "low": low, "n": rows.n})


def black_box(tables: Tables) -> Check:
    """Answers alone must not be worth more than gradients."""
    return _blinder(BLACK, tables, tables.black, "an attack that asks for answers only")


def transfer(tables: Tables) -> Check:
    """An attack made on another network must not be worth more than one on the network itself."""
    return _blinder(TRANSFER, tables, tables.transferred, "an attack on another model")


def random_points(tables: Tables, points: int) -> Check:
    """Blind luck must not break what gradients could not.

    Args:
        tables: see there.
        points: how many were tried per image.
    """
    if (rows := tables.extra.get("random_points")) is None:
        return POINTS.not_run(tables.why_not("random_points"))
    alive = tables.alive
    n, broken = int(alive.sum()), int((tables.broken(rows) & tables.kept()).sum())
    if not n:
        return POINTS.not_run("no image survives the suite")
    text = f"{broken} of {n} surviving images are broken by one of {points:,} random points of the ball"
    figures = {"broken": broken, "n": n, "points": points}
    return POINTS.answered(too_many(broken, n, _POINTS_ONLY), text, figures)


def adaptive(tables: Tables) -> Check:
    """Whether an attack that goes round what has no derivative, and draws anew, is stronger than the suite's."""
    reason = _BLIND if tables.blind else ""
    if (rows := tables.extra.get("adaptive")) is None:
        why = "the suite's strongest attack sees the model itself, and all of it has a derivative"
        return ADAPTIVE.not_run(tables.why_not("adaptive", otherwise=why))
    gap = difference(tables.attacked, rows, tables.shared)
    before, after = percent(accuracy(tables.attacked)), percent(accuracy(rows))
    text = f"{before} under the suite's view, {after} straight through and on fresh draws, {gap}"
    return ADAPTIVE.answered(tables.blind or gap.low > 0, text + reason, gap.figures)


def beside(tables: Tables, name: str) -> Check:
    """The accuracy of one frozen draw, or of the bare network, each attacked and judged as such: for information.

    A doubt only where the suite itself never saw a fresh draw.

    Args:
        tables: see there.
        name: "frozen_noise" or "bare".
    """
    question, what = {"frozen_noise": (FROZEN, "one frozen draw"), "bare": (BARE, "no noise and no channel")}[name]
    if (rows := tables.extra.get(name)) is None:
        why = "the model has no noise" if name == "frozen_noise" else "nothing can be turned off"
        return question.not_run(tables.why_not(name, otherwise=why))
    gap = difference(tables.attacked, rows, tables.shared)
    before, after = percent(accuracy(tables.attacked)), percent(accuracy(rows))
    text = f"{before} under attack as it is, {after} with {what}: {gap} are owed to what was taken away"
    figures = {"accuracy": accuracy(rows), **gap.figures}
    blind = tables.blind and name == "frozen_noise"
    return question.answered(blind, text + (_BLIND if blind else ""), figures)


def _converged(question: Question, tables: Tables, less: Rows, more: Rows, small: str, large: str) -> Check:
    gap = difference(less, more, tables.shared)
    text = f"{percent(accuracy(less))} with {small}, {percent(accuracy(more))} with {large}, {gap}"
    return question.answered(gap.low > _UNCHANGED, text, gap.figures)


def _blinder(question: Question, tables: Tables, others: dict[str, Rows], what: str) -> Check:
    """The rule of AutoAttack in the mean, and image by image."""
    if not others:
        made = ("square",) if question is BLACK else ("oblivious", "surrogate")
        return question.not_run(tables.why_not(*made, otherwise="there is none"))
    name, rows = min(others.items(), key=lambda pair: accuracy(pair[1]))
    gap = difference(tables.attacked, rows, tables.shared)
    broken = np.any([tables.broken(one) for one in others.values()], axis=0)
    n, only = rows.n, int((tables.kept() & broken).sum())
    stronger, more = gap.low > _BLACK_MARGIN, too_many(only, n, _BLACK_ONLY)
    direct, other = percent(accuracy(tables.attacked)), percent(accuracy(rows))
    text = (
        f"{direct} under the direct attack, {other} under {what} ({name}), {gap};"
        f" {only} of {n} images are broken by the latter only"
    )
    return question.answered(stronger or more, text, {**gap.figures, "only": only})

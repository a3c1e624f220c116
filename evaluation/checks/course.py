"""Checks of how the attack went on its way, from what it wrote down about the images that survive it."""

import numpy as np
from numpy.typing import NDArray

from evaluation.batch import Rows
from evaluation.checks.check import (
    ALLOWED,
    LEVEL,
    Check,
    Question,
    mean_interval,
    percent,
    rightness,
    too_few,
    too_many,
)
from evaluation.checks.diagnostics import Reference
from evaluation.checks.probes import CARLINI, PINTOR

RISES = Question("loss rises", CARLINI)
UNFINISHED = Question("incomplete optimisation", f"I4 of {PINTOR}")
SILENT = Question("silent success", f"I3 of {PINTOR}")
TRANSFERRED = Question("success on the view only", f"I5 of {PINTOR}")
_GAIN = 0.05  # of the whole gain, in the last 10 steps: threshold of I4
_LAST = 10
_ENOUGH_DRAWS = 10  # fewer wrong answers of a random model on the attack's way are luck
_SURELY = 0.95  # of the judge's draws; below, even 10 wrong draws at one of many steps are luck
_RESAMPLES = 1000


def loss_rises(attacked: Rows, alive: NDArray[np.bool_]) -> Check:
    """Whether the attack's loss grew from its first step to its last third, on surviving images.

    Args:
        attacked: rows of the attack.
        alive: [n], images that no gradient attack of the suite broke.
    """
    loss = attacked.loss[alive]
    if loss.shape[1] < 3:
        return RISES.not_run("an attack of fewer than 3 steps has no course")
    last = loss[:, -max(1, loss.shape[1] // 3) :]
    known = np.isfinite(loss[:, 0]) & np.isfinite(last).all(axis=1)
    n = int(known.sum())
    if not n:
        return RISES.not_run("no image survives the suite")
    gain = last[known].mean(axis=1) - loss[known, 0]
    rose = int((gain > 0).sum())
    text = f"the loss of {rose} of {n} surviving images rose, by {gain.mean():.3g} in the mean"
    return RISES.answered(too_few(rose, n, 0.5), text, {"rose": rose, "gain": float(gain.mean()), "n": n})


def unfinished(attacked: Rows, alive: NDArray[np.bool_], at: Reference, random: bool) -> Check:
    """I4: what the last 10 steps still gained, as a share of the whole gain.

    On a random model the largest of many noisy losses of one image keeps growing by luck: there the course is that of
    the mean over the images.
    """
    # Where the last steps are half of all, as in PGD-20, their share tells how few there were, not how they ended; that
    # is the question of `more steps`.
    if at.attack.steps * at.attack.restarts < 4 * _LAST:
        return UNFINISHED.not_run(f"{at.attack.steps} steps are too few to look at the last {_LAST}")
    if random:
        return _unfinished_mean(attacked.loss[alive], at)
    share = attacked.unfinished[alive]
    share = share[np.isfinite(share)]
    if not len(share):
        return UNFINISHED.not_run("no image survives the suite")
    low, high = mean_interval(share)
    return _gained(float(share.mean()), low, high, len(share))


def silent_success(attacked: Rows, alive: NDArray[np.bool_], at: Reference, random: bool) -> Check:
    """I3: whether an image that the attack gave back unbroken had been broken on its way."""
    if not at.adversary.view.faithful:
        return SILENT.not_run(f"the attack sees another model ({at.adversary.view})")
    if random and at.adversary.draws < _ENOUGH_DRAWS:
        why = f"{at.adversary.draws} draws a step of a random model are too few to call an image broken"
        return SILENT.not_run(f"{why}; {_ENOUGH_DRAWS} are needed")
    # An image that answers rightly every other time is seen broken sooner or later.
    chosen = alive & (rightness(attacked) >= _SURELY)
    n, found = int(chosen.sum()), int(attacked.erred[chosen].sum())
    if not n:
        return SILENT.not_run("no image survives the suite")
    text = f"{found} of {n} surviving images were broken on the attack's way and not at its end"
    return SILENT.answered(too_many(found, n, ALLOWED), text, {"silent": found, "n": n})


def view_only(attacked: Rows, alive: NDArray[np.bool_], at: Reference) -> Check:
    """I5: whether the attack succeeded on the model that it sees and not on the one that is judged."""
    if at.adversary.view.faithful:
        return TRANSFERRED.not_run("the attack sees the answers of the model itself")
    n, found = int(alive.sum()), int(attacked.erred[alive].sum())
    if not n:
        return TRANSFERRED.not_run("no image survives the suite")
    text = f"{found} of {n} surviving images were broken on the model that the attack sees ({at.adversary.view})"
    return TRANSFERRED.answered(too_many(found, n, ALLOWED), text, {"view_only": found, "n": n})


def _unfinished_mean(loss: NDArray[np.float64], at: Reference) -> Check:
    loss = loss[np.isfinite(loss).all(axis=1)]
    if len(loss) < 2:
        return UNFINISHED.not_run("fewer than 2 images survive the suite")
    steps = at.attack.steps * at.attack.restarts
    points = max(1, round(_LAST * (loss.shape[1] - 1) / (steps - 1)))
    picked = np.random.default_rng(0).integers(len(loss), size=(_RESAMPLES, len(loss)))
    shares = np.array([_share(loss[rows].mean(axis=0), points) for rows in picked])
    low, high = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return _gained(_share(loss.mean(axis=0), points), float(low), float(high), len(loss))


def _share(course: NDArray[np.float64], points: int) -> float:
    best = np.maximum.accumulate(course)
    whole = best[-1] - best[0]
    return float((best[-1] - best[-1 - points]) / whole) if whole > 0 else 0.0


def _gained(share: float, low: float, high: float, n: int) -> Check:
    text = (
        f"the last {_LAST} steps made {percent(share)} [{percent(low)}, {percent(high)}] of the loss's gain"
        f" on {n} surviving images"
    )
    return UNFINISHED.answered(low > _GAIN, text, {"share": share, "low": low, "high": high, "n": n})

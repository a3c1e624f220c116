"""The worst of several adversaries, image by image, without taking luck for strength."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from evaluation.batch import Rows
from evaluation.decisions import BROKEN, ROBUST, UNDECIDED, decide, duel_of_answers
from evaluation.intervals import Interval, bootstraps, wilson
from evaluation.summary import Setting, check_unanimous

_Value = TypeVar("_Value", np.bool_, np.int64)


@dataclass(frozen=True)
class WorstCase:
    """What all adversaries together leave of a model.

    Attributes:
        n: images.
        random: whether the model is.
        accuracy: of a single draw against the adversary chosen for each image, in [0, 1]; see `worst_case`.
        interval: of `accuracy`, at `level`.
        level: confidence level.
        chosen: adversary -> share of the images for which it was chosen; together 1.
        robust, undecided, broken: images by the decision rule, together n; see `worst_case`.
    """

    n: int
    random: bool
    accuracy: float
    interval: Interval
    level: float
    chosen: dict[str, float]
    robust: int
    undecided: int
    broken: int


def worst_case(rows: Mapping[str, Rows], setting: Setting) -> WorstCase:
    """The worst adversary of each image, of those that `within` leaves; "clean" counts as one of them.

    Of a model that is not random an image counts as right if it is right under every adversary. Of a random one, the
    least of several noisy shares lies below the least true share (the winner's curse). So the adversary with the fewest
    right answers on one half of an image's draws is scored on the other half, both ways, and the two scores are
    averaged (cross-fitting): unbiased for the accuracy against an attacker who chooses after half of the draws. Several
    with as few right answers: the one that leaves the lowest accuracy over all images on the same half. An odd draw is
    left out.

    An image is broken if one of the two chosen adversaries breaks it, tested on the other half at half the level,
    robust if it withstands both at the full level, else undecided. A test on half of the draws leaves more images
    undecided than `decide` on all of them.

    Args:
        rows: adversary -> its images, the same for all.
        setting: see `Setting`; `votes` plays no part.

    Raises:
        ValueError: the adversaries differ in images or draws, or a random model has fewer than 2 draws.
    """
    rows = within(rows, setting)
    values, chosen = scores(rows, setting.random)
    first = next(iter(rows.values()))
    if setting.random:
        interval = bootstraps(values[:, :, None], setting.batches(first), setting.level, setting.seed)[0]
        decided = _decided(rows, chosen, setting.decision_level)
    else:
        interval = wilson(int(values.sum()), first.n, setting.level)
        decided = np.where(values[:, 0] > 0, ROBUST, BROKEN)
    counts = np.bincount(chosen.ravel(), minlength=len(rows)) / chosen.size
    return WorstCase(
        n=first.n,
        random=setting.random,
        accuracy=float(values.mean()),
        interval=interval,
        level=setting.level,
        chosen=dict(zip(rows, counts.tolist(), strict=True)),
        robust=int((decided == ROBUST).sum()),
        undecided=int((decided == UNDECIDED).sum()),
        broken=int((decided == BROKEN).sum()),
    )


def within(rows: Mapping[str, Rows], setting: Setting) -> dict[str, Rows]:
    """The adversaries that count for the worst case: those of `Setting.bounded`, and nobody.

    A minimal-norm attack goes as far as it must: against it, everything is wrong.
    """
    kept = setting.bounded
    return {name: table for name, table in rows.items() if kept is None or name == "clean" or name in kept}


def scores(rows: Mapping[str, Rows], random: bool) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What is averaged, and which adversary (by its place) was chosen.

    Returns:
        0 or 1 per pass [n, passes], whose mean over passes is the score of an image, and the places of the adversaries.
        Of a random model all passes, chosen on the first and on the second half, [n, 2]; of another one pass, [n, 1].

    Raises:
        ValueError: see `worst_case`.
    """
    _check_same(rows)
    right = [table.right for table in rows.values()]
    if not random:
        for table in rows.values():
            check_unanimous(table)
        first_pass = [passes[:, :1] for passes in right]
        choice = _choice(first_pass)
        return _of_chosen(first_pass, choice).astype(np.float64), choice[:, None]
    draws = right[0].shape[1]
    if draws < 2:
        raise ValueError(f"the worst case of a random model takes at least 2 draws, half to choose on; got {draws}")
    half = draws // 2
    first = [passes[:, :half] for passes in right]
    second = [passes[:, half : 2 * half] for passes in right]
    on_first, on_second = _choice(first), _choice(second)
    values = np.concatenate([_of_chosen(first, on_second), _of_chosen(second, on_first)], axis=1).astype(np.float64)
    return values, np.stack([on_first, on_second], axis=1)


def _choice(right: list[NDArray[np.bool_]]) -> NDArray[np.int64]:
    """The adversary that leaves fewest right passes of each image, by its place, [n]."""
    counts = np.stack([passes.sum(axis=1) for passes in right])
    strongest_first = np.argsort(counts.sum(axis=1), kind="stable")
    chosen: NDArray[np.int64] = strongest_first[counts[strongest_first].argmin(axis=0)]
    return chosen


def _of_chosen(tables: list[NDArray[_Value]], chosen: NDArray[np.int64]) -> NDArray[_Value]:
    """Of each image the row [draws] of the table of its chosen adversary, [n, draws]."""
    found = tables[0].copy()
    for place, table in enumerate(tables[1:], 1):
        found[chosen == place] = table[chosen == place]
    return found


def _decided(rows: Mapping[str, Rows], chosen: NDArray[np.int64], level: float) -> NDArray[np.int8]:
    answers = [table.answers for table in rows.values()]
    label, half = next(iter(rows.values())).label, answers[0].shape[1] // 2
    tested = [
        duel_of_answers(_of_chosen([part[:, half : 2 * half] for part in answers], chosen[:, 0]), label),
        duel_of_answers(_of_chosen([part[:, :half] for part in answers], chosen[:, 1]), label),
    ]
    broken = np.any([decide(*test, level / 2) == BROKEN for test in tested], axis=0)
    robust = np.all([decide(*test, level) == ROBUST for test in tested], axis=0)
    return np.where(broken, BROKEN, np.where(robust, ROBUST, UNDECIDED)).astype(np.int8)


def _check_same(rows: Mapping[str, Rows]) -> None:
    if not rows:
        raise ValueError("the worst case takes at least one adversary, got none")
    first, *others = rows.values()
    for other in others:
        same = np.array_equal(first.index, other.index) and np.array_equal(first.label, other.label)
        if not same or first.draws != other.draws:
            raise ValueError(
                f"{other.adversary} and {first.adversary} differ in images or draws: "
                f"{other.n} x {other.draws} and {first.n} x {first.draws}"
            )

"""What the draws of a random model add up to: votes, the worst of several draws, and a decision for each image."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from evaluation.batch import Rows

ROBUST, UNDECIDED, BROKEN = 1, 0, -1


def vote(counts: NDArray[np.integer], label: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether the true class has strictly more draws than any other, per image; a tie is an error.

    Args:
        counts: predictions per class, [n, classes].
        label: true classes, [n].
    """
    right, other = duel(counts, label)
    wins: NDArray[np.bool_] = right > other
    return wins


def duel(counts: NDArray[np.integer], label: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts [n, classes] and labels [n] -> draws for the true class and for the strongest other class, both [n]."""
    others = np.array(counts, dtype=np.int64)
    rows = np.arange(len(label))
    right = others[rows, label]
    others[rows, label] = 0
    return right, others.max(axis=1)


def duel_of_answers(
    answers: NDArray[np.integer], label: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """As `duel`, from the answers [..., draws] themselves and labels of their shape without draws."""
    same = np.zeros(answers.shape, dtype=np.int16)
    # Each answer against each: memory does not grow with the classes, of which ImageNet has 1000.
    for draw in range(answers.shape[-1]):
        same += answers == answers[..., draw, None]
    right = answers == label[..., None]
    return right.sum(axis=-1), np.where(right, 0, same).max(axis=-1).astype(np.int64)


def voted(rows: Rows, votes: int) -> NDArray[np.bool_]:
    """Whether a vote of `votes` draws is right, [n, draws // votes]; a tie is an error.

    The draws are cut into groups that follow each other, one vote each; a rest that fills no group is left out. Draws
    are independent of each other, so the mean over groups is unbiased for the accuracy of such a vote.

    Raises:
        ValueError: unless 1 <= votes <= draws.
    """
    _check(rows, votes)
    groups = rows.draws // votes
    answers = rows.answers[:, : groups * votes].reshape(rows.n, groups, votes)
    right, other = duel_of_answers(answers, np.repeat(rows.label[:, None], groups, axis=1))
    wins: NDArray[np.bool_] = right > other
    return wins


def all_right(rows: Rows, tries: int) -> NDArray[np.float64]:
    """The probability per image that `tries` draws are all right: the worst of so many, as values per pass [n, draws].

    The mean over passes is C(c, k) / C(m, k) with c of m draws right: the share of all choices of k = `tries` draws
    that hold no error, so it is unbiased (Hoeffding 1948, Ann. Math. Stat. 19, p. 293). A pass's value is that mean
    plus k times what the choices that hold this pass lie above it, Hoeffding's first-order term: resampling passes then
    gives the variance that k draws in each choice cause. That is good for k well below m, and too small close to it.

    Raises:
        ValueError: unless 1 <= tries <= draws.
    """
    _check(rows, tries)
    right, m = rows.right, rows.draws
    correct = right.sum(axis=1)
    whole = _share_of_choices(m, tries)[correct][:, None]
    held = right * _share_of_choices(m - 1, tries - 1)[np.maximum(correct - 1, 0)][:, None]
    values: NDArray[np.float64] = whole + tries * (held - whole)
    return values


def decide(right: NDArray[np.integer], other: NDArray[np.integer], level: float = 0.05) -> NDArray[np.int8]:
    """Robust (1), broken (-1) or undecided (0), per image: would a vote of very many draws be right?

    Exact two-sided binomial test of the draws for the true class among those for it and the strongest other class, at
    probability 1/2. The draws of one image are independent also where a batch shares each of them, so the test holds
    there too; the number of robust images then still varies more than that of independent ones.

    Robust is said by mistake with probability at most level / 2, whatever the number of classes. So is broken where one
    other class matters. The strongest of k others is chosen by the same draws, so with all as likely as the true class
    the bound is k level / 2 (ten such classes, 100 draws, level 0.05: 8 %); such images are at the edge of any vote.

    Args:
        right: draws for the true class, [n].
        other: draws for the strongest other class, [n].
        level: of the test, in (0, 1).

    Raises:
        ValueError: the level is outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"the level of the decision must lie in (0, 1), got {level}")
    # At probability 1/2 both tails are alike; in a tie they overlap.
    p_value = np.minimum(1, 2 * binom.cdf(np.minimum(right, other), right + other, 0.5))
    verdict: NDArray[np.int8] = np.where(p_value <= level, np.sign(right - other), UNDECIDED).astype(np.int8)
    return verdict


def decisions(rows: Rows, random: bool, level: float = 0.05) -> NDArray[np.int8]:
    """`decide` for the images of an adversary, [n]; of a model that is not random by its answer."""
    right, other = duel(rows.counts, rows.label)
    if random:
        return decide(right, other, level)
    return np.where(right > other, ROBUST, BROKEN).astype(np.int8)


def _share_of_choices(m: int, k: int) -> NDArray[np.float64]:
    """C(c, k) / C(m, k) for c = 0..m, [m + 1]."""
    drawn = np.arange(k)
    shares: NDArray[np.float64] = (np.maximum(np.arange(m + 1)[:, None] - drawn, 0) / (m - drawn)).prod(axis=1)
    return shares


def _check(rows: Rows, draws: int) -> None:
    if not 1 <= draws <= rows.draws:
        raise ValueError(f"a vote takes 1 to {rows.draws} draws, as many as were recorded; got {draws}")

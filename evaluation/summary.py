"""What one adversary leaves of a model, as numbers with intervals."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from evaluation.batch import Rows, rows_of
from evaluation.decisions import BROKEN, ROBUST, UNDECIDED, all_right, decisions, voted
from evaluation.intervals import Interval, bootstrap, bootstraps, wilson

VOTES = 5  # where no vote is deployed, the table shows what one of so many draws would do


@dataclass(frozen=True)
class Summary:
    """What one adversary leaves of a model.

    A model that is not random has one accuracy: vote and worst repeat it, and no image is undecided.

    Attributes:
        adversary: its name; "clean" for the images that nobody attacked.
        n: images.
        draws: judge passes per image.
        random: whether the model is.
        shared: whether the images of a batch share the noise of a pass (noisy weights).
        level: confidence level of the intervals: `wilson` for a model that is not random, else `bootstrap` over images,
            where draws are shared over passes too.
        correct: correct predictions over all n * draws passes, exact.
        accuracy: expected accuracy of a single draw, correct / (n * draws), in [0, 1].
        interval: of `accuracy`.
        votes: draws k of the next two.
        vote_accuracy: accuracy of the majority of k draws, a tie counted as wrong, in [0, 1]; see `voted`.
        vote_interval: of `vote_accuracy`.
        worst_accuracy: probability that k draws are all right, in [0, 1]; see `all_right`.
        worst_interval: of `worst_accuracy`.
        robust, undecided, broken: images by `decide`, together n.
        decision_level: of the test that decides.
        l2_mean, l2_median: L2 norm of the perturbation over images, in pixels of [0, 1].
        linf_mean, linf_median: Linf norm of the perturbation over images, in pixels of [0, 1].
        queries_mean: images shown to the model per attacked image.
        zero_gradient: images whose attack met a gradient that is zero everywhere.
    """

    adversary: str
    n: int
    draws: int
    random: bool
    shared: bool
    level: float
    correct: int
    accuracy: float
    interval: Interval
    votes: int
    vote_accuracy: float
    vote_interval: Interval
    worst_accuracy: float
    worst_interval: Interval
    robust: int
    undecided: int
    broken: int
    decision_level: float
    l2_mean: float
    l2_median: float
    linf_mean: float
    linf_median: float
    queries_mean: float
    zero_gradient: int


@dataclass(frozen=True)
class Setting:
    """How the numbers of an evaluation are formed.

    Args:
        random: whether the judged model is. It has to be said: a random model can be unanimous by chance.
        shared: whether the images of a batch share the noise of a pass.
        votes: draws that the deployed model votes over; 1 if it does not vote.
        level: confidence level of the intervals, in (0, 1).
        decision_level: of the test that decides an image, in (0, 1).
        seed: of the bootstrap.
        bounded: adversaries that count for the worst case, beside nobody; None: all.
    """

    random: bool
    shared: bool = False
    votes: int = 1
    level: float = 0.95
    decision_level: float = 0.05
    seed: int = 0
    bounded: tuple[str, ...] | None = None

    def batches(self, rows: Rows) -> np.ndarray | None:
        """What `bootstrap` takes as `batch`."""
        return rows.batch if self.shared else None


def summarise(
    table: pa.Table | Mapping[str, Rows],
    random: bool,
    level: float = 0.95,
    seed: int = 0,
    shared: bool = False,
    votes: int = 1,
    decision_level: float = 0.05,
) -> list[Summary]:
    """Summarises a per-image table, adversary by adversary in order of appearance.

    Args:
        table: rows of `evaluation.SCHEMA`, or what `rows_of` made of them.
        random: see `Setting`, as the others.
        level: of the intervals.
        seed: of the bootstrap.
        shared: whether a batch shares its draws.
        votes: deployed number of votes; with 1 the table shows a vote of 5 draws, or of all if there are fewer.
        decision_level: of the test that decides an image.

    Raises:
        ValueError: if the images of an adversary differ in draws, a model that is not random predicts different classes
            for one image, or there are fewer draws than votes.
    """
    setting = Setting(random, shared, votes, level, decision_level, seed)
    found = table if isinstance(table, Mapping) else rows_of(table)
    return [summary_of(rows, setting) for rows in found.values()]


def summary_of(rows: Rows, setting: Setting) -> Summary:
    """`summarise` for one adversary."""
    if not setting.random:
        check_unanimous(rows)
    decided = decisions(rows, setting.random, setting.decision_level)
    correct = int(rows.right.sum())
    votes, numbers = _random(rows, setting) if setting.random else _deterministic(rows, setting)
    (interval, (vote_accuracy, vote_interval), (worst_accuracy, worst_interval)) = numbers
    return Summary(
        adversary=rows.adversary,
        n=rows.n,
        draws=rows.draws,
        random=setting.random,
        shared=setting.shared,
        level=setting.level,
        correct=correct,
        accuracy=correct / (rows.n * rows.draws),
        interval=interval,
        votes=votes,
        vote_accuracy=vote_accuracy,
        vote_interval=vote_interval,
        worst_accuracy=worst_accuracy,
        worst_interval=worst_interval,
        robust=int((decided == ROBUST).sum()),
        undecided=int((decided == UNDECIDED).sum()),
        broken=int((decided == BROKEN).sum()),
        decision_level=setting.decision_level,
        l2_mean=float(rows.l2.mean()),
        l2_median=float(np.median(rows.l2)),
        linf_mean=float(rows.linf.mean()),
        linf_median=float(np.median(rows.linf)),
        queries_mean=float(rows.queries.mean()),
        zero_gradient=int(rows.zero_gradient.sum()),
    )


def check_unanimous(rows: Rows) -> None:
    """Raises ValueError if a model that is said not to be random answered an image differently."""
    if (rows.answers != rows.answers[:, :1]).any():
        raise ValueError(f"{rows.adversary}: a model that is not random predicted different classes for one image")


_Found = tuple[int, tuple[Interval, tuple[float, Interval], tuple[float, Interval]]]


def _deterministic(rows: Rows, setting: Setting) -> _Found:
    # The passes of a model that is not random repeat each other: n, not n * draws, is what is known.
    hits = int(rows.right[:, 0].sum())
    interval = wilson(hits, rows.n, setting.level)
    return 1, (interval, (hits / rows.n, interval), (hits / rows.n, interval))


def _random(rows: Rows, setting: Setting) -> _Found:
    votes = setting.votes if setting.votes > 1 else min(VOTES, rows.draws)
    how = (setting.batches(rows), setting.level, setting.seed)
    winners, unharmed = voted(rows, votes), all_right(rows, votes)
    interval, worst = bootstraps(np.stack([rows.right, unharmed], axis=-1), *how)
    by_vote = float(winners.mean()), bootstrap(winners, *how)
    return votes, (interval, by_vote, (float(unharmed.mean()), worst))

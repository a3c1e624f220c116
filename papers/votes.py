"""Accuracy of a majority of N answers, from more answers than that."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from papers.kept import Arrays


def vote_of(found: Arrays, votes: int) -> NDArray[np.float64]:
    """Share of the votes of N that are right, per image, [n]: recorded answers in groups of N.

    As in the papers the lowest class number wins a tie; `evaluation` counts a tie as an error.

    Args:
        found: answers [n, draws] and label [n], as `Bench.judged` gives them.
        votes: N, at most as many as draws; a rest that fills no group is left out.
    """
    answers, label = found["answers"], found["label"]
    n, draws = answers.shape
    if not 1 <= votes <= draws:
        raise ValueError(f"a vote takes 1 to {draws} draws, as many as were recorded; got {votes}")
    groups = draws // votes
    split = answers[:, : groups * votes].reshape(n, groups, votes)
    counts = np.stack([(split == number).sum(axis=2) for number in range(int(answers.max()) + 1)], axis=2)
    shares: NDArray[np.float64] = (counts.argmax(axis=2) == label[:, None]).mean(axis=1)
    return shares


def curve_of(found: Arrays, trials: Sequence[int]) -> dict[int, NDArray[np.float64]]:
    """N -> `vote_of`."""
    return {votes: vote_of(found, votes) for votes in trials}

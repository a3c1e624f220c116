"""Votes from recorded answers: by hand, and against the binomial law."""

import numpy as np
import pytest
from scipy.stats import binom

from papers.votes import curve_of, vote_of


def test_groups_vote_one_after_the_other_and_the_lowest_class_wins_a_tie() -> None:
    found = {"answers": np.array([[1, 1, 0, 1, 0, 0, 2], [2, 2, 2, 2, 2, 2, 2]]), "label": np.array([1, 2])}
    assert vote_of(found, 1).tolist() == pytest.approx([3 / 7, 1])
    assert vote_of(found, 2).tolist() == pytest.approx([1 / 3, 1])  # 1 1 | 0 1 | 0 0, the seventh is left out
    assert vote_of(found, 3).tolist() == pytest.approx([1 / 2, 1])
    assert vote_of(found, 7).tolist() == [0, 1]  # three ones, three zeros
    assert vote_of({**found, "label": np.array([0, 2])}, 7).tolist() == [1, 1]


def test_votes_of_independent_draws_follow_the_binomial_law() -> None:
    rng = np.random.default_rng(0)
    found = {"answers": (rng.random((4000, 15)) < 0.6).astype(int), "label": np.ones(4000, int)}
    for votes, shares in curve_of(found, [1, 3, 5, 15]).items():
        expected = binom.sf(votes // 2, votes, 0.6)
        assert shares.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / 4000))


def test_more_votes_than_answers_are_refused() -> None:
    found = {"answers": np.zeros((2, 4), int), "label": np.zeros(2, int)}
    with pytest.raises(ValueError, match="a vote takes 1 to 4 draws, as many as were recorded; got 5"):
        vote_of(found, 5)

"""Votes, worst of k and decisions against enumeration, scipy's test, and the errors that they may make."""

from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from evaluation.decisions import BROKEN, ROBUST, UNDECIDED, all_right, decide, decisions, duel, duel_of_answers, vote
from evaluation.decisions import voted as voted_of
from tests.evaluation.made import made, made_right


def test_a_tied_vote_is_lost() -> None:
    counts = np.array([[3, 1, 1], [2, 2, 1], [2, 2, 1], [1, 3, 1], [5, 0, 0]])
    label = np.array([0, 0, 1, 0, 2])
    assert vote(counts, label).tolist() == [True, False, False, False, False]
    assert counts[0].tolist() == [3, 1, 1]


def test_answers_and_counts_tell_of_the_same_duel() -> None:
    rng = np.random.default_rng(0)
    answers, label = rng.integers(4, size=(50, 9)), rng.integers(4, size=50)
    from_counts = duel(made(answers, label).counts, label)
    for found, expected in zip(duel_of_answers(answers, label), from_counts, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("votes", [1, 3, 5, 11])
def test_votes_are_those_of_a_loop_over_groups(votes: int) -> None:
    rng = np.random.default_rng(1)
    rows = made(rng.integers(3, size=(30, 11)), rng.integers(3, size=30))
    expected = [
        [
            all(
                answers[g * votes : (g + 1) * votes].tolist().count(label)
                > answers[g * votes : (g + 1) * votes].tolist().count(other)
                for other in {0, 1, 2} - {label}
            )
            for g in range(11 // votes)
        ]
        for answers, label in zip(rows.answers, rows.label.tolist(), strict=True)
    ]
    assert voted_of(rows, votes).tolist() == expected


def test_a_vote_of_three_is_unbiased() -> None:
    n, p = 20000, 0.6
    rows = made_right(np.random.default_rng(2).random((n, 10)) < p)
    # p³ + 3 p² (1 - p), from 3 groups an image; five deviations of a mean of 60,000.
    assert voted_of(rows, 3).mean() == pytest.approx(0.648, abs=5 * (0.648 * 0.352 / 60000) ** 0.5)


@pytest.mark.parametrize("tries", [1, 2, 4, 7])
def test_the_worst_of_k_is_the_share_of_choices_without_an_error(tries: int) -> None:
    right = np.random.default_rng(3).random((40, 7)) < 0.8
    choices = list(combinations(range(7), tries))
    expected = [np.mean([row[list(choice)].all() for choice in choices]) for row in right]
    np.testing.assert_allclose(all_right(made_right(right), tries).mean(axis=1), expected, atol=1e-12)


def test_one_try_is_a_single_draw() -> None:
    rows = made_right(np.random.default_rng(4).random((20, 9)) < 0.5)
    np.testing.assert_allclose(all_right(rows, 1), rows.right, atol=1e-12)
    np.testing.assert_array_equal(voted_of(rows, 1), rows.right)


def test_the_values_per_pass_tell_how_much_the_worst_of_k_varies() -> None:
    m, tries = 60, 3
    values = all_right(made_right(np.random.default_rng(5).random((20000, m)) < 0.7), tries)
    estimated = values.var(axis=1, ddof=1).mean() / m
    # Hoeffding 1948: the first-order term is all but 1 / m of the variance; 10 % are left for it and for chance.
    assert estimated == pytest.approx(values.mean(axis=1).var(), rel=0.1)


@pytest.mark.parametrize("function", [voted_of, all_right])
@pytest.mark.parametrize("draws", [0, 4])
def test_votes_beyond_the_draws_are_refused(function: type, draws: int) -> None:
    with pytest.raises(ValueError, match=f"a vote takes 1 to 3 draws, as many as were recorded; got {draws}"):
        function(made_right(np.ones((2, 3), bool)), draws)


def test_decisions_are_those_of_the_exact_test() -> None:
    right, other = (counts.ravel() for counts in np.meshgrid(range(25), range(25)))
    for level in (0.05, 0.001):
        found = decide(right, other, level)
        for r, o, verdict in zip(right.tolist(), other.tolist(), found.tolist(), strict=True):
            significant = r + o > 0 and binomtest(r, r + o).pvalue <= level
            assert verdict == (UNDECIDED if not significant else ROBUST if r > o else BROKEN)


@pytest.mark.parametrize("draws", [1, 5, 6, 20, 100])
def test_a_fair_coin_is_called_robust_or_broken_rarely(draws: int) -> None:
    right = np.arange(draws + 1)
    verdict, chance = decide(right, draws - right, 0.05), binom.pmf(right, draws, 0.5)
    assert chance[verdict == ROBUST].sum() <= 0.025
    assert chance[verdict == BROKEN].sum() <= 0.025
    assert (verdict[-1] == ROBUST) == (draws >= 6)  # 2^-5 > 0.05 / 2


def test_robust_stays_right_with_many_classes() -> None:
    rng = np.random.default_rng(6)
    for chances in ([1 / 3] * 3, [0.4, 0.4, 0.2], [0.1] * 10):
        verdict = decide(*duel(rng.multinomial(100, chances, size=20000), np.zeros(20000, int)))
        # Five deviations above level / 2, and above the bound of k level / 2 for k rivals as likely as the true class.
        assert (verdict == ROBUST).mean() <= 0.025 + 0.0055
        rivals = sum(chance == chances[0] for chance in chances) - 1
        assert (verdict == BROKEN).mean() <= 0.025 * rivals + 0.0055


def test_without_noise_the_answer_decides() -> None:
    rows = made_right(np.array([[True], [False], [True]]))
    assert decisions(rows, random=False).tolist() == [ROBUST, BROKEN, ROBUST]
    assert decisions(rows, random=True).tolist() == [UNDECIDED] * 3


def test_a_level_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\), got 1"):
        decide(np.array([1]), np.array([0]), 1)

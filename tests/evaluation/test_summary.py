"""Summaries against numbers counted by hand."""

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from evaluation.batch import Batch
from evaluation.decisions import all_right
from evaluation.intervals import bootstrap, wilson
from evaluation.summary import summarise
from tests.evaluation.made import batches_of, drawn, made_right


def rows(adversary: str, counts: NDArray[np.int64], label: NDArray[np.int64]) -> pa.Table:
    n, draws = len(label), int(counts[0].sum())
    return Batch(
        index=np.arange(n),
        label=label,
        answers=np.stack([np.repeat(np.arange(counts.shape[1]), row) for row in counts]),
        probs=counts / draws,
        l2=np.linspace(0, 1, n) ** 2,
        linf=np.full(n, 0.25),
        queries=np.arange(n),
        zero_gradient=np.arange(n) == 0,
        erred=np.arange(n) == 1,
        loss=np.empty((n, 0)),
        unfinished=np.full(n, np.nan),
    ).to_arrow(adversary, 0)


def test_a_random_model_is_summarised_over_draws_and_images() -> None:
    counts = np.array([[3, 1, 0], [2, 2, 0], [0, 4, 0], [1, 0, 3]])
    (summary,) = summarise(rows("pgd", counts, np.array([0, 0, 1, 0])), random=True, votes=4)
    assert (summary.adversary, summary.n, summary.draws, summary.random) == ("pgd", 4, 4, True)
    assert summary.correct == 3 + 2 + 4 + 1
    assert summary.accuracy == 10 / 16
    assert summary.interval == bootstrap(np.array([3, 2, 4, 1]) / 4)
    assert summary.interval.low < summary.accuracy < summary.interval.high
    assert summary.votes == 4
    assert summary.vote_accuracy == 2 / 4
    assert summary.vote_interval == bootstrap(np.array([1, 0, 1, 0]))
    assert summary.worst_accuracy == 1 / 4
    assert summary.worst_interval == bootstrap(np.array([0, 0, 1, 0]))
    assert (summary.robust, summary.undecided, summary.broken) == (0, 4, 0)  # 4 : 0 is a matter of luck, p = 1/8
    assert summary.l2_mean == pytest.approx((0 + 1 / 9 + 4 / 9 + 1) / 4)
    assert summary.l2_median == pytest.approx((1 / 9 + 4 / 9) / 2)
    assert (summary.linf_mean, summary.linf_median) == (0.25, 0.25)
    assert summary.queries_mean == 1.5
    assert summary.zero_gradient == 1


def test_images_are_decided_by_their_draws() -> None:
    counts = np.array([[20, 0], [16, 4], [12, 8], [10, 10], [5, 15], [0, 20]])
    (summary,) = summarise(rows("pgd", counts, np.zeros(6, int)), random=True)
    assert (summary.robust, summary.undecided, summary.broken) == (2, 2, 2)
    (strict,) = summarise(rows("pgd", counts, np.zeros(6, int)), random=True, decision_level=0.001)
    assert (strict.robust, strict.undecided, strict.broken, strict.decision_level) == (1, 4, 1, 0.001)


@pytest.mark.parametrize("draws", [1, 3])
def test_a_deterministic_model_gets_wilson_over_images_however_often_it_is_asked(draws: int) -> None:
    counts = np.eye(2, dtype=int)[[0] * 8 + [1] * 2] * draws
    (summary,) = summarise(rows("clean", counts, np.zeros(10, int)), random=False, level=0.9)
    assert summary.accuracy == summary.vote_accuracy == summary.worst_accuracy == 0.8
    assert summary.correct == 8 * draws
    assert summary.interval == summary.vote_interval == summary.worst_interval == wilson(8, 10, 0.9)
    assert (summary.robust, summary.undecided, summary.broken) == (8, 0, 2)


@pytest.mark.parametrize(("votes", "draws", "used"), [(1, 20, 5), (1, 3, 3), (7, 20, 7)])
def test_the_vote_is_the_deployed_one_or_else_one_of_five(votes: int, draws: int, used: int) -> None:
    (summary,) = summarise({"a": made_right(np.ones((5, draws), bool))}, random=True, votes=votes)
    assert summary.votes == used


def test_a_unanimous_random_model_is_still_not_known_for_certain() -> None:
    counts = np.eye(2, dtype=int)[[0] * 50 + [1] * 50] * 3
    (summary,) = summarise(rows("clean", counts, np.zeros(100, int)), random=True)
    assert summary.interval == bootstrap(np.array([1] * 50 + [0] * 50)) != wilson(50, 100)


def test_shared_draws_are_resampled_in_every_number() -> None:
    right, batch = drawn(np.random.default_rng(0), 200, 20, 4, shared=True), batches_of(200, 4)
    table = {"pgd": made_right(right, batch=batch)}
    (alone,), (shared,) = (summarise(table, random=True, shared=shared) for shared in (False, True))
    assert shared.interval == bootstrap(right, batch)
    for name in ("interval", "vote_interval", "worst_interval"):
        narrow, wide = getattr(alone, name), getattr(shared, name)
        assert wide.high - wide.low > 1.1 * (narrow.high - narrow.low)
    assert shared.worst_accuracy == alone.worst_accuracy == all_right(table["pgd"], 5).mean()


def test_adversaries_come_in_order_of_appearance() -> None:
    counts, label = np.array([[1, 0], [0, 1]]), np.zeros(2, int)
    table = pa.concat_tables([rows(name, counts, label) for name in ("pgd", "clean", "cw")])
    assert [summary.adversary for summary in summarise(table, random=True)] == ["pgd", "clean", "cw"]
    assert summarise(table.slice(0, 0), random=True) == []


def test_tables_that_contradict_themselves_are_refused() -> None:
    label = np.zeros(1, int)
    one, two = rows("pgd", np.array([[1, 0]]), label), rows("pgd", np.array([[1, 1]]), label)
    with pytest.raises(ValueError, match="pgd: images differ in draws, got 1, 2"):
        summarise(pa.concat_tables([one, two]), random=True)
    with pytest.raises(ValueError, match="not random predicted different classes"):
        summarise(two, random=False)
    with pytest.raises(ValueError, match="a vote takes 1 to 2 draws, as many as were recorded; got 9"):
        summarise(two, random=True, votes=9)

"""The table's columns against their definitions, and read back as they were written."""

import numpy as np
import pyarrow as pa
import pytest

from evaluation.batch import LOSS_POINTS, Batch, counted, rows_of, sampled, unfinished


def a_batch(size: int, draws: int, points: int, first: int = 0) -> Batch:
    rng = np.random.default_rng(size + 10 * draws)
    return Batch(
        index=np.arange(first, first + size)[::-1].copy(),
        label=rng.integers(4, size=size),
        answers=rng.integers(4, size=(size, draws)),
        probs=rng.dirichlet(np.ones(4), size=size),
        l2=rng.uniform(size=size),
        linf=rng.uniform(size=size),
        queries=rng.integers(100, size=size),
        zero_gradient=rng.uniform(size=size) < 0.5,
        erred=rng.uniform(size=size) < 0.5,
        loss=rng.normal(size=(size, points)),
        unfinished=rng.uniform(size=size),
    )


def test_rows_come_back_sorted_and_whole() -> None:
    batches = [a_batch(3, 5, 4, first=3), a_batch(3, 5, 4)]
    table = pa.concat_tables([batch.to_arrow("pgd", number) for number, batch in enumerate(batches)])
    (rows,) = rows_of(table).values()
    assert (rows.adversary, rows.n, rows.draws) == ("pgd", 6, 5)
    assert rows.index.tolist() == [0, 1, 2, 3, 4, 5]
    assert rows.batch.tolist() == [1, 1, 1, 0, 0, 0]
    expected = np.concatenate([batch.answers[::-1] for batch in batches[::-1]])
    np.testing.assert_array_equal(rows.answers, expected)
    np.testing.assert_array_equal(
        rows.correct, [sum(a == y for a in row) for row, y in zip(expected, rows.label, strict=True)]
    )
    np.testing.assert_allclose(rows.loss[3:], batches[0].loss[::-1], rtol=1e-6)
    assert rows.zero_gradient.dtype == rows.erred.dtype == bool


def test_batches_whose_attacks_ended_at_different_steps_are_filled_up() -> None:
    table = pa.concat_tables([a_batch(2, 1, 3).to_arrow("aa", 0), a_batch(2, 1, 1, first=2).to_arrow("aa", 1)])
    assert np.isnan(rows_of(table)["aa"].loss).tolist() == [[False] * 3] * 2 + [[False, True, True]] * 2


def test_draws_that_differ_are_refused() -> None:
    table = pa.concat_tables([a_batch(2, 1, 0).to_arrow("a", 0), a_batch(2, 3, 0, first=2).to_arrow("a", 1)])
    with pytest.raises(ValueError, match="a: images differ in draws, got 1, 3"):
        rows_of(table)


def test_counts_are_those_of_a_loop() -> None:
    answers = np.random.default_rng(0).integers(3, size=(7, 11))
    assert counted(answers, 3).tolist() == [[int((row == k).sum()) for k in range(3)] for row in answers]


@pytest.mark.parametrize("steps", [0, 1, 2, 33, 34, 500])
def test_losses_are_sampled_from_first_to_last(steps: int) -> None:
    loss = np.arange(steps, dtype=float)[:, None] * [1, -1]
    points = sampled(loss)
    assert points.shape == (2, min(steps, LOSS_POINTS))
    if steps:
        assert (points[0, 0], points[0, -1]) == (0, steps - 1)
        np.testing.assert_array_equal(points[0], -points[1])
        assert (np.diff(points[0]) > 0).all()


def test_what_is_unfinished() -> None:
    steps = np.arange(101.0)
    columns = [
        steps,
        np.minimum(steps, 50),
        -steps,
        np.zeros(101),
        np.where(steps < 60, steps, np.nan),
        -((steps - 95) ** 2),
    ]
    share = unfinished(np.stack(columns, 1))
    # Even gain: 10 of 100. Done at 50: none. Falling, flat: nothing. Left early: unknown. Peak at 95: 25 of 95^2.
    np.testing.assert_allclose(share, [0.1, 0, 0, 0, np.nan, 25 / 95**2])
    assert np.isnan(unfinished(np.zeros((19, 2)))).all()

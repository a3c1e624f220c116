import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from evaluation.batch import Batch
from evaluation.numbers import (
    Interval,
    Summary,
    bootstrap,
    format_table,
    markdown_table,
    results,
    summarise,
    vote,
    wilson,
    write_results,
)

Z95 = 1.959963984540054


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


def test_wilson_by_hand() -> None:
    # p = .8, n = 10, z² = 3.8415:
    # centre (.8 + .19207) / 1.38415 = .71675, half width 1.96 sqrt(.016 + .0096037) / 1.38415 = .22658.
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (0, 1000), (1, 3), (500, 1000), (9999, 10000), (7, 7)])
def test_wilson_is_the_closed_formula(correct: int, n: int) -> None:
    p = correct / n
    centre = p + Z95**2 / (2 * n)
    half = Z95 * math.sqrt(p * (1 - p) / n + Z95**2 / (4 * n * n))
    expected = (centre - half) / (1 + Z95**2 / n), (centre + half) / (1 + Z95**2 / n)
    assert wilson(correct, n) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("correct", "n", "level"), [(0, 0, 0.95), (-1, 5, 0.95), (6, 5, 0.95), (1, 5, 1.0)])
def test_wilson_refuses_what_is_no_proportion(correct: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match="need 0 <= correct <= n"):
        wilson(correct, n, level)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_bootstrap_is_close_to_the_normal_approximation(level: float) -> None:
    n, draws = 4000, 10
    rng = np.random.default_rng(1)
    correct = rng.binomial(draws, rng.beta(0.5, 0.5, size=n))
    fractions = correct / draws
    sigma = fractions.std() / math.sqrt(n)
    z = {0.8: 1.2815515655446004, 0.95: Z95}[level]
    low, high = bootstrap(correct, draws, level)
    # An end is an order statistic of 2000 resamples: its own deviation is at most 0.06 sigma, so 0.3 sigma is
    # missed with a probability below 1e-6 per end over the choice of the seed.
    assert low == pytest.approx(fractions.mean() - z * sigma, abs=0.3 * sigma)
    assert high == pytest.approx(fractions.mean() + z * sigma, abs=0.3 * sigma)


def test_bootstrap_is_that_of_resampled_images() -> None:
    n, draws, resamples = 200, 20, 20000
    rng = np.random.default_rng(2)
    correct = rng.integers(draws + 1, size=n)
    means = correct[rng.integers(n, size=(resamples, n))].mean(axis=1) / draws
    expected = np.quantile(means, [0.025, 0.975])
    # The mean has a deviation of 0.021, each end one of 0.019 times that, their difference one of 0.0006:
    # 0.004 is missed with a probability below 1e-8, the step of 1 / (n draws) = 0.00025 included.
    assert bootstrap(correct, draws, resamples=resamples) == pytest.approx(expected, abs=0.004)


def test_bootstrap_covers_the_truth_where_passes_are_not_independent() -> None:
    n, draws, tables = 200, 10, 200
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(tables):
        low, high = bootstrap(rng.binomial(draws, rng.beta(0.2, 0.2, size=n)), draws, resamples=400)
        inside += low <= 0.5 <= high
    # A true coverage of 0.94 falls below 172 of 200 with a probability of 1e-5 (binomial). Taking the passes
    # for n * draws independent images would cover about half.
    assert inside >= 172


def test_bootstrap_repeats_with_its_seed() -> None:
    correct = np.random.default_rng(4).integers(8, size=300)
    assert bootstrap(correct, 7, seed=1) == bootstrap(correct, 7, seed=1)
    assert bootstrap(correct, 7, seed=1) != bootstrap(correct, 7, seed=2)


def test_bootstrap_of_equal_images_does_not_pretend_certainty() -> None:
    assert bootstrap(np.zeros(100, int), 20) == wilson(0, 100)
    assert bootstrap(np.full(100, 20), 20) == wilson(100, 100)


@pytest.mark.parametrize("correct", [[], [3], [-1]])
def test_bootstrap_refuses_impossible_counts(correct: list[int]) -> None:
    with pytest.raises(ValueError, match=r"counts in 0\.\.2"):
        bootstrap(np.array(correct, int), 2)


def test_a_tied_vote_is_lost() -> None:
    counts = np.array([[3, 1, 1], [2, 2, 1], [2, 2, 1], [1, 3, 1], [5, 0, 0]])
    label = np.array([0, 0, 1, 0, 2])
    assert vote(counts, label).tolist() == [True, False, False, False, False]
    assert counts[0].tolist() == [3, 1, 1]


def test_a_random_model_is_summarised_over_draws_and_images() -> None:
    counts = np.array([[3, 1, 0], [2, 2, 0], [0, 4, 0], [1, 0, 3]])
    (summary,) = summarise(rows("pgd", counts, np.array([0, 0, 1, 0])), random=True)
    assert (summary.adversary, summary.n, summary.draws, summary.random) == ("pgd", 4, 4, True)
    assert summary.correct == 3 + 2 + 4 + 1
    assert summary.accuracy == 10 / 16
    assert summary.interval == bootstrap(np.array([3, 2, 4, 1]), 4)
    assert summary.interval.low < summary.accuracy < summary.interval.high
    assert summary.vote_accuracy == 2 / 4
    assert summary.vote_interval == wilson(2, 4)
    assert summary.l2_mean == pytest.approx((0 + 1 / 9 + 4 / 9 + 1) / 4)
    assert summary.l2_median == pytest.approx((1 / 9 + 4 / 9) / 2)
    assert (summary.linf_mean, summary.linf_median) == (0.25, 0.25)
    assert summary.queries_mean == 1.5
    assert summary.zero_gradient == 1


@pytest.mark.parametrize("draws", [1, 3])
def test_a_deterministic_model_gets_wilson_over_images_however_often_it_is_asked(draws: int) -> None:
    counts = np.eye(2, dtype=int)[[0] * 8 + [1] * 2] * draws
    (summary,) = summarise(rows("clean", counts, np.zeros(10, int)), random=False, level=0.9)
    assert summary.accuracy == summary.vote_accuracy == 0.8
    assert summary.correct == 8 * draws
    assert summary.interval == summary.vote_interval == wilson(8, 10, 0.9)


def test_a_unanimous_random_model_stays_random() -> None:
    counts = np.eye(2, dtype=int)[[0] * 8 + [1] * 2] * 3
    (summary,) = summarise(rows("clean", counts, np.zeros(10, int)), random=True)
    assert summary.interval == bootstrap(np.array([3] * 8 + [0] * 2), 3) != wilson(8, 10)


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


CLEAN = Summary(
    "clean", 10, 1, False, 0.95, 8, 0.8, Interval(0.4902, 0.9433), 0.8, Interval(0.4902, 0.9433),
    0.0, 0.0, 0.0, 0.0, 0.0, 0,
)  # fmt: skip
PGD = Summary(
    "pgd_eot20", 1000, 100, True, 0.95, 43210, 0.4321, Interval(0.4, 0.46), 0.45, Interval(0.42, 0.48),
    1.23456, 1.2, 8 / 255, 8 / 255, 4000.5, 3,
)  # fmt: skip


def test_results_are_plain_json_and_round_trip(tmp_path: Path) -> None:
    manifest = {"seed": 0, "adversaries": ("clean", "pgd_eot20")}
    path = write_results(tmp_path, [CLEAN, PGD], manifest)
    assert path == tmp_path / "results.json"
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    content = json.loads(text)
    assert content == results([CLEAN, PGD], manifest)
    assert content["manifest"] == {"seed": 0, "adversaries": ["clean", "pgd_eot20"]}
    intervals = ("interval", "vote_interval")
    read = [{**row, **{name: Interval(*row[name]) for name in intervals}} for row in content["summaries"]]
    assert [Summary(**row) for row in read] == [CLEAN, PGD]
    assert list(tmp_path.iterdir()) == [path]


def test_summaries_of_a_table_are_json(tmp_path: Path) -> None:
    summaries = summarise(rows("pgd", np.array([[3, 1], [2, 2]]), np.zeros(2, int)), random=True)
    content = json.loads(write_results(tmp_path, summaries, {}).read_text())
    assert content["summaries"][0]["accuracy"] == summaries[0].accuracy


def test_results_refuse_what_is_not_a_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(tmp_path, [replace(PGD, l2_mean=math.nan)], {})
    assert list(tmp_path.iterdir()) == []


def test_the_terminal_table() -> None:
    assert format_table([CLEAN, PGD], "RobustNet, digits") == (
        "RobustNet, digits\n"
        "adversary  accuracy %   95 % interval  correct / passes  vote %  mean L2  mean Linf\n"
        "---------  ----------  --------------  ----------------  ------  -------  ---------\n"
        "clean           80.00  [49.02, 94.33]            8 / 10   80.00    0.000     0.0000\n"
        "pgd_eot20       43.21  [40.00, 46.00]    43210 / 100000   45.00    1.235     0.0314"
    )


def test_the_markdown_table_of_a_deterministic_model_has_no_votes() -> None:
    assert markdown_table([CLEAN], "**Plain**, digits, n = 10") == (
        "**Plain**, digits, n = 10\n"
        "\n"
        "| adversary | accuracy % | 95 % interval | correct / passes | mean L2 | mean Linf |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| clean | 80.00 | [49.02, 94.33] | 8 / 10 | 0.000 | 0.0000 |"
    )


def test_a_table_needs_a_row() -> None:
    with pytest.raises(ValueError, match="at least one summary"):
        format_table([], "nothing")

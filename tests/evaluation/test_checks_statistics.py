"""The statistics behind a doubt, against closed forms, other implementations, and simulation."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from attacks import PGD, Adversary, Frozen
from evaluation.checks.check import LEVEL, difference, mean_interval, too_few, too_many
from evaluation.checks.course import loss_rises, silent_success, unfinished, view_only
from evaluation.checks.diagnostics import Reference
from tests.evaluation.checks_toys import rows_with


def test_the_difference_is_that_of_the_accuracies() -> None:
    a, b = rows_with(np.random.default_rng(0).random((60, 5)) < 0.7), rows_with(np.ones((60, 5), dtype=bool))
    gap = difference(a, b, shared=False)
    assert gap.value == pytest.approx(a.right.mean() - 1)
    assert gap.low < gap.value < gap.high
    turned = difference(b, a, shared=False)
    assert (turned.low, turned.high) == (pytest.approx(-gap.high), pytest.approx(-gap.low))


def test_the_interval_is_agresti_and_mins() -> None:
    """Of 100 pairs 18 for one side, 6 for the other: (b - c) / (n + 2) +- z sqrt((b' + c') - (b' - c')^2 / n') / n'."""
    first = np.array([True] * 18 + [False] * 6 + [True] * 76)[:, None]
    second = np.array([False] * 18 + [True] * 6 + [True] * 76)[:, None]
    gap = difference(rows_with(first), rows_with(second), shared=False)
    z, b, c, n = 2.5758293, 18.5, 6.5, 102
    half = z * np.sqrt((b + c) - (b - c) ** 2 / n) / n
    assert gap.low == pytest.approx((b - c) / n - half)
    assert gap.high == pytest.approx((b - c) / n + half)


def test_few_images_never_give_a_sure_difference() -> None:
    assert difference(rows_with(np.ones((3, 1), dtype=bool)), rows_with(np.zeros((3, 1), dtype=bool)), False).low < 0.1
    same = rows_with(np.ones((40, 1), dtype=bool))
    assert difference(same, same, False).high > 0.03


@pytest.mark.parametrize("shared", [False, True])
def test_models_that_do_not_differ_are_rarely_told_apart(shared: bool) -> None:
    """A sound comparison is doubted in no more than about one of a hundred cases, with draws of a batch shared too."""
    generator = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        p = generator.beta(2, 1, size=(60, 1))
        common = [generator.normal(0, 0.15, size=(2, 20)).repeat(30, axis=0) * shared for _ in "ab"]
        a, b = (rows_with(generator.random((60, 20)) < p + part) for part in common)
        gap = difference(a, b, shared)
        wrong += not gap.low <= 0 <= gap.high
    assert wrong <= 400 * (1 - LEVEL) * 2.5


def test_sharing_widens_the_interval() -> None:
    common = np.random.default_rng(0).random(20) < 0.5
    a, b = rows_with(np.tile(common, (60, 1))), rows_with(np.tile(~common, (60, 1)))
    wide, narrow = difference(a, b, shared=True), difference(a, b, shared=False)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_other_images_are_not_compared() -> None:
    rows = rows_with(np.ones((60, 1), dtype=bool))
    with pytest.raises(ValueError, match="not judged on the same images"):
        difference(rows, rows.at(rows.index < 30), False)


def test_shares_are_tested_exactly() -> None:
    for n in (1, 5, 40):
        for count in range(n + 1):
            assert too_many(count, n, 0.05) == (binom.sf(count - 1, n, 0.05) < 0.005)
            assert too_few(count, n, 0.95) == (binom.cdf(count, n, 0.95) < 0.005)
    assert not too_many(0, 0, 0.05)


def test_a_mean_without_spread_has_an_interval_all_the_same() -> None:
    low, high = mean_interval(np.zeros(10))
    assert low == 0
    assert 0.1 < high < 0.3
    low, high = mean_interval(np.random.default_rng(0).random(1000))
    assert (low, high) == (pytest.approx(0.5, abs=0.05), pytest.approx(0.5, abs=0.05))
    assert low < 0.5 < high


def at(steps: int = 40, frozen: bool = False, draws: int = 1) -> Reference:
    adversary = Adversary(PGD(steps=steps), draws=draws)
    return Reference(replace(adversary, view=Frozen()) if frozen else adversary, "attack")


def test_what_erred_on_the_way_is_counted_among_the_survivors_only() -> None:
    rows = rows_with(np.ones((60, 1), dtype=bool))
    alive, erred = np.arange(60) < 40, np.arange(60) >= 30
    found = replace(rows, erred=erred)
    silent = silent_success(found, alive, at(), random=False)
    assert (silent.verdict, silent.figures) == ("doubt", {"silent": 10, "n": 40})
    assert silent_success(replace(rows, erred=~alive), alive, at(), random=False).verdict == "pass"
    assert view_only(found, alive, at(frozen=True)).figures == {"view_only": 10, "n": 40}
    assert view_only(found, alive, at(frozen=True)).verdict == "doubt"
    assert view_only(found, alive, at()).verdict == "not run"
    assert silent_success(found, alive, at(frozen=True), random=False).verdict == "not run"


def test_a_lucky_draw_of_a_random_model_is_no_silent_success() -> None:
    right = np.arange(60)[:, None] % 2 + np.zeros((60, 20)) > np.linspace(-0.6, 0.4, 20)  # every other image at 60 %
    rows = replace(rows_with(right), erred=np.arange(60) % 2 == 0)
    alive = np.ones(60, dtype=bool)
    assert silent_success(rows, alive, at(draws=9), random=True).verdict == "not run"
    check = silent_success(rows, alive, at(draws=10), random=True)
    assert (check.verdict, check.figures) == ("pass", {"silent": 0, "n": 30})


def test_the_course_of_the_loss() -> None:
    alive = np.ones(60, dtype=bool)
    steps = np.linspace(0, 1, 33)
    courses = {"line": steps, "early": 1 - np.exp(-20 * steps), "flat": 0 * steps, "falls": -steps}
    noise = np.random.default_rng(0).normal(0, 1e-3, size=(60, 33))
    rises, ends = {}, {}
    for name, course in courses.items():
        rows = replace(rows_with(np.ones((60, 1), dtype=bool)), loss=course + noise * (name != "flat"))
        rises[name] = loss_rises(rows, alive).verdict
        ends[name] = unfinished(rows, alive, at(), random=True)
    assert rises == {"line": "pass", "early": "pass", "flat": "doubt", "falls": "doubt"}
    assert (ends["line"].verdict, ends["early"].verdict, ends["flat"].verdict) == ("doubt", "pass", "pass")
    assert ends["line"].figures["share"] == pytest.approx(8 / 32, abs=0.01)  # 10 of 39 steps
    late = replace(rows_with(np.ones((60, 1), dtype=bool)), unfinished=np.full(60, 0.2))
    assert unfinished(late, alive, at(), random=False).verdict == "doubt"
    assert unfinished(late, alive, at(19), random=False).verdict == "not run"
    assert unfinished(late, ~alive, at(), random=False).verdict == "not run"

"""Paired comparison: by hand, by McNemar's formula, and by the truth that its intervals should cover."""

from math import comb

import numpy as np
import pytest

from evaluation.batch import Rows
from evaluation.paired import WORST_CASE, compare
from evaluation.summary import Setting
from evaluation.worst_case import worst_case
from tests.evaluation.made import batches_of, drawn, made, made_right

PLAIN, RANDOM = Setting(random=False), Setting(random=True)


def plain(hits: int, others: int, adversary: str = "clean") -> Rows:
    """`hits` images right, `others` wrong."""
    return made_right(np.array([[True]] * hits + [[False]] * others), adversary)


def test_mcnemar_is_the_exact_formula() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 60, 1)) < [[[0.9]], [[0.7]]]
    (found,) = compare({"clean": made_right(a)}, {"clean": made_right(b)}, PLAIN, PLAIN)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    assert (found.only_a, found.only_b, found.n) == (only_a, only_b, 60)
    k, few = only_a + only_b, min(only_a, only_b)
    assert found.mcnemar == pytest.approx(min(1, 2 * sum(comb(k, i) for i in range(few + 1)) / 2**k))
    assert found.difference == pytest.approx((only_a - only_b) / 60)
    assert found.interval.low < found.difference < found.interval.high


@pytest.mark.parametrize(("differing", "verdict"), [(0, "undecided"), (5, "undecided"), (6, "A higher")])
def test_few_images_decide_nothing(differing: int, verdict: str) -> None:
    a, b = {"clean": plain(50, 50)}, {"clean": plain(50 - differing, 50 + differing)}
    (found,), (turned,) = compare(a, b, PLAIN, PLAIN), compare(b, a, PLAIN, PLAIN)
    assert found.verdict == verdict
    assert turned.verdict == verdict.replace("A", "B")
    assert turned.interval == pytest.approx((-found.interval.high, -found.interval.low))
    assert (found.mcnemar > 0.05) == (verdict == "undecided")


def test_what_two_models_have_in_common_is_no_uncertainty() -> None:
    rng = np.random.default_rng(1)
    hard = rng.normal(size=(400, 1))
    a, b = (hard + shift + rng.normal(size=(400, 20)) / 2 > 0 for shift in (0.1, 0.0))
    (found,) = compare({"pgd": made_right(a)}, {"pgd": made_right(b)}, RANDOM, RANDOM)
    differences = a.mean(axis=1) - b.mean(axis=1)
    half = 1.96 * differences.std() / 20
    # Each end of 2000 resamples deviates by at most 0.06 of the standard error.
    assert found.interval == pytest.approx((found.difference - half, found.difference + half), abs=0.15 * half)
    assert found.mcnemar is None
    assert (found.only_a, found.only_b) == ((differences > 0).sum(), (differences < 0).sum())


def test_two_equal_models_are_called_different_rarely() -> None:
    rng, batch, wrong, tables = np.random.default_rng(2), batches_of(100, 4), 0, 200
    shared = Setting(random=True, shared=True)
    for _ in range(tables):
        a, b = ({"pgd": made_right(drawn(rng, 100, 10, 4, True), batch=batch)} for _ in range(2))
        (found,) = compare(a, b, shared, shared)
        wrong += found.verdict != "undecided"
    # Binomial(200, 0.05) exceeds 22 with a probability of 3e-4; percentiles are a little narrow.
    assert wrong <= 22


def test_noise_that_both_were_judged_with_is_counted_once() -> None:
    right, batch = drawn(np.random.default_rng(3), 100, 10, 4, True), batches_of(100, 4)
    shared = Setting(random=True, shared=True)
    same = {"pgd": made_right(right, batch=batch)}
    (found,) = compare(same, same, shared, shared)
    assert (found.difference, found.interval, found.verdict) == (0, (0, 0), "undecided")
    # Without noise on one side there is nothing in common; the other's passes still count.
    still = {"pgd": made_right(right[:, :1], batch=batch)}
    (over_passes,), (over_images,) = compare(same, still, shared, PLAIN), compare(same, still, RANDOM, PLAIN)
    assert over_passes.interval != over_images.interval


def test_the_worst_case_is_that_of_the_adversaries_of_both() -> None:
    rng = np.random.default_rng(4)
    a = {name: made_right(rng.random((80, 6)) < 0.7, name) for name in ("clean", "pgd", "square")}
    b = {name: made_right(rng.random((80, 6)) < 0.5, name) for name in ("clean", "cw", "square")}
    found = compare(a, b, RANDOM, RANDOM)
    assert [row.adversary for row in found] == ["clean", "square", WORST_CASE]
    assert found[-1].a == worst_case({name: a[name] for name in ("clean", "square")}, RANDOM).accuracy
    assert found[-1].b == worst_case({name: b[name] for name in ("clean", "square")}, RANDOM).accuracy
    assert found[-1].difference == found[-1].a - found[-1].b
    one_draw = {name: made_right(rows.right[:, :1], name) for name, rows in b.items()}
    assert [row.adversary for row in compare(a, one_draw, RANDOM, RANDOM)] == ["clean", "square"]
    assert [row.adversary for row in compare(a, one_draw, RANDOM, PLAIN)][-1] == WORST_CASE


def test_only_images_that_both_have_count() -> None:
    rng = np.random.default_rng(5)
    right, other = rng.random((2, 60, 1)) < 0.6
    whole, part = made_right(right), made_right(other)
    chosen = rng.random(60) < 0.5
    (found,) = compare({"clean": whole}, {"clean": part.at(chosen)}, PLAIN, PLAIN)
    (by_hand,) = compare({"clean": whole.at(chosen)}, {"clean": part.at(chosen)}, PLAIN, PLAIN)
    assert found == by_hand
    assert (found.n, found.a, found.b) == (chosen.sum(), right[chosen].mean(), other[chosen].mean())


def test_what_has_nothing_in_common_is_refused_in_one_line() -> None:
    a = {"clean": plain(3, 2)}
    first, rest = (a["clean"].at(np.isin(a["clean"].index, places)) for places in ([0, 1], [2, 3, 4]))
    with pytest.raises(ValueError, match="clean: no image is in both, of 2 in A and 3 in B"):
        compare({"clean": first}, {"clean": rest}, PLAIN, PLAIN)
    relabelled = {"clean": made(a["clean"].answers, np.array([0, 0, 1, 0, 0]))}
    with pytest.raises(ValueError, match=r"labels of 1 images differ, first image 2 \(0 and 1\)"):
        compare(a, relabelled, PLAIN, PLAIN)
    with pytest.raises(ValueError, match="no adversary is in both: A has clean; B has pgd"):
        compare(a, {"pgd": plain(3, 2)}, PLAIN, PLAIN)

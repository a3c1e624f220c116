"""Curves against loops over images, and at their ends against the summaries."""

import numpy as np
import pytest

from evaluation.batch import Rows
from evaluation.curves import Curve, eps_curves, l2_curves
from evaluation.intervals import bootstrap, wilson
from evaluation.summary import Setting, summarise
from tests.evaluation.made import batches_of, drawn, made_right


def suite(passes: int, shared: bool = False) -> dict[str, Rows]:
    """Clean and an attack whose images lie at L2 0 to 2, some of them at 0."""
    rng, n, batch = np.random.default_rng(0), 120, batches_of(120, 3)
    clean = drawn(rng, n, passes, 3, shared) | (rng.random((n, 1)) < 0.5)
    attacked = drawn(rng, n, passes, 3, shared)
    l2 = np.where(rng.random(n) < 0.1, 0, 2 * rng.random(n))
    return {
        "clean": made_right(clean, "clean", batch=batch, l2=np.zeros(n)),
        "ddn": made_right(attacked, "ddn", batch=batch, l2=l2),
    }


def test_without_noise_a_point_counts_images_that_no_shorter_perturbation_breaks() -> None:
    rows = suite(passes=1)
    (curve,) = l2_curves(rows, Setting(random=False))
    assert (curve.adversary, curve.n) == ("ddn", 120)
    for point in curve.points:
        kept = [
            clean and (attacked or l2 > point.radius)
            for clean, attacked, l2 in zip(
                rows["clean"].right[:, 0], rows["ddn"].right[:, 0], rows["ddn"].l2, strict=True
            )
        ]
        assert point.accuracy == pytest.approx(sum(kept) / 120)
        assert point.interval == wilson(sum(kept), 120)
    accuracies = [point.accuracy for point in curve.points]
    assert accuracies == sorted(accuracies, reverse=True)
    # At 0 the errors of the clean images, and of attacks that give the image back.
    assert accuracies[0] <= rows["clean"].right.mean()
    assert curve.points[0].radius == 0
    assert curve.points[-1].radius == rows["ddn"].l2.max()
    assert len(curve.points) <= 34


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("passes", [13, 40])
def test_with_noise_a_point_is_the_expected_accuracy_of_a_single_draw(shared: bool, passes: int) -> None:
    rows, setting = suite(passes, shared), Setting(random=True, shared=shared)
    (curve,) = l2_curves(rows, setting)
    clean, attacked, l2 = rows["clean"].right.mean(1), rows["ddn"].right.mean(1), rows["ddn"].l2
    for point in curve.points:
        assert point.accuracy == pytest.approx(np.where(l2 <= point.radius, attacked, clean).mean())
        assert point.interval.low < point.accuracy < point.interval.high
    last, summary = curve.points[-1], summarise(rows, random=True, shared=shared)[1]
    assert last.accuracy == pytest.approx(summary.accuracy)
    # 500 resamples: an end deviates by about a tenth of the standard error of 0.04.
    assert last.interval == pytest.approx(summary.interval, abs=0.02)


def test_as_many_passes_as_blocks_are_resampled_as_they_are() -> None:
    rows, setting = suite(passes=10, shared=True), Setting(random=True, shared=True)
    (curve,) = l2_curves(rows, setting)
    expected = bootstrap(rows["ddn"].right, rows["ddn"].batch, resamples=500)
    assert curve.points[-1].interval == expected
    assert curve.points[-1].accuracy == pytest.approx(rows["ddn"].right.mean())


def test_without_clean_images_there_is_no_curve() -> None:
    rows = suite(passes=2)
    assert l2_curves({"ddn": rows["ddn"]}, Setting(random=True)) == []
    other = made_right(np.ones((2, 2), bool), "clean")
    with pytest.raises(ValueError, match="ddn and clean differ in images or draws"):
        l2_curves({"clean": other, "ddn": rows["ddn"]}, Setting(random=True))


def test_a_curve_over_eps_is_in_order_and_begins_with_the_clean_images() -> None:
    rng = np.random.default_rng(1)
    names = ("clean", "pgd_eps0.03", "pgd_eps0.01", "square")
    summaries = summarise({name: made_right(rng.random((40, 5)) < 0.6, name) for name in names}, random=True)
    curves = eps_curves(summaries, {"pgd": {"pgd_eps0.03": 0.03, "pgd_eps0.01": 0.01}, "square": {"square": 0.03}})
    assert [curve.adversary for curve in curves] == ["pgd", "square"]
    known = {summary.adversary: summary for summary in summaries}
    expected = [(0, known["clean"]), (0.01, known["pgd_eps0.01"]), (0.03, known["pgd_eps0.03"])]
    found = [(point.radius, point.accuracy, point.interval) for point in curves[0].points]
    assert found == [(radius, summary.accuracy, summary.interval) for radius, summary in expected]
    assert eps_curves(summaries, {}) == []
    assert eps_curves(summaries, {"nothing": {}}) == [Curve("nothing", 40, curves[0].points[:1])]
    with pytest.raises(ValueError, match=r"no numbers of cw; there are clean, pgd_eps0\.03"):
        eps_curves(summaries, {"cw": {"cw": 0.1}})

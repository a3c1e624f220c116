"""Charts: places are those of the values, bands those of the intervals, losses those of the images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.report.charts import Chart, Line, chart
from analysis.report.curves import compared_charts, robustness_charts
from analysis.report.figures import carried, distance_charts, loss_charts
from analysis.report.folder import Evaluation
from tests.analysis.evaluations import an_evaluation


def points(path: str) -> np.ndarray:
    """The corners of SVG path data."""
    return np.array([[float(value) for value in pair.split(",")] for pair in path.strip("MZ ").split(" L")])


def values(drawn: Chart, path: str) -> np.ndarray:
    """The corners in the units of the axes, read off at the ticks as a reader does."""
    corners = points(path)
    for column, ticks in enumerate((drawn.x_ticks, drawn.y_ticks)):
        places, labels = zip(*[(place, float(label)) for place, label in ticks], strict=True)
        slope, start = np.polyfit(places, labels, 1)
        corners[:, column] = slope * corners[:, column] + start
    return corners


UNITS = np.array([3e-4, 1.0])  # of the axes, each about a hundredth
X, Y = np.array([0.0, 0.01, 0.03]), np.array([90.0, 40.0, 5.0])


def test_a_line_read_off_the_ticks_has_the_values_that_were_drawn() -> None:
    drawn = chart([Line("a", 0, X, Y, Y - 5, Y + 4)], "t", "c", "x", "y", (0, 100))
    assert drawn is not None
    (line,) = drawn.lines
    assert values(drawn, line.path) / UNITS == pytest.approx(np.stack([X, Y], 1) / UNITS, abs=0.2)
    band = values(drawn, line.band)
    np.testing.assert_allclose(band[:3, 1], Y + 4, atol=0.2)
    np.testing.assert_allclose(band[3:, 1], (Y - 5)[::-1], atol=0.2)
    assert [label for _, label in drawn.y_ticks] == ["0", "20", "40", "60", "80", "100"]


def test_a_stepped_line_holds_its_value_until_the_next_point() -> None:
    drawn = chart([Line("a", 0, X, Y, stepped=True)], "t", "c", "x", "y", (0, 100))
    assert drawn is not None
    expected = [[0, 90], [0.01, 90], [0.01, 40], [0.03, 40], [0.03, 5]]
    assert values(drawn, drawn.lines[0].path) / UNITS == pytest.approx(np.array(expected) / UNITS, abs=0.2)


@pytest.mark.parametrize("constant", [0.0, 3.0, -2.0])
def test_axes_have_a_length_whatever_is_drawn(constant: float) -> None:
    drawn = chart([Line("a", 0, np.full(2, constant), np.full(2, constant))], "t", "c", "x", "y")
    assert drawn is not None
    np.testing.assert_allclose(values(drawn, drawn.lines[0].path), constant, atol=0.02 * (abs(constant) or 1))


def test_points_that_are_not_finite_are_left_out_and_many_thinned() -> None:
    drawn = chart([Line("a", 0, np.array([0, 1, 2]), np.array([1, np.nan, 3]))], "t", "c", "x", "y")
    assert drawn is not None
    assert len(points(drawn.lines[0].path)) == 2
    assert chart([Line("a", 0, np.array([0.0]), np.array([np.inf]))], "t", "c", "x", "y") is None
    assert chart([], "t", "c", "x", "y") is None
    many = np.linspace(0, 1, 10_000)
    drawn = chart([Line("a", 0, many, many**2)], "t", "c", "x", "y")
    assert drawn is not None
    corners = values(drawn, drawn.lines[0].path)
    assert len(corners) == 200
    np.testing.assert_allclose(corners[:, 1], corners[:, 0] ** 2, atol=0.01)


def test_the_last_loss_of_an_image_that_left_stays() -> None:
    nan = np.nan
    loss = np.array([[1, 2, 3], [1, nan, nan], [nan, nan, nan], [nan, 5, 6], [1, np.inf, 2]])
    np.testing.assert_array_equal(carried(loss), [[1, 2, 3], [1, 1, 1], [5, 5, 6], [1, 1, 2]])
    assert carried(np.empty((4, 0))).shape == (0, 0)


def test_charts_of_an_evaluation(tmp_path: Path) -> None:
    evaluation = Evaluation.read(an_evaluation(tmp_path, n=40))
    pgd = evaluation.rows["pgd"]

    loss = loss_charts(evaluation)
    assert [one.title for one in loss] == ["pgd", "ddn"]
    line = values(loss[0], loss[0].lines[0].path)
    np.testing.assert_allclose(line[[0, -1], 1], pgd.loss.mean(axis=0)[[0, -1]], atol=0.1)
    assert line[[0, -1], 0] == pytest.approx([0, 100], abs=0.5)

    l2, linf = distance_charts(evaluation)
    assert [line.name for line in l2.lines] == [line.name for line in linf.lines] == ["pgd", "ddn"]
    corners = values(l2, l2.lines[0].path)
    for radius, share in corners[2::2]:
        assert share / 100 == pytest.approx((pgd.l2 <= radius + 0.005).mean(), abs=0.05)

    (over_l2,) = robustness_charts(evaluation)
    last = values(over_l2, over_l2.lines[0].path)[-1, 1]
    assert last == pytest.approx(100 * pgd.right.mean(), abs=0.3)
    for one in (*loss, l2, linf, over_l2):
        assert "n = 40 images" in one.caption

    other = replace(evaluation, results={**evaluation.results, "curves": {}})
    assert robustness_charts(other) == []
    assert [len(one.lines) for one in compared_charts({"a": evaluation, "b": evaluation, "c": other})] == [2, 2]


def test_an_attack_that_began_with_no_image_has_no_losses_to_draw() -> None:
    assert carried(np.full((4, 5), np.nan)).shape == (0, 5)

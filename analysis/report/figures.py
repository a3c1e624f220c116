"""The charts of one evaluation that follow from its per-image table: losses and distances."""

import numpy as np
from numpy.typing import NDArray

from analysis.report.charts import Chart, Line, chart
from analysis.report.folder import Evaluation
from evaluation import Rows


def loss_charts(evaluation: Evaluation) -> list[Chart]:
    """One chart per attack that has steps: mean loss of the images over its course; losses differ in scale."""
    attacks = [rows for name, rows in evaluation.rows.items() if name != "clean"]
    drawn = [_loss_chart(rows, evaluation.series[rows.adversary]) for rows in attacks]
    return [one for one in drawn if one is not None]


def _loss_chart(rows: Rows, series: int) -> Chart | None:
    loss = carried(rows.loss)
    if not len(loss) or loss.shape[1] < 2:  # no image has any if all were wrong before the attack began
        return None
    low, high = np.quantile(loss, [0.25, 0.75], axis=0)
    course = np.linspace(0, 100, loss.shape[1])
    line = Line(rows.adversary, series, course, loss.mean(axis=0), low, high)
    caption = f"n = {len(loss)} images. Line: mean. Band: the middle half of the images (not an interval of the mean)."
    return chart([line], rows.adversary, caption, "course of the attack (% of its steps)", "loss")


def carried(loss: NDArray[np.floating]) -> NDArray[np.floating]:
    """Losses [n, points] of the images that have any; where an image had left, its last loss stays.

    Without it the mean would be over ever fewer images, those hardest to attack, and bend for that reason alone.
    """
    loss = np.where(np.isfinite(loss), loss, np.nan)
    loss = loss[~np.isnan(loss).all(axis=1)] if loss.shape[1] else loss[:0]
    last = np.maximum.accumulate(np.where(np.isnan(loss), 0, np.arange(loss.shape[1])), axis=1)
    first = np.argmax(~np.isnan(loss), axis=1)[:, None] if loss.size else last[:, :1]
    kept: NDArray[np.floating] = np.take_along_axis(loss, np.maximum(last, first), axis=1)
    return kept


def distance_charts(evaluation: Evaluation) -> list[Chart]:
    """Distribution functions of the L2 and the Linf distance, one line per adversary."""
    caption = (
        f"n = {evaluation.n} images per adversary. A line at height h over distance r: h % of the images were changed "
        "by at most r. All images count, broken or not; no interval is drawn."
    )
    drawn = [_distances(evaluation, norm, caption) for norm in ("l2", "linf")]
    return [one for one in drawn if one is not None]


def _distances(evaluation: Evaluation, norm: str, caption: str) -> Chart | None:
    title = {"l2": "L2 distance", "linf": "Linf distance"}[norm]
    lines = []
    for name, rows in evaluation.rows.items():
        values = np.sort(getattr(rows, norm))
        if name == "clean" or not len(values):
            continue
        share = 100 * np.arange(1, len(values) + 1) / len(values)
        # From the axis up at the smallest distance, so that equal distances show as an upright line.
        x, y = np.concatenate([values[:1], values]), np.concatenate([[0.0], share])
        lines.append(Line(name, evaluation.series[name], x, y, stepped=True))
    return chart(lines, title, caption, f"{title}, pixels in [0, 1]", "images (%)", (0, 100))

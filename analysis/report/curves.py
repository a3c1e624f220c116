"""Robust accuracy over the radius, as the curves in results.json have it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from analysis.report.charts import Chart, Line, chart
from analysis.report.folder import Evaluation

_LABELS = {"eps": "eps, radius of the attack", "l2": "L2 distance, pixels in [0, 1]"}
_SAYS = {
    "eps": "Each point is an attack with that radius (in pixels of [0, 1], in its own norm); 0 is the clean image.",
    "l2": "Only perturbations up to that L2 distance count; an image that was moved further stays as it was.",
}


def robustness_charts(evaluation: Evaluation) -> list[Chart]:
    """Accuracy over eps and over L2, one line per attack; those of the two for which there are curves."""
    drawn = []
    for kind, title in (("eps", "Accuracy over eps"), ("l2", "Accuracy over L2")):
        curves = curves_of(evaluation, kind)
        # The base of several radii is no adversary itself: it takes the colours behind that of clean.
        lines = [
            _line(name, evaluation.series.get(name, k), curve) for k, (name, curve) in enumerate(curves.items(), 1)
        ]
        drawn.append(_chart(kind, title, lines, [evaluation.n]))
    return [one for one in drawn if one is not None]


def compared_charts(runs: Mapping[str, Evaluation]) -> list[Chart]:
    """The same attack against several models, one line per model.

    Args:
        runs: by name, in the order of their colours.
    """
    drawn = []
    for kind in _LABELS:
        curves = {name: curves_of(evaluation, kind) for name, evaluation in runs.items()}
        for attack in dict.fromkeys(attack for found in curves.values() for attack in found):
            lines = [
                _line(name, number, found[attack])
                for number, (name, found) in enumerate(curves.items())
                if attack in found
            ]
            sizes = [evaluation.n for name, evaluation in runs.items() if attack in curves[name]]
            drawn.append(_chart(kind, attack, lines, sizes))
    return [one for one in drawn if one is not None]


def curves_of(evaluation: Evaluation, kind: str) -> dict[str, list[dict[str, Any]]]:
    """Attack -> points with `radius`, `accuracy` and `interval`; of the kind "eps" or "l2"."""
    found = (evaluation.results.get("curves") or {}).get(kind) or []
    return {str(curve["adversary"]): curve["points"] for curve in found if curve.get("points")}


def _line(name: str, series: int, points: Sequence[Mapping[str, Any]]) -> Line:
    low, high = np.array([point["interval"] for point in points], float).T
    radius, accuracy = (np.array([point[key] for point in points], float) for key in ("radius", "accuracy"))
    return Line(name, series, radius, 100 * accuracy, 100 * low, 100 * high)


def _chart(kind: str, title: str, lines: Sequence[Line], sizes: Iterable[int]) -> Chart | None:
    n = " or ".join(f"{size:,}" for size in sorted(set(sizes)))
    caption = f"n = {n} images. {_SAYS[kind]} Bands: 95 % intervals, each for its radius alone."
    return chart(lines, title, caption, _LABELS[kind], "accuracy (%)", (0, 100))

"""Top eigenvalues of the input Hessian, original against adversarial (EEPD figure 6; ICLR draft figures 3, 18, 19)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.curvature import exact_curvature, lanczos_curvature, power_curvature
from analysis.derivatives import normalisation_scale
from evaluation import Cost
from papers.bench import Bench
from papers.experiment import Findings, Table, Value, Verdict, beside
from papers.kept import Arrays
from papers.pairs import ORIGINAL, Paired, Pairs, counts_of, larger, matched, numpy, quantile, quantile_ratio
from papers.style import COLORS, panels
from papers.verdicts import Numbers, all_above, mean_of, percent

_QUANTILES = {"p10": 0.1, "median": 0.5, "p75": 0.75, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_ABOVE = (1, 10, 100)
_BINS = 50
_SMALLEST = 1e-8  # that is drawn on a logarithmic axis
_UNSURE = 0.1  # of a value: a larger residual says that the iteration has not ended there
_MOST_UNSURE = 0.1  # of images: where there are more, an eigenvalue has no verdict
_EVERY = 5  # of a spectrum's eigenvalues, one in so many has a verdict of its own


@dataclass(frozen=True)
class Curvature(Paired):
    """Largest eigenvalues of d^2 CE / dx^2 with the predicted class, in loss per squared unit of normalised images.

    Printed rows: "original" and the names of attacks; columns p10, median, p75, p90, p95, p99 (quantiles over images),
    mean, "above 1 (%)", "above 10 (%)" and "above 100 (%)".

    Args:
        top: eigenvalues of each image.
        method: "exact" for piecewise linear networks of few classes, "lanczos" for all, "power" as the papers did it.
        products: with the Hessian at most, of the last two.
    """

    top: int = 1
    method: Literal["exact", "lanczos", "power"] = "exact"
    products: int = 40

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`; a product with the Hessian is two passes with a gradient."""
        part = next(bench.parts(self.source()._replace(n=1)))
        classes = bench.network(self.network).module(part.x).shape[1]
        passes = {"exact": classes - 1, "lanczos": 2 * self.products, "power": 2 * self.products * self.top}
        passes_in_all = (1 + len(self.attacks)) * self.n * passes[self.method]
        return self.attack_cost(bench) + Cost(forward=passes_in_all, gradient=passes_in_all)

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        key = ("curvature", self.method, str(self.top), str(0 if self.method == "exact" else self.products))
        shapes = {"values": (self.top,), "residuals": (self.top,)}
        found = self.collected_by_name(bench, key, {ORIGINAL: None, **self.attacks}, shapes, self._make(bench))
        counts = counts_of(found)
        attacks = "; ".join(f"{name}: {attack}" for name, attack in self.attacks.items())
        caption = (
            f"{self.title}. {self.network}, {self.data}, images that are right, or right and then broken ({counts} of "
            f"{self.n}); {attacks}; {self.method} eigenvalues in loss per squared unit of normalised images; 95 % "
            "bootstrap intervals over images."
        )
        ours = {name: _numbers(arrays["values"][:, 0]) for name, arrays in found.items() if len(arrays["index"])}
        tables = [beside("eigenvalues", ours, self.printed, caption), self._ratios(found)]
        if self.top > 1:
            tables.append(_spectrum(found, caption))
        return Findings(tables, {"eigenvalues": self._figure(found)}, list(self._verdicts(found)))

    def _make(self, bench: Bench) -> Callable[[Pairs], Arrays]:
        model = bench.network(self.network).module
        scale = normalisation_scale(model)

        def make(pairs: Pairs) -> Arrays:
            # Without an attack x_adv is the original.
            x, y = pairs.x_adv, pairs.answer
            if self.method == "exact":
                found = exact_curvature(model, x, self.top, scale=scale)
            else:
                solve = lanczos_curvature if self.method == "lanczos" else power_curvature
                seeds = {"seed": bench.seed, "first": pairs.start}
                found = solve(model, x, y, self.top, steps=self.products, scale=scale, chunk=16, **seeds)
            return {"values": numpy(found.values), "residuals": numpy(found.residuals)}

        return make

    def _pairs(self, found: Mapping[str, Arrays]) -> Iterator[tuple[str, Numbers, Numbers]]:
        for name in self.attacks:
            adversarial, original = matched(found[name], found[ORIGINAL])
            if len(adversarial["index"]):
                yield name, adversarial["values"], original["values"]

    def _ratios(self, found: Mapping[str, Arrays]) -> Table:
        rows: list[list[str | float | Value | None]] = []
        for name, adversarial, original in self._pairs(found):
            for title, share in _QUANTILES.items():
                rows.append([name, title, quantile_ratio(adversarial[:, 0], original[:, 0], share)])
            rows.append([name, "images where it is larger (%)", percent(larger(adversarial, original)[0][:, 0])])
        caption = f"{self.title}: adversarial over original, quantiles of the same images, resampled together."
        return Table("ratios", ["attack", "quantile", "ratio"], rows, caption)

    def _verdicts(self, found: Mapping[str, Arrays]) -> Iterator[Verdict]:
        pairs = list(self._pairs(found))
        for name, adversarial, original in pairs:
            unsure = [max(parts) for parts in zip(*map(_unsure, (found[name], found[ORIGINAL])), strict=True)]
            where = [i for i in range(0, self.top, _EVERY) if unsure[i] <= _MOST_UNSURE]
            ordered = {f"eigenvalue {i + 1}": larger(adversarial[:, i], original[:, i]) for i in where}
            yield all_above(f"{name}: adversarial images have larger top eigenvalues, image by image", ordered)
        for name, adversarial, original in pairs:
            above = {f"above {least}": _both_above(adversarial, original, least) for least in _ABOVE}
            yield all_above(f"{name}: more adversarial images than originals lie in the tail", above)

    def _figure(self, found: Mapping[str, Arrays]) -> Figure:
        draw = (_draw_spectrum,) if self.top > 1 else (_draw_histogram, _draw_shares)
        figure, axes = panels(1, len(draw), 5.0, 3.6)
        for each, drawn in zip(axes, draw, strict=True):
            drawn(each, found)
            each.legend(fontsize=8)
        return figure


def _numbers(values: Numbers) -> dict[str, Value]:
    numbers = {title: quantile(values, share) for title, share in _QUANTILES.items()}
    numbers["mean"] = mean_of(values)
    for least in _ABOVE:
        numbers[f"above {least} (%)"] = percent((values > least).astype(float))
    return numbers


def _both_above(a: Numbers, b: Numbers, least: float) -> tuple[Numbers, Numbers]:
    return (a[:, 0] > least).astype(float), (b[:, 0] > least).astype(float)


def _unsure(arrays: Arrays) -> list[float]:
    """For each eigenvalue the share of images where its iteration has not ended; 0 if there are no images."""
    values, residuals = arrays["values"], arrays["residuals"]
    return [
        float((r > _UNSURE * np.abs(v)).mean()) if len(v) else 0.0 for v, r in zip(values.T, residuals.T, strict=True)
    ]


def _spectrum(found: Mapping[str, Arrays], caption: str) -> Table:
    """With the residual |H v - value v| in terms of the value: where it is not small, the value is a guess."""
    rows: list[list[str | float | Value | None]] = []
    for name, arrays in found.items():
        unsure = _unsure(arrays)
        for i, values in enumerate(arrays["values"].T if len(arrays["index"]) else []):
            ends = [round(100 * unsure[i], 1), float(values.min()), float(values.max())]
            rows.append([name, float(i + 1), quantile(values, 0.5), *ends])
    header = ["images", "i-th eigenvalue", "median", f"residual above {100 * _UNSURE:g} % (% of images)", "min", "max"]
    return Table("spectrum", header, rows, caption)


def _draw_histogram(axes: Axes, found: Mapping[str, Arrays]) -> None:
    largest = max([1.0, *(float(arrays["values"].max()) for arrays in found.values() if len(arrays["index"]))])
    for (name, arrays), color in zip(found.items(), COLORS, strict=False):
        values = arrays["values"][:, 0]
        label = f"{name}, n = {len(values)}"
        span = (min(0.0, values.min(initial=0)), largest)
        axes.hist(values, bins=_BINS, range=span, histtype="step", color=color, label=label)
    axes.set_yscale("log")
    axes.set(xlabel="eigenvalue magnitude", ylabel="count of images")


def _draw_shares(axes: Axes, found: Mapping[str, Arrays]) -> None:
    """The same on a logarithmic axis, where those near 0 can be told apart."""
    for (name, arrays), color in zip(found.items(), COLORS, strict=False):
        values = np.sort(arrays["values"][:, 0]).clip(_SMALLEST)
        axes.step(values, 100 * np.arange(1, len(values) + 1) / max(1, len(values)), color=color, label=name)
    axes.set_xscale("log")
    axes.set(xlabel="eigenvalue", ylabel="images at or below (%)", ylim=(0, 101))


def _draw_spectrum(axes: Axes, found: Mapping[str, Arrays]) -> None:
    for place, ((name, arrays), color) in enumerate(zip(found.items(), COLORS, strict=False)):
        values = arrays["values"]
        if not len(values):
            continue
        middle = np.median(values, axis=0)
        errors = np.abs(np.stack([middle - values.min(0), values.max(0) - middle]))
        x = np.arange(1, values.shape[1] + 1) + 0.2 * place
        label = f"{name}, n = {len(values)} (median, min to max)"
        axes.errorbar(x, middle, errors, fmt="o", ms=3, capsize=2, color=color, label=label)
    axes.set_yscale("symlog", base=2, linthresh=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="i-th eigenvalue", ylabel="eigenvalue")

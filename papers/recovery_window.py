"""Which class noisy versions of attacked images are answered with (EEPD figures 2, 9; ICLR draft figure 9)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from analysis.windows import recovery_windows
from defenses import PapersGauss
from evaluation import Cost
from papers.bench import Bench
from papers.experiment import Findings, Value, Verdict, beside
from papers.kept import Arrays
from papers.pairs import Paired, Pairs, counts_of, larger, matched, quantile
from papers.style import COLORS, MARKERS, legend_below, panels
from papers.verdicts import Numbers, all_above, mean_of, percent

# The papers' noise has its size behind the normalisation, where ImageNet's pixels are divided by 0.226 on average.
_RANGE = 0.226
_CLASSES = ("original", "adversarial", "other")


@dataclass(frozen=True)
class RecoveryWindow(Paired):
    """Shares of noisy versions answered with the original, the adversarial or another class, by their distance.

    Args:
        levels: of Gaussian noise, the papers' sigma (see `defenses.PapersGauss`), rising; 0 is no noise.
        passes: noisy versions at each level; the best level is chosen on the first half and judged on the second.
        bounds_range: of the noise.
    """

    levels: list[float] = field(default_factory=lambda: [0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.6, 1, 2, 3, 6, 10])
    passes: int = 100
    bounds_range: float = _RANGE

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        passes = len(self.attacks) * self.n * len(self.levels) * self.passes
        return self.attack_cost(bench) + Cost(forward=passes)

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        model = bench.network(self.network).module

        def make(pairs: Pairs) -> Arrays:
            halves = [
                recovery_windows(
                    model,
                    (pairs.x, pairs.x_adv),
                    (pairs.label, pairs.answer),
                    self.levels,
                    lambda level: PapersGauss(level, self.bounds_range),
                    passes=passes,
                    seed=2 * bench.seed + half,  # no other seed's halves draw the same
                    first=pairs.start,
                    most_images=64,
                )
                for half, passes in enumerate(_halves(self.passes))
            ]
            shares = {
                name: np.average([found.shares[name] for found in halves], axis=0, weights=_halves(self.passes))
                for name in _CLASSES
            }
            chosen, judged = (found.shares["original"] for found in halves)
            at_best = np.take_along_axis(judged, chosen.argmax(axis=1)[:, None], axis=1)[:, 0]
            first = halves[0]
            return {**shares, "at_best": at_best, "distance": first.from_original, "distortion": first.distortion}

        many = (len(self.levels),)
        shapes: dict[str, tuple[int, ...]] = {
            **dict.fromkeys((*_CLASSES, "distance"), many),
            "distortion": (),
            "at_best": (),
        }
        key = ("recovery windows in halves", repr(self.levels), str(self.passes), str(self.bounds_range))
        found = self.collected_by_name(bench, key, self.attacks, shapes, make)
        counts = counts_of(found)
        caption = (
            f"{self.title}. {self.network}, {self.data}, images that are right and then broken ({counts} of {self.n}); "
            f"{'; '.join(map(str, self.attacks.values()))}; Gaussian noise of {len(self.levels)} levels, {self.passes} "
            "passes; a level recovers where more than half of the passes answer the original class; window: decades "
            "of noise between levels that recover; the best level of an image is chosen on half of the passes and "
            "judged on the other; 95 % bootstrap intervals over images."
        )
        ours = {name: self._numbers(arrays) for name, arrays in found.items() if len(arrays["index"])}
        tables = [beside("windows", ours, self.printed, caption)]
        return Findings(tables, {"windows": _figure(found)}, list(self._verdicts(found)))

    def _numbers(self, arrays: Arrays) -> dict[str, Value]:
        widths = window(self.levels, arrays["original"])
        return {
            "L2 of the attack, median": quantile(arrays["distortion"], 0.5),
            "window (decades), mean": mean_of(widths),
            "recovered at the best level (%)": percent(arrays["at_best"]),
            "the best level does not recover (%)": percent((arrays["at_best"] <= 0.5).astype(float)),
        }

    def _verdicts(self, found: Mapping[str, Arrays]) -> Iterator[Verdict]:
        names = [name for name in found if len(found[name]["index"])]
        if not names:
            return
        near, far = found[names[0]], found[names[-1]]
        some = (near["at_best"] > 0.5).astype(float)
        claim = f"{names[0]}: for most images of the nearest attack some level of noise recovers the class"
        yield all_above(claim, {"images with such a level": (some, 1 - some)})
        if len(names) < 2:
            return
        pairs = {}
        for a, b in [(names[0], names[-1]), *pairwise(names)]:
            one, other = matched(found[a], found[b])
            if len(one["index"]):
                widths = window(self.levels, one["original"]), window(self.levels, other["original"])
                pairs[f"{a} wider than {b}"] = larger(*widths)
        yield all_above("the window shrinks as the attack goes farther", pairs)
        none = (far["at_best"] <= 0.5).astype(float)
        claim = f"{names[-1]}: for most images of the farthest attack no level recovers the class"
        yield all_above(claim, {"images without a level": (none, 1 - none)})


def _halves(passes: int) -> tuple[int, int]:
    """Noisy passes to choose a level by, and those to judge it by; at least one each."""
    return max(passes // 2, 1), max(passes - passes // 2, 1)


def window(levels: Sequence[float], original: Numbers) -> Numbers:
    """How wide a range of noise recovers each image, in powers of ten between neighbouring levels that do.

    Args:
        levels: [L], rising; steps from 0 do not count, as they have no width on a logarithmic axis.
        original: share answered with the original class, [B, L].

    Returns:
        [B].
    """
    recovered, steps = original > 0.5, np.zeros(max(0, len(levels) - 1))
    for place in range(len(steps)):
        if levels[place] > 0:
            steps[place] = np.log10(levels[place + 1] / levels[place])
    return np.asarray((recovered[:, 1:] & recovered[:, :-1]) @ steps, dtype=np.float64)


def _figure(found: Mapping[str, Arrays]) -> Figure:
    columns = min(2, len(found))
    figure, axes = panels(-(-len(found) // columns), columns)
    for each in axes[len(found) :]:
        each.set_visible(False)
    for each, (name, arrays) in zip(axes, found.items(), strict=False):
        each.set(xlabel="L2 distance from the original", ylabel="frequency count (%)", ylim=(-2, 102))
        each.set_title(f"{name}, n = {len(arrays['index'])}", fontsize=9)
        if not len(arrays["index"]):
            continue
        for kind, color, marker in zip(_CLASSES, COLORS, MARKERS, strict=False):
            x, y = arrays["distance"].mean(axis=0), 100 * arrays[kind].mean(axis=0)
            each.plot(x, y, color=color, marker=marker, ms=4, label=kind)
        each.axvline(float(np.median(arrays["distortion"])), color="black", ls=":", label="the attack's distance")
        each.set_xscale("log")
    legend_below(figure, axes)
    return figure

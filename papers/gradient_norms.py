"""Gradient norms of noisy images, class by class (EEPD figures 12 to 14; ICLR draft figures 15 to 17)."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.derivatives import normalisation_scale
from analysis.gradients import norms_under_noise
from defenses import PapersGauss
from evaluation import Cost
from papers.bench import Bench
from papers.experiment import Findings, Value, Verdict, beside
from papers.families import CIFAR_RANGE
from papers.kept import Arrays
from papers.pairs import ORIGINAL, Paired, Pairs, counts_of, larger, matched, numpy, quantile
from papers.style import COLORS, MARKERS, legend_below, panels
from papers.toward import shifted
from papers.verdicts import Difference, Numbers, above, all_above, mean_of, percent, together

ROLES = ("original class", "adversarial class", "random class")
_ORG, _ADV, _RANDOM = range(3)
_AWAY = 5  # places from the label to the "random" class, one more where that is the adversarial one
_LINEAR = 20  # levels farther apart than by this factor are drawn on a logarithmic axis
Rule = Literal["original_rises", "cross", "converge", "above_random", "targeted_lower"]


@dataclass(frozen=True)
class GradientNorms(Paired):
    """Input-gradient norms of the cross-entropy with some classes, of normalised images, under Gaussian noise.

    Args:
        levels: of the noise, rising, two at least, the papers' sigma (see `defenses.PapersGauss`); 0 is no noise.
        draws: noisy copies of each image at each level.
        bounds_range: of the noise.
        clean: whether the originals are asked, too.
        roles: how many of the original, the adversarial and a random class, in this order.
        rules: claims that are judged: original_rises (of originals: the norm grows from level to level), cross (small
            noise raises the norm of the adversarial class and lowers that of the original one), converge (much noise
            brings both together), above_random (both above a random class), targeted_lower (targeted attacks, the
            second here, lower both and leave fewer images recovered).
    """

    levels: list[float] = field(default_factory=lambda: [0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3])
    draws: int = 2
    bounds_range: float = CIFAR_RANGE
    clean: bool = False
    roles: int = 2
    rules: list[Rule] = field(default_factory=list)

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        forward = (len(self.attacks) + self.clean) * self.n * self.draws * len(self.levels)
        return self.attack_cost(bench) + Cost(forward=forward, gradient=forward * self.roles)

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        attacks = {**({ORIGINAL: None} if self.clean else {}), **self.attacks}
        shapes = {"norms": (len(self.levels), self.roles), "recovered": (len(self.levels),)}
        key = ("gradient norms", repr(self.levels), str(self.draws), str(self.bounds_range), str(self.roles))
        found = self.collected_by_name(bench, key, attacks, shapes, self._make(bench))
        counts = counts_of(found)
        told = "".join(f"{attack}; " for attack in self.attacks.values())
        caption = (
            f"{self.title}. {self.network}, {self.data}, images that are right, or right and then broken ({counts} of "
            f"{self.n}); {told}Gaussian noise, {self.draws} draws; L2 norms for normalised images: "
            "mean over images, median; recovered: share answered with the label; 95 % bootstrap "
            "intervals over images."
        )
        ours = dict(self._rows(found))
        return Findings(
            [beside("norms", ours, self.printed, caption)], {"norms": self._figure(found)}, list(self._verdicts(found))
        )

    def _make(self, bench: Bench) -> Callable[[Pairs], Arrays]:
        model = bench.network(self.network).module
        scale = normalisation_scale(model)

        def noise(level: float) -> PapersGauss:
            return PapersGauss(level, self.bounds_range)

        def make(pairs: Pairs) -> Arrays:
            with torch.no_grad():
                count = model(pairs.x[:1]).shape[-1]
            other = shifted(pairs.label, _AWAY, count)
            other = torch.where(other == pairs.answer, shifted(other, 1, count), other)
            classes = torch.stack([pairs.label, pairs.answer, other], 1)[:, : self.roles]
            found = norms_under_noise(
                model, pairs.x_adv, classes, self.levels, noise,
                draws=self.draws, seed=bench.seed, first=pairs.start, scale=scale, chunk=50,
            )  # fmt: skip
            norms = torch.stack([each.norms.mean(0) for each in found], 1)
            recovered = torch.stack([(each.predicted == pairs.label).double().mean(0) for each in found], 1)
            return {"norms": numpy(norms), "recovered": numpy(recovered)}

        return make

    def _rows(self, found: Mapping[str, Arrays]) -> Iterator[tuple[str, dict[str, Value]]]:
        for name, arrays in found.items():
            for place, level in enumerate(self.levels if len(arrays["index"]) else []):
                cells = {}
                for role in range(1 if name == ORIGINAL else self.roles):
                    cells[f"{ROLES[role]}, mean"] = mean_of(arrays["norms"][:, place, role])
                    cells[f"{ROLES[role]}, median"] = quantile(arrays["norms"][:, place, role], 0.5)
                yield f"{name}, {level:g}", {**cells, "recovered (%)": percent(arrays["recovered"][:, place])}

    def _figure(self, found: Mapping[str, Arrays]) -> Figure:
        figure, axes = panels(1, len(found))
        for each, (name, arrays) in zip(axes, found.items(), strict=True):
            each.set(title=f"{name}, n = {len(arrays['index'])}")
            each.set(xlabel="sigma (strength of the Gaussian noise)", ylabel="mean L2 norm of the gradient")
            self._spread(each)
            if not len(arrays["index"]):
                continue
            for role in range(1 if name == ORIGINAL else self.roles):
                values = [mean_of(column) for column in arrays["norms"][:, :, role].T]
                y = np.array([value.value for value in values])
                errors = np.array([[v.value - (v.low or 0), (v.high or 0) - v.value] for v in values]).T.clip(0)
                color, marker = COLORS[role], MARKERS[role]
                each.errorbar(self.levels, y, errors, ms=4, lw=1.3, color=color, marker=marker, label=ROLES[role])
        legend_below(figure, axes)
        return figure

    def _spread(self, axes: Axes) -> None:
        """A logarithmic axis where levels need one; 0 has its place on it."""
        lowest, highest = min(level for level in self.levels if level), max(self.levels)
        if highest > _LINEAR * lowest:
            axes.set_xscale("symlog", linthresh=lowest)
            decades = range(math.ceil(math.log10(lowest)), math.floor(math.log10(highest)) + 1)
            axes.set_xticks([0.0, *(10.0**decade for decade in decades)])

    def _verdicts(self, found: Mapping[str, Arrays]) -> Iterator[Verdict]:
        there = {name: arrays for name, arrays in found.items() if len(arrays["index"])}
        if "original_rises" in self.rules and ORIGINAL in there:
            yield rising(
                "the more noise on an original, the larger the mean norm of the gradient", self.levels, there[ORIGINAL]
            )
        attacked = {name: arrays for name, arrays in there.items() if name != ORIGINAL}
        rules: dict[str, Callable[[str, Numbers], Verdict]] = {
            "cross": self._cross, "converge": self._converge, "above_random": self._above_random,
        }  # fmt: skip
        for name, arrays in attacked.items():
            for rule in rules:
                if rule in self.rules:
                    yield rules[rule](name, arrays["norms"])
        if "targeted_lower" in self.rules and len(attacked) > 1:
            yield from self._targeted(*list(attacked.values())[:2])

    def _cross(self, name: str, norms: Numbers) -> Verdict:
        pairs = {
            f"adversarial class, {self.levels[1]:g} above 0": larger(norms[:, 1, _ADV], norms[:, 0, _ADV]),
            f"original class, 0 above {self.levels[1]:g}": larger(norms[:, 0, _ORG], norms[:, 1, _ORG]),
        }
        return all_above(f"{name}: small noise raises the adversarial class's norm and lowers the original's", pairs)

    def _converge(self, name: str, norms: Numbers) -> Verdict:
        # At the attacked image itself, on the boundary, the two are alike: they part with the first noise.
        apart = np.abs(np.log(norms[:, :, _ADV] / norms[:, :, _ORG]))
        near, far = self.levels[1], self.levels[-1]
        pairs = {f"farther apart at {near:g} than at {far:g}": larger(apart[:, 1], apart[:, -1])}
        return all_above(f"{name}: much noise brings the norms of both classes together", pairs)

    def _targeted(self, untargeted: Arrays, targeted: Arrays) -> Iterator[Verdict]:
        a, b = matched(untargeted, targeted)
        if not len(a["index"]):
            return
        noisy = [(place, level) for place, level in enumerate(self.levels) if level]
        for role in (_ADV, _ORG):
            pairs = {f"{level:g}": larger(a["norms"][:, i, role], b["norms"][:, i, role]) for i, level in noisy}
            yield all_above(
                f"a targeted attack leaves a smaller norm of the {ROLES[role]} than an untargeted one", pairs
            )
        pairs = {f"{level:g}": (a["recovered"][:, place], b["recovered"][:, place]) for place, level in noisy}
        yield all_above("noise recovers fewer images from a targeted attack than from an untargeted one", pairs)

    def _above_random(self, name: str, norms: Numbers) -> Verdict:
        """At every level of noise, as the papers' figure shows it: without noise the image lies on the boundary.

        Of a targeted attack they say it of the original class only.
        """
        roles = (_ORG,) if name == "targeted" else (_ORG, _ADV)
        pairs = {
            f"{ROLES[role]}, {level:g}": larger(norms[:, place, role], norms[:, place, _RANDOM])
            for role in roles
            for place, level in enumerate(self.levels)
            if level
        }
        classes = " and ".join(ROLES[role] for role in roles)
        return all_above(f"{name}: with noise, gradients of the {classes} exceed a random class's", pairs)


def rising(claim: str, levels: Sequence[float], arrays: Arrays) -> Verdict:
    """Whether the mean norm of the original class grows from each level to the next, paired over images."""
    norms: Numbers = arrays["norms"][:, :, _ORG]
    outcomes, told = [], []
    for place, (a, b) in enumerate(pairwise(levels)):
        grown = mean_of(norms[:, place + 1] - norms[:, place])
        assert grown.low is not None
        assert grown.high is not None
        outcomes.append(above(Difference(grown.value, grown.low, grown.high)))
        told.append(f"{a:g} to {b:g}: {grown.value:+.3g} [{grown.low:+.3g}, {grown.high:+.3g}]")
    return Verdict(claim, together(outcomes), "; ".join(told))

"""Gradients of images that a channel recovers against those of images that it does not (ICLR draft, figure 4)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from analysis.derivatives import normalisation_scale
from analysis.gradients import gradient_norms
from defenses import Channel, PapersGauss
from evaluation import Cost, judge
from papers.bench import Bench
from papers.experiment import Findings, Outcome, Value, Verdict, beside
from papers.families import CIFAR_RANGE
from papers.kept import Arrays
from papers.pairs import Paired, Pairs, larger, numpy, quantile
from papers.style import COLORS, panels
from papers.verdicts import FEWEST, LEVEL, all_above, together

_QUANTITIES = {  # image, class -> column of "norms"
    "original image, original class": 0,
    "original image, adversarial class": 1,
    "adversarial image, original class": 2,
    "adversarial image, adversarial class": 3,
}
_RESAMPLES = 2000


@dataclass(frozen=True)
class GradientRecovery(Paired):
    """Input-gradient norms (normalised images) of attacked images, recovered or not.

    Args:
        channel: behind which an attacked image counts as recovered if most passes answer the label.
        draws: passes.
    """

    channel: Channel = PapersGauss(0.03, CIFAR_RANGE)
    draws: int = 11

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        asked = len(self.attacks) * self.n
        return self.attack_cost(bench) + Cost(forward=asked * (2 + self.draws), gradient=4 * asked)

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        network = bench.network(self.network)
        scale, behind = normalisation_scale(network.module), network.behind([self.channel]).module

        def make(pairs: Pairs) -> Arrays:
            classes = torch.stack([pairs.label, pairs.answer], 1)
            norms = [gradient_norms(network.module, x, classes, scale=scale).norms[0] for x in (pairs.x, pairs.x_adv)]
            right = (judge(behind, pairs.x_adv, self.draws).answers == pairs.label[:, None]).double().mean(1)
            return {"norms": numpy(torch.cat(norms, 1)), "recovered": numpy(right)}

        key, shapes = ("gradient recovery", repr(self.channel), str(self.draws)), {"norms": (4,), "recovered": ()}
        found = {name: self.collected(bench, key, attack, shapes, make) for name, attack in self.attacks.items()}
        caption = (
            f"{self.title}. {self.network}, {self.data}, images that are right and then broken, of {self.n}; "
            f"{'; '.join(f'{name}: {attack}' for name, attack in self.attacks.items())}; recovered: most of "
            f"{self.draws} passes behind {self.channel} answer the label; median L2 norms for normalised "
            "images, 95 % bootstrap intervals over images."
        )
        table = beside("norms", dict(_rows(found)), self.printed, caption)
        return Findings([table], {"norms": _figure(found)}, list(_verdicts(found)))


def _rows(found: Mapping[str, Arrays]) -> Iterator[tuple[str, dict[str, Value]]]:
    for name, arrays in found.items():
        for title, chosen in _kinds(arrays).items():
            if chosen.any():
                norms = arrays["norms"][chosen]
                cells = {quantity: quantile(norms[:, place], 0.5) for quantity, place in _QUANTITIES.items()}
                yield f"{name}, {title}", {"images": Value(float(chosen.sum())), **cells}


def _kinds(arrays: Arrays) -> dict[str, np.ndarray]:
    return {"recovered": arrays["recovered"] > 0.5, "not recovered": arrays["recovered"] <= 0.5}


def _verdicts(found: Mapping[str, Arrays]) -> Iterator[Verdict]:
    for name, arrays in found.items():
        kinds, norms = _kinds(arrays), arrays["norms"]
        if all(chosen.any() for chosen in kinds.values()):
            claim = f"{name}: originals that are recovered after the attack have lower gradients than the others"
            yield smaller(claim, {q: (norms[kinds["recovered"], c], norms[kinds["not recovered"], c])
                                  for q, c in list(_QUANTITIES.items())[:2]})  # fmt: skip
        if len(norms):
            claim = (
                f"{name}: the adversarial class's gradient at the attacked image exceeds the original's at the original"
            )
            yield all_above(claim, {"images": larger(norms[:, 3], norms[:, 0])})


def smaller(claim: str, groups: Mapping[str, tuple[np.ndarray, np.ndarray]], seed: int = 0) -> Verdict:
    """Whether numbers of one group tend to be smaller than those of another, of other images.

    By the chance that a member of the first is smaller than one of the second (Mann and Whitney's statistic, ties count
    half), with a bootstrap interval over the images of both; undecided where a group has fewer than 6, of which a
    bootstrap knows too little.
    """
    generator, reasons = np.random.default_rng(seed), []
    outcomes: list[Outcome] = []
    for name, (a, b) in groups.items():
        wins = (a[:, None] < b) + 0.5 * (a[:, None] == b)
        # How often each image was drawn, instead of the images themselves.
        times = [generator.multinomial(len(g), np.full(len(g), 1 / len(g)), _RESAMPLES) for g in (a, b)]
        draws = ((times[0] @ wins) * times[1]).sum(axis=1) / wins.size
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        few = min(len(a), len(b)) < FEWEST
        outcomes.append("undecided" if few or low <= 0.5 <= high else "confirmed" if low > 0.5 else "refuted")
        reasons.append(f"{name}: {100 * wins.mean():.1f} % [{100 * low:.1f}, {100 * high:.1f}] of pairs")
    return Verdict(claim, together(outcomes), "; ".join(reasons))


def _figure(found: Mapping[str, Arrays]) -> Figure:
    figure, axes = panels(len(found), 2)
    for row, (name, arrays) in enumerate(found.items()):
        for column, title in enumerate(("original", "adversarial")):
            each = axes[2 * row + column]
            each.set_title(f"{title} images, {name}", fontsize=9)
            each.set(xlabel="norm, original class", ylabel="norm, adversarial class")
            for (label, chosen), color in zip(_kinds(arrays).items(), COLORS, strict=False):
                norms = arrays["norms"][chosen]
                of = f"{label}, n = {len(norms)}"
                each.plot(norms[:, 2 * column], norms[:, 2 * column + 1], ".", color=color, ms=4, alpha=0.7, label=of)
            if len(arrays["norms"]):
                each.set(xscale="log", yscale="log")
                each.tick_params(axis="x", which="minor", labelsize=6, labelrotation=45)  # these labels meet otherwise
            each.legend(fontsize=7)
    return figure

"""Voting over noisy trials (EEPD figures 10, 11; ICLR draft, figures 13, 14): the more the better, for whom?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from attacks import Adversary, Attack, CarliniWagner, StraightThrough
from defenses import PapersUniform
from evaluation import Cost
from papers.bench import Bench, Network, Source
from papers.clean import draw
from papers.experiment import Experiment, Findings, Outcome, Value, Verdict, beside
from papers.families import CIFAR_RANGE
from papers.kept import Arrays
from papers.style import COLORS, MARKERS, panels
from papers.verdicts import all_above, all_within, inside, percent, together
from papers.votes import curve_of, vote_of

_ENOUGH, _ENOUGH_MARGIN = 16, 0.02  # trials, and by how much more of them may help
_CLEAN_MARGIN = 0.03
_BROKEN = 0.05
_SINGLE = 0.40
_Shares = NDArray[np.float64]


@dataclass(frozen=True)
class _Noisy(Experiment):
    """A network behind uniform noise.

    Args:
        network: its name.
        data: the data set.
        n: images.
        levels: of uniform noise, the papers' epsilon.
        trials: numbers of votes N, ascending.
        bounds_range: see `defenses.PapersGauss`.
    """

    network: str = "cifar10_resnet20_imagenet_norm"
    data: str = "CIFAR10"
    n: int = 1000
    levels: list[float] = field(default_factory=list)
    trials: list[int] = field(default_factory=list)
    bounds_range: float = CIFAR_RANGE

    def defense(self, bench: Bench, level: float) -> Network:
        """The network behind the noise of a level."""
        return bench.network(self.network).behind([PapersUniform(level, self.bounds_range)])

    def source(self) -> Source:
        """The images."""
        return Source(self.data, self.n)

    def figure(self, curves: Mapping[str, Mapping[int, _Shares]]) -> Figure:
        """Accuracy against the number of trials."""
        figure, (axes,) = panels(1, 1, 5.2, 3.8)
        for number, (name, values) in enumerate(curves.items()):
            color = COLORS[number // 2 % len(COLORS)] if "single" in " ".join(curves) else COLORS[number % len(COLORS)]
            style = "--" if "single" in name else "-"
            marker = MARKERS[number % len(MARKERS)]
            y = [percent(shares) for shares in values.values()]
            draw(axes, [float(n) for n in values], y, label=name, color=color, marker=marker, linestyle=style)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="number of trials N", ylabel="accuracy (%)", ylim=(0, 103))
        axes.legend(fontsize=7)
        return figure


@dataclass(frozen=True)
class Trials(_Noisy):
    """Attacks on the network alone; the most frequent of N answers behind uniform noise. Accuracy in %.

    Args:
        attack: its author does not know of the noise.
    """

    attack: Attack = CarliniWagner()

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        passes = Cost(forward=self.n * (1 + max(self.trials) * len(self.levels)))
        return bench.cost(bench.network(self.network), self.attack, self.source()) + passes

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        bare = bench.network(self.network)
        clean = bench.judged(bare, self.source())
        found: dict[float, Arrays] = {}
        for level in self.levels:
            noisy = self.defense(bench, level)
            found[level] = bench.judged(noisy, self.source(), max(self.trials), bare, self.attack)
            bench.say(f"noise {level:g}: done")
        curves = {f"noise {level:g}": curve_of(arrays, self.trials) for level, arrays in found.items()}
        ours = {name: {str(n): percent(shares) for n, shares in curve.items()} for name, curve in curves.items()}
        ours["clean, no noise"] = {"1": percent(vote_of(clean, 1))}
        caption = (
            f"{self.title}. {self.network}, {self.data}, n = {self.n}; attack {self.attack}, which does not know of "
            f"the noise; {max(self.trials)} passes per image, votes of N are means over groups of them, a tie "
            "goes to the lowest class; accuracy in %, 95 % bootstrap intervals over images."
        )
        verdicts = list(self._verdicts(curves, vote_of(clean, 1)))
        return Findings([beside("cells", ours, self.printed, caption)], {"trials": self.figure(curves)}, verdicts)

    def _verdicts(self, curves: Mapping[str, Mapping[int, _Shares]], clean: _Shares) -> Iterator[Verdict]:
        most = max(self.trials)
        pairs = {name: (curve[most], curve[1]) for name, curve in curves.items()}
        yield all_above(f"a vote of {most} trials is right more often than one trial, at every level of noise", pairs)
        if _ENOUGH in self.trials:
            pairs = {name: (curve[most], curve[_ENOUGH]) for name, curve in curves.items()}
            claim = f"{_ENOUGH} trials are enough: {most} are within {100 * _ENOUGH_MARGIN:g} points"
            yield all_within(claim, pairs, _ENOUGH_MARGIN)
        # Half of the images say which level is best, the other half what it keeps.
        level = max(curves, key=lambda name: float(curves[name][most][::2].mean()))
        pairs = {level: (curves[level][most][1::2], clean[1::2])}
        claim = f"with the best noise a vote of {most} is within {100 * _CLEAN_MARGIN:g} points of clean accuracy"
        yield all_within(claim, pairs, _CLEAN_MARGIN)


@dataclass(frozen=True)
class MultiTrialAttack(_Noisy):
    """The attacker votes over as many trials as the defender. Accuracy in % of the vote, and of a single pass.

    Args:
        attack: on the network behind the noise; its `votes` are set to N.
        judged: fresh passes per image, at least; votes of N take N of them.
    """

    n: int = 100
    attack: Adversary = Adversary(
        CarliniWagner(steps=100, search_steps=5), StraightThrough(everywhere=True, at_image=True)
    )
    judged: int = 64

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        total = Cost()
        for level in self.levels:
            for votes in self.trials:
                total += bench.cost(self.defense(bench, level), self._of(votes), self.source(), max(votes, self.judged))
        return total

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        curves: dict[str, dict[int, _Shares]] = {}
        lengths: dict[str, dict[str, Value]] = {}
        for level in self.levels:
            defense = self.defense(bench, level)
            for votes in self.trials:
                passes = max(votes, self.judged)
                found = bench.judged(defense, self.source(), passes, attack=self._of(votes))
                curves.setdefault(f"{level:g}, many trials", {})[votes] = vote_of(found, votes)
                curves.setdefault(f"{level:g}, single noise", {})[votes] = vote_of(found, 1)
                lengths.setdefault(f"{level:g}", {})[str(votes)] = Value(float(found["l2"].mean()))
                bench.say(f"noise {level:g}, {votes} trials: done")
        ours = {name: {str(n): percent(shares) for n, shares in curve.items()} for name, curve in curves.items()}
        images = f"{self.title}. {self.network}, {self.data}, n = {self.n}; {self.attack}, votes N"
        caption = (
            f"{images}; judged on fresh passes, at least {self.judged} per image, a tie goes to the lowest class; "
            "accuracy in %, 95 % bootstrap intervals over images."
        )
        tables = [
            beside("cells", ours, self.printed, caption),
            beside("distortion", lengths, {}, f"{images}; mean L2 over all images, pixels in [0, 1]."),
        ]
        return Findings(tables, {"trials": self.figure(curves)}, list(self._verdicts(curves)))

    def _of(self, votes: int) -> Adversary:
        return replace(self.attack, votes=votes)

    def _verdicts(self, curves: Mapping[str, Mapping[int, _Shares]]) -> Iterator[Verdict]:
        most = max(self.trials)
        many = {name: percent(curve[most]) for name, curve in curves.items() if "many" in name}
        claim = f"a vote of {most} falls to an attacker who votes as often, at most {100 * _BROKEN:g} % are left"
        yield _inside(claim, many, most=100 * _BROKEN)
        single = {name: percent(curve[most]) for name, curve in curves.items() if "single" in name}
        claim = f"a single noisy pass can keep {100 * _SINGLE:g} % or more of the same images: it does at some level"
        yield _reaching(claim, single, 100 * _SINGLE)
        pairs = {
            f"{level:g}": (curves[f"{level:g}, single noise"][most], curves[f"{level:g}, many trials"][most])
            for level in self.levels
        }
        yield all_above(f"against that attacker a single pass is right more often than the vote of {most}", pairs)
        pairs = {
            f"{level:g}": (curves[f"{level:g}, many trials"][1], curves[f"{level:g}, many trials"][most])
            for level in self.levels
        }
        yield all_above(f"the attack is the stronger the more it votes: {most} against 1", pairs)


def _inside(claim: str, values: Mapping[str, Value], **limits: float) -> Verdict:
    outcome = together([inside(value, **limits) for value in values.values()])
    return Verdict(claim, outcome, "; ".join(f"{name}: {value} %" for name, value in values.items()))


def _reaching(claim: str, values: Mapping[str, Value], least: float) -> Verdict:
    """Of a claim that says one of them: refuted only if all parts are."""
    found = {inside(value, least=least) for value in values.values()}
    outcome: Outcome = "confirmed" if "confirmed" in found else "refuted" if found == {"refuted"} else "undecided"
    return Verdict(claim, outcome, "; ".join(f"{name}: {value} %" for name, value in values.items()))

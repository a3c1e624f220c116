"""Two channels in a row against one (ICLR draft, section C.9)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from defenses import Channel
from evaluation import Cost
from papers.bench import Bench, MissingNetwork
from papers.experiment import Experiment, Findings, Value, Verdict, beside
from papers.families import channel
from papers.kept import Arrays
from papers.passing import IDENTITY, Side, passed
from papers.verdicts import Difference, difference, percent, together

_GAIN = 0.02  # of the images: more than this is a benefit; the draft's largest is 1.25 points and called small
_Shares = Mapping[str, Arrays]


@dataclass(frozen=True)
class Hybrid(Experiment):
    """What single channels and pairs of them recover from an attacker who knows of none, accuracy in %.

    Args:
        sides: networks and images by name, each with one attack.
        n: images by side; as many others are there to choose the better part of a pair.
        parameters: side -> family -> its parameter.
        pairs: of families, in the order in which images pass through them.
    """

    sides: dict[str, Side] = field(default_factory=dict)
    n: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, dict[str, float]] = field(default_factory=dict)
    pairs: list[list[str]] = field(default_factory=list)

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        total = Cost()
        for side, n in self.n.items():
            of = self.sides[side]
            try:
                network = bench.network(of.network)
            except MissingNetwork:
                continue
            passes = sum(of.draws if any(c.random for c in cs) else 1 for cs in self._channels(side).values())
            for attack in of.attacks.values():
                total += (bench.cost(network, attack, of.source("", n, tuning=False)) + Cost(forward=n * passes)) * 2
        return total

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        reported: dict[str, _Shares] = {}
        tuned: dict[str, _Shares] = {}
        missing = {}
        for side in self.n:
            try:
                reported[side], tuned[side] = self._shares(bench, side, False), self._shares(bench, side, True)
            except MissingNetwork as error:
                missing[side] = str(error)
        ours: dict[str, dict[str, Value]] = {
            side: {name: percent(arrays["right"].astype(float)) for name, arrays in shares.items()}
            for side, shares in reported.items()
        }
        images = "; ".join(
            f"{side}: {of.network}, n = {self.n[side]}, {', '.join(map(str, of.attacks.values()))}, {of.draws} draws"
            for side, of in self.sides.items()
            if side in reported
        )
        caption = f"{self.title}. {images}; accuracy in %, 95 % bootstrap intervals over images."
        verdicts = [self._verdict(side, reported[side], tuned[side]) for side in reported]
        absent = [Verdict(_claim(side), "not testable here", reason) for side, reason in missing.items()]
        return Findings([beside("cells", ours, self.printed, caption)], {}, [*verdicts, *absent])

    def _shares(self, bench: Bench, side: str, tuning: bool) -> _Shares:
        of = self.sides[side]
        network, (attack,) = bench.network(of.network), of.attacks.values()
        source = of.source("", self.n[side], tuning)
        return {
            name: passed(bench, network, channels, source, of.draws, attack)
            for name, channels in self._channels(side).items()
        }

    def _channels(self, side: str) -> dict[str, list[Channel]]:
        values, width = self.parameters[side], self.sides[side].bounds_range
        single = {family: [channel(family, value, width)] for family, value in values.items()}
        pairs = {"+".join(pair): [channel(family, values[family], width) for family in pair] for pair in self.pairs}
        return {IDENTITY: [], **single, **pairs}

    def _verdict(self, side: str, reported: _Shares, tuned: _Shares) -> Verdict:
        gains = dict(self._gains(reported, tuned))
        outcome = together(
            ["confirmed" if g.high <= _GAIN else "refuted" if g.low > _GAIN else "undecided" for g in gains.values()]
        )
        return Verdict(_claim(side), outcome, "; ".join(f"{name}: {gain.points()}" for name, gain in gains.items()))

    def _gains(self, reported: _Shares, tuned: _Shares) -> Iterator[tuple[str, Difference]]:
        for pair in self.pairs:
            better = max(pair, key=lambda family: float(tuned[family]["right"].mean()))
            found = reported["+".join(pair)]["right"].astype(float)
            yield f"{'+'.join(pair)} - {better}", difference(found, reported[better]["right"].astype(float))


def _claim(side: str) -> str:
    return f"{side}: two channels in a row recover at most {100 * _GAIN:g} points more than the better one of them"

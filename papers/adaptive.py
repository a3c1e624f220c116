"""How far an attacker who knows the channel has to go (ICLR draft, table 5)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product

from attacks import Adversary, Attack, CarliniWagner, StraightThrough
from defenses import Channel
from evaluation import Cost
from papers.bench import Bench, Source
from papers.experiment import Experiment, Findings, Outcome, Value, Verdict, beside
from papers.kept import Arrays
from papers.passing import IDENTITY, Side
from papers.verdicts import Numbers, all_above, mean_of, percent

_BROKEN = 5.0  # %: a defense that keeps no more is called broken
_Found = Mapping[tuple[str, str, str], Arrays]  # (side, channel, attack)


@dataclass(frozen=True)
class AdaptiveDistortion(Experiment):
    """Mean L2 of the successful attacks on a network behind each channel, and the accuracy that is left.

    Printed rows: "SIDE, CHANNEL", columns "accuracy (%)" and "L2", of the first attack.

    Args:
        sides: networks and images by name.
        n: images by side.
        channels: by side and name; "Iden" is there without being named.
        attacks: on the network behind the channel, by name; the first is the papers'.
    """

    sides: dict[str, Side] = field(default_factory=dict)
    n: dict[str, int] = field(default_factory=dict)
    channels: dict[str, dict[str, Channel]] = field(default_factory=dict)
    attacks: dict[str, Attack] = field(
        default_factory=lambda: {
            "gradient at the image": Adversary(
                CarliniWagner(steps=1000), StraightThrough(everywhere=True, at_image=True)
            )
        }
    )

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        total = Cost()
        for (side, name), attack in product(self._defenses(), self.attacks.values()):
            network = bench.network(self.sides[side].network).behind(self._channels(side, name))
            total += bench.cost(network, attack, self._source(side))
        return total

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        found: dict[tuple[str, str, str], Arrays] = {}
        for (side, name), (title, attack) in product(self._defenses(), self.attacks.items()):
            network = bench.network(self.sides[side].network).behind(self._channels(side, name))
            draws = self.sides[side].draws
            found[side, name, title] = bench.judged(network, self._source(side), draws, attack=attack)
            bench.say(f"{side}, {name}, {title}: done")
        ours: dict[str, dict[str, Value]] = {}
        for number, title in enumerate(self.attacks):
            for side, name in self._defenses():
                row = f"{side}, {name}" if number == 0 else f"{side}, {name}, {title}"
                ours[row] = _numbers(found[side, name, title])
        images = "; ".join(f"{side}: {self.sides[side].network}, n = {self.n[side]}" for side in self.n)
        attacks = "; ".join(f"{title}: {attack}" for title, attack in self.attacks.items())
        caption = (
            f"{self.title}. {images}; {attacks}; L2 over images that were right and are wrong now, pixels in [0, 1]; "
            "95 % bootstrap intervals over images."
        )
        return Findings([beside("cells", ours, self.printed, caption)], {}, list(self._verdicts(found, ours)))

    def _verdicts(self, found: _Found, ours: Mapping[str, Mapping[str, Value]]) -> Iterator[Verdict]:
        for side in self.n:
            rows = [f"{side}, {name}" for name in self.channels[side]]
            left = {row: ours[row]["accuracy (%)"] for row in rows}
            outcome: Outcome = "confirmed" if all((v.high or 0) <= _BROKEN for v in left.values()) else "undecided"
            outcome = "refuted" if any((v.low or 0) > _BROKEN for v in left.values()) else outcome
            claim = f"{side}: an attacker who knows a deterministic channel breaks it, at most {_BROKEN:g} % are left"
            yield Verdict(claim, outcome, "; ".join(f"{row}: {value} %" for row, value in left.items()))
            for title in self.attacks:
                bare = found[side, IDENTITY, title]
                # Shares and not lengths: who is farther from home behind the channel than without it.
                pairs = {
                    name: (_farther(found[side, name, title], bare), _farther(bare, found[side, name, title]))
                    for name in self.channels[side]
                }
                claim = f"{side}, {title}: to break a known channel takes more distortion than the bare network"
                verdict = all_above(claim, pairs)
                yield Verdict(claim, verdict.outcome, f"images farther less images nearer: {verdict.reason}")

    def _defenses(self) -> list[tuple[str, str]]:
        return [(side, name) for side in self.n for name in (IDENTITY, *self.channels.get(side, {}))]

    def _channels(self, side: str, name: str) -> list[Channel]:
        return [] if name == IDENTITY else [self.channels[side][name]]

    def _source(self, side: str) -> Source:
        return Source(self.sides[side].data, self.n[side])


def _numbers(found: Arrays) -> dict[str, Value]:
    right = (found["answers"] == found["label"][:, None]).mean(axis=1)
    moved = found["l2"][(found["l2"] > 0) & (right < 0.5)].astype(float)
    numbers = {"accuracy (%)": percent(right)}
    return {**numbers, "L2": mean_of(moved)} if len(moved) else numbers


def _farther(one: Arrays, other: Arrays) -> Numbers:
    """1 for images on which both attacks succeeded and the first went farther, else 0."""
    both = (one["l2"] > 0) & (other["l2"] > 0)
    return (both & (one["l2"] > other["l2"])).astype(float)

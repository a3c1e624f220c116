"""What channels add to attacked images, seen from the originals (EEPD figure 8; ICLR draft figure 10)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from matplotlib.figure import Figure
from torch import nn

from analysis.deltas import channel_deltas
from defenses import Channel
from evaluation import Cost, judge
from papers.bench import Bench
from papers.experiment import Findings, Value, Verdict, beside
from papers.kept import Arrays
from papers.pairs import Paired, Pairs
from papers.style import COLORS, panels
from papers.verdicts import all_above, all_within, mean_of, percent

_BINS = 101
_SPREAD = 0.05  # of recovery, in [0, 1]: what "a similar robustness" allows


@dataclass(frozen=True)
class ChannelDeltas(Paired):
    """Histograms of channel(attacked) - original over all values of all images, of the first attack.

    Printed rows: channels; column "L2" (pixels in [0, 1]).

    Args:
        channels: by name.
        limits: by channel, the largest delta of its histogram; what is missing: 0.1.
    """

    channels: dict[str, Channel] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        return self.attack_cost(bench) + Cost(forward=self.n * len(self.channels))

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        attack = next(iter(self.attacks.values()))
        network = bench.network(self.network)
        found = {}
        for name, channel in self.channels.items():
            behind, limit = network.behind([channel]).module, self.limits.get(name, 0.1)

            def make(
                pairs: Pairs, channel: Channel = channel, behind: nn.Module = behind, limit: float = limit
            ) -> Arrays:
                each = [
                    channel_deltas(channel, x_adv[None], x[None], bins=_BINS, limit=limit)
                    for x_adv, x in zip(pairs.x_adv, pairs.x, strict=True)
                ]
                right = judge(behind, pairs.x_adv, 1).answers[:, 0] == pairs.label
                return {
                    "counts": np.stack([deltas.counts for deltas in each]).astype(float),
                    "outside": np.array([deltas.outside for deltas in each], dtype=float),
                    "l2": np.concatenate([deltas.l2 for deltas in each]),
                    "mean": np.array([deltas.mean for deltas in each]),
                    "std": np.array([deltas.std for deltas in each]),
                    "right": right.double().cpu().numpy(),
                }

            key = ("channel deltas", repr(channel), str(_BINS), str(limit))
            numbers: dict[str, tuple[int, ...]] = dict.fromkeys(("outside", "l2", "mean", "std", "right"), ())
            found[name] = self.collected(bench, key, attack, {"counts": (_BINS,), **numbers}, make)
        n = len(next(iter(found.values()))["index"])
        caption = (
            f"{self.title}. {self.network}, {self.data}, n = {n} images that are right and then broken, of {self.n}; "
            f"{attack}; one draw of each channel on an image; pixels in [0, 1]; 95 % bootstrap intervals over images."
        )
        ours = {name: _numbers(arrays) for name, arrays in found.items() if n}
        figure = self._figure(found)
        return Findings([beside("deltas", ours, self.printed, caption)], {"deltas": figure}, list(_verdicts(found)))

    def _figure(self, found: Mapping[str, Arrays]) -> Figure:
        figure, axes = panels(-(-len(found) // 3), 3)
        for each in axes[len(found) :]:
            each.set_visible(False)
        for each, (name, arrays), color in zip(axes, found.items(), COLORS, strict=False):
            limit = self.limits.get(name, 0.1)
            counts = arrays["counts"].sum(axis=0)
            whole = max(1.0, float(counts.sum() + arrays["outside"].sum()))
            each.stairs(100 * counts / whole, np.linspace(-limit, limit, _BINS + 1), fill=True, color=color)
            l2 = f" L2: {arrays['l2'].mean():.3f}" if len(arrays["l2"]) else ""
            if (theirs := self.printed.get(name, {}).get("L2")) is not None:
                l2 += f" (printed {theirs:g})"
            each.set_title(f"{name}{l2}", fontsize=9)
            each.set(xlabel="value", ylabel="frequency (%)")
        return figure


def _numbers(arrays: Arrays) -> dict[str, Value]:
    return {
        "L2": mean_of(arrays["l2"]),
        "mean": mean_of(arrays["mean"]),
        "std": mean_of(arrays["std"]),
        "recovered (%)": percent(arrays["right"]),
    }


def _verdicts(found: Mapping[str, Arrays]) -> Iterator[Verdict]:
    if not all(len(arrays["index"]) for arrays in found.values()):
        return
    most = {name: (arrays["right"], 1 - arrays["right"]) for name, arrays in found.items()}
    yield all_above("behind every channel most attacked images are right again", most)
    pairs = {f"{a} - {b}": (found[a]["right"], found[b]["right"]) for a, b in combinations(found, 2)}
    yield all_within(f"distributions differ, recovery is similar, within {100 * _SPREAD:g} points", pairs, _SPREAD)

"""Is the class of the lowest gradient the predicted one? (EEPD section D.6.1 and figure 15)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from matplotlib.figure import Figure

from analysis.derivatives import normalisation_scale
from analysis.gradients import gradient_norms
from evaluation import Cost
from papers.bench import Bench
from papers.experiment import Findings, Outcome, Table, Value, Verdict, beside
from papers.kept import Arrays
from papers.pairs import ORIGINAL, Paired, Pairs, counts_of, larger, matched, numpy, quantile
from papers.style import COLORS, panels
from papers.verdicts import all_above, mean_of, percent

LOWEST = "lowest is predicted (%)"
_NEARLY = 95.0


@dataclass(frozen=True)
class GradientAnomaly(Paired):
    """Norms of the gradients of all classes, at originals and at adversarial images of several confidences.

    Printed rows: "original" and the names of attacks; columns "lowest is predicted (%)", "norm" (mean, of the predicted
    class, normalised images), "confidence (%)" (mean probability of the predicted class), "L2" (median distance).
    """

    def cost(self, bench: Bench) -> Cost:
        """See `Experiment`."""
        part = next(bench.parts(self.source()._replace(n=1)))
        classes = bench.network(self.network).module(part.x).shape[1]
        asked = self.n * (1 + len(self.attacks))
        return self.attack_cost(bench) + Cost(forward=asked, gradient=asked * classes)

    def run(self, bench: Bench) -> Findings:
        """See `Experiment`."""
        shapes: dict[str, tuple[int, ...]] = {"lowest": (), "norm": (), "confidence": (), "l2": ()}
        attacks = {ORIGINAL: None, **self.attacks}
        found = self.collected_by_name(bench, ("gradient anomaly",), attacks, shapes, self._make(bench))
        counts = counts_of(found)
        caption = (
            f"{self.title}. {self.network}, {self.data}, images that are right, or right and then broken ({counts} of "
            f"{self.n}); gradients of the cross-entropy with every class by the normalised image; "
            f"{'; '.join(f'{name}: {attack}' for name, attack in self.attacks.items())}; 95 % bootstrap intervals over "
            "images."
        )
        ours = {name: _numbers(arrays) for name, arrays in found.items() if len(arrays["index"])}
        tables = [beside("anomaly", ours, self.printed, caption), self._by_confidence(found)]
        return Findings(tables, {"confidence": self._figure(ours)}, list(self._verdicts(found)))

    def _make(self, bench: Bench) -> Callable[[Pairs], Arrays]:
        model = bench.network(self.network).module
        scale = normalisation_scale(model)

        def make(pairs: Pairs) -> Arrays:
            found = gradient_norms(model, pairs.x_adv, scale=scale)
            norm = found.norms[0].gather(1, found.predicted[0][:, None])[:, 0]
            return {
                "lowest": numpy(~found.anomalous[0]),
                "norm": numpy(norm),
                "confidence": numpy(found.probs[0].amax(1)),
                "l2": numpy((pairs.x_adv - pairs.x).flatten(1).norm(dim=1)),
            }

        return make

    def _by_confidence(self, found: Mapping[str, Arrays]) -> Table:
        """All adversarial images together, by the probability that the network gives them."""
        confidence = np.concatenate([found[name]["confidence"] for name in self.attacks])
        lowest = np.concatenate([found[name]["lowest"] for name in self.attacks])
        rows: list[list[str | float | Value | None]] = []
        edges = (0.0, 0.5, 0.6, 0.8, 0.95, 0.99, 0.999, 1.0)
        for low, high in pairwise(edges):
            chosen = (confidence > low) & (confidence <= high)
            if chosen.any():
                rows.append([f"{low:g} to {high:g}", float(chosen.sum()), percent(lowest[chosen])])
        caption = f"{self.title}: adversarial images of all attacks, by the probability of the predicted class."
        return Table("by_confidence", ["probability", "images", LOWEST], rows, caption)

    def _verdicts(self, found: Mapping[str, Arrays]) -> Iterator[Verdict]:
        kinds = [name for name in found if len(found[name]["index"])]
        if kinds[:1] != [ORIGINAL] or len(kinds) < 2:
            return
        claim = f"at originals the lowest gradient is nearly always that of the predicted class (over {_NEARLY:g} %)"
        yield beyond(claim, percent(found[ORIGINAL]["lowest"]))
        claim = f"{kinds[1]}: at adversarial images it nearly always is not (over {_NEARLY:g} %)"
        yield beyond(claim, percent(1 - found[kinds[1]]["lowest"]))
        nearer, farther = matched(found[kinds[1]], found[kinds[-1]])
        if len(kinds) > 2 and len(nearer["index"]):
            pairs = {f"{kinds[-1]} above {kinds[1]}": (farther["lowest"], nearer["lowest"])}
            yield all_above("the weaker the attack, the likelier the anomaly", pairs)
            pairs = {f"{kinds[1]} above {kinds[-1]}": larger(nearer["norm"], farther["norm"])}
            yield all_above("a more confident attack leaves a smaller gradient of the adversarial class", pairs)
        pair, original = matched(found[kinds[1]], found[ORIGINAL])
        pairs = {kinds[1]: larger(pair["norm"], original["norm"])}
        yield all_above("the gradient of the predicted class is larger at the adversarial image", pairs)

    def _figure(self, ours: Mapping[str, Mapping[str, Value]]) -> Figure:
        figure, axes = panels(1, 3)
        names = list(ours)
        for each, column in zip(axes, ("norm", "confidence (%)", LOWEST), strict=True):
            for place, name in enumerate(names):
                value = ours[name][column]
                error = [[value.value - (value.low or 0)], [(value.high or 0) - value.value]]
                each.errorbar([place], [value.value], np.clip(error, 0, None), fmt="o", color=COLORS[place % 7])
                if (theirs := self.printed.get(name, {}).get(column)) is not None:
                    each.plot([place], [theirs], "kx", zorder=4)
            each.set_xticks(range(len(names)), names, rotation=35, ha="right", fontsize=7)
            each.set(ylabel=column)
        if names:
            axes[0].set_yscale("log")
            axes[0].set(ylabel="mean L2 norm, predicted class")
        return figure


def beyond(claim: str, share: Value, least: float = _NEARLY) -> Verdict:
    """Whether a share in percent lies above a limit, if its interval tells."""
    outcome: Outcome = "undecided"
    if share.low is not None and share.high is not None:
        outcome = "confirmed" if share.low > least else "refuted" if share.high < least else "undecided"
    return Verdict(claim, outcome, f"{share} %")


def _numbers(arrays: Arrays) -> dict[str, Value]:
    return {
        LOWEST: percent(arrays["lowest"]),
        "norm": mean_of(arrays["norm"]),
        "confidence (%)": mean_of(100 * arrays["confidence"]),
        "L2": quantile(arrays["l2"], 0.5),
    }

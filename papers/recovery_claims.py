"""What the papers conclude from images that channels recover, and what would confirm or refute it."""

from collections.abc import Callable, Sequence
from itertools import combinations

from papers.experiment import Outcome, Verdict
from papers.families import NOISES
from papers.passing import IDENTITY, Curves
from papers.tuning import Recovered, spread
from papers.verdicts import Difference, above, all_above, all_within, difference, together, within

SIMILAR = 0.05  # of the images: the papers' table 3 calls 84.3 and 88.6 % similar
PAPERS = ("C&W", "PGD")  # the attacks that the papers say this of
SAME_DISTORTION = 2.0  # the largest may be so many times the smallest


def recovers(found: Sequence[Recovered]) -> list[Verdict]:
    """Every channel gives back labels that the attack took."""
    return [
        all_above(
            f"{_name(of)}: every tuned channel recovers labels of an attacker who does not know it",
            {family: (of.at_best(family).right, of.curves[IDENTITY][0].right) for family in of.choices},
        )
        for of in found
    ]


def similar(found: Sequence[Recovered]) -> list[Verdict]:
    """All channels recover about as much from C&W and PGD."""
    return [
        all_within(
            f"{_name(of)}: tuned channels recover the same within {100 * SIMILAR:g} points",
            {
                f"{one} - {other}": (of.at_best(one).right, of.at_best(other).right)
                for one, other in combinations(of.choices, 2)
            },
            SIMILAR,
        )
        for of in found
        if of.attack in PAPERS
    ]


def less_after(found: Sequence[Recovered]) -> list[Verdict]:
    """FGSM's and L-BFGS's images, which lie farther away, are recovered less than C&W's (draft, section 4.1)."""
    verdicts = []
    by_name = {(of.side, of.attack): of for of in found}
    for (side, attack), of in by_name.items():
        if attack in ("FGSM", "LBFGS") and (near := by_name.get((side, "C&W"))):
            pairs = {family: (near.at_best(family).right, of.at_best(family).right) for family in of.choices}
            verdicts.append(all_above(f"{side}: channels recover less from {attack} than from C&W", pairs))
    return verdicts


def same_distortion(found: Sequence[Recovered]) -> list[Verdict]:
    """The best setting is one distortion, whatever the channel."""
    verdicts = []
    for of in found:
        ratio, (low, high) = spread(of)
        outcome: Outcome = (
            "confirmed" if high <= SAME_DISTORTION else "refuted" if low > SAME_DISTORTION else "undecided"
        )
        told = ", ".join(f"{family} {of.at_best(family).l2.mean():.2f}" for family in of.choices)
        claim = f"{_name(of)}: the best channels distort alike, none more than {SAME_DISTORTION:g} times another"
        reason = (
            f"L2 at the chosen parameters: {told}; largest / smallest {ratio:.3g}, {low:.3g} to {high:.3g} "
            "with parameters that cannot be told from them"
        )
        verdicts.append(Verdict(claim, outcome, reason))
    return verdicts


def peak(found: Sequence[Recovered]) -> list[Verdict]:
    """Too little distortion recovers nothing, too much destroys the image.

    Where an end of the range was chosen, its neighbour should have been better.
    """
    verdicts = []
    for of in found:
        pairs = {}
        for family, choice in of.choices.items():
            points, last = of.curves[family], len(of.curves[family]) - 1
            for name, end, neighbour in (("mildest", 0, min(1, last)), ("strongest", last, max(0, last - 1))):
                other = neighbour if choice.place == end else choice.place
                pairs[f"{family}, over the {name}"] = (points[other].right, points[end].right)
        claim = f"{_name(of)}: accuracy rises and falls with a channel's distortion, the best lies in between"
        verdicts.append(all_above(claim, pairs))
    return verdicts


def best_noise(found: Sequence[Recovered]) -> list[Verdict]:
    """The draft's figure 6: noise of 0.03 suits C&W best."""
    verdicts = []
    for of in found:
        for family in (family for family in of.choices if family in NOISES and of.attack == "C&W"):
            choice, (low, high) = of.choices[family], of.choices[family].interval()
            chosen, theirs = of.at_best(family), [p for p in of.curves[family] if p.parameter == 0.03]
            if not theirs:
                continue
            found_difference = difference(chosen.right, theirs[0].right)
            claim = f"{_name(of)}: {family} 0.03 is as good as the best parameter, within {100 * SIMILAR:g} points"
            reason = f"chosen {choice.parameter:g} [{low:g}, {high:g}]; it gains {found_difference.points()}"
            verdicts.append(Verdict(claim, within(found_difference, SIMILAR), reason))
    return verdicts


def bounded_by_clean(found: Sequence[Recovered], clean: dict[str, Curves]) -> list[Verdict]:
    """Clean accuracy behind a channel is more than it recovers from any attack, where clean images were passed."""
    verdicts = []
    for of in (of for of in found if of.side in clean):
        pairs = {
            family: (clean[of.side][family][of.choices[family].place].right, of.at_best(family).right)
            for family in of.choices
        }
        claim = f"{_name(of)}: a channel recovers less than the accuracy that it leaves on clean images"
        verdicts.append(all_above(claim, pairs))
    return verdicts


def smaller_on(found: Sequence[Recovered]) -> list[Verdict]:
    """Table 4: the first side's channels want smaller parameters than the second's."""
    sides = list(dict.fromkeys(of.side for of in found))
    if len(sides) != 2:
        return []
    one, other = (next(of for of in found if of.side == side) for side in sides)
    outcomes, told = [], []
    for family in one.choices:
        here, there = one.choices[family].interval(), other.choices[family].interval()
        outcomes.append(above(Difference(0.0, there.low - here.high, there.high - here.low)))
        told.append(f"{family}: {here.low:g} to {here.high:g} against {there.low:g} to {there.high:g}")
    claim = f"{sides[0]} wants milder channels than {sides[1]}"
    return [Verdict(claim, together(outcomes), f"parameters that cannot be told from the best: {'; '.join(told)}")]


RULES: dict[str, Callable[[Sequence[Recovered]], list[Verdict]]] = {
    "recovers": recovers,
    "similar": similar,
    "less_after": less_after,
    "same_distortion": same_distortion,
    "peak": peak,
    "best_noise": best_noise,
    "smaller_on": smaller_on,
}


def _name(of: Recovered) -> str:
    return f"{of.side}, {of.attack}"

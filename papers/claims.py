"""Claims of the form "A keeps more than B": comparisons of curves, and the verdict that follows from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from papers.curve import AttackCurve, Axis, Compared
from papers.experiment import Outcome, Verdict
from papers.verdicts import above, together


@dataclass(frozen=True)
class Ordering:
    """One defense is said to lie above another.

    Args:
        panel: name of the panel whose curves and axis are meant.
        higher: the defense that is said to lie higher.
        lower: the other one.
        between: the part of the axis that the claim speaks of, [from, to]; None: all that both curves cover.
        of: what is compared: "accuracy", or the L2 that the attack takes at the strength `between[0]`.
    """

    panel: str
    higher: str
    lower: str
    between: tuple[float, float] | None = None
    of: Literal["accuracy", "l2"] = "accuracy"


@dataclass(frozen=True)
class Claim:
    """What the papers say, and the orderings that it comes down to.

    Args:
        text: the claim in our words.
        orderings: confirmed if all of them are, refuted if one is; none: the claim cannot be tested here.
        why_not: why it cannot be tested here.
    """

    text: str
    orderings: list[Ordering] = field(default_factory=list)
    why_not: str = ""


def verdict_on(
    claim: Claim, curves: Mapping[tuple[str, str], AttackCurve], axes: Mapping[str, Axis], missing: Mapping[str, str]
) -> Verdict:
    """The verdict on a claim.

    Args:
        claim: the claim.
        curves: (panel, defense) -> its curve.
        axes: panel -> its axis.
        missing: defenses that could not be made, with the reason.
    """
    named = [name for ordering in claim.orderings for name in (ordering.higher, ordering.lower)]
    if absent := sorted({f"{name}: {missing[name]}" for name in named if name in missing}):
        return Verdict(claim.text, "not testable here", "; ".join(absent))
    if not claim.orderings:
        return Verdict(claim.text, "not testable here", claim.why_not)
    found = [(ordering, _compared(ordering, curves, axes[ordering.panel])) for ordering in claim.orderings]
    return Verdict(claim.text, _outcome([part for _, part in found]), "; ".join(_told(*pair) for pair in found))


def _compared(ordering: Ordering, curves: Mapping[tuple[str, str], AttackCurve], axis: Axis) -> Compared | None:
    higher, lower = (curves[ordering.panel, name] for name in (ordering.higher, ordering.lower))
    if ordering.of == "l2":
        return higher.longer(lower, ordering.between[0] if ordering.between else 0.0)
    return higher.minus(lower, axis, ordering.between)


def _outcome(found: list[Compared | None]) -> Outcome:
    return together([above(part.difference) if part else "undecided" for part in found])


def _told(ordering: Ordering, found: Compared | None) -> str:
    pair = f"{ordering.higher} - {ordering.lower}"
    if found is None:
        return f"{ordering.panel}: {pair}: no common range"
    scale, unit = (1, "L2") if ordering.of == "l2" else (100, "points")
    value, low, high = (scale * part for part in found.difference)
    ends = f"{value:+.3g} {unit} [{low:+.3g}, {high:+.3g}]"
    where = f"{found.start:.3g}" if found.start == found.stop else f"{found.start:.3g} to {found.stop:.3g}"
    return f"{ordering.panel}, {where}: {pair}: {ends}"

"""What the report of an evaluation takes from results.json: the one place that knows its keys; old ones lack some."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from analysis.report.folder import Evaluation


class Estimate(NamedTuple):
    """A proportion in [0, 1] and its interval, None where none was computed."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Headline:
    """The numbers of one adversary; None for what was not computed.

    Attributes:
        name: of the adversary.
        series: number of its colour.
        single: expected accuracy of a single draw; of a model without noise, its accuracy.
        votes: draws k of the next two.
        vote: accuracy of the majority over k draws.
        worst: probability that k draws are all right.
        decided: images that are robust, undecided, broken.
        correct, passes: right ones among the judge's passes over all images.
        l2, linf: mean distances in pixels of [0, 1].
        queries: mean per image.
    """

    name: str
    series: int
    single: Estimate
    votes: int
    vote: Estimate | None
    worst: Estimate | None
    decided: tuple[int, int, int] | None
    correct: int = 0
    passes: int = 0
    l2: float = 0.0
    linf: float = 0.0
    queries: float = 0.0


@dataclass(frozen=True)
class Check:
    """One check of the evaluation.

    Attributes:
        kind: doubt, pass or not-run.
        mark: a sign that does not need colour.
        figures: the numbers it rests on, as text.
    """

    name: str
    verdict: str
    kind: str
    mark: str
    text: str
    figures: str
    source: str


_MARKS = {"doubt": "⚠", "pass": "✓", "not-run": "○"}
_ORDER = ("doubt", "pass", "not-run")


def headlines(evaluation: Evaluation) -> list[Headline]:
    """One per adversary, in the order of the table; adversaries without a summary are left out."""
    return [_headline(evaluation, one) for one in _dicts(evaluation.results.get("summaries"))]


def worst_case(evaluation: Evaluation) -> Headline | None:
    """The adversary chosen per image; None if it was not computed."""
    found = evaluation.results.get("worst_case") or {}
    single = estimate(found, "accuracy", "interval")
    if single is None:
        return None
    return Headline("worst case", 0, single, 1, _vote(found), _worst_of(found), _decided(found))


def chosen(evaluation: Evaluation) -> str:
    """In words, of which share of the images each adversary was the worst."""
    found = (evaluation.results.get("worst_case") or {}).get("chosen")
    if not isinstance(found, dict):
        return ""
    ranked = sorted(found.items(), key=lambda pair: -pair[1])
    return ", ".join(f"{name} for {100 * share:.0f} % of the images" for name, share in ranked if share)


def checks(evaluation: Evaluation) -> list[Check]:
    """Doubts first, what was not run last."""
    found = [_check(one) for one in _dicts(evaluation.results.get("checks"))]
    return sorted(found, key=lambda check: _ORDER.index(check.kind))


def cost(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of each cost that was counted."""
    found = results.get("cost") or {}
    named = {"forward": "forward passes", "backward": "gradient passes", "gradient": "gradient passes"}
    facts = [(name, f"{found[key]:,}") for key, name in named.items() if key in found]
    if (seconds := found.get("seconds")) is not None:
        minutes, rest = divmod(round(seconds), 60)
        hours, minutes = divmod(minutes, 60)
        facts.append(("time", f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"))
    return facts


def estimate(values: dict[str, Any], value: str, interval: str) -> Estimate | None:
    """A number and its interval, [low, high] under one key; None if the number is not there."""
    if values.get(value) is None:
        return None
    return Estimate(float(values[value]), *map(float, values.get(interval) or ()))


def _headline(evaluation: Evaluation, found: dict[str, Any]) -> Headline:
    name = str(found.get("adversary", "?"))
    return Headline(
        name=name,
        series=evaluation.series.get(name, 0),
        single=estimate(found, "accuracy", "interval") or Estimate(float("nan")),
        votes=int(found.get("votes") or found.get("draws") or 1),  # before the key: a vote of all draws
        # A model without noise votes as it answers: the columns would repeat its accuracy.
        vote=_vote(found) if evaluation.random else None,
        worst=_worst_of(found) if evaluation.random else None,
        decided=_decided(found),
        correct=int(found.get("correct", 0)),
        passes=int(found.get("n", 0)) * int(found.get("draws", 0)),
        l2=float(found.get("l2_mean", 0)),
        linf=float(found.get("linf_mean", 0)),
        queries=float(found.get("queries_mean", 0)),
    )


def _vote(found: dict[str, Any]) -> Estimate | None:
    return estimate(found, "vote_accuracy", "vote_interval")


def _worst_of(found: dict[str, Any]) -> Estimate | None:
    return estimate(found, "worst_accuracy", "worst_interval")


def _decided(found: dict[str, Any]) -> tuple[int, int, int] | None:
    if any(found.get(key) is None for key in ("robust", "undecided", "broken")):
        return None
    return int(found["robust"]), int(found["undecided"]), int(found["broken"])


def _check(found: dict[str, Any]) -> Check:
    verdict = str(found.get("verdict", "not run"))
    kind = verdict if verdict in ("doubt", "pass") else "not-run"
    shown = ", ".join(f"{key} {_number(value)}" for key, value in (found.get("figures") or {}).items())
    name, text, source = (str(found.get(key) or "") for key in ("name", "text", "source"))
    return Check(name, verdict, kind, _MARKS[kind], text, shown, source)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _dicts(values: Any) -> Iterable[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []

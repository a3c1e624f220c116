"""Attacks made on one model and shown to others: which defenses share their weak points?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attacks import Attack, Goal, Trace
from attacks.shown import Shown
from defenses import Stream, drawing_from
from evaluation.batch import Rows
from evaluation.cost import Cost, counting, per_image, timed
from evaluation.judge import examine
from evaluation.records import Records
from evaluation.summary import Setting, Summary, summary_of


@dataclass(frozen=True, eq=False)
class Crafted(Attack):
    """An attack that was made elsewhere: whatever model it is run on, its images are those of `trace`."""

    trace: Trace

    def run(self, *arguments: Any, **options: Any) -> Trace:
        """The trace, for the images that it was made from."""
        return self.trace

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """The trace."""
        return self.trace


@dataclass(frozen=True)
class Matrix:
    """The models, each of which is a source of attacks and their target.

    Args:
        models: by name.
        attacks: by name; each is made on every model, with all that it knows of that model.
        records: where the answers go; its adversaries are the `cells` of these models and attacks.
        seed: of attacks and judges.
        draws: passes of the judge, by name of the target.
    """

    models: Mapping[str, nn.Module]
    attacks: Mapping[str, Attack]
    records: Records
    seed: int
    draws: Mapping[str, int]

    @property
    def adversaries(self) -> dict[str, tuple[str, str] | None]:
        """Name -> source and attack; "clean" -> None."""
        made = {adversary(source, attack): (source, attack) for source in self.models for attack in self.attacks}
        return {"clean": None, **made}

    def missing(self, number: int) -> list[str]:
        """The adversaries that some target has yet to judge on the batch of this number."""
        return [name for name in self.adversaries if self._targets(name, number)]

    def examine(self, name: str, number: int, first: int, images: tuple[Tensor, Tensor]) -> None:
        """One batch under one adversary: made once, judged by all targets, but for those that have been written.

        Args:
            name: of the adversary.
            number: of the batch.
            first: index of its first image.
            images: (x [B, C, H, W] in [0, 1], labels [B]).
        """
        attack, cost = self._made(name, first, images)
        for target in self._targets(name, number):
            with counting(self.models[target]) as meter:
                found = examine(self.models[target], images, first, name, attack, self.seed, self.draws[target])
            self.records.write(cell(name, target), number, found.rows, cost=cost + meter.cost)
            cost = Cost()  # the attack counts once, however many it is shown to

    def expected(self, x: Tensor, classes: int) -> dict[str, Cost]:
        """What an image is likely to cost under each adversary, all judges included.

        Args:
            x: some images [B, C, H, W] in [0, 1], on the device, on which passes are timed.
            classes: how many.
        """
        with drawing_from(Stream.named("timed")):
            paces = {name: timed(model, x) for name, model in self.models.items()}
        judges = sum((_taking(Cost(forward=self.draws[name]), pace) for name, pace in paces.items()), Cost())
        costs = {"clean": judges}
        for source, model in self.models.items():
            for attack, cost in per_image(model, self.attacks, x[0], classes).items():
                costs[adversary(source, attack)] = _taking(cost, paces[source]) + judges
        return costs

    def _targets(self, name: str, number: int) -> list[str]:
        return [target for target in self.models if not self.records.done(cell(name, target), number)]

    def _made(self, name: str, first: int, images: tuple[Tensor, Tensor]) -> tuple[Crafted | None, Cost]:
        if (made := self.adversaries[name]) is None:
            return None, Cost()
        source, attack = made
        # To the last step: an image that leaves at its first success on the source transfers badly.
        with (
            counting(self.models[source]) as meter,
            drawing_from(Stream.named(self.seed, attack, "attack", index=first)),
        ):
            trace = self.attacks[attack].run(self.models[source], *images)
        return Crafted(trace), meter.cost


def adversary(source: str, attack: str) -> str:
    """How the attack `attack` made on `source` is called."""
    return f"{source}--{attack}"


def cell(adversary: str, target: str) -> str:
    """How what `target` says to an adversary is called in the records."""
    return f"{adversary}--{target}"


def cells(names: Sequence[str], attacks: Sequence[str]) -> list[str]:
    """All cells of the matrices of these attacks, those of the clean images first."""
    made = [adversary(source, attack) for attack in attacks for source in names]
    return [cell(one, target) for one in ("clean", *made) for target in names]


def matrices(
    rows: Mapping[str, Rows], attacks: Sequence[str], targets: Mapping[str, Setting]
) -> dict[str, dict[str, Any]]:
    """The accuracies of each attack as JSON values, with intervals as in the summary of an evaluation.

    Args:
        rows: by `cell`.
        attacks: their names.
        targets: how the numbers of each model are formed, by its name.

    Returns:
        By attack: "sources" and "targets" (names), "accuracy", "low" and "high" (of a single draw, in [0, 1], a row a
        source), "clean", "clean_low" and "clean_high" (one a target), "draws" (one a target), "n" (images).
    """

    def line(name: str) -> dict[str, list[float]]:
        return _values([summary_of(rows[cell(name, target)], setting) for target, setting in targets.items()])

    names, clean = list(targets), line("clean")
    lines = {attack: [line(adversary(source, attack)) for source in names] for attack in attacks}
    common = {
        "sources": names,
        "targets": names,
        "clean": clean["accuracy"],
        "clean_low": clean["low"],
        "clean_high": clean["high"],
        "draws": [rows[cell("clean", target)].draws for target in names],
        "n": rows[cell("clean", names[0])].n,
    }
    keys = ("accuracy", "low", "high")
    return {attack: {**common, **{key: [one[key] for one in found] for key in keys}} for attack, found in lines.items()}


def _values(summaries: Sequence[Summary]) -> dict[str, list[float]]:
    return {
        "accuracy": [one.accuracy for one in summaries],
        "low": [one.interval.low for one in summaries],
        "high": [one.interval.high for one in summaries],
    }


def _taking(cost: Cost, pace: tuple[float, float]) -> Cost:
    """The cost with the seconds that follow from those of a forward pass, and of one with a gradient."""
    forward, gradient = pace
    seconds = (cost.forward - cost.gradient) * forward + cost.gradient * gradient
    return Cost(cost.forward, cost.gradient, seconds)

"""Attacks made on one model and shown to others: which defenses share their weak points?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attacks import Attack, Goal, Trace
from attacks.shown import Shown
from defenses import Stream, drawing_from
from evaluation.cost import Cost, counting
from evaluation.judge import examine
from evaluation.records import Records


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
        records: by name of the target; adversaries are "clean" and `adversary(source, attack)`.
        seed: of attacks and judges.
        draws: passes of the judge, by name of the target.
    """

    models: Mapping[str, nn.Module]
    attacks: Mapping[str, Attack]
    records: Mapping[str, Records]
    seed: int
    draws: Mapping[str, int]

    def examine(self, number: int, first: int, x: Tensor, y: Tensor) -> int:
        """One batch: all attacks on all sources, judged by all targets, but for what was written before.

        Args:
            number: of the batch.
            first: index of its first image.
            x: images [B, C, H, W] in [0, 1].
            y: labels [B].

        Returns:
            How many attacks were made.
        """
        self._judge("clean", number, first, (x, y), None)
        made = 0
        for source, model in self.models.items():
            for name, attack in self.attacks.items():
                if all(records.done(adversary(source, name), number) for records in self.records.values()):
                    continue
                # To the last step: an image that leaves at its first success on the source transfers badly.
                with counting(model) as meter, drawing_from(Stream.named(self.seed, name, "attack", index=first)):
                    trace = attack.run(model, x, y)
                self._judge(adversary(source, name), number, first, (x, y), Crafted(trace), meter.cost)
                made += 1
        return made

    def _judge(
        self,
        name: str,
        number: int,
        first: int,
        images: tuple[Tensor, Tensor],
        attack: Attack | None,
        cost: Cost | None = None,
    ) -> None:
        for target, model in self.models.items():
            if not self.records[target].done(name, number):
                found = examine(model, images, first, name, attack, self.seed, self.draws[target])
                self.records[target].write(name, number, found.rows, cost=cost)


def adversary(source: str, attack: str) -> str:
    """How the attack `attack` made on `source` is called among a target's adversaries."""
    return f"{source}--{attack}"

"""An attack towards a class that the label decides, as the papers' targeted attacks."""

from dataclasses import dataclass

from torch import Tensor

from attacks import Attack, CarliniWagner
from attacks.base import Trace
from attacks.goal import Goal
from attacks.shown import Shown


def shifted(label: Tensor, by: int, classes: int) -> Tensor:
    """The class that stands so many places after the label, going round."""
    return (label + by) % classes


@dataclass(frozen=True)
class Toward(Attack):
    """Another attack, towards the class that follows the label (the last is followed by the first).

    Args:
        attack: one that takes targets.
        by: how many places.
    """

    attack: Attack = CarliniWagner()
    by: int = 1

    def __str__(self) -> str:
        return f"{self.attack}, targeted"

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        """See `Attack.run`."""
        classes = model.answers(x[:1]).shape[-1]
        return self.attack.search(model, x, goal.toward(shifted(goal.label, self.by, classes)))

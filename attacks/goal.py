"""What an attack wants of a model, and when it has it: on one answer, and on many draws of a random model."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Standard deviations of the number of wrong answers of a coin: a random model that errs on every second draw by luck is
# not taken for broken. Accepting a bare majority leaves most minimal-norm images harmless on fresh draws.
_DEVIATIONS = 2.0


@dataclass(frozen=True, eq=False)
class Goal:
    """Any answer but `label`, or the answer `target`; B images.

    Attributes:
        label: [B], the class that the model shall not answer.
        target: [B], the class that it shall answer instead; None: any other than `label`.
        first_success: an image that is broken need not be attacked any further.
    """

    label: Tensor
    target: Tensor | None = None
    first_success: bool = False

    def __getitem__(self, rows: Tensor) -> "Goal":
        """The goal of some rows of the batch."""
        return Goal(self.label[rows], None if self.target is None else self.target[rows], self.first_success)

    def __len__(self) -> int:
        return len(self.label)

    @property
    def sign(self) -> float:
        """1 if the score of `classes` is to fall, -1 if it is to grow."""
        return 1.0 if self.target is None else -1.0

    @property
    def classes(self) -> Tensor:
        """[B], the class that losses look at: the label to be left, or the target to be reached."""
        return self.label if self.target is None else self.target

    def reached(self, logits: Tensor) -> Tensor:
        """Which answers are as wanted: logits [*draws, B, classes] -> bool [*draws, B]."""
        answers = logits.argmax(-1)
        return answers != self.label if self.target is None else answers == self.target

    def mostly_reached(self, logits: Tensor) -> Tensor:
        """Whether more than half of the draws are as wanted: [*draws, B, classes] -> bool [B]."""
        reached = self.reached(logits).view(-1, len(self))
        return 2 * reached.sum(0) > len(reached)

    def broken(self, logits: Tensor) -> Tensor:
        """Which images an attack may call broken, from the draws it has seen: [*draws, B, classes] -> bool [B].

        Of D draws at most D/2 - sqrt(D) may miss the goal (none of 1 to 6), so that a majority of them lies two
        standard deviations beyond that of a coin. Whether a random model *is* broken, fresh draws decide later.
        """
        reached = self.reached(logits).view(-1, len(self))
        draws = len(reached)
        allowed = max(0, int(draws / 2 - _DEVIATIONS * (draws / 4) ** 0.5))
        return (~reached).sum(0) <= allowed

    def margin(self, logits: Tensor) -> Tensor:
        """How far an answer is from what is wanted: logits [*draws, B, classes] -> [*draws, B], negative when reached.

        The label's logit minus the largest other one, or the largest other logit minus the target's.
        """
        index = self.classes.expand(logits.shape[:-1]).unsqueeze(-1)
        chosen = logits.gather(-1, index).squeeze(-1)
        others = logits.scatter(-1, index, float("-inf")).amax(-1)
        return self.sign * (chosen - others)

    def runner_up(self, logits: Tensor) -> Tensor:
        """[*draws, B], the class with the largest logit that is not the label."""
        index = self.label.expand(logits.shape[:-1]).unsqueeze(-1)
        return logits.scatter(-1, index, float("-inf")).argmax(-1)

    def toward(self, target: Tensor) -> "Goal":
        """The same images and labels, with a class to be reached."""
        return Goal(self.label, target, self.first_success)


def draws_of(logits: Tensor) -> int:
    """How many draws logits [*draws, B, classes] hold."""
    return int(torch.Size(logits.shape[:-2]).numel())

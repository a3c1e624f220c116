"""What checks are made on, and how much time they have."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from evaluation.checks.check import NotRun
from evaluation.checks.diagnostics import Level

Say = Callable[[str], None]
NOISE: dict[Level, int] = {"quick": 20, "full": 100}  # noisy versions of each image
_QUICK_DRAWS = 32  # passes of the judge at most: differences of accuracies ask for images, not for draws


@dataclass(frozen=True)
class Subject:
    """What is checked.

    Attributes:
        network: images in [0, 1] -> logits.
        batches: the evaluation's first images, in its order, and labels, on the network's device.
        folder: of the evaluation.
        random, shared: whether the network is; whether a batch shares its draws.
        seed, draws: of the evaluation.
        level: how much is spent.
        until: `time.monotonic()` after which nothing long is begun; None: no limit.
        say: takes lines for whoever waits.
    """

    network: nn.Module
    batches: Sequence[tuple[Tensor, Tensor]]
    folder: Path
    random: bool
    shared: bool
    seed: int
    draws: int
    level: Level
    until: float | None
    say: Say

    @property
    def n(self) -> int:
        """Images."""
        return sum(len(x) for x, _ in self.batches)

    @property
    def judged(self) -> int:
        """Passes of the judge."""
        return judge_draws(self.random, self.draws, self.level)

    def in_time(self) -> None:
        """Called before anything long.

        Raises:
            NotRun: it is too late to begin it.
        """
        if self.until is not None and time.monotonic() > self.until:
            raise NotRun("no time left (--budget)")


def judge_draws(random: bool, draws: int, level: Level) -> int:
    """Passes of the judge in checks of an evaluation that makes `draws`."""
    if not random:
        return 1
    return draws if level == "full" else min(draws, _QUICK_DRAWS)

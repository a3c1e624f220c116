"""What checks compare: the rows of a suite and those of the adversaries added to it, on the same images."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from attacks import Attack
from evaluation.batch import Rows
from evaluation.checks.check import NotRun, rightness
from evaluation.checks.diagnostics import BLACK_BOX, Reference, as_adversary, ball_of, bare


@dataclass(frozen=True)
class Tables:
    """All rows of the images that checks are made on.

    Attributes:
        suite: rows of the evaluation, by adversary.
        extra: rows of `diagnostics`, by name; one that could not be run is missing.
        failed: those that could not be run, and why.
        attacks: the suite.
        at: the attack that is varied.
        random, shared: see `run_checks`.
    """

    suite: dict[str, Rows]
    extra: dict[str, Rows]
    failed: dict[str, str]
    attacks: dict[str, Attack]
    at: Reference
    random: bool
    shared: bool

    @property
    def attacked(self) -> Rows:
        """Rows of the attack that is varied."""
        if self.at.name is not None:
            return self.suite[self.at.name]
        if "reference" in self.failed:
            raise NotRun(self.failed["reference"])
        return self.extra["reference"]

    @property
    def white(self) -> dict[str, Rows]:
        """Rows of the suite's gradient attacks in the ball that see the model itself, and of the varied one."""
        found = {name: self.suite[name] for name, one in self._gradient() if as_adversary(one).view.faithful}
        return {**found, "reference": self.attacked}

    @property
    def black(self) -> dict[str, Rows]:
        """Rows of attacks in the ball that ask for answers only."""
        found = {name: self.suite[name] for name, attack in self._inside() if isinstance(bare(attack), BLACK_BOX)}
        return found | {name: rows for name, rows in self.extra.items() if name == "square"}

    @property
    def transferred(self) -> dict[str, Rows]:
        """Rows of attacks in the ball that see another model."""
        found = {name: self.suite[name] for name, one in self._gradient() if not as_adversary(one).view.faithful}
        found.pop(self.at.name or "", None)
        return found | {name: self.extra[name] for name in ("oblivious", "surrogate") if name in self.extra}

    @property
    def blind(self) -> bool:
        """Whether the model is random and no gradient attack of the suite sees its draws."""
        return self.random and not self.at.adversary.view.faithful

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which images no gradient attack breaks: most draws are right under each, [n]."""
        alive: NDArray[np.bool_] = np.all([rightness(rows) > 0.5 for rows in self.white.values()], axis=0)
        return alive

    def kept(self) -> NDArray[np.bool_]:
        """Which images surely survive all gradient attacks: more draws are right than luck explains, [n]."""
        surely = [_surely(rows.correct, rows.draws, self.random) for rows in self.white.values()]
        kept: NDArray[np.bool_] = np.all(surely, axis=0)
        return kept

    def broken(self, rows: Rows) -> NDArray[np.bool_]:
        """Which images are surely broken by an adversary, [n]."""
        return _surely(rows.draws - rows.correct, rows.draws, self.random)

    def why_not(self, *names: str, otherwise: str = "it was not run") -> str:
        """Why there are no rows of any of these adversaries: the first that failed says, or none was wanted."""
        return next((f"{name}: {self.failed[name]}" for name in names if name in self.failed), otherwise)

    def _inside(self) -> Iterable[tuple[str, Attack]]:
        return [(name, one) for name, one in self.attacks.items() if ball_of(one) == self.at.ball]

    def _gradient(self) -> Iterable[tuple[str, Attack]]:
        return [(name, one) for name, one in self._inside() if not isinstance(bare(one), BLACK_BOX)]


def _surely(count: NDArray[np.int64], draws: int, random: bool) -> NDArray[np.bool_]:
    """Whether `count` is more than half of the draws, of a random model beyond the luck of a coin."""
    if not random:
        return np.asarray(2 * count > draws)
    least = next((k for k in range(draws + 1) if binomtest(k, draws, 0.5, "greater").pvalue < 0.025), draws + 1)
    return np.asarray(count >= least)

"""The options of evaluate.py that say how to evaluate, whatever is evaluated."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cli.names import UsageError, number_in, suites, unknown

OPTIONS = (
    "--weights",
    "--suite",
    "--eps",
    "--n",
    "--draws",
    "--votes",
    "--split",
    "--batch_size",
    "--seed",
    "--early_exit",
    "--checks",
    "--surrogate",
    "--budget",
    "--keep",
    "--wandb",
    "--out",
)
_UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Settings:
    """How to evaluate.

    Attributes:
        words: the command line that said so.
        suite: file of the attacks; None: clean images only.
        radii: of all attacks, in pixels of [0, 1]; empty: the suite's own.
        n: images; None: all.
        draws: passes of the judge per image; None: as many as the model needs.
        votes: how many passes the deployed model votes over.
        split: test, val or train.
        batch_size: images per unit of work; None: as many as suit the device.
        seed: of attacks and judge.
        early_exit: whether a network without noise is attacked no further once it errs.
        checks: how much the evaluation doubts itself.
        surrogate: another network, from which the checks transfer attacks; None: none.
        budget: seconds after which no batch is begun; None: no limit.
        keep: of the first so many images every adversary's version is kept.
        wandb: whether the finished evaluation is shown in W&B, too.
        out: where it goes; None: into the run.
    """

    words: tuple[str, ...]
    suite: Path | None
    radii: tuple[float, ...]
    n: int | None
    draws: int | None
    votes: int
    split: str
    batch_size: int | None
    seed: int
    early_exit: bool
    checks: Literal["none", "quick", "full"]
    surrogate: str | None
    budget: float | None
    keep: int
    wandb: bool
    out: Path | None

    @classmethod
    def of(cls, words: Sequence[str], taken: dict[str, str]) -> "Settings":
        """Read the options.

        Raises:
            UsageError: a value is of the wrong kind.
        """
        keep = number_in(taken, "--keep", int, 0)
        return cls(
            words=tuple(words),
            suite=_suite(taken.get("--suite", "pgd")),
            radii=_radii(taken),
            n=number_in(taken, "--n", int, 1),
            draws=number_in(taken, "--draws", int, 1),
            votes=number_in(taken, "--votes", int, 1) or 1,
            split=_one_of(taken, "--split", "test", "val", "train"),
            batch_size=number_in(taken, "--batch_size", int, 1),
            seed=number_in(taken, "--seed", int, 0) or 0,
            early_exit=_one_of(taken, "--early_exit", "true", "false") == "true",
            checks=_one_of(taken, "--checks", "quick", "full", "none"),  # type: ignore[arg-type]
            surrogate=taken.get("--surrogate"),
            budget=_seconds(taken["--budget"]) if "--budget" in taken else None,
            keep=8 if keep is None else keep,
            wandb=_one_of(taken, "--wandb", "false", "true") == "true",
            out=Path(taken["--out"]) if "--out" in taken else None,
        )


def _suite(name: str) -> Path | None:
    if name in suites():
        return suites()[name]
    if Path(name).is_file():
        return Path(name)
    if name == "none":
        return None
    raise UsageError(unknown("suite", name, [*suites(), "none"], "see configs/suites"))


def _radii(taken: dict[str, str]) -> tuple[float, ...]:
    if "--eps" not in taken:
        return ()
    given = [number_in({"--eps": part.strip()}, "--eps", float, 0) for part in taken["--eps"].split(",")]
    return tuple(sorted(set(given)))


def _one_of(taken: dict[str, str], option: str, *values: str) -> str:
    """The value of an option, the first of `values` if it was not given; case does not count."""
    given = taken.get(option, values[0]).lower()
    if given not in values:
        allowed = f"{', '.join(values[:-1])} or {values[-1]}"
        raise UsageError(f"{option} takes {allowed}, got '{taken[option]}'")
    return given


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f"--budget takes a time such as 90s, 30m or 2h, got '{text}'")
    return float(match[1]) * _UNITS[match[2]]

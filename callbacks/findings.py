"""What an evaluation gives to loggers: numbers, lines and sampled rows of its per-image table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from evaluation import (
    Curve,
    Interval,
    Rows,
    Setting,
    Summary,
    WorstCase,
    eps_curves,
    l2_curves,
    rows_of,
    summary_of,
    worst_case,
)
from evaluation.worst_case import within

MOST_ROWS = 256  # of the sampled table: W&B draws no more comfortably
ROW_COLUMNS = ("adversary", "index", "label", "answer", "right", "l2", "linf", "queries", "zero_gradient", "erred")
SUMMARY_COLUMNS = ("adversary", "attack", "n", "draws", "accuracy", "low", "high", "mean L2", "mean Linf", "queries")


@dataclass(frozen=True, eq=False)
class Findings:
    """What came out of one evaluation.

    Args:
        table: rows of `evaluation.SCHEMA`, "clean" first, then the attacks, all on the same images.
        setting: how the model is judged.
        radii: {attack: {adversary: eps}} of attacks that were run at several radii.
    """

    table: pa.Table
    setting: Setting
    radii: Mapping[str, Mapping[str, float]]

    @cached_property
    def rows(self) -> dict[str, Rows]:
        """Adversary -> its images."""
        return rows_of(self.table)

    @cached_property
    def summaries(self) -> list[Summary]:
        """One per adversary."""
        return [summary_of(rows, self.setting) for rows in self.rows.values()]

    @cached_property
    def worst_case(self) -> WorstCase | None:
        """See `evaluation.worst_case`; None if no attack counts for it or a random model has a single draw."""
        draws = next(iter(self.rows.values())).draws
        if len(within(self.rows, self.setting)) < 2 or (self.setting.random and draws < 2):
            return None
        return worst_case(self.rows, self.setting)

    def logged(self, per_class: bool) -> dict[str, float]:
        """The numbers by name, all in [0, 1].

        Returns:
            `ADVERSARY/accuracy`, `/low` and `/high` (95 %) of a single draw; `worst_case`, `worst_case/low` and
            `worst_case/high`, where there is one; if wanted `ADVERSARY/class/LABEL` for each class that is there.
        """
        found: dict[str, float] = {}
        for summary in self.summaries:
            found |= _named(summary.adversary, "/accuracy", summary.accuracy, summary.interval)
        if worst := self.worst_case:
            found |= _named("worst_case", "", worst.accuracy, worst.interval)
        for name, rows in self.rows.items() if per_class else ():
            right = rows.right.mean(axis=1)
            found |= {f"{name}/class/{k}": float(right[rows.label == k].mean()) for k in np.unique(rows.label)}
        return found

    def curves(self) -> dict[str, list[Curve]]:
        """Robust accuracy over "eps", of attacks that were run at several radii, and over "l2", of all attacks."""
        return {"eps": eps_curves(self.summaries, self.radii), "l2": l2_curves(self.rows, self.setting)}

    def summary_rows(self, attacks: Mapping[str, str]) -> list[list[Any]]:
        """Rows of `SUMMARY_COLUMNS`; `attacks`: the settings of each adversary in words."""
        return [
            [
                found.adversary,
                attacks.get(found.adversary, ""),
                found.n,
                found.draws,
                found.accuracy,
                *found.interval,
                found.l2_mean,
                found.linf_mean,
                found.queries_mean,
            ]
            for found in self.summaries
        ]

    def sampled_rows(self, most: int = MOST_ROWS) -> list[list[Any]]:
        """Rows of `ROW_COLUMNS`: the first images of every adversary, as many of each, at most so many in all."""
        each = most // len(self.rows)
        return [row for found in self.rows.values() for row in _records(found, each)]


def _named(name: str, ending: str, value: float, interval: Interval) -> dict[str, float]:
    return {f"{name}{ending}": value, f"{name}/low": interval.low, f"{name}/high": interval.high}


def _records(rows: Rows, most: int) -> list[list[Any]]:
    answer, right = rows.counts.argmax(axis=1), rows.right.mean(axis=1)
    columns = (rows.index, rows.label, answer, right, rows.l2, rows.linf, rows.queries, rows.zero_gradient, rows.erred)
    plain = [column[:most].tolist() for column in columns]
    return [[rows.adversary, *values] for values in zip(*plain, strict=True)]

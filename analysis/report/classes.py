"""Accuracy of each class under each adversary."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.report.folder import Evaluation
from analysis.report.results import Estimate
from evaluation import Rows
from evaluation.intervals import bootstraps, wilson

_MOST = 20  # classes in the table; of a thousand the lowest say most


@dataclass(frozen=True)
class ClassRow:
    """One class: its name, its images, its accuracy under each adversary in the order of the table."""

    name: str
    n: int
    cells: tuple[Estimate, ...]


@dataclass(frozen=True)
class Classes:
    """The table and what is said below it."""

    rows: tuple[ClassRow, ...]
    caption: str
    interval: str


def by_class(evaluation: Evaluation) -> Classes | None:
    """The table by class; of more than 20 classes those with the lowest mean over the adversaries.

    None if the adversaries differ in images or draws, as after an evaluation that was cut short.
    """
    rows = list(evaluation.rows.values())
    first = rows[0]
    if any(not np.array_equal(one.index, first.index) or one.draws != first.draws for one in rows):
        return None
    right = np.stack([one.right for one in rows], axis=-1)  # [n, draws, adversaries]
    labels = np.unique(first.label)
    means = [right[first.label == label].mean() for label in labels]
    shown = labels[np.sort(np.argsort(means, kind="stable")[:_MOST])]
    caption = "" if len(shown) == len(labels) else f"The {len(shown)} lowest of {len(labels)} classes. "
    interval = "bootstrap" if evaluation.random else "Wilson"
    found = tuple(_row(evaluation, first, right, int(label)) for label in shown)
    return Classes(found, caption, interval)


def _row(evaluation: Evaluation, rows: Rows, right: NDArray[np.bool_], label: int) -> ClassRow:
    chosen = rows.label == label
    hits, name = right[chosen].astype(float), evaluation.class_name(label)
    if evaluation.random:
        batch = rows.batch[chosen] if evaluation.manifest.get("shared") else None
        intervals = bootstraps(hits, batch)
    else:
        intervals = [wilson(round(count), len(hits)) for count in hits.mean(axis=1).sum(axis=0)]
    means = hits.mean(axis=(0, 1)).tolist()
    cells = tuple(Estimate(mean, *interval) for mean, interval in zip(means, intervals, strict=True))
    return ClassRow(name, len(hits), cells)

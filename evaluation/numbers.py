"""Every reported number, computed from the per-image table and from nothing else."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.stats import binomtest

from evaluation.batch import Rows, rows_of
from evaluation.records import write_atomically


class Interval(NamedTuple):
    """A two-sided confidence interval of a proportion, both ends in [0, 1]."""

    low: float
    high: float


@dataclass(frozen=True)
class Summary:
    """What one adversary leaves of a model.

    Attributes:
        adversary: its name; "clean" for the images that nobody attacked.
        n: images.
        draws: judge passes per image.
        random: whether the model is; decides on the kind of ``interval``.
        level: confidence level of both intervals.
        correct: correct predictions over all n * draws passes, exact.
        accuracy: expected accuracy of a single draw, correct / (n * draws), in [0, 1].
        interval: of ``accuracy``: `wilson` over images, or `bootstrap` over images if the model is random.
        vote_accuracy: accuracy of the majority label over the draws, a tie counted as wrong, in [0, 1].
        vote_interval: of ``vote_accuracy``: `wilson` over images.
        l2_mean, l2_median: L2 norm of the perturbation over images, in pixels of [0, 1].
        linf_mean, linf_median: Linf norm of the perturbation over images, in pixels of [0, 1].
        queries_mean: images shown to the model per attacked image.
        zero_gradient: images whose attack met a gradient that is zero everywhere.
    """

    adversary: str
    n: int
    draws: int
    random: bool
    level: float
    correct: int
    accuracy: float
    interval: Interval
    vote_accuracy: float
    vote_interval: Interval
    l2_mean: float
    l2_median: float
    linf_mean: float
    linf_median: float
    queries_mean: float
    zero_gradient: int


def wilson(correct: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22, p. 209).

    With p = correct / n and z the (1 + level) / 2 quantile of the normal distribution:
    (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n).

    Raises:
        ValueError: unless 0 <= correct <= n, n >= 1 and 0 < level < 1.
    """
    if n < 1 or not 0 <= correct <= n or not 0 < level < 1:
        raise ValueError(f"need 0 <= correct <= n, n >= 1, 0 < level < 1; got {correct}, {n}, {level}")
    interval = binomtest(int(correct), int(n)).proportion_ci(level, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def bootstrap(
    correct: NDArray[np.integer], draws: int, level: float = 0.95, seed: int = 0, resamples: int = 2000
) -> Interval:
    """Percentile bootstrap interval, over images, of the expected accuracy of a single draw.

    The passes over one image are not independent evidence about the next image, so images are resampled, each
    with all its draws. Where one draw is shared by the images of a batch (weight noise), the interval covers
    the choice of images and not that of the draws.

    Args:
        correct: correct predictions per image, [n], each in 0..draws.
        draws: passes per image.
        level: confidence level in (0, 1).
        seed: of the resampling.
        resamples: how many.

    Raises:
        ValueError: if there is no image or a count is outside 0..draws.
    """
    n = len(correct)
    if n == 0 or correct.min() < 0 or correct.max() > draws:
        raise ValueError(f"need at least one image and counts in 0..{draws}, got {n} images")
    if correct.min() == correct.max():
        # Resampling equal values gives an interval without width. For a given mean nothing in [0, 1] varies
        # more than a 0/1 variable, so Wilson's interval is on the safe side.
        return wilson(round(n * correct[0] / draws), n, level)
    # A resample's mean depends only on how many images it takes of each count: a multinomial over draws + 1
    # values is the same distribution as n picked images, at a fraction of the memory.
    histogram = np.bincount(correct, minlength=draws + 1)
    picked = np.random.default_rng(seed).multinomial(n, histogram / n, size=resamples)
    low, high = np.quantile(picked @ np.arange(draws + 1) / (n * draws), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def vote(counts: NDArray[np.integer], label: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Whether the true class has strictly more draws than any other, per image; a tie is an error.

    Args:
        counts: predictions per class, [n, classes].
        label: true classes, [n].
    """
    others = counts.copy()
    rows = np.arange(len(label))
    others[rows, label] = -1
    wins: NDArray[np.bool_] = counts[rows, label] > others.max(axis=1)
    return wins


def summarise(table: pa.Table, random: bool, level: float = 0.95, seed: int = 0) -> list[Summary]:
    """Summarises a per-image table, adversary by adversary in order of appearance.

    Args:
        table: rows of `evaluation.records.SCHEMA`, of one or more adversaries.
        random: whether the judged model is. It has to be said: a random model can be unanimous by chance.
        level: confidence level of the intervals, in (0, 1).
        seed: of the bootstrap.

    Raises:
        ValueError: if the images of an adversary differ in draws, or a model that is not random predicts
            different classes for one image.
    """
    return [_summary(rows, random, level, seed) for rows in rows_of(table).values()]


def results(summaries: Sequence[Summary], manifest: dict[str, Any]) -> dict[str, Any]:
    """Returns manifest and summaries as plain JSON values (intervals as [low, high]).

    Raises:
        ValueError: if a number is not finite.
    """
    content = {"manifest": manifest, "summaries": [asdict(summary) for summary in summaries]}
    plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    return plain


def write_results(folder: Path, summaries: Sequence[Summary], manifest: dict[str, Any]) -> Path:
    """Writes `results` to ``results.json`` in the folder, atomically, and returns its path."""
    path = Path(folder) / "results.json"
    write_atomically(path, f"{json.dumps(results(summaries, manifest), indent=2)}\n".encode())
    return path


def format_table(summaries: Sequence[Summary], caption: str) -> str:
    """Formats summaries as aligned plain text for a terminal: caption, header, rule, one line per adversary.

    Raises:
        ValueError: if there is no summary.
    """
    return f"{caption}\n{aligned(_cells(summaries))}"


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Cells as plain text for a terminal: header, rule, rows; the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *rows = [
        "  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])]) for name, *numbers in cells
    ]
    return "\n".join([header, "  ".join("-" * width for width in widths), *rows])


def markdown_table(summaries: Sequence[Summary], caption: str) -> str:
    """Formats summaries as a Markdown table under its caption, with the columns of `format_table`.

    Raises:
        ValueError: if there is no summary.
    """
    header, *rows = ["| " + " | ".join(row) + " |" for row in _cells(summaries)]
    rule = "| --- |" + " ---: |" * (header.count("|") - 2)
    return "\n".join([caption, "", header, rule, *rows])


def _summary(rows: Rows, random: bool, level: float, seed: int) -> Summary:
    n, draws, right = rows.n, rows.draws, rows.correct
    if not random and (rows.counts.max(axis=1) < draws).any():
        raise ValueError(f"{rows.adversary}: a model that is not random predicted different classes for one image")
    correct, voted = int(right.sum()), int(vote(rows.counts, rows.label).sum())
    return Summary(
        adversary=rows.adversary,
        n=n,
        draws=draws,
        random=random,
        level=level,
        correct=correct,
        accuracy=correct / (n * draws),
        # The passes of a model that is not random repeat each other: n, not n * draws, is what is known.
        interval=bootstrap(right, draws, level, seed) if random else wilson(correct // draws, n, level),
        vote_accuracy=voted / n,
        vote_interval=wilson(voted, n, level),
        l2_mean=float(rows.l2.mean()),
        l2_median=float(np.median(rows.l2)),
        linf_mean=float(rows.linf.mean()),
        linf_median=float(np.median(rows.linf)),
        queries_mean=float(rows.queries.mean()),
        zero_gradient=int(rows.zero_gradient.sum()),
    )


def _cells(summaries: Sequence[Summary]) -> list[list[str]]:
    if not summaries:
        raise ValueError("a table needs at least one summary, got none")
    # A model that is not random votes as it predicts: the column would repeat the accuracy.
    votes = any(summary.random for summary in summaries)
    header = ["adversary", "accuracy %", f"{100 * summaries[0].level:g} % interval", "correct / passes"]
    return [
        [*header, *["vote %"] * votes, "mean L2", "mean Linf"],
        *(_row(summary, votes) for summary in summaries),
    ]


def _row(summary: Summary, votes: bool) -> list[str]:
    low, high = summary.interval
    return [
        summary.adversary,
        f"{100 * summary.accuracy:.2f}",
        f"[{100 * low:.2f}, {100 * high:.2f}]",
        f"{summary.correct} / {summary.n * summary.draws}",
        *[f"{100 * summary.vote_accuracy:.2f}"] * votes,
        f"{summary.l2_mean:.3f}",
        f"{summary.linf_mean:.4f}",
    ]

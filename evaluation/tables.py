"""Summaries as tables: for a terminal of 100 columns, and as Markdown."""

from collections.abc import Sequence
from itertools import zip_longest

from evaluation.intervals import Interval
from evaluation.summary import Summary
from evaluation.worst_case import WorstCase


def format_table(summaries: Sequence[Summary], caption: str, worst: WorstCase | None = None) -> str:
    """Formats summaries as aligned plain text: caption, header, rule, one line per adversary, and the worst case.

    Raises:
        ValueError: if there is no summary.
    """
    return f"{caption}\n{aligned(_cells(summaries, worst))}"


def aligned(cells: Sequence[Sequence[str]]) -> str:
    """Cells as plain text for a terminal: header, rule, rows; the first column to the left, the others to the right.

    A header may have several lines, which end at the same height; a line break in another cell is not allowed for.
    """
    header, *rows = cells
    lines = [list(line) for line in zip_longest(*(name.split("\n")[::-1] for name in header), fillvalue="")][::-1]
    widths = [max(map(len, column)) for column in zip(*lines, *rows, strict=True)]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([*(_line(line, widths) for line in lines), rule, *(_line(row, widths) for row in rows)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = cells
    return "  ".join([name.ljust(widths[0]), *map(str.rjust, numbers, widths[1:])])


def markdown_table(summaries: Sequence[Summary], caption: str, worst: WorstCase | None = None) -> str:
    """Formats summaries as a Markdown table under its caption, with the columns of `format_table`.

    Raises:
        ValueError: if there is no summary.
    """
    cells = [[cell.replace("\n", " ") for cell in row] for row in _cells(summaries, worst)]
    header, *rows = ["| " + " | ".join(row) + " |" for row in cells]
    rule = "| --- |" + " ---: |" * (len(cells[0]) - 1)
    return "\n".join([caption, "", header, rule, *rows])


def _cells(summaries: Sequence[Summary], worst: WorstCase | None) -> list[list[str]]:
    if not summaries:
        raise ValueError("a table needs at least one summary, got none")
    random = any(summary.random for summary in summaries)
    header, row, last = (_RANDOM, _random, _worst_random) if random else (_DETERMINISTIC, _plain, _worst_plain)
    form = {"level": f"{100 * summaries[0].level:g}", "votes": max(summary.votes for summary in summaries)}
    rows = [row(summary) for summary in summaries] + ([last(worst)] if worst else [])
    return [[name.format(**form) for name in header], *rows]


_DETERMINISTIC = ("adversary", "accuracy %", "{level} % interval", "correct / passes", "mean L2", "mean Linf")
# Two lines, so that all of it fits into 100 columns beside a name such as pgd20_eps0.00784.
_RANDOM = (
    "adversary",
    "single\ndraw %",
    "{level} %\ninterval",
    "vote %\nof {votes}",
    "worst %\nof {votes}",
    "robust",
    "un-\ndecided",
    "broken",
    "mean\nL2",
    "mean\nLinf",
)


def _plain(summary: Summary) -> list[str]:
    return [
        summary.adversary,
        _percent(summary.accuracy),
        _interval(summary.interval),
        f"{summary.correct} / {summary.n * summary.draws}",
        f"{summary.l2_mean:.3f}",
        f"{summary.linf_mean:.4f}",
    ]


def _random(summary: Summary) -> list[str]:
    return [
        summary.adversary,
        _percent(summary.accuracy),
        _interval(summary.interval),
        _percent(summary.vote_accuracy),
        _percent(summary.worst_accuracy),
        *(str(count) for count in (summary.robust, summary.undecided, summary.broken)),
        f"{summary.l2_mean:.3f}",
        f"{summary.linf_mean:.4f}",
    ]


def _worst_plain(worst: WorstCase) -> list[str]:
    share = [_percent(worst.accuracy), _interval(worst.interval), f"{worst.robust} / {worst.n}"]
    return ["worst case", *share, "-", "-"]


def _worst_random(worst: WorstCase) -> list[str]:
    counts = [str(count) for count in (worst.robust, worst.undecided, worst.broken)]
    return ["worst case", _percent(worst.accuracy), _interval(worst.interval), "-", "-", *counts, "-", "-"]


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _interval(interval: Interval) -> str:
    return f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"

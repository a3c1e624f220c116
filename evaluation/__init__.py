"""Evaluation: what an adversary leaves of a model, image by image, and the numbers that follow. No Lightning."""

from evaluation.judge import Verdict, examine, judge
from evaluation.numbers import Summary, format_table, markdown_table, summarise, wilson, write_results
from evaluation.records import Batch, Records

__all__ = [
    "Batch",
    "Records",
    "Summary",
    "Verdict",
    "examine",
    "format_table",
    "judge",
    "markdown_table",
    "summarise",
    "wilson",
    "write_results",
]

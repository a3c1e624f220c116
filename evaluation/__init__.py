"""Evaluation: what an adversary leaves of a model, image by image, and the numbers that follow. No Lightning."""

from evaluation.batch import SCHEMA, Batch, Rows, rows_of
from evaluation.judge import Examined, Verdict, examine, judge
from evaluation.numbers import Summary, aligned, format_table, markdown_table, summarise, wilson, write_results
from evaluation.records import Records
from evaluation.smoothing import Certificate, CertifiedAccuracy, Smoothing, certified_accuracy, certify, smoothing_base

__all__ = [
    "SCHEMA",
    "Batch",
    "Certificate",
    "CertifiedAccuracy",
    "Examined",
    "Records",
    "Rows",
    "Smoothing",
    "Summary",
    "Verdict",
    "aligned",
    "certified_accuracy",
    "certify",
    "examine",
    "format_table",
    "judge",
    "markdown_table",
    "rows_of",
    "smoothing_base",
    "summarise",
    "wilson",
    "write_results",
]

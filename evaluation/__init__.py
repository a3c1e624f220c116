"""Evaluation: what an adversary leaves of a model, image by image, and the numbers that follow. No Lightning."""

from evaluation.batch import SCHEMA, Batch, Rows, rows_of
from evaluation.cost import Cost, counting, per_image, timed
from evaluation.curves import Curve, Point, eps_curves, l2_curves
from evaluation.decisions import BROKEN, ROBUST, UNDECIDED, decide, decisions
from evaluation.intervals import Interval, bootstrap, wilson
from evaluation.judge import Examined, Verdict, examine, judge
from evaluation.numbers import Numbers, numbers_of, results, setting_of, write_results
from evaluation.paired import WORST_CASE, Comparison, compare
from evaluation.records import Records
from evaluation.smoothing import Certificate, CertifiedAccuracy, Smoothing, certified_accuracy, certify, smoothing_base
from evaluation.summary import Setting, Summary, summarise, summary_of
from evaluation.tables import aligned, format_table, markdown_table
from evaluation.worst_case import WorstCase, worst_case

__all__ = [
    "BROKEN",
    "ROBUST",
    "SCHEMA",
    "UNDECIDED",
    "WORST_CASE",
    "Batch",
    "Certificate",
    "CertifiedAccuracy",
    "Comparison",
    "Cost",
    "Curve",
    "Examined",
    "Interval",
    "Numbers",
    "Point",
    "Records",
    "Rows",
    "Setting",
    "Smoothing",
    "Summary",
    "Verdict",
    "WorstCase",
    "aligned",
    "bootstrap",
    "certified_accuracy",
    "certify",
    "compare",
    "counting",
    "decide",
    "decisions",
    "eps_curves",
    "examine",
    "format_table",
    "judge",
    "l2_curves",
    "markdown_table",
    "numbers_of",
    "per_image",
    "results",
    "rows_of",
    "setting_of",
    "smoothing_base",
    "summarise",
    "summary_of",
    "timed",
    "wilson",
    "worst_case",
    "write_results",
]

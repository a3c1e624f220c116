"""Checks of an evaluation itself: the known signs of an attack that failed, looked for before a number is believed."""

from evaluation.checks.binarization import binarization
from evaluation.checks.check import Check, format_checks
from evaluation.checks.extra import cost_of_checks
from evaluation.checks.run import run_checks

__all__ = ["Check", "binarization", "cost_of_checks", "format_checks", "run_checks"]

"""The printed tables, letter by letter."""

import pytest

from evaluation.intervals import Interval
from evaluation.summary import Summary
from evaluation.tables import aligned, format_table, markdown_table
from evaluation.worst_case import WorstCase

SURE = Interval(0.4902, 0.9433)
CLEAN = Summary(
    "clean", 10, 1, False, False, 0.95, 8, 0.8, SURE, 1, 0.8, SURE, 0.8, SURE, 8, 0, 2, 0.05,
    0.0, 0.0, 0.0, 0.0, 0.0, 0,
)  # fmt: skip
PGD = Summary(
    "pgd20_eps0.00784", 10000, 100, True, True, 0.95, 432100, 0.4321, Interval(0.4, 0.46), 100, 0.45,
    Interval(0.42, 0.48), 0.31, Interval(0.3, 0.32), 4000, 900, 5100, 0.05, 1.23456, 1.2, 8 / 255, 8 / 255, 4000.5, 3,
)  # fmt: skip


def test_the_table_of_a_model_without_noise() -> None:
    worst = WorstCase(10, False, 0.7, Interval(0.3968, 0.8922), 0.95, {"clean": 1.0}, 7, 0, 3)
    assert format_table([CLEAN], "plain, digits", worst) == (
        "plain, digits\n"
        "adversary   accuracy %  95 % interval   correct / passes  mean L2  mean Linf\n"
        "----------  ----------  --------------  ----------------  -------  ---------\n"
        "clean            80.00  [49.02, 94.33]            8 / 10    0.000     0.0000\n"
        "worst case       70.00  [39.68, 89.22]            7 / 10        -          -"
    ).replace("95 % interval ", " 95 % interval")


def test_the_table_of_a_random_model_fits_into_100_columns() -> None:
    worst = WorstCase(10000, True, 0.4, Interval(0.39, 0.41), 0.95, {"pgd20_eps0.00784": 1.0}, 3900, 1000, 5100)
    table = format_table([PGD], "RobustNet", worst)
    assert table == (
        "RobustNet\n"
        "                  single            95 %  vote %  worst %              un-           mean    mean\n"
        "adversary         draw %        interval  of 100   of 100  robust  decided  broken     L2    Linf\n"
        "----------------  ------  --------------  ------  -------  ------  -------  ------  -----  ------\n"
        "pgd20_eps0.00784   43.21  [40.00, 46.00]   45.00    31.00    4000      900    5100  1.235  0.0314\n"
        "worst case         40.00  [39.00, 41.00]       -        -    3900     1000    5100      -       -"
    )
    assert max(map(len, table.splitlines())) <= 100


def test_the_markdown_table() -> None:
    assert markdown_table([CLEAN], "**Plain**, digits, n = 10") == (
        "**Plain**, digits, n = 10\n"
        "\n"
        "| adversary | accuracy % | 95 % interval | correct / passes | mean L2 | mean Linf |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: |\n"
        "| clean | 80.00 | [49.02, 94.33] | 8 / 10 | 0.000 | 0.0000 |"
    )
    header = markdown_table([PGD], "").splitlines()[2]
    assert "| single draw % | 95 % interval | vote % of 100 |" in header


def test_headers_of_different_heights_end_on_the_same_line() -> None:
    assert aligned([["a", "one\ntwo"], ["bcd", "1"]]) == "     one\na    two\n---  ---\nbcd    1"


def test_a_table_needs_a_row() -> None:
    with pytest.raises(ValueError, match="at least one summary"):
        format_table([], "nothing")

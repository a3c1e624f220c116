"""Lines now and then where nobody watches, a bar where someone does."""

import doctest
import re

import pytest

import cli.progress
from cli.progress import Progress, Pulse


def test_lines_come_every_half_minute_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 10.0, 31.0, 40.0, 62.0, 80.0])
    progress = Progress(100, "images", done=20, terminal=False, clock=lambda: next(clock))
    for _ in range(4):
        progress.advance(10, "pgd 40.0 % right")
    progress.advance(40, "pgd 39.0 % right")
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines() == [
        "40/100 images  pgd 40.0 % right  93 s left".replace("93 s", "2 min"),  # 60 left at 20 in 31 s
        "60/100 images  pgd 40.0 % right  62 s left",
        "100/100 images  pgd 39.0 % right  0 s left",
    ]


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(10, "images", terminal=True)
    progress.advance(4, "pgd 40.0 % right")
    progress.advance(6, "pgd 30.0 % right")
    progress.close()
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"100%.*10/10.*pgd 30\.0 % right", err)


def test_work_of_unknown_length_is_heard_of_every_half_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter([0.0, 10.0, 31.0, 40.0, 200.0])
    pulse = Pulse(clock=lambda: next(clock))
    for made in range(1, 5):
        pulse.beat(f"{made} batches made")
    assert capsys.readouterr().out.splitlines() == ["2 batches made  31 s so far", "4 batches made  3 min so far"]


def test_durations_read_like_speech() -> None:
    assert doctest.testmod(cli.progress).failed == 0

"""What a suite's YAML becomes."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from attacks import Adversary, Attack, Ball
from cli.names import suites
from cli.parser import read_suite


def balls(part: Any) -> Iterator[Ball]:
    """Every ball in an attack and in the attacks inside it."""
    if isinstance(part, Ball):
        yield part
    elif isinstance(part, list | tuple):
        for inner in part:
            yield from balls(inner)
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            yield from balls(getattr(part, field.name))


@pytest.mark.parametrize("suite", suites())
def test_a_radius_reaches_every_ball(suite: str) -> None:
    written, widened = (read_suite(suites()[suite], eps) for eps in (None, 0.3))
    assert list(written) == list(widened)
    for name, attack in widened.items():
        assert isinstance(attack, Attack)
        assert {ball.eps for ball in balls(attack)} <= {0.3}
        assert len(list(balls(attack))) == len(list(balls(written[name])))
    if suite not in ("minimal_norm",):
        assert any(list(balls(attack)) for attack in widened.values())


def test_the_adaptive_suite_knows_noise_and_channels() -> None:
    attacks = read_suite(suites()["adaptive"], None)
    assert all(isinstance(attack, Adversary) for attack in attacks.values())
    views = {str(attack.view) for attack in attacks.values() if isinstance(attack, Adversary)}
    assert {"StraightThrough", "Oblivious", "Frozen"} <= views

"""Noise levels as a schedule over the depth of a network."""

import copy
from typing import Literal, get_args

from defenses.noise import AbsoluteNoise, Noise, at_least_0

Depth = Literal["constant", "linear", "geometric"]


def over_depth(noise: Noise, depth: Depth, last: float | None, layers: int) -> list[Noise]:
    """Noise for layers 1 to n in order, each with one of its own: the first like `noise`, the last of level `last`.

    With a the first level, b the last one and t = (k - 1) / (n - 1), layer k has a + (b - a) t if linear and
    a (b / a)^t if geometric. A single layer has the first level.

    Args:
        noise: what is copied; it must have one absolute level `std`, unless the schedule is constant.
        depth: "constant" copies it as it is.
        last: standard deviation, >= 0; > 0 if geometric; None if constant.
        layers: how many, n.

    Raises:
        ValueError: this is no schedule.
    """
    if depth not in get_args(Depth):
        raise ValueError(f"depth must be one of {', '.join(get_args(Depth))}, got {depth}")
    if depth != "constant":
        return [type(noise)(level) for level in _levels(noise, depth, last, layers)]
    if last is not None:
        raise ValueError(f"last must be None where depth is constant, got {last}")
    return [copy.deepcopy(noise) for _ in range(layers)]


def _levels(noise: Noise, depth: Depth, last: float | None, layers: int) -> list[float]:
    if not isinstance(noise, AbsoluteNoise):
        raise ValueError(f"depth must be constant for noise without a std, got {depth} for {type(noise).__name__}")
    if last is None:
        raise ValueError(f"last must be a finite number >= 0 where depth is {depth}, got None")
    first, last = noise.std, at_least_0("last", last)
    steps = [k / max(layers - 1, 1) for k in range(layers)]
    if depth == "linear":
        return [first + (last - first) * step for step in steps]
    if first == 0 or last == 0:
        raise ValueError(f"last must be > 0, and so must inner, where depth is geometric, got {first} to {last}")
    return [first * (last / first) ** step for step in steps]

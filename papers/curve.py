"""Accuracy of a defense as an attack grows stronger: values, intervals, and differences between two such curves."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation import bootstrap, wilson
from evaluation.intervals import percentiles, resampled_means
from papers.experiment import Value
from papers.verdicts import LEVEL, Difference, Numbers, holding_zero, widened

# What the strength of an attack is read from: its own setting, or how far its images lie from the clean ones, in pixels
# of [0, 1]: root mean square or mean of the L2 norms, mean of the Linf norms, each over all images.
Axis = Literal["strength", "l2", "mean_l2", "linf"]
_GRID = 41  # points of a distortion axis at which two curves are compared
# Means of the same answers may differ in the last digits, which must not count as a difference.
_DIGITS = 9


class Compared(NamedTuple):
    """One curve minus another, and the range of the axis where they were compared."""

    difference: Difference
    start: float
    stop: float


@dataclass(frozen=True, eq=False)
class AttackCurve:
    """What a defense answers under S strengths of an attack, on the same n images.

    Args:
        strengths: ascending, [S].
        right: whether each pass was right, [S, n, passes].
        l2: L2 norms of the perturbations, [S, n].
        linf: Linf norms, [S, n].
        batch: of each image, [n], where the images of a batch share the noise of a pass; else None.
        random: whether the defense is.
    """

    strengths: NDArray[np.float64]
    right: NDArray[np.bool_]
    l2: NDArray[np.float64]
    linf: NDArray[np.float64]
    batch: NDArray[np.integer] | None = None
    random: bool = False

    @cached_property
    def _means(self) -> dict[int, dict[str, NDArray[np.float64]]]:
        return {}

    def axis(self, axis: Axis) -> NDArray[np.float64]:
        """Where the points lie, [S]."""
        return {
            "strength": self.strengths,
            "l2": np.sqrt(np.square(self.l2).mean(axis=1)),
            "mean_l2": self.l2.mean(axis=1),
            "linf": self.linf.mean(axis=1),
        }[axis]

    def accuracy(self) -> list[Value]:
        """Of a single draw in %, at each strength."""
        found = []
        for right in self.right:
            low, high = bootstrap(right, self.batch) if self.random else wilson(int(right[:, 0].sum()), len(right))
            found.append(Value(100 * float(right.mean()), 100 * low, 100 * high))
        return found

    def distortion(self, axis: Axis, strength: float) -> Value | None:
        """Of the images at one strength; None where the attack was not made with it."""
        place = self._place(strength)
        if place is None:
            return None
        return Value(float(self.axis(axis)[place]), *percentiles(self.resampled(axis)[:, place], LEVEL))

    def accuracy_at(self, axis: Axis, x: float) -> Value | None:
        """Accuracy in % at a place on an axis, linear between the points; None beyond them."""
        points = self.axis(axis)
        if not points.min() - 1e-9 <= x <= points.max() + 1e-9:
            return None
        if axis == "strength" and (near := np.isclose(points, x)).any():
            return self.accuracy()[int(near.argmax())]
        at = np.array([x])
        low, high = percentiles(self._read(axis, at, 0)[:, 0], LEVEL)
        value = _interpolated(points, self.right.mean(axis=(1, 2)), at)[0]
        return Value(100 * float(value), 100 * low, 100 * high)

    def resampled(self, what: str, stream: int = 0) -> NDArray[np.float64]:
        """An axis, or "accuracy", of 2,000 resamples of the images: [resamples, S]. See `resampled_means`."""
        if stream not in self._means:
            self._means[stream] = self._resample(stream)
        return self._means[stream][what]

    def minus(self, other: "AttackCurve", axis: Axis, between: tuple[float, float] | None = None) -> Compared | None:
        """Mean difference in accuracy over a range of the axis, paired: both curves see the same resampled images.

        On the axis "strength" the mean is over the strengths, without 0 (nobody attacks); on a distortion over 41 even
        places of the range that both curves cover. The interval is `widened` where few images are answered differently
        at the strengths that this is read from. So where answers agree, distances alone leave the sign open on a
        distortion axis; for distances see `longer`.

        Args:
            other: on the same images, at the same strengths.
            axis: at equal values of what.
            between: only there.

        Returns:
            The difference in [-1, 1]; None where there is nothing to compare.

        Raises:
            ValueError: the other curve has other strengths, or another number of images.
        """
        self._refuse_unlike(other)
        at = self._common(other, axis, between)
        if not len(at):
            return None
        stream = 0 if self._same_passes(other) else 1
        resamples = self._read(axis, at, 0).mean(axis=1) - other._read(axis, at, stream).mean(axis=1)
        mine, theirs = (_interpolated(c.axis(axis), c.right.mean(axis=(1, 2)), at).mean() for c in (self, other))
        interval = widened(percentiles(resamples, LEVEL), self._each(other, axis, at))
        return Compared(Difference(float(mine - theirs), *interval), float(at[0]), float(at[-1]))

    def longer(self, other: "AttackCurve", strength: float) -> Compared | None:
        """How much more L2 (root mean square) an attack of one strength takes than on the other defense.

        Lengths have no bound that Wilson's interval could widen to; with fewer than 6 different ones it holds 0.

        Raises:
            ValueError: see `minus`.
        """
        self._refuse_unlike(other)
        place = self._place(strength)
        if place is None:
            return None
        resamples = self.resampled("l2")[:, place] - other.resampled("l2")[:, place]
        interval = holding_zero(percentiles(resamples, LEVEL), self.l2[place] - other.l2[place])
        value = float(self.axis("l2")[place] - other.axis("l2")[place])
        return Compared(Difference(value, *interval), strength, strength)

    def _place(self, strength: float) -> int | None:
        (places,) = np.nonzero(np.isclose(self.strengths, strength))
        return int(places[0]) if len(places) else None

    def _refuse_unlike(self, other: "AttackCurve") -> None:
        # Images are paired, and counted strength by strength.
        if not np.array_equal(self.strengths, other.strengths):
            raise ValueError(f"curves of different strengths: {self.strengths.tolist()}, {other.strengths.tolist()}")
        if self.right.shape[1] != other.right.shape[1]:
            raise ValueError(f"curves of different images: {self.right.shape[1]} and {other.right.shape[1]}")

    def _resample(self, stream: int) -> dict[str, NDArray[np.float64]]:
        passes = self.right.shape[2] if self.batch is not None else 1
        right = self.right if passes > 1 else self.right.mean(axis=2, keepdims=True)
        norms = [np.broadcast_to(values[..., None], right.shape) for values in (self.l2, np.square(self.l2), self.linf)]
        values = np.concatenate([right, *norms]).transpose(1, 2, 0).astype(np.float64)
        parts = np.split(resampled_means(values, self.batch, stream=stream), 4, axis=1)
        accuracy, mean_l2, square_l2, linf = parts
        strengths = np.broadcast_to(self.strengths, accuracy.shape)
        l2 = np.sqrt(square_l2.clip(0))
        return {"accuracy": accuracy, "strength": strengths, "l2": l2, "mean_l2": mean_l2, "linf": linf}

    def _read(self, axis: Axis, at: NDArray[np.float64], stream: int) -> NDArray[np.float64]:
        x, y = self.resampled(axis, stream), self.resampled("accuracy", stream)
        return np.stack([_interpolated(*pair, at) for pair in zip(x, y, strict=True)])

    def _common(self, other: "AttackCurve", axis: Axis, between: tuple[float, float] | None) -> NDArray[np.float64]:
        low, high = between or (-np.inf, np.inf)
        mine, theirs = self.axis(axis), other.axis(axis)
        if axis == "strength":
            return mine[(mine != 0) & (mine >= low) & (mine <= high)]
        start = max(low, float(mine.min()), float(theirs.min()))
        stop = min(high, float(mine.max()), float(theirs.max()))
        return np.linspace(start, stop, _GRID) if start < stop else np.empty(0)

    def _same_passes(self, other: "AttackCurve") -> bool:
        if self.batch is None or other.batch is None:
            return False
        return self.right.shape == other.right.shape and np.array_equal(self.batch, other.batch)

    def _each(self, other: "AttackCurve", axis: Axis, at: NDArray[np.float64]) -> Numbers:
        """Difference of each image [n] in what is answered, at the strengths that the mean over `at` is read from."""
        weights = (self._weights(axis, at) + other._weights(axis, at)) / 2
        each: Numbers = weights @ (self.right.mean(axis=2) - other.right.mean(axis=2))
        return each.round(_DIGITS)

    def _weights(self, axis: Axis, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of each point [S] in the mean over these places; on a distortion axis a range's neighbours have one."""
        points = self.axis(axis)
        return np.array([_interpolated(points, only, at).mean() for only in np.eye(len(points))])


def _interpolated(x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    order = np.argsort(x, kind="stable")
    found: NDArray[np.float64] = np.interp(at, x[order], y[order])
    return found

"""How sure a proportion is: Wilson's interval, and the bootstrap over images and over the passes that images share."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

RESAMPLES = 2000
# Numbers in memory at a time while images are resampled.
_AT_ONCE = 4_000_000
# Rules of thumb for proportions ask for so many of either kind before a tail is taken from the sample.
_FEW = 5
# Sums in BLAS differ in the last digits with the number of threads; a report must not.
_DIGITS = 9


class Interval(NamedTuple):
    """A two-sided confidence interval; both ends of a proportion's lie in [0, 1], of a difference's in [-1, 1]."""

    low: float
    high: float


def wilson(correct: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22, p. 209).

    With p = correct / n and z the (1 + level) / 2 quantile of the normal distribution:
    (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n).

    Raises:
        ValueError: unless 0 <= correct <= n, n >= 1 and 0 < level < 1.
    """
    if n < 1 or not 0 <= correct <= n or not 0 < level < 1:
        raise ValueError(f"need 0 <= correct <= n, n >= 1, 0 < level < 1; got {correct}, {n}, {level}")
    interval = binomtest(int(correct), int(n)).proportion_ci(level, method="wilson")
    return Interval(float(interval.low), float(interval.high))


def bootstrap(
    values: NDArray[np.generic],
    batch: NDArray[np.integer] | None = None,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval:
    """Percentile bootstrap interval of the mean of values in [0, 1].

    Args:
        values: per image [n], or per image and pass [n, passes].
        batch: None: images are independent, and are resampled each with all its passes. Else the batch of each image,
            [n]: the images of a batch share the noise of its j-th pass, and passes are resampled too, see
            `resampled_means`.
        level: confidence level in (0, 1).
        seed: of the resampling.
        resamples: how many.

    Raises:
        ValueError: there is no image, or a value lies outside [0, 1].
    """
    shares = np.asarray(values, dtype=np.float64)
    if not len(shares) or not ((shares >= 0) & (shares <= 1)).all():
        raise ValueError(f"need at least one image and values in [0, 1], got {len(shares)} images")
    return bootstraps(shares.reshape(len(shares), -1, 1), batch, level, seed, resamples)[0]


def bootstraps(
    values: NDArray[np.floating],
    batch: NDArray[np.integer] | None = None,
    level: float = 0.95,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """Intervals of several proportions from the same resamples, as `bootstrap`.

    Args:
        values: [n, passes, quantities]; the mean over passes and images lies in [0, 1] for each quantity.
        batch: see `bootstrap`.
        level: confidence level in (0, 1).
        seed: of the resampling.
        resamples: how many.
    """
    images = values.mean(axis=1)
    means = resampled_means(values, batch, seed, resamples)
    return [_safe(percentiles(means[:, q], level), images[:, q], level) for q in range(values.shape[2])]


def percentiles(means: NDArray[np.floating], level: float) -> Interval:
    """The middle share `level` of resampled means [resamples]."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(round(float(low), _DIGITS), round(float(high), _DIGITS))


def resampled_means(
    values: NDArray[np.floating],
    batch: NDArray[np.integer] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    stream: int = 0,
) -> NDArray[np.float64]:
    """Means over resampled images, and over resampled passes where a batch shares them: [resamples, quantities].

    Images are drawn with replacement from all n. With `batch`, each batch also draws as many of its passes with
    replacement, and what remains is the product of both weights: the pigeonhole bootstrap (Owen 2007, Ann. Appl. Stat.
    1, p. 386). The pass weights' deviations are scaled by sqrt(passes / (passes - 1)), which makes their share of the
    variance unbiased for few passes as well. A single pass says nothing about others: with one only images vary.

    Args:
        values: [n, passes, quantities].
        batch: see `bootstrap`.
        seed: the same for the same n picks the same images, whatever the passes.
        resamples: how many.
        stream: another one picks other passes.
    """
    n, passes, quantities = values.shape
    images, others = np.random.default_rng((seed, 0)), np.random.default_rng((seed, 1, stream))
    if batch is None or passes == 1:
        values, batches = values.mean(axis=1, keepdims=True), [np.arange(n)]
    else:
        batches = [np.flatnonzero(batch == number) for number in np.unique(batch)]
    chunk = max(1, _AT_ONCE // n)
    parts = []
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        weights = _picked(images, size, n)
        total = np.zeros((size, quantities))
        for members in batches:
            block = values[members]
            sums = (weights[:, members] @ block.reshape(len(members), -1)).reshape(size, -1, quantities)
            total += np.einsum("rp,rpq->rq", _pass_weights(others, size, block.shape[1]), sums)
        parts.append(total / (n * values.shape[1]))
    return np.concatenate(parts)


def _picked(rng: np.random.Generator, resamples: int, n: int) -> NDArray[np.float64]:
    """How often each of n is drawn in n draws with replacement, [resamples, n]."""
    picks = rng.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(picks.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def _pass_weights(rng: np.random.Generator, resamples: int, passes: int) -> NDArray[np.float64]:
    if passes == 1:
        return np.ones((resamples, 1))
    return 1 + np.sqrt(passes / (passes - 1)) * (_picked(rng, resamples, passes) - 1)


def _safe(found: Interval, images: NDArray[np.floating], level: float) -> Interval:
    """Widens an interval of which the sample cannot know the tails.

    Equal images, or fewer than 5 images' worth of errors or of hits, resample to almost nothing. For a given mean
    nothing in [0, 1] varies more than a 0/1 variable, so Wilson's interval is on the safe side.
    """
    n, hits = len(images), float(images.sum())
    low, high = max(0.0, found.low), min(1.0, found.high)
    if images.min() < images.max() and min(hits, n - hits) >= _FEW:
        return Interval(low, high)
    p, z = min(max(hits / n, 0.0), 1.0), float(norm.ppf((1 + level) / 2))
    middle, half = p + z * z / (2 * n), z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    ends = [(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)]
    return Interval(max(0.0, min(low, float(ends[0]))), min(1.0, max(high, float(ends[1]))))

"""The per-image table: what the judge saw of one batch, its columns on disk, and the same columns read back."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SCHEMA = pa.schema(
    [
        ("adversary", pa.string()),  # "clean" for the images that nobody attacked
        ("index", pa.int64()),  # position in the split
        ("label", pa.int32()),
        ("batch", pa.int32()),
        ("draws", pa.int32()),  # passes of the judge
        ("answers", pa.list_(pa.int16())),  # class answered at each draw; the j-th of a batch is one pass
        ("counts", pa.list_(pa.int32())),  # how often each class was answered over the draws
        ("probs", pa.list_(pa.float32())),  # softmax probabilities, averaged over the draws
        ("l2", pa.float32()),
        ("linf", pa.float32()),
        ("queries", pa.int64()),
        ("zero_gradient", pa.bool_()),
        ("erred", pa.bool_()),
        ("loss", pa.list_(pa.float32())),
        ("unfinished", pa.float32()),
    ]
)
LOSS_POINTS = 33  # at most so many steps of an attack's loss are kept
_LAST = 10  # steps; Pintor et al. 2022 look at so many for what an attack still gains
# Mean softmax probabilities in float16 or bfloat16 leave [0, 1] by rounding.
_ROUNDING = 1e-2


@dataclass(frozen=True, eq=False)
class Batch:
    """What the judge saw of one batch of B images: the unit of work.

    Args:
        index: positions in the split, [B], each once.
        label: true classes, [B].
        answers: class answered at each judge draw, [B, draws], at least one draw.
        probs: softmax probabilities averaged over the draws, [B, classes].
        l2: L2 norm of the perturbation in pixels of [0, 1], [B].
        linf: Linf norm of the perturbation in pixels of [0, 1], [B].
        queries: images the attack showed to the model, [B].
        zero_gradient: whether the attack met a gradient that is zero everywhere, [B].
        erred: whether the model that the attack saw erred somewhere on its way, [B]; see `attacks.Trace`.
        loss: what the attack made grow, at up to `LOSS_POINTS` of its steps, [B, points]; NaN where an image had left.
        unfinished: see `unfinished`, [B].

    Raises:
        ValueError: if shapes disagree or a value is impossible.
    """

    index: NDArray[np.integer]
    label: NDArray[np.integer]
    answers: NDArray[np.integer]
    probs: NDArray[np.floating]
    l2: NDArray[np.floating]
    linf: NDArray[np.floating]
    queries: NDArray[np.integer]
    zero_gradient: NDArray[np.bool_]
    erred: NDArray[np.bool_]
    loss: NDArray[np.floating]
    unfinished: NDArray[np.floating]

    def __post_init__(self) -> None:
        """Refuses rows that would make every number after them wrong."""
        self._check_shapes()
        self._check_values()

    @property
    def draws(self) -> int:
        """Judge passes per image."""
        return int(self.answers.shape[1])

    @property
    def counts(self) -> NDArray[np.int64]:
        """How often each class was answered, [B, classes]."""
        return counted(self.answers, self.probs.shape[1])

    def to_arrow(self, adversary: str, batch: int) -> pa.Table:
        """Returns the rows as a table of `SCHEMA`, under this adversary and batch number."""
        size = len(self.index)
        constant = {"adversary": [adversary] * size, "batch": [batch] * size, "draws": [self.draws] * size}
        arrays = [
            pa.array(constant[field.name], field.type) if field.name in constant
            else _column(getattr(self, field.name), field.type)
            for field in SCHEMA
        ]  # fmt: skip
        return pa.Table.from_arrays(arrays, schema=SCHEMA)

    def _check_shapes(self) -> None:
        if self.index.ndim != 1 or self.answers.ndim != 2 or self.probs.ndim != 2 or self.loss.ndim != 2:
            given = f"{self.index.shape}, {self.answers.shape}, {self.probs.shape} and {self.loss.shape}"
            raise ValueError(
                f"index must be [B], answers [B, draws], probs [B, classes] and loss [B, points], got {given}"
            )
        images = len(self.index)
        for name in ("label", "l2", "linf", "queries", "zero_gradient", "erred", "unfinished"):
            if getattr(self, name).shape != (images,):
                raise ValueError(f"{name} must be ({images},) like index, got {getattr(self, name).shape}")
        for name in ("answers", "probs", "loss"):
            if len(getattr(self, name)) != images:
                raise ValueError(f"{name} must have {images} rows like index, got {len(getattr(self, name))}")

    def _check_values(self) -> None:
        answers, probs, classes = self.answers, self.probs, self.probs.shape[1]
        # A NaN compares as False, so that each rule below also refuses it.
        rules = {
            f"draws must be at least 1, got {self.draws}": self.draws >= 1,
            "index must be non-negative, each once": (self.index >= 0).all() and _unique(self.index),
            f"label must be in 0..{classes - 1}": ((self.label >= 0) & (self.label < classes)).all(),
            f"answers must be in 0..{classes - 1}": ((answers >= 0) & (answers < classes)).all(),
            "probs must be in [0, 1]": ((probs >= -_ROUNDING) & (probs <= 1 + _ROUNDING)).all(),
            "l2 must be finite and non-negative": ((self.l2 >= 0) & (self.l2 < np.inf)).all(),
            "linf must be finite and non-negative": ((self.linf >= 0) & (self.linf < np.inf)).all(),
            "queries must be non-negative": (self.queries >= 0).all(),
            "unfinished must be in [0, 1] or NaN": (
                np.isnan(self.unfinished) | ((self.unfinished >= 0) & (self.unfinished <= 1))
            ).all(),
        }
        for message, kept in rules.items():
            if not kept:
                raise ValueError(message)


@dataclass(frozen=True, eq=False)
class Rows:
    """All images of one adversary, read back from a table of `SCHEMA`, sorted by index; columns as in `Batch`.

    Attributes:
        adversary: its name.
        batch: number of the batch of each image, [n]; images of a batch share the j-th draw of a model whose draws are.
        counts: how often each class was answered, [n, classes].
        loss: [n, points]; steps that an image did not take are NaN.
    """

    adversary: str
    index: NDArray[np.int64]
    label: NDArray[np.int64]
    batch: NDArray[np.int64]
    answers: NDArray[np.int64]
    counts: NDArray[np.int64]
    probs: NDArray[np.float64]
    l2: NDArray[np.float64]
    linf: NDArray[np.float64]
    queries: NDArray[np.int64]
    zero_gradient: NDArray[np.bool_]
    erred: NDArray[np.bool_]
    loss: NDArray[np.float64]
    unfinished: NDArray[np.float64]

    @property
    def n(self) -> int:
        """Images."""
        return len(self.index)

    @property
    def draws(self) -> int:
        """Judge passes per image."""
        return int(self.answers.shape[1])

    def at(self, chosen: NDArray[np.bool_]) -> "Rows":
        """Some of the images: those where `chosen`, [n], is true."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return Rows(**{name: column if name == "adversary" else column[chosen] for name, column in columns.items()})

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether each pass was right, [n, draws]."""
        found: NDArray[np.bool_] = self.answers == self.label[:, None]
        return found

    @property
    def correct(self) -> NDArray[np.int64]:
        """How many passes over each image were right, [n]."""
        return self.right.sum(axis=1)


def rows_of(table: pa.Table) -> dict[str, Rows]:
    """Adversary -> its images, in order of appearance.

    Raises:
        ValueError: the images of an adversary differ in draws.
    """
    column = table["adversary"]
    return {
        name: _rows(name, table.filter(pc.equal(column, name)).sort_by("index")) for name in column.unique().to_pylist()
    }


def counted(answers: NDArray[np.integer], classes: int) -> NDArray[np.int64]:
    """Answers [n, draws] -> how often each class was answered, [n, classes]."""
    n = len(answers)
    places = answers + classes * np.arange(n)[:, None]
    return np.bincount(places.ravel(), minlength=n * classes).reshape(n, classes)


def sampled(loss: NDArray[np.floating]) -> NDArray[np.floating]:
    """Losses [steps, B] -> [B, points] at up to `LOSS_POINTS` evenly spaced steps, the first and last among them."""
    steps = len(loss)
    chosen = np.linspace(0, max(steps - 1, 0), min(steps, LOSS_POINTS)).round().astype(int)
    return np.asarray(loss)[chosen].T


def unfinished(loss: NDArray[np.floating]) -> NDArray[np.floating]:
    """What an attack still gained at its end: losses [steps, B] -> share of the whole gain, [B], in [0, 1].

    The gain of the largest loss so far over the last 10 steps, divided by that over all steps: the indicator of
    incomplete optimisation of Pintor et al. 2022, https://arxiv.org/abs/2106.09947. NaN for images that left early and
    for attacks with fewer than 20 steps, of which the last 10 say nothing; 0 where nothing was ever gained.
    """
    steps, images = loss.shape
    if steps < 2 * _LAST:
        return np.full(images, np.nan)
    best = np.maximum.accumulate(loss, axis=0)  # NaN, once met, stays
    gain, whole = best[-1] - best[-1 - _LAST], best[-1] - best[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        share: NDArray[np.floating] = np.where(whole > 0, gain / whole, np.where(np.isfinite(whole), 0.0, np.nan))
    return share


def _rows(name: str, table: pa.Table) -> Rows:
    draws = np.unique(np.asarray(table["draws"]))
    if len(draws) != 1:
        raise ValueError(f"{name}: images differ in draws, got {', '.join(map(str, draws))}")
    columns = {field.name: _array(table, field) for field in SCHEMA if field.name not in ("adversary", "draws")}
    return Rows(adversary=name, **columns)


def _array(table: pa.Table, field: pa.Field) -> NDArray[Any]:
    column = table[field.name].combine_chunks()
    if not pa.types.is_list(field.type):
        values = column.to_numpy(zero_copy_only=False)
        kind = bool if field.type == pa.bool_() else np.float64 if pa.types.is_floating(field.type) else np.int64
        return np.asarray(values, dtype=kind)
    lengths, values = column.value_lengths().to_numpy(), column.flatten().to_numpy(zero_copy_only=False)
    kind = np.float64 if pa.types.is_floating(field.type.value_type) else np.int64
    if len(set(lengths.tolist())) <= 1:
        return values.astype(kind).reshape(len(lengths), -1)
    return _padded(values.astype(kind), lengths)


def _padded(values: NDArray[Any], lengths: Sequence[int] | NDArray[np.integer]) -> NDArray[Any]:
    """Lists of different lengths as one array, filled up with NaN (batches may stop an attack at different steps)."""
    padded = np.full((len(lengths), max(lengths)), np.nan)
    padded[np.arange(max(lengths)) < np.asarray(lengths)[:, None]] = values
    return padded


def _column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    if not pa.types.is_list(kind):
        # NaN becomes null: two tables with a NaN in the same place are not equal to pyarrow.
        return pa.array(values.astype(kind.to_pandas_dtype()), kind, from_pandas=True)
    images, length = values.shape
    offsets = pa.array(np.arange(images + 1, dtype=np.int32) * length)
    return pa.ListArray.from_arrays(offsets, _column(values.reshape(-1), kind.value_type))


def _unique(values: NDArray[np.integer]) -> bool:
    return len(np.unique(values)) == len(values)

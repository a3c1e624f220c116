"""Tables of answers that are known, for the tests of the numbers."""

import numpy as np
from numpy.typing import NDArray

from evaluation.batch import Rows, counted


def made(
    answers: NDArray[np.integer],
    label: NDArray[np.integer],
    adversary: str = "pgd",
    batch: NDArray[np.integer] | None = None,
    l2: NDArray[np.floating] | None = None,
) -> Rows:
    n, classes = len(label), int(max(answers.max(), label.max())) + 1
    counts = counted(answers, classes)
    return Rows(
        adversary=adversary,
        index=np.arange(n),
        label=np.asarray(label, np.int64),
        batch=np.zeros(n, int) if batch is None else batch,
        answers=np.asarray(answers, np.int64),
        counts=counts,
        probs=counts / answers.shape[1],
        l2=np.linspace(0, 1, n) ** 2 if l2 is None else l2,
        linf=np.full(n, 0.25),
        queries=np.arange(n),
        zero_gradient=np.arange(n) == 0,
        erred=np.arange(n) == 1,
        loss=np.empty((n, 0)),
        unfinished=np.full(n, np.nan),
    )


def made_right(right: NDArray[np.bool_], adversary: str = "pgd", **columns: NDArray[np.generic]) -> Rows:
    """Two classes; the label is 0."""
    return made(np.where(right, 0, 1), np.zeros(len(right), int), adversary, **columns)


def drawn(rng: np.random.Generator, n: int, passes: int, batches: int, shared: bool) -> NDArray[np.bool_]:
    """Right or not, [n, passes], true on half of all passes; `shared`: of a batch, each pass is lucky or not."""
    image = rng.normal(size=(n, 1))
    luck = rng.normal(size=(batches, passes))[np.arange(n) * batches // n]
    own = rng.normal(size=(n, passes))
    return image + (luck if shared else own) + 0.3 * rng.normal(size=(n, passes)) > 0


def batches_of(n: int, batches: int) -> NDArray[np.int64]:
    return np.arange(n) * batches // n

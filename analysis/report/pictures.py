"""Example images as PNG data URIs: clean, attacked, and what the attack added."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from analysis.report.folder import Evaluation
from evaluation import Rows

# Of all pictures together, in characters: larger images give fewer examples, not a larger page.
_BUDGET = 3_000_000


@dataclass(frozen=True)
class Answer:
    """A class that the network answered, and at how many of its draws."""

    name: str
    draws: int
    right: bool


@dataclass(frozen=True)
class Attacked:
    """An image as an adversary left it: PNG data URIs, distances to the clean one in pixels of [0, 1], answers.

    Attributes:
        gain: what the difference is multiplied by to be seen; 0 if there is none.
    """

    adversary: str
    picture: str
    difference: str
    gain: float
    l2: float
    linf: float
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Example:
    """One image under all adversaries."""

    index: int
    label: str
    width: int
    height: int
    picture: str
    answers: tuple[Answer, ...]
    attacked: tuple[Attacked, ...]


def examples(evaluation: Evaluation, budget: int = _BUDGET) -> list[Example]:
    """The images that the evaluation kept, in order, as many as `budget` characters hold; at least one."""
    found: list[Example] = []
    for example in _all(evaluation):
        parts = [example.picture, *(part for one in example.attacked for part in (one.picture, one.difference))]
        budget -= sum(map(len, parts))
        if budget < 0 and found:
            break
        found.append(example)
    return found


def _all(evaluation: Evaluation) -> Iterator[Example]:
    images = {name: evaluation.images(name) for name in evaluation.rows}
    clean_rows = evaluation.rows.get("clean")
    for index, clean in sorted(images.get("clean", {}).items()):
        if clean_rows is None or (place := _place(clean_rows, index)) is None:
            continue
        attacked = tuple(
            _attacked(evaluation, rows, index, clean, images[name][index])
            for name, rows in evaluation.rows.items()
            if name != "clean" and index in images[name] and images[name][index].shape == clean.shape
        )
        label = evaluation.class_name(int(clean_rows.label[place]))
        height, width = clean.shape[1:]
        yield Example(index, label, width, height, png(clean), _answers(evaluation, clean_rows, place), attacked)


def _attacked(
    evaluation: Evaluation, rows: Rows, index: int, clean: NDArray[np.floating], image: NDArray[np.floating]
) -> Attacked:
    delta = image.astype(float) - clean
    largest = float(np.abs(delta).max())
    gain = 0.5 / largest if largest else 0.0
    place = _place(rows, index)
    answers = () if place is None else _answers(evaluation, rows, place)
    l2 = float(np.sqrt((delta**2).sum()))
    return Attacked(rows.adversary, png(image), png(0.5 + gain * delta), gain, l2, largest, answers)


def _place(rows: Rows, index: int) -> int | None:
    places = np.flatnonzero(rows.index == index)
    return int(places[0]) if len(places) else None


def _answers(evaluation: Evaluation, rows: Rows, place: int) -> tuple[Answer, ...]:
    """The two most frequent answers."""
    counts, label = rows.counts[place], rows.label[place]
    best = [int(k) for k in np.argsort(-counts, kind="stable")[:2] if counts[k]]
    return tuple(Answer(evaluation.class_name(k), int(counts[k]), k == label) for k in best)


def png(image: NDArray[np.floating]) -> str:
    """An image [C, H, W] in [0, 1] as the data URI of a PNG; of other than 1 or 3 channels the first is shown."""
    pixels = (np.nan_to_num(image).clip(0, 1) * 255).round().astype(np.uint8)
    shown = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    content = BytesIO()
    Image.fromarray(shown).save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"

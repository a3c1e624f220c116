"""Curves, tables and pictures reach each logger in some way, or lie in the run's folder."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger

from callbacks import AdaptiveEvaluation
from callbacks.charts import chart
from evaluation import Curve, Interval, Point
from tests.callbacks.toys import SUITE, Kept, Module, loader, trainer

PICTURES = [
    "adaptive_over_eps",
    "adaptive_over_l2",
    *(f"adaptive_{name}_panel" for name in ("pgd2_eps0.1", "pgd2_eps0.2")),
]
TABLES = ["adaptive_adversaries", "adaptive_images"]


class Plain(Logger):
    """Takes numbers only."""

    name, version = "plain", ""

    def __init__(self) -> None:
        super().__init__()
        self.metrics: dict[str, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.metrics |= metrics

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


class Board:
    """As TensorBoard's writer."""

    def __init__(self) -> None:
        self.added: dict[str, tuple[tuple[int, ...], str]] = {}

    def add_image(self, tag: str, image: Any, step: int, dataformats: str) -> None:
        self.added[tag] = (tuple(image.shape), dataformats)


class WithBoard(Plain):
    """Takes numbers and, as TensorBoard does, pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.experiment = Board()


class WithImages(Plain):
    """Takes numbers and pictures by name."""

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[str, tuple[Any, str]] = {}

    def log_image(self, key: str, images: list[Any], step: int, caption: list[str]) -> None:
        self.images[key] = (images[0], caption[0])


def shown(*loggers: Logger) -> dict[str, float]:
    """Validates once, two images a panel; returns the numbers."""
    watcher = AdaptiveEvaluation({"pgd2": SUITE["pgd2"]}, n_images=8, draws=2, eps=[0.1, 0.2], panel_images=2)
    runner = trainer(watcher)
    runner.loggers = list(loggers)
    (numbers,) = runner.validate(Module(), loader(), verbose=False)
    return dict(numbers)


def files() -> dict[str, bytes]:
    """What lies in panels/."""
    return {path.name: path.read_bytes() for path in sorted(Path("panels").glob("*"))}


def named(names: list[str], kind: str) -> list[str]:
    return [f"{name}_000000.{kind}" for name in names]


@pytest.mark.parametrize("loggers", [[], ["csv"], ["plain", "csv"]])
def test_without_a_logger_for_them_pictures_curves_and_tables_are_files(loggers: list[str], tmp_path: Path) -> None:
    made = {"csv": lambda: CSVLogger(tmp_path), "plain": Plain}
    numbers = shown(*(made[name]() for name in loggers))
    found = files()
    assert sorted(found) == sorted([*named(PICTURES, "png"), *named(TABLES, "csv")])
    assert all(content.startswith(b"\x89PNG") for name, content in found.items() if name.endswith("png"))
    rows = list(csv.DictReader(io.StringIO(found["adaptive_adversaries_000000.csv"].decode())))
    assert [row["adversary"] for row in rows] == ["clean", "pgd2_eps0.1", "pgd2_eps0.2"]
    for row in rows:
        assert float(row["accuracy"]) == pytest.approx(numbers[f"adaptive/{row['adversary']}/accuracy"], abs=1e-6)
    assert len(found["adaptive_images_000000.csv"].splitlines()) == 1 + 3 * 8


def test_a_board_gets_pictures_and_curves_in_its_own_way() -> None:
    board = WithBoard()
    shown(board, Plain())
    keys = ["adaptive/over_eps", "adaptive/over_l2", "adaptive/pgd2_eps0.1/panel", "adaptive/pgd2_eps0.2/panel"]
    assert sorted(board.experiment.added) == keys
    assert board.experiment.added["adaptive/pgd2_eps0.1/panel"] == ((130, 196, 3), "HWC")
    assert board.experiment.added["adaptive/over_eps"] == ((400, 700, 3), "HWC")
    assert list(files()) == named(TABLES, "csv")


def test_a_logger_of_images_gets_curves_as_images_and_one_of_curves_the_points() -> None:
    kept, other = Kept(), WithImages()
    shown(kept, other)
    image, caption = other.images["adaptive/over_eps"]
    assert (image.size, caption) == ((700, 400), "lines: pgd2")
    assert set(kept.curves) == {"adaptive/over_eps", "adaptive/over_l2"}
    assert not set(kept.curves) & set(kept.images)
    assert files() == {}


def test_what_a_logger_takes_that_was_given_up_is_kept() -> None:
    kept = Kept()
    kept.failed = True  # type: ignore[attr-defined]
    shown(kept)
    assert list(files()) == sorted([*named(PICTURES, "png"), *named(TABLES, "csv")])


def test_a_chart_shows_lines_where_the_points_are() -> None:
    flat = [
        Curve(name, 9, tuple(Point(x, y, Interval(y, y)) for x in (0.0, 1.0))) for name, y in (("a", 0.25), ("b", 0.75))
    ]
    drawn = chart(flat, "eps")
    assert drawn.columns == ("a", "b")
    with Image.open(io.BytesIO(drawn.png())) as image:
        pixels = np.asarray(image).astype(int)
    rows = []
    for colour in ((31, 119, 180), (255, 127, 14)):  # matplotlib's first two
        near = (abs(pixels - colour).max(axis=2) < 8).sum(axis=1)
        rows.append(int(near.argmax()))
        assert near.max() > 500  # across the whole drawing
    assert 130 < rows[0] - rows[1] < 200  # half of the axis, the lower value below

"""The page and figure of a transfer: every number with its interval, everything in the file, nothing that runs."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.report import write_comparison, write_report
from analysis.transfer import figure, table
from tests.analysis.evaluations import an_evaluation, change
from tests.analysis.test_report import EVIL, Page
from tests.analysis.transfers import a_transfer, matrix

NAMES = ["plain", "adv", "robustnet"]


def shown(found: dict[str, Any], *place: int, key: str = "accuracy") -> str:
    low, high = {"accuracy": ("low", "high"), "clean": ("clean_low", "clean_high")}[key]
    numbers = (100 * np.array(found[name])[place] for name in (key, low, high))
    return "{:.1f} [{:.1f}, {:.1f}]".format(*numbers)


def test_every_number_stands_there_with_its_interval(tmp_path: Path) -> None:
    page = Page(write_report(a_transfer(tmp_path, NAMES, ["pgd", "ddn"])).read_text())
    for seed, attack in enumerate(["pgd", "ddn"]):
        found = matrix(NAMES, seed)
        for i, name in enumerate(NAMES):
            assert [name, *(shown(found, i, j) for j in range(3))] in page.rows, attack
    clean = [shown(matrix(NAMES), j, key="clean") for j in range(3)]
    assert page.row("(clean)") == ["(clean)", *clean]
    assert page.row("plain")[1:5] == ["plain", "0123456789ab", "1 (no noise)", clean[0]]
    assert page.row("robustnet")[3] == "3"
    for said in ("1,234,567", "7,654", "1 h 2 min"):
        assert said in page.texts["cost"]
    for said in ("python evaluate.py transfer A B", "PGD(pgd)", "PGD(ddn)", "2.15.0"):
        assert said in page.texts["again"]
    assert "n = 500 images" in page.texts["transfer"]
    assert "CIFAR10 test" in page.texts[""]


def test_what_comes_from_files_is_text_and_nothing_is_loaded(tmp_path: Path) -> None:
    page = Page(write_report(a_transfer(tmp_path, [EVIL, "b"], [EVIL], command=EVIL)).read_text())
    assert not {"script", "iframe", "object", "embed", "img"} & page.names
    assert all(address.startswith("data:") for address in page.loads)
    assert EVIL in page.texts["transfer"]
    assert EVIL in page.texts["again"]


@pytest.mark.parametrize("key", ["manifest", "environment", "command", "transfer"])
def test_damaged_results_are_refused_in_a_line(tmp_path: Path, key: str) -> None:
    folder = a_transfer(tmp_path, NAMES, ["pgd"])
    change(folder, **{key: {} if key == "transfer" else None})
    with pytest.raises(ValueError, match=r"results\.json is not that of a transfer") as caught:
        write_report(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()


def test_a_transfer_is_not_compared_with_an_evaluation(tmp_path: Path) -> None:
    transfer = a_transfer(tmp_path / "transfer", NAMES, ["pgd"])
    (transfer / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="holds transfer matrices, not an evaluation"):
        write_comparison([transfer, an_evaluation(tmp_path / "evaluation")], tmp_path / "comparison.html")


def test_the_terminal_shows_every_interval() -> None:
    found = matrix(NAMES)
    rows = [[name, *(shown(found, i, j) for j in range(3))] for i, name in enumerate(NAMES)]
    clean = ["(clean)", *(shown(found, j, key="clean") for j in range(3))]
    assert table(found) == [["made on", *NAMES], *rows, clean]


@pytest.mark.parametrize(("names", "attacks"), [(["a", "b"], 1), (["a_network_with_a_long_name", *"bcdefgh"], 3)])
def test_the_numbers_in_the_figure_stay_in_their_cells(names: list[str], attacks: int) -> None:
    drawing = figure({f"attack{k}": matrix(names, k) for k in range(attacks)})
    drawing.draw_without_rendering()
    assert len(drawing.axes) == attacks
    for axes in drawing.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        cell = axes.transData.transform([[0, 0], [1, 1]])
        width, height = np.abs(cell[1] - cell[0])
        assert len(boxes) == len(names) ** 2
        assert all(box.width < width and box.height < height for box in boxes)
    titles = [axes.title.get_window_extent() for axes in drawing.axes]
    assert not any(a.overlaps(b) for a, b in combinations(titles, 2))

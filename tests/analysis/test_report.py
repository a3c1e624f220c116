"""The page of an evaluation: its numbers are those of the table, its images those that were kept, nothing runs."""

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.report import write_report
from analysis.report.folder import Evaluation
from analysis.report.pictures import examples, png
from evaluation.intervals import wilson
from tests.analysis.evaluations import RIGHT, an_evaluation, change

VOID = {"meta", "link", "img", "line", "circle"}


class Page(HTMLParser):
    """Text by section, addresses of images, names of elements; raises where elements do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.section, self.texts, self.images, self.names = "", {"": ""}, [], set()
        self.loads: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.names.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "section":
            self.section = values["id"] or ""
            self.texts[self.section] = ""
        if tag == "img":
            self.images.append(values["src"] or "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.loads += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self.section = ""

    def handle_data(self, data: str) -> None:
        self.texts[self.section] += data
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data if self.open[-1] != "small" else f" {data}"

    def row(self, name: str) -> list[str]:
        return next(row for row in self.rows if row[0] == name)


def page_of(folder: Path) -> Page:
    return Page(write_report(folder).read_text())


@pytest.fixture(scope="module")
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return an_evaluation(tmp_path_factory.mktemp("random"))


@pytest.fixture
def folder(random_folder: Path, tmp_path: Path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(random_folder, tmp_path / "copy"))


def test_numbers_are_those_of_the_table(random_folder: Path) -> None:
    page, evaluation = page_of(random_folder), Evaluation.read(random_folder)
    results = {one["adversary"]: one for one in evaluation.results["summaries"]}
    for name in RIGHT:
        rows, summary, row = evaluation.rows[name], results[name], page.row(name)
        low, high = summary["interval"]
        right = rows.answers == rows.label[:, None]
        assert row[1] == f"{100 * right.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        assert row[3] == f"{right.sum()} / 200"
        assert row[4].startswith(f"{100 * summary['vote_accuracy']:.1f} ")
        assert row[5].startswith(f"{100 * summary['worst_accuracy']:.1f} ")
        assert row[6] == f"{summary['robust']} / {summary['undecided']} / {summary['broken']}"
        assert row[7:] == [f"{rows.l2.mean():.3f}", f"{rows.linf.mean():.4f}", f"{rows.queries.mean():.0f}"]
    worst = evaluation.results["worst_case"]
    assert page.row("worst case")[1].startswith(f"{100 * worst['accuracy']:.1f} ")
    assert f"{100 * worst['accuracy']:.1f} %" in page.texts["numbers"]
    for said in ("1,234,567", "7,654", "1 h 2 min"):
        assert said in page.texts["cost"]


def test_a_model_without_noise_has_one_accuracy(tmp_path: Path) -> None:
    page = page_of(an_evaluation(tmp_path, "adv", n=30, draws=1))
    evaluation = Evaluation.read(tmp_path)
    hits = int(evaluation.rows["pgd"].right.sum())
    low, high = wilson(hits, 30)
    assert page.row("pgd")[1] == f"{100 * hits / 30:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    assert page.row("pgd")[3] == f"{hits} / 30"
    assert page.row("worst case")[3] == f"{Evaluation.read(tmp_path).results['worst_case']['robust']} / 30"
    assert len(page.row("pgd")) == 7
    assert "vote" not in page.texts["numbers"]
    assert "judge draw" not in page.texts["numbers"]


def test_classes_are_counted_image_by_image(random_folder: Path) -> None:
    page, evaluation = page_of(random_folder), Evaluation.read(random_folder)
    rows = evaluation.rows["pgd"]
    for label in np.unique(rows.label):
        row = page.row(evaluation.class_name(int(label)))
        assert row[1] == str((rows.label == label).sum())
        assert row[3].startswith(f"{100 * rows.right[rows.label == label].mean():.1f} ")


def test_doubts_come_first_and_show_their_figures(random_folder: Path) -> None:
    text = page_of(random_folder).texts["checks"]
    places = [text.index(name) for name in ("unbounded eps", "loss rises", "binarization")]
    assert places == sorted(places)
    assert "accuracy 0.12" in text
    assert "share 0.975, n 40 · A" in text
    assert "1 doubt" in page_of(random_folder).texts["numbers"]


def test_everything_is_in_the_file_and_nothing_runs(random_folder: Path) -> None:
    html = write_report(random_folder).read_text()
    page = Page(html)
    assert all(address.startswith("data:") for address in page.loads)
    assert not {"script", "iframe", "object", "embed"} & page.names
    assert not re.search(r"url\(|@import|\son\w+=", html)


def test_images_are_those_that_were_kept(random_folder: Path) -> None:
    page = page_of(random_folder)
    assert len(page.images) == 3 * (1 + 2 * 2)
    clean, attacked, difference = (pixels(address) for address in page.images[:3])
    assert (clean == 102).all()
    assert (attacked[:16] == 110).all()
    assert (attacked[16:] == 102).all()
    # The largest change reaches the end of the scale, none stays in the middle.
    assert (difference[:16] == 255).all()
    assert (difference[16:] == 128).all()


def pixels(address: str) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(base64.b64decode(address.removeprefix("data:image/png;base64,")))))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_picture_comes_back_pixel_by_pixel(channels: int) -> None:
    values = np.random.default_rng(0).integers(256, size=(channels, 5, 7))
    shown = values.transpose(1, 2, 0) if channels == 3 else values[0]
    np.testing.assert_array_equal(pixels(png(values / 255)), shown)


def test_many_large_pictures_become_fewer_examples(random_folder: Path) -> None:
    evaluation = Evaluation.read(random_folder)
    size = sum(len(part) for part in page_of(random_folder).images) / 3
    assert [len(examples(evaluation, budget)) for budget in (0, int(2.5 * size), int(3.5 * size))] == [1, 2, 3]


EVIL = "<script>alert(1)</script>\"'&"


def test_what_comes_from_files_is_text(folder: Path) -> None:
    change(folder, "manifest.json", recipe=EVIL, split=EVIL, attacks={EVIL: EVIL}, data={"class_path": f"a.{EVIL}"})
    check = {"name": EVIL, "verdict": EVIL, "text": EVIL, "figures": {EVIL: 1.0}, "source": EVIL}
    change(folder, command=EVIL, checks=[check], environment={"date": EVIL, EVIL: EVIL})
    html = write_report(folder).read_text()
    assert "<script" not in html
    page = Page(html)
    assert "script" not in page.names
    assert EVIL in page.texts["again"]
    assert EVIL in page.texts["checks"]


KEYS = ["command", "worst_case", "curves", "checks", "cost", "environment", "summaries", "manifest"]


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_an_older_version_did_not_write_may_be_missing(folder: Path, key: str) -> None:
    change(folder, **{key: None})
    assert "robustnet on CIFAR10" in page_of(folder).texts[""]


def test_results_and_manifest_of_the_first_version(folder: Path) -> None:
    change(folder, **dict.fromkeys(KEYS[:-2]))
    summaries = json.loads((folder / "results.json").read_text())["summaries"]
    new = ("shared", "votes", "worst_accuracy", "worst_interval", "robust", "undecided", "broken", "decision_level")
    change(folder, summaries=[{k: v for k, v in one.items() if k not in new} for one in summaries])
    change(folder, "manifest.json", random=None, shared=None, votes=None, radii=None, keep=None)
    shutil.rmtree(folder / "images")
    page = page_of(folder)
    assert page.row("pgd")[4].startswith(f"{100 * summaries[1]['vote_accuracy']:.1f}")
    assert "Not run" in page.texts["checks"]
    assert "examples" not in page.texts
    assert page.images == []


def test_a_damaged_image_is_left_out(folder: Path) -> None:
    file = folder / "images" / "pgd" / "000000.npy"
    file.write_bytes(file.read_bytes()[:50])
    assert len(page_of(folder).images) == 3 * (1 + 2)


@pytest.mark.parametrize("name", ["manifest.json", "results.json", "per_image.parquet"])
def test_a_folder_that_is_no_evaluation_is_refused_in_a_line(folder: Path, name: str) -> None:
    (folder / "report.html").write_text("as before")
    (folder / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name} is not"):
        write_report(folder)
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        write_report(folder)
    assert (folder / "report.html").read_text() == "as before"


def test_ten_thousand_images_make_a_page_of_less_than_five_megabytes(tmp_path: Path) -> None:
    folder = an_evaluation(tmp_path, n=10_000, draws=2, size=2_500)
    rng = np.random.default_rng(0)
    for name in RIGHT:  # noise: the pictures that PNG makes the largest
        np.save(folder / "images" / name / "000000.npy", rng.uniform(size=(3, 3, 224, 224)).astype(np.float32))
    assert write_report(folder).stat().st_size < 5_000_000

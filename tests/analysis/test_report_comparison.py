"""Runs side by side: differences are those of the tables, and an order is claimed only where it is sure."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.report import Compared, write_comparison
from analysis.report.folder import Evaluation
from cli import compare, report
from cli.names import UsageError
from tests.analysis.evaluations import an_evaluation, change
from tests.analysis.test_report import EVIL, Page


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two of the same recipe, alike but for chance, and one on which hardly any attack succeeds."""
    root = tmp_path_factory.mktemp("runs")
    folders = [an_evaluation(root / name, "robustnet", n=40, seed=seed) for seed, name in enumerate("ab")]
    return [*folders, an_evaluation(root / "c", "plain", n=40, draws=1, seed=2)]


def test_the_page_has_each_pair_under_each_adversary(runs: list[Path], tmp_path: Path) -> None:
    out = write_comparison(runs, tmp_path / "page.html")
    page, compared = Page(out.read_text()), Compared.of(runs)
    names = [f"robustnet ({runs[0]})", f"robustnet ({runs[1]})", "plain"]
    assert list(compared.runs) == names
    assert [(pair.first, pair.second) for pair in compared.pairs] == [
        (names[0], names[1]),
        (names[0], names[2]),
        (names[1], names[2]),
    ]
    assert compared.adversaries == ["worst case", "clean", "pgd", "ddn"]
    right = [{name: rows.right.mean() for name, rows in Evaluation.read(run).rows.items()} for run in runs]
    cells = [row for row in page.rows if row[0] == names[0] and len(row) == 3]
    assert len(cells) == 4
    for row, name in zip(cells[1:], ("clean", "pgd", "ddn"), strict=True):
        for cell, other in zip(row[1:], right[1:], strict=True):
            assert cell.startswith(f"{100 * (right[0][name] - other[name]):+.1f}")
    assert "McNemar" not in "".join(cell for row in cells for cell in row)


def test_models_without_noise_get_mcnemars_test(tmp_path: Path) -> None:
    folders = [an_evaluation(tmp_path / name, name, n=40, draws=1, seed=seed) for seed, name in enumerate("ab")]
    (pair,) = Compared.of(folders).pairs
    row = next(row for row in Page(write_comparison(folders, tmp_path / "p.html").read_text()).rows if row[0] == "a"
               and "right in one only" in row[-1])  # fmt: skip
    found = pair.differences["worst case"]
    assert f"{found.only_a} / {found.only_b}" in row[1]
    assert f"McNemar p = {found.mcnemar:.2g}" in row[1]


def test_a_model_is_called_higher_only_if_the_interval_says_so(runs: list[Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs[0], tmp_path / "copy"))
    change(other, "manifest.json", recipe="twin")
    twins = Compared.of([runs[0], other])
    assert "higher" not in twins.table()
    assert twins.table().count("undecided") == 4
    page = Page(twins.write(tmp_path / "page.html").read_text())
    cells = "".join(cell for row in page.rows for cell in row)
    assert not {"▲", "▼"} & set(cells)
    assert cells.count("no image differs") == 4

    better = an_evaluation(tmp_path / "better", "better", n=40, seed=3, right={"clean": 0.9, "pgd": 0.95, "ddn": 0.9})
    table = Compared.of([runs[0], better]).table().splitlines()
    assert [line.split()[-2:] for line in table if line.startswith(("pgd", "ddn", "worst"))] == [
        ["better", "higher"]
    ] * 3
    swapped = Page(write_comparison([better, runs[0]], tmp_path / "swapped.html").read_text())
    assert sum("▲ better higher" in cell for row in swapped.rows for cell in row) == 3


def test_names_from_files_are_text(runs: list[Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs[0], tmp_path / "copy"))
    change(other, "manifest.json", recipe=EVIL)
    html = write_comparison([runs[0], other], tmp_path / "page.html").read_text()
    assert "<script" not in html
    assert EVIL in "".join(cell for row in Page(html).rows for cell in row)


def test_a_run_with_fewer_images_is_compared_on_those(runs: list[Path], tmp_path: Path) -> None:
    fewer = an_evaluation(tmp_path / "fewer", "fewer", n=30)
    compared = Compared.of([*runs, fewer])
    assert compared.sizes == [30, 40]
    page = Page(compared.write(tmp_path / "page.html").read_text())
    cells = [cell for row in page.rows for cell in row if "right in one only" in cell]
    assert {"n = 30" in cell for cell in cells} == {True, False}
    assert all(("n = 30" in cell) != ("n = 40" in cell) for cell in cells)


def test_other_settings_under_one_name_are_told(runs: list[Path], tmp_path: Path) -> None:
    other = Path(shutil.copytree(runs[0], tmp_path / "copy"))
    attacks = Evaluation.read(other).manifest["attacks"]
    change(other, "manifest.json", recipe="other", attacks={**attacks, "pgd": "PGD(steps=1)"})
    compared = Compared.of([runs[0], other])
    assert [sorted(pair.unlike) for pair in compared.pairs] == [["pgd", "worst case"]]
    told = {line.split("  ")[0] for line in compared.table().splitlines() if "(other attack)" in line}
    assert told == {"pgd", "worst case"}
    page = Page(compared.write(tmp_path / "page.html").read_text())
    assert sum("(other attack)" in cell for row in page.rows for cell in row) == 2


def test_what_cannot_be_compared_is_refused_in_a_line(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="two or more different evaluations, got 1"):
        Compared.of([runs[0], runs[0]])
    other = Path(shutil.copytree(runs[0], tmp_path / "svhn"))
    change(other, "manifest.json", data={"class_path": "datamodules.SVHN"}, recipe="svhn")
    with pytest.raises(ValueError, match="robustnet was evaluated on CIFAR10 test, svhn on SVHN test"):
        Compared.of([runs[0], other])


def test_the_commands(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    for age, name in enumerate(("old", "new")):
        shutil.copytree(runs[0], run / "evaluations" / name)
        results = run / "evaluations" / name / "results.json"
        results.touch()
        change(run / "evaluations" / name, "manifest.json", recipe=name)
        assert report.evaluation_in(run).name == name, age
    report.main([str(run)])
    assert capsys.readouterr().out == f"wrote {run}/evaluations/new/report.html\n"
    out = tmp_path / "page.html"
    compare.main([str(run), str(runs[2]), "--out", str(out)])
    said = capsys.readouterr().out
    assert said.endswith(f"wrote {out}\n")
    assert "new, plain: CIFAR10 test, n = 40 common images, single draws" in said
    gap = np.subtract(*(100 * Evaluation.read(runs[k]).rows["pgd"].right.mean() for k in (0, 2)))
    assert f"{gap:+.2f}" in next(line for line in said.splitlines() if line.startswith("pgd"))
    compare.main([*map(str, runs), f"--out={out}"])
    assert "the other adversaries are in the page" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give two or more evaluations or runs, got 0"),
        (["RUN"], "give two or more evaluations or runs, got 1"),
        (["RUN", "RUN", "--n", "3"], "compare takes no --n"),
        (["RUN", "nowhere"], "nowhere: no such folder"),
        (["RUN", "."], "no finished evaluation in it"),
        (["RUN", "RUN", "--out"], "--out needs a value"),
        (["RUN", "RUN", "--out", "x.pdf"], "--out takes a file that ends in .html, got 'x.pdf'"),
        (["RUN", "RUN", "--out", "no/x.html"], "no such folder as no"),
    ],
)
def test_bad_words_to_compare(
    runs: list[Path], words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        compare.main([str(runs[0]) if word == "RUN" else word for word in words])


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "give the folder"), (["--all"], "report takes no options, got --all"), (["nowhere"], "no such folder")],
)
def test_bad_words_to_report(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        report.main(words)

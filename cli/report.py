"""What `evaluate.py report` runs: the page of an evaluation once more, from what lies in its folder."""

from pathlib import Path

from cli.names import UsageError


def main(words: list[str]) -> None:
    """Write report.html into the folder of each evaluation that is named.

    Args:
        words: those after `report`: folders of evaluations, or run folders, whose newest evaluation is taken.

    Raises:
        UsageError: none is named, or one is no finished evaluation.
    """
    if options := [word for word in words if word.startswith("-")]:
        raise UsageError(f"report takes no options, got {options[0]}; usage: python evaluate.py report FOLDER ...")
    if not words:
        raise UsageError("give the folder of an evaluation: python evaluate.py report FOLDER ...")
    folders = [evaluation_in(Path(word)) for word in words]

    from analysis.report import write_report

    for folder in folders:
        print(f"wrote {write_report(folder)}")


def evaluation_in(path: Path) -> Path:
    """The finished evaluation that a path means: its own folder, or the newest one of a run.

    Raises:
        UsageError: there is none.
    """
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder")
    found = [
        file.parent for file in (path / "results.json", *path.glob("evaluations/*/results.json")) if file.is_file()
    ]
    if not found:
        raise UsageError(
            f"{path}: no finished evaluation in it (looked for results.json and evaluations/*/results.json)"
        )
    if found[0] == path:
        return path
    return max(found, key=lambda folder: (folder / "results.json").stat().st_mtime)

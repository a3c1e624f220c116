"""Certified accuracy over the L2 radius, from the rows that `analyze.py certify` writes.

python -m analysis.certified FOLDER [FOLDER ...] FIGURE.svg
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.records import write_atomically
from evaluation.smoothing import Certificate, CertifiedAccuracy, certified_accuracy

_NAME = "certificates.jsonl"
_COLUMNS = ("index", "label", *Certificate._fields)

# Certified radius per image, 0 where it abstained, and whether the answer is right.
Certified = tuple[NDArray[np.floating], NDArray[np.bool_]]


class Rows:
    """One JSON line per image in `certificates.jsonl`, beside a manifest that says what they depend on.

    Args:
        folder: created, or gone on with if its manifest is the same.
        manifest: JSON values.

    Attributes:
        known: rows by image.
        mended: whether a line could not be read and was taken out; its image is to be done again.

    Raises:
        ValueError: the folder holds certificates of another command.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.file = folder, folder / _NAME
        folder.mkdir(parents=True, exist_ok=True)
        text = f"{json.dumps(manifest, indent=2, sort_keys=True)}\n"
        if not (said := folder / "manifest.json").exists():
            write_atomically(said, text.encode())
        elif said.read_text() != text:
            raise ValueError(f"{said} is of another command; choose another --out or delete it")
        content = self.file.read_bytes() if self.file.exists() else b""
        self.known: dict[int, dict[str, Any]] = {row["index"]: row for row in _readable(content)}
        whole = "".join(map(_line, self.known.values())).encode()
        self.mended = whole != content
        if self.mended:  # a killed process may leave half a line, which the next one would be appended to
            write_atomically(self.file, whole)

    def add(self, index: int, label: int, certificate: Certificate) -> None:
        """Write down one image."""
        self.known[index] = {"index": index, "label": label, **certificate._asdict()}
        with self.file.open("a") as file:
            file.write(_line(self.known[index]))


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _readable(content: bytes) -> Iterator[dict[str, Any]]:
    for line in content.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and tuple(row) == _COLUMNS:
            yield row


def read(folder: Path) -> Certified:
    """The certificates in a folder.

    Raises:
        FileNotFoundError: there are none.
    """
    rows = [json.loads(line) for line in (folder / _NAME).read_text().splitlines()]
    return np.array([row["radius"] for row in rows]), np.array([row["predicted"] == row["label"] for row in rows])


def table(curve: Sequence[CertifiedAccuracy]) -> list[tuple[str, ...]]:
    """A curve as the cells of a table, header first."""
    header = ("L2 radius", "certified accuracy %", "95 % interval", "correct / images")
    return [header, *(_row(point) for point in curve)]


def _row(point: CertifiedAccuracy) -> tuple[str, ...]:
    low, high = point.interval
    return (
        f"{point.radius:g}",
        f"{100 * point.correct / point.n:.2f}",
        f"[{100 * low:.2f}, {100 * high:.2f}]",
        f"{point.correct} / {point.n}",
    )


def figure(models: Mapping[str, Certified], caption: str = "") -> Figure:
    """One line per model with its 95 % interval over images, from radius 0 to just beyond the largest one.

    Args:
        models: certificates by name, at least one image each.
        caption: what is above the drawing.
    """
    drawing = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasSVG(drawing)
    axes = drawing.add_subplot(xlabel="L2 radius in pixels of [0, 1]", ylabel="certified accuracy (%)", ylim=(0, 100))
    last = max(float(radii.max()) for radii, _ in models.values())
    grid = np.linspace(0, 1.02 * last or 1.0, 400)
    for name, (radii, correct) in models.items():
        curve = certified_accuracy(radii, correct, grid.tolist())
        low, high = zip(*[point.interval for point in curve], strict=True)
        (line,) = axes.plot(grid, [100 * point.correct / point.n for point in curve], label=f"{name}, n = {len(radii)}")
        axes.fill_between(grid, 100 * np.array(low), 100 * np.array(high), alpha=0.2, color=line.get_color())
    axes.set_title(caption, fontsize=7, wrap=True)
    axes.set_xlim(0, grid[-1])
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    return drawing


def main() -> int:
    """Draw some folders into one figure, each named after its run."""
    if len(sys.argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    *folders, out = map(Path, sys.argv[1:])
    try:
        figure({str(folder): read(folder) for folder in folders}).savefig(out)
    except FileNotFoundError as error:
        print(f"error: {error.filename}: no such file", file=sys.stderr)
        return 2
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

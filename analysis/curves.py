"""The training curves of a run, from its metrics.jsonl.

python -m analysis.curves RUN FIGURE.svg
"""

import json
import sys
from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_LINES = {
    "train/clean": ("training images, clean", "tab:blue", "-"),
    "train/robust": ("training images, under the training attack", "tab:red", "-"),
    "val/clean": ("validation images, clean", "tab:blue", "--"),
    "val/robust": ("validation images, under PGD", "tab:red", "--"),
}


def epochs(run: Path) -> list[dict[str, float]]:
    """What was logged per epoch, in order; an epoch that was repeated after a resume counts once, the last time.

    Raises:
        FileNotFoundError: the run has no metrics.jsonl.
    """
    merged: dict[int, dict[str, float]] = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        values = {name: value for name, value in row.items() if name in {*_LINES, "train/loss_epoch"}}
        if values:
            merged.setdefault(int(row["epoch"]), {}).update(values)
    return [{"epoch": epoch + 1, **values} for epoch, values in sorted(merged.items())]


def figure(run: Path) -> Figure:
    """Accuracies over epochs on the left axis, the loss on the right one."""
    rows = epochs(run)
    drawing = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasSVG(drawing)
    axes = drawing.add_subplot(xlabel="epoch", ylabel="accuracy (%)", ylim=(0, 100))
    for name, (label, color, style) in _LINES.items():
        points = [(row["epoch"], 100 * row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=color, marker="o", markersize=4, label=label)
    loss = axes.twinx()
    loss.set_ylabel("training loss")
    points = [(row["epoch"], row["train/loss_epoch"]) for row in rows if "train/loss_epoch" in row]
    loss.plot(*zip(*points, strict=True), ":", color="gray", label="training loss (right)")
    loss.set_ylim(bottom=0)
    axes.legend(loc="lower left", fontsize="small")
    loss.legend(loc="lower right", fontsize="small")
    axes.grid(alpha=0.3)
    return drawing


def main() -> int:
    """Draw one run."""
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        figure(Path(sys.argv[1])).savefig(sys.argv[2])
    except FileNotFoundError as error:
        print(f"error: {error.filename}: no such file", file=sys.stderr)
        return 2
    print(f"wrote {sys.argv[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

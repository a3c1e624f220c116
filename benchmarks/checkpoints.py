"""Evaluate published CIFAR-10 ResNet-20 weights and print the table of docs/results.md.

    python benchmarks/checkpoints.py WEIGHTS_DIR DATA_DIR

Each model: clean accuracy on all 10,000 test images, PGD-7/20/40 (eps 0.031, step 0.01) on the first 1,000; 20 judge
draws for random models. Evaluations that were done are not repeated.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cli.evaluate import main as evaluate
from cli.paper import RECIPES

PGD_IMAGES = 1000
_WITHOUT_NOISE = ("plain", "adv", "plain_normalized")
LAST = "--early_exit=false"  # the last iterate, as in the papers


def evaluated(weights: Path, recipe: str, data: str, out: Path, *options: str) -> dict[str, dict[str, Any]]:
    """Run evaluate.py; returns the numbers by adversary."""
    draws = [] if recipe in _WITHOUT_NOISE else ["--draws=20"]
    words = [f"--weights={weights}", f"--model={recipe}", f"--data.root={data}", f"--out={out}", "--checks=none"]
    words += [*draws, *options]
    if evaluate(words):
        raise SystemExit(f"evaluate.py {' '.join(words)} failed")
    summaries = json.loads((out / "results.json").read_text())["summaries"]
    return {summary["adversary"]: summary for summary in summaries}


def cell(summary: dict[str, Any]) -> str:
    """Accuracy in percent with its interval."""
    low, high = summary["interval"]
    return f"{100 * summary['accuracy']:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def main() -> None:
    """Evaluate all models that are there."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    folder, data = Path(sys.argv[1]), sys.argv[2]
    rows = []
    for name, recipe in RECIPES.items():
        weights, out = folder / f"{name}.safetensors", Path("runs/checkpoints") / name
        clean = evaluated(weights, recipe, data, out / "clean", "--suite=none")["clean"]
        pgd = evaluated(weights, recipe, data, out / "pgd", "--suite=pgd", f"--n={PGD_IMAGES}", LAST)
        cells = [f"{clean['correct']} / {clean['n'] * clean['draws']}", *map(cell, [clean, *pgd.values()])]
        rows.append(f"| `{name}` | {' | '.join(cells)} |")
    print("\n| weights | clean, correct / passes | clean % | first 1,000: clean % | PGD-7 % | PGD-20 % | PGD-40 % |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()

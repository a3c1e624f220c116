"""`analyze.py certify`: images one by one, each written when done, then table and figure from what was written."""

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.names import UsageError, changed, number_in
from cli.processes import device_of
from cli.targets import Target, refusing

if TYPE_CHECKING:
    from analysis.certified import Rows
    from evaluation.smoothing import Smoothing

CERTIFY_OPTIONS = ("--std", "--n0", "--samples", "--alpha", "--batch_size", "--out")


@dataclass(frozen=True)
class Settings:
    """How to certify, whatever is certified; `words` is the command line that said so."""

    words: tuple[str, ...]
    std: float | None
    n0: int
    samples: int
    alpha: float
    batch_size: int
    seed: int
    out: Path | None

    @classmethod
    def of(cls, words: Sequence[str], taken: dict[str, str]) -> "Settings":
        """Read the options that this analysis has of its own.

        Raises:
            UsageError: a value is of the wrong kind.
        """
        alpha = number_in(taken, "--alpha", float, 0)
        return cls(
            words=tuple(words),
            std=number_in(taken, "--std", float, 0),
            n0=number_in(taken, "--n0", int, 1) or 100,
            samples=number_in(taken, "--samples", int, 1) or 1000,
            alpha=0.001 if alpha is None else alpha,
            batch_size=number_in(taken, "--batch_size", int, 1) or 250,
            seed=number_in(taken, "--seed", int, 0) or 0,
            out=Path(taken["--out"]) if "--out" in taken else None,
        )


def certify_run(target: Target, settings: Settings, split_name: str, split: Any, n: int) -> None:
    """Certify the first n images of a split and print the table."""
    import torch

    from cli.progress import Progress
    from datamodules.pixels import unit_range
    from evaluation.smoothing import Smoothing, certify, smoothing_base

    network, own = smoothing_base(target.network)
    if (std := own if settings.std is None else settings.std) is None:
        raise UsageError("--std is missing: the network has no Gauss channel of its own in front, whose std would do")
    smoothing = Smoothing(std, settings.n0, settings.samples, settings.alpha)
    # A GPU would round the factors of convolutions to 10 bits (TF32); reported numbers are float32.
    torch.backends.fp32_precision = "ieee"  # type: ignore[attr-defined]
    device = device_of(target.cli.config_init.trainer, "certify")
    rows = _open_rows(target, settings, split_name, smoothing)
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    missing = [index for index in range(n) if index not in rows.known]
    progress = Progress(n, "certified images", done=n - len(missing))
    for index in missing:
        pixels, label = split[[index]]
        x = unit_range(pixels.to(device)).contiguous(memory_format=torch.channels_last)
        (certificate,) = certify(network, x, smoothing, settings.seed, index, settings.batch_size)
        rows.add(index, int(label), certificate)
        progress.advance(1)
    progress.close()
    _report(target, settings, rows, split_name, smoothing, n, str(device))


def _open_rows(target: Target, settings: Settings, split_name: str, smoothing: "Smoothing") -> "Rows":
    """The rows of this command: the number of images is not part of it, so that more of them go on from fewer."""
    from analysis.certified import Rows

    data = target.cli.config.data
    arguments = {k: v for k, v in data.init_args.as_dict().items() if k in ("val_images", "seed")}
    manifest = {
        "alpha": smoothing.alpha,
        "data": {"class_path": data.class_path, **(arguments if split_name != "test" else {})},
        "model": target.cli.config.model.init_args.network.as_dict(),
        "n0": smoothing.n0,
        "recipe": target.recipe,
        "samples": smoothing.n,
        "seed": settings.seed,
        "split": split_name,
        "std": smoothing.std,
        "weights_sha256": hashlib.sha256(target.source.read_bytes()).hexdigest(),
    }
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:8]
    folder = target.folder / "evaluations" / f"certify_{split_name}_std{smoothing.std:g}_{digest}"
    try:
        rows: Rows = refusing(Rows, settings.out or folder, manifest)
    except OSError as error:
        where = settings.out or folder
        raise UsageError(f"--out: cannot write to {where} ({(error.strerror or str(error)).lower()})") from None
    if rows.mended:
        print(f"{rows.file}: was damaged and is mended", file=sys.stderr)
    return rows


def _report(
    target: Target, settings: Settings, rows: "Rows", split_name: str, smoothing: "Smoothing", n: int, device: str
) -> None:
    """Everything from the rows: the printed table, results.json and the figure."""
    import numpy as np
    import torch

    from analysis.certified import figure, table
    from evaluation import aligned
    from evaluation.records import write_atomically
    from evaluation.smoothing import certified_accuracy

    images = [rows.known[index] for index in range(n)]
    radii = np.array([row["radius"] for row in images])
    correct = np.array([row["predicted"] == row["label"] for row in images])
    step = min(0.25, smoothing.std)
    curve = certified_accuracy(radii, correct, np.arange(0, smoothing.largest_radius, step).tolist())
    abstained = sum(row["predicted"] < 0 for row in images)
    results = {
        "images": n,
        "abstained": abstained,
        "curve": [point._asdict() for point in curve],
        "environment": {"date": date.today().isoformat(), "device": device, "torch": torch.__version__},
    }
    write_atomically(rows.folder / "results.json", f"{json.dumps(results, indent=2)}\n".encode())
    data = target.cli.config.data.class_path.rsplit(".", 1)[-1]
    caption = (
        f"{data} {split_name}, n = {n}, noise {smoothing.std:g}, {smoothing.n0} + {smoothing.n} samples per image, "
        f"alpha {smoothing.alpha:g}, seed {settings.seed}"
    )
    figure({target.recipe: (radii, correct)}, caption).savefig(rows.folder / "certified.svg")
    print(f"\n{target.recipe} ({target.source}), {caption}\n{aligned(table(curve))}")
    print(f"abstained: {abstained} of {n}; largest radius with {smoothing.n} samples: {smoothing.largest_radius:.3f}")
    for name in ("certificates.jsonl", "results.json", "certified.svg"):
        print(f"wrote {rows.folder / name}")
    elsewhere = {"--out": f"{settings.out}_{10 * smoothing.n}"} if settings.out else {}
    more = changed(settings.words, {"--samples": str(10 * smoothing.n), **elsewhere})
    print(f"next: python analyze.py certify {shlex.join(more)}")

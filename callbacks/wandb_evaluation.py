"""A finished evaluation as a run of W&B: the folder's numbers, tables, curves, pictures and files."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from callbacks.findings import ROW_COLUMNS, SUMMARY_COLUMNS, Findings
from callbacks.panels import Panel, panel
from callbacks.wandb_run import WandbRun
from evaluation import setting_of

_FILES = ("per_image.parquet", "results.json", "manifest.json", "sessions.jsonl", "report.html")


def log_evaluation(
    folder: Path,
    run_name: str,
    recipe: str,
    checkpoint: Path | None = None,
    project: str = "freshdraw",
    tags: Sequence[str] = (),
    mode: str | None = None,
) -> bool:
    """Mirror an evaluation as a run of job type "evaluate" in the group of its recipe.

    Its config is the manifest, its summary `robust/ADVERSARY/accuracy`, `/low`, `/high` and `/n` and the worst case
    likewise; a table of the adversaries, one of sampled images, accuracy over eps and over L2, a picture per adversary,
    and the files as an artifact. W&B's own files go to `wandb` in the folder. Whatever W&B does, nothing here raises
    because of it: one line on standard error says so.

    Args:
        folder: of the evaluation, finished.
        run_name: as W&B shows it.
        recipe: group and first tag.
        checkpoint: the weights that were evaluated; None leaves them out.
        project: on the server.
        tags: more of them.
        mode: see `WandbRun`.

    Returns:
        Whether W&B took all of it.

    Raises:
        FileNotFoundError: the folder holds no finished evaluation.
        ValueError: its manifest does not say whether the model is random.
    """
    manifest = json.loads((folder / "manifest.json").read_text())
    results = json.loads((folder / "results.json").read_text())
    radii = manifest.get("radii") or {}
    found = Findings(pq.read_table(folder / "per_image.parquet"), setting_of(manifest), radii)
    data = str(manifest["data"]["class_path"]).rpartition(".")[2]
    run = WandbRun(folder, recipe, project, (data, *tags), "evaluate", run_name, mode)
    run.log_hyperparams({**manifest, "environment": results.get("environment"), "command": results.get("command")})
    run.log_summary(_summary(found))
    run.log_table("adversaries", list(SUMMARY_COLUMNS), found.summary_rows(manifest["attacks"]))
    run.log_table("images", list(ROW_COLUMNS), found.sampled_rows())
    for x_name, curves in found.curves().items():
        if curves:
            run.log_curves(f"over_{x_name}", curves, x_name)
    for name, drawn in _panels(folder, list(manifest["attacks"])):
        run.log_image(f"{name}/panel", [drawn.image()], caption=[drawn.caption])
    run.log_files(f"{recipe}-evaluation", "evaluation", [folder / name for name in _FILES])
    if checkpoint is not None:
        run.log_files(recipe, "model", [checkpoint], [checkpoint.stem])
    run.finalize("success")
    return not run.failed


def _summary(found: Findings) -> dict[str, float]:
    numbers = {f"robust/{name}": value for name, value in found.logged(per_class=True).items()}
    return {**numbers, **{f"robust/{summary.adversary}/n": summary.n for summary in found.summaries}}


def _panels(folder: Path, adversaries: list[str]) -> Iterator[tuple[str, Panel]]:
    clean = _kept(folder, "clean")
    for name in adversaries if clean is not None else []:
        kept = _kept(folder, name)
        if clean is not None and kept is not None and clean.shape[1] in (1, 3):
            shown = min(len(clean), len(kept))
            yield name, panel(torch.from_numpy(clean[:shown]), torch.from_numpy(kept[:shown]))


def _kept(folder: Path, adversary: str) -> np.ndarray | None:
    path = folder / "images" / adversary / "000000.npy"
    return np.load(path) if path.is_file() else None

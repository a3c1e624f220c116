"""Weights & Biases: a mirror of what the run folder holds, that never asks and never waits. All of wandb is in here."""

import os
import warnings
from pathlib import Path
from typing import Any

import wandb
from pytorch_lightning.loggers import WandbLogger

_SECONDS_TO_CONNECT = 20


class WandbRun(WandbLogger):
    """Lightning's logger that decides by itself between online and offline.

    Online where a key is known (`wandb login` or WANDB_API_KEY) and the server answers within 20 s, else offline:
    `wandb sync` uploads such a run later. WANDB_MODE has the last word.

    Args:
        folder: folder of the run; W&B's files go to `wandb` in it.
        recipe: groups the runs of a recipe.
        project: the project on the server.
        tags: shown beside the run.
    """

    def __init__(self, folder: Path, recipe: str, project: str = "freshdraw", tags: tuple[str, ...] = ()) -> None:
        # Artifacts are staged in the home directory otherwise, and a copied run folder would lack them.
        os.environ.setdefault("WANDB_DATA_DIR", str(folder / "wandb"))
        settings = wandb.Settings(init_timeout=_SECONDS_TO_CONNECT, silent=True, console="off")
        super().__init__(
            name=f"{recipe}/{folder.name}",
            save_dir=folder,
            project=project,
            group=recipe,
            job_type="train",
            tags=list(tags),
            mode=_mode(),
            settings=settings,
        )
        # Lightning passes an argument that wandb warns about.
        self._wandb_init.pop("anonymous", None)

    @property
    def experiment(self) -> Any:
        """The run; offline if the server cannot be reached."""
        try:
            return super().experiment
        except (wandb.errors.CommError, wandb.errors.AuthenticationError, TimeoutError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            warnings.warn(f"W&B is not reachable ({reason}); this run is logged offline", stacklevel=2)
            self._wandb_init["mode"] = "offline"
            return super().experiment

    def finalize(self, status: str) -> None:
        """Close the run: wandb would add the next one of the same process to it."""
        super().finalize(status)
        if self._experiment is not None:
            wandb.finish(exit_code=0 if status == "success" else 1)


def _mode() -> str:
    if mode := os.environ.get("WANDB_MODE"):
        return mode
    # Neither prompts nor talks to the server.
    return "online" if wandb.login(prompt=False, verify=False) else "offline"

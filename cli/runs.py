"""Run folders: runs/<recipe>/<job or time>/ and what lies in them."""

import os
from datetime import datetime
from pathlib import Path

from cli.names import UsageError

_INHERITED = "FRESHDRAW_RUN_DIR"  # tells processes that this one starts (DDP) where the run lies


def new_run_folder(root: Path, recipe: str) -> Path:
    """The folder of a new run, the same for all processes of it.

    The SLURM job's id survives a requeue, so that the job finds its checkpoint again; torchrun's --rdzv-id does too.
    """
    inherited = os.environ.get(_INHERITED)
    if inherited:
        return Path(inherited)
    folder = root / recipe / _run_name()
    os.environ[_INHERITED] = str(folder)
    return folder


def _run_name() -> str:
    if job := os.environ.get("SLURM_JOB_ID"):
        return job
    torchrun = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if torchrun != "none":
        return torchrun
    now = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return _agreed(now) if "TORCHELASTIC_RUN_ID" in os.environ else now


def _agreed(name: str) -> str:
    """One name for all processes that torchrun started: the first that asks its store decides."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    return bytes(store.compare_set("freshdraw/run", "", name)).decode()


def last_run(root: Path, recipe: str) -> Path:
    """The run of a recipe that was written to last.

    Raises:
        UsageError: there is none with a checkpoint.
    """
    checkpoints = list((root / recipe).glob("*/checkpoints/last.ckpt"))
    if not checkpoints:
        raise UsageError(f"--ckpt_path last: no checkpoints/last.ckpt in {root / recipe}/*; leave it out to start")
    return max(checkpoints, key=lambda path: path.stat().st_mtime).parent.parent


def folder_of(checkpoint: Path) -> Path:
    """The run folder that a checkpoint or a run folder belongs to."""
    return checkpoint if checkpoint.is_dir() else checkpoint.parent.parent


def checkpoint_in(path: Path, prefer: str) -> Path:
    """The checkpoint that a path means: the file itself, or a run folder's best or last one.

    Args:
        path: checkpoint or run folder.
        prefer: "best" or "last"; the other one is taken where it is missing.

    Raises:
        UsageError: there is no such file, or no checkpoint in the folder.
    """
    if path.is_file():
        return path
    if not path.exists():
        raise UsageError(f"{path}: no such run folder or checkpoint")
    for name in (prefer, "best", "last"):
        found = path / "checkpoints" / f"{name}.ckpt"
        if found.is_file():
            return found
    raise UsageError(f"{path}: no checkpoint in it (looked for checkpoints/best.ckpt and checkpoints/last.ckpt)")

"""Run folders: runs/<recipe>/<job or time>/ and what lies in them."""

import itertools
import os
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cli.names import UsageError
from cli.processes import slurm_job

_INHERITED = "FRESHDRAW_RUN_DIR"  # tells processes that this one starts (DDP) where the run lies


def new_run_folder(root: Path, recipe: str) -> Path:
    """The folder of a new run, the same for all processes of it; made here where its name is the time.

    The SLURM job's id survives a requeue, so that the job finds its checkpoint again; torchrun's --rdzv-id does too.
    """
    inherited = os.environ.get(_INHERITED)
    if inherited and os.environ.get("LOCAL_RANK", "0") != "0":
        return Path(inherited)
    folder = root / recipe / (_job() or _agreed(datetime.now().strftime("%Y-%m-%d_%H-%M-%S")))
    if not _job() and "TORCHELASTIC_RUN_ID" not in os.environ:
        folder = _claimed(folder)
    os.environ[_INHERITED] = str(folder)
    return folder


def _job() -> str | None:
    torchrun = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return slurm_job() or (torchrun if torchrun != "none" else None)


def _claimed(folder: Path) -> Path:
    """The folder, made; with a number behind its name if another run began in the same second."""
    names = itertools.chain([folder.name], (f"{folder.name}_{number}" for number in itertools.count(2)))
    while True:
        candidate = folder.with_name(next(names))
        with suppress(FileExistsError):
            candidate.mkdir(parents=True)
            return candidate


def _agreed(name: str) -> str:
    """One name for all processes that torchrun started: the first that asks its store decides."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return name
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
    if checkpoint.is_dir():
        return checkpoint
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


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

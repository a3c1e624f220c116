"""Where and with which code an evaluation was computed: one line for each time that somebody began or continued it."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_ROOT = Path(__file__).resolve().parent.parent
_SECONDS_FOR_GIT = 10


def environment(device: torch.device, devices: int) -> dict[str, Any]:
    """What the numbers do not depend on by intent, but by rounding, and what their time depends on; as JSON values.

    Args:
        device: of this process.
        devices: of all processes.

    Returns:
        date (ISO 8601, UTC), code (see `code_version`), device, device_name, devices, machine, processor, threads (of
        the CPU, in this process), and the versions of numpy, python, pytorch_lightning and torch.
    """
    threads = torch.get_num_threads()
    return {
        "code": code_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{threads} CPU threads",
        "devices": devices,
        "machine": platform.machine(),
        "numpy": version("numpy"),
        "processor": processor(),
        "python": platform.python_version(),
        "pytorch_lightning": version("pytorch-lightning"),
        "threads": threads,
        "torch": version("torch"),
    }


def processor(told: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name where the system tells it, else its architecture; the same work takes some twice as long.

    Args:
        told: where Linux does, a "model name" for each core.
    """
    try:
        for line in told.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, name = line.partition(":")
            if key.strip() == "model name" and name.strip():
                return " ".join(name.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def note_session(folder: Path, facts: Mapping[str, Any]) -> Path:
    """Append one line to `sessions.jsonl` in the folder of an evaluation: a killed one has it, too.

    Args:
        folder: of the evaluation; it exists.
        facts: as `environment` gives them.

    Returns:
        The file. It is no part of the manifest: an evaluation may go on elsewhere.
    """
    path = folder / "sessions.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts, sort_keys=True) + "\n")
    return path


def code_version(root: Path = _ROOT) -> str:
    """The commit of the code, with "-dirty" behind it if tracked files were changed; outside git the package's version.

    Args:
        root: folder of the packages. Only a checkout of this very folder counts: an installed package may lie inside
            somebody else's.
    """
    return _commit(root) or _installed()


def _commit(root: Path) -> str | None:
    if not (root / ".git").exists():
        return None
    # No tags: the commit alone. No locks: whoever works in the checkout meanwhile must not notice.
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    variables = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=_SECONDS_FOR_GIT)
    except (OSError, subprocess.SubprocessError):  # no git, or a file system that hangs
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _installed() -> str:
    try:
        return version("freshdraw")
    except PackageNotFoundError:  # a copy of the files
        return "unknown"

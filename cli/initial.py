"""Weights that a new run of train.py starts from."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from cli.targets import refusing

if TYPE_CHECKING:
    from torch import nn

_SAYS = "# started from the weights of"


class InitialWeights:
    """A file of weights: .safetensors, a state dict saved by torch.save, or a checkpoint of another run.

    Args:
        file: its path.

    Raises:
        FileNotFoundError: no such file.
        UsageError: damaged, holding code, or no weights.
    """

    def __init__(self, file: Path) -> None:
        from models import network_tensors, read_weights

        tensors = refusing(read_weights, file).tensors
        if file.suffix == ".ckpt":
            tensors = network_tensors(tensors)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        self.file, self.tensors = file, tensors
        self.comment = f"{_SAYS} {file.name} (SHA-256 {digest})\n"  # heads the run's config.yaml

    def copy_into(self, network: "nn.Module") -> None:
        """Start from them.

        Raises:
            UsageError: they belong to another network.
        """
        from models import load_weights

        refusing(load_weights, network, self.tensors, str(self.file))


def comment_of(config: Path | None) -> str:
    """What the config.yaml of a run that goes on says about the weights it started from; "" if nothing."""
    if config is None or not config.is_file():
        return ""
    first = config.read_text().partition("\n")[0]
    return f"{first}\n" if first.startswith(_SAYS) else ""

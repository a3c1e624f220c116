"""How an evaluation doubts itself: its checks, on its first images, after its table is complete."""

from typing import Any, Literal

import torch
from torch import nn

from attacks import Attack
from evaluation import Records, Rows
from evaluation.checks import Check, run_checks

# Images that the checks look at: enough for a difference of some points to stand out of its interval, few enough for
# the checks to cost less than what they check as a rule.
_IMAGES = {"quick": 64, "full": 128}


def checked(
    network: nn.Module,
    split: Any,
    attacks: dict[str, Attack],
    records: Records,
    rows: dict[str, Rows],
    level: Literal["none", "quick", "full"],
    surrogate: nn.Module | None,
) -> list[Check]:
    """The checks of an evaluation, none at level "none".

    Args:
        network: the network, on the device where the checks shall run.
        split: images as uint8 and labels, by index.
        attacks: the suite, by name.
        records: of the evaluation.
        rows: its complete batches, by adversary.
        level: how many checks.
        surrogate: another network, from which attacks are transferred.
    """
    manifest = records.manifest
    if level == "none":
        return []
    n = min(_leading(rows["clean"]), _IMAGES[level])
    if not n:
        return []
    pixels, labels = split[list(range(n))]
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    x = pixels if pixels.is_floating_point() else pixels.float() / 255
    x = x.to(device).contiguous(memory_format=torch.channels_last)
    return run_checks(
        network,
        [(x, labels.to(device))],
        records.folder,
        attacks,
        rows,
        random=manifest["random"],
        shared=manifest["shared"],
        seed=manifest["seed"],
        draws=manifest["draws"],
        level=level,
        surrogate=None if surrogate is None else surrogate.to(device),
        progress=lambda line: print(line, flush=True),
    )


def _leading(rows: Rows) -> int:
    """How many images from the first on are there: an evaluation that ran out of time may lack some in between."""
    missing = (rows.index != range(rows.n)).nonzero()[0]
    return int(missing[0]) if len(missing) else rows.n

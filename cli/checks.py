"""How an evaluation doubts itself: its checks, on its first images, after its table is complete."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from attacks import Attack, evaluating
from cli.names import UsageError
from datamodules.pixels import unit_range
from defenses import Stream, drawing_from
from evaluation import Cost, Records, Rows
from evaluation.checks import Check, cost_of_checks, run_checks

Level = Literal["none", "quick", "full"]

# Images that the checks look at: enough for a difference of some points to stand out of its interval, few enough for
# the checks to cost less than what they check as a rule.
_IMAGES = {"quick": 64, "full": 128}


def checked(
    network: nn.Module,
    split: Any,
    attacks: dict[str, Attack],
    records: Records,
    rows: dict[str, Rows],
    level: Level,
    surrogate: nn.Module | None,
    until: float | None = None,
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
        until: see `run_checks`.
    """
    manifest = records.manifest
    if level == "none":
        return []
    n = min(_leading(rows["clean"]), _IMAGES[level])
    if not n:
        return []
    pixels, labels = split[list(range(n))]
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    x = unit_range(pixels.to(device)).contiguous(memory_format=torch.channels_last)
    # As the evaluation's own: what fits into memory there fits here.
    size = manifest["batch_size"]
    return run_checks(
        network,
        list(zip(torch.split(x, size), labels.to(device).split(size), strict=True)),
        records.folder,
        attacks,
        rows,
        random=manifest["random"],
        shared=manifest["shared"],
        seed=manifest["seed"],
        draws=manifest["draws"],
        level=level,
        surrogate=None if surrogate is None else surrogate.to(device),
        until=until,
        progress=lambda line: print(line, flush=True),
    )


def expected(
    network: nn.Module,
    attacks: dict[str, Attack],
    image: torch.Size,
    manifest: Mapping[str, Any],
    level: Level,
    surrogate: nn.Module | None,
) -> Cost:
    """What the checks of an evaluation are likely to take over all their images.

    Args:
        network: what is evaluated; nothing is asked of it.
        attacks: the suite, by name.
        image: shape of one, [C, H, W].
        manifest: of the evaluation.
        level: how many checks.
        surrogate: another network, from which attacks are transferred.
    """
    if level == "none":
        return Cost()
    each = cost_of_checks(network, attacks, image, manifest["draws"], level, surrogate)
    return each * min(manifest["n"], _IMAGES[level])


def refuse_stranger(surrogate: nn.Module, network: nn.Module, image: Tensor, name: str) -> None:
    """An attack on a network for other images or classes is none on this one.

    Args:
        surrogate: from which attacks would be transferred.
        network: what is evaluated.
        image: [C, H, W], one of its images.
        name: what the user called the surrogate.

    Raises:
        UsageError: the surrogate does not take the image, or answers with another number of classes.
    """
    ours = _answer(network, image)
    shape = " x ".join(map(str, image.shape))
    try:
        theirs = _answer(surrogate, image)
    except (RuntimeError, ValueError, IndexError) as error:
        said = " ".join(str(error).split())
        raise UsageError(f"{name}: this network does not take images of {shape} ({said})") from None
    if ours.shape != theirs.shape:
        raise UsageError(f"{name}: this network knows {theirs.shape[-1]} classes, the evaluated one {ours.shape[-1]}")


@torch.no_grad()
def _answer(network: nn.Module, image: Tensor) -> Tensor:
    parameter = next(network.parameters(), image)
    with evaluating(network), drawing_from(Stream.named("surrogate")):
        logits: Tensor = network(unit_range(image).unsqueeze(0).to(parameter.device))
    return logits


def _leading(rows: Rows) -> int:
    """How many images from the first on are there: an evaluation that ran out of time may lack some in between."""
    missing = (rows.index != range(rows.n)).nonzero()[0]
    return int(missing[0]) if len(missing) else rows.n

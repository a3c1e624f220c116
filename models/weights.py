"""Published weights into our networks: files that hold tensors only, key layouts of others, and no silent misfit."""

import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

# ResNet-20 of the papers' authors (and of He et al. 2019) -> ours.
_AUTHORS_LAYOUT = (
    (r"^conv_1_3x3\.", "conv1."),
    (r"^bn_1\.", "bn1."),
    (r"^stage_(\d)\.(\d)\.", r"layer\1.\2."),
    (r"\.(conv|bn)_a\.", r".\g<1>1."),
    (r"\.(conv|bn)_b\.", r".\g<1>2."),
    (r"^classifier\.", "linear."),
)
# Where our defenses keep things -> the plain name of the same tensor.
_OWN_LAYOUT = (
    (r"^(network\.)+", ""),
    (r"\.parametrizations\.(\w+)\.original$", r".\1"),
    (r"\.parametrizations\.weight\.0\.alpha$", ".alpha_w"),
    (r"\.input_noise\.alpha$", ".alpha_i"),
)


class Weights(NamedTuple):
    """Tensors by name, and what the file says about itself."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_weights(path: Path) -> Weights:
    """Read a .safetensors file, or a state dict saved by `torch.save`, without executing code.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, of another kind, or holding code (one line).
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.suffix != ".safetensors":
        return Weights(_state_dict(load_tensors(path), path), {})
    try:
        with safe_open(path, "pt") as file:
            return Weights({key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {})  # noqa: SIM118
    except SafetensorError:
        raise ValueError(f"{path}: not readable as safetensors (damaged or truncated file)") from None


def load_tensors(path: Path) -> object:
    """`torch.load` of tensors and plain values only.

    Raises:
        ValueError: damaged, or holding code (one line).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol; it loads or it does not
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # A name cut in half looks like one that is not allowed.
        reason = "refused, it holds code or objects beside tensors and plain values (or is damaged)"
        raise ValueError(f"{path}: {reason}") from None
    except Exception as error:  # struct.error, IndexError, ...: whatever a parser of damaged bytes stumbles on
        if isinstance(error, OSError) and error.filename:
            raise  # no permission, for instance: the file may be sound
        raise ValueError(f"{path}: not readable (damaged or truncated file)") from None


def _state_dict(content: object, path: Path) -> dict[str, Tensor]:
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: holds no state dict (names -> tensors)")
    return dict(content)


def network_tensors(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of the state dict of a LightningModule the network's tensors; the module around it keeps what training needs."""
    prefix = "network."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into a network, whatever it is wrapped in, or refuse.

    Names are compared after translation: the authors' layout, prefixes of wrappers, parametrizations; PNI's alphas
    count. Only BatchNorm's counter of batches may be missing.

    Args:
        network: changed in place.
        tensors: a state dict in our layout, torchvision's, or the authors'.
        source: where they come from, for the message.

    Raises:
        ValueError: a tensor is missing, left over or of another shape; the message names them.
    """
    given = {_translate(name, tensors): tensor for name, tensor in tensors.items()}
    wanted = {_plain(name, _OWN_LAYOUT): name for name in network.state_dict()}
    ours = network.state_dict()
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    if len(given) < len(tensors):
        raise ValueError(f"{source}: {len(tensors) - len(given)} of its names mean the same tensor as another one")
    problems = _misfits(given, {name: ours[key] for name, key in wanted.items()}, optional)
    if problems:
        raise ValueError(f"{source} does not fit {_name(network)}: {'; '.join(problems)}")
    network.load_state_dict(
        {key: given[name].reshape(ours[key].shape) if name in given else ours[key] for name, key in wanted.items()}
    )


def _translate(name: str, tensors: Iterable[str]) -> str:
    name = name.removeprefix("module.")
    authors = any("conv_1_3x3." in other for other in tensors)
    return _plain(_plain(name, _OWN_LAYOUT), _AUTHORS_LAYOUT if authors else ())


def _plain(name: str, rules: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def _misfits(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], optional: set[str]) -> list[str]:
    shapes = [
        f"{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        # The authors store a scalar alpha as a vector of one.
        if name in given and given[name].shape != tensor.shape and not given[name].numel() == tensor.numel() == 1
    ]
    kinds = {
        "missing": sorted(wanted.keys() - given.keys() - optional),
        "left over": sorted(given.keys() - wanted.keys()),
        "wrong shape": shapes,
    }
    return [f"{kind} {_some(names)}" for kind, names in kinds.items() if names]


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _name(network: nn.Module) -> str:
    inner = getattr(network, "network", None)
    return type(network).__name__ + (f"({_name(inner)})" if isinstance(inner, nn.Module) else "")

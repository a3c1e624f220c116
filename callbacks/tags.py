"""What a run is found by: its recipe and the classes of its data, training and network."""

from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST = 64  # characters; W&B refuses longer tags


def tags_of(*words: str) -> list[str]:
    """The words, each once, as long as a tag may be."""
    return [word[:_LONGEST] for word in dict.fromkeys(words) if word]


def classes_in(config: Mapping[str, Any]) -> Iterator[str]:
    """The classes of data set, training, network and what the network is wrapped in, from a resolved config."""
    model = config.get("model")
    yield from filter(None, (_class(config.get("data")), _class(model)))
    network = model
    while isinstance(network, Mapping) and isinstance(network.get("init_args"), Mapping):
        network = network["init_args"].get("network")
        yield from filter(None, [_class(network)])


def _class(part: Any) -> str:
    return str(part["class_path"]).rpartition(".")[2] if isinstance(part, Mapping) and "class_path" in part else ""

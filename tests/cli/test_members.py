"""Networks that cannot be shown the same images are told apart before any work."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from cli.members import common_classes, common_data, divided, named
from cli.names import UsageError


def target(recipe: str = "adv", data: str = "datamodules.CIFAR10", **arguments: Any) -> Any:
    init = SimpleNamespace(as_dict=lambda: arguments)
    config = SimpleNamespace(data=SimpleNamespace(class_path=data, init_args=init))
    return SimpleNamespace(recipe=recipe, cli=SimpleNamespace(config=config))


def test_networks_are_the_words_that_belong_to_no_option() -> None:
    assert divided(["a", "--n", "a", "b=c", "--eps=0.1", "a"]) == (["a", "b=c", "a"], ["--n", "a", "--eps=0.1"])


def test_names_are_recipes_with_a_number_where_they_repeat() -> None:
    found = [target("adv"), target("plain"), target("adv")]
    assert dict(zip(["adv_1", "plain", "adv_2"], found, strict=True)) == named(found)


def test_the_test_set_is_the_same_whatever_is_set_aside() -> None:
    targets = {"a": target(val_images=5000, seed=0, root="x"), "b": target(val_images=100, seed=1, root="y")}
    assert common_data(targets, "test") == {"class_path": "datamodules.CIFAR10"}
    with pytest.raises(UsageError, match="a has CIFAR10, val_images 5000, seed 0 and b has CIFAR10, val_images 100, s"):
        common_data(targets, "val")
    with pytest.raises(UsageError, match="--split test: a has CIFAR10 and b has SVHN"):
        common_data({"a": target(), "c": target(), "b": target(data="datamodules.SVHN")}, "test")


def test_classes_are_what_the_networks_answer() -> None:
    image = torch.zeros(1, 3, 4, 4)
    ten, seven = (nn.Sequential(nn.Flatten(), nn.Linear(48, classes)) for classes in (10, 7))
    assert common_classes({"a": ten, "b": ten}, image) == 10
    with pytest.raises(UsageError, match="same number of classes: a has 10, b has 7"):
        common_classes({"a": ten, "b": seven}, image)
    with pytest.raises(UsageError, match=r"b does not take images of 1x4x4, those of the data set: .*shapes"):
        common_classes({"b": ten}, image[:, :1])

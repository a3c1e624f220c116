"""Several networks on one command line: which they are, and that they can be shown the same images."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from cli.names import UsageError
from cli.targets import Target
from defenses import Stream, drawing_from
from evaluation import judge


def divided(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that name networks, and the others: options with their values.

    >>> divided(["a", "--n", "5", "adv=b.pth", "--eps=0.1", "c"])
    (['a', 'adv=b.pth', 'c'], ['--n', '5', '--eps=0.1'])
    """
    places: list[str] = []
    options: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        is_value = before.startswith("--") and "=" not in before
        (options if is_value or word.startswith("--") else places).append(word)
    return places, options


def named(targets: Sequence[Target]) -> dict[str, Target]:
    """Each by its recipe, with a number where a recipe takes part more than once."""
    recipes = [target.recipe for target in targets]
    return {
        f"{recipe}_{recipes[: k + 1].count(recipe)}" if recipes.count(recipe) > 1 else recipe: targets[k]
        for k, recipe in enumerate(recipes)
    }


def common_data(targets: Mapping[str, Target], split: str) -> dict[str, Any]:
    """The data set that all networks belong to, as a manifest has it.

    Raises:
        UsageError: they belong to different ones, or cut the training set in different ways.
    """
    found = {}
    for name, target in targets.items():
        data = target.cli.config.data
        arguments = {k: v for k, v in data.init_args.as_dict().items() if k in ("val_images", "seed")}
        # The test set is the same however many images are set aside for validation.
        found[name] = {"class_path": data.class_path, **(arguments if split != "test" else {})}
    first, *others = found
    for name in others:
        if found[name] != found[first]:
            shown = " and ".join(f"{one} has {_shown(found[one])}" for one in (first, name))
            raise UsageError(f"all networks must share the data of --split {split}: {shown}; --data NAME is for all")
    return found[first]


def common_classes(models: Mapping[str, nn.Module], image: Tensor) -> int:
    """How many classes all networks tell apart: each is asked about one image.

    Args:
        models: by name.
        image: [1, C, H, W] in [0, 1].

    Raises:
        UsageError: they differ, or one of them does not take the image.
    """
    classes = {}
    for name, model in models.items():
        try:
            with drawing_from(Stream.named("tried")):
                classes[name] = judge(model, image, 1).probs.shape[1]
        except (RuntimeError, ValueError, IndexError) as error:
            shape, reason = "x".join(map(str, image.shape[1:])), str(error).splitlines()[0]
            raise UsageError(f"{name} does not take images of {shape}, those of the data set: {reason}") from None
    if len(set(classes.values())) > 1:
        known = ", ".join(f"{name} has {number}" for name, number in classes.items())
        raise UsageError(f"all networks must have the same number of classes: {known}")
    return next(iter(classes.values()))


def _shown(data: Mapping[str, Any]) -> str:
    name = data["class_path"].rsplit(".", 1)[-1]
    return ", ".join([name, *(f"{key} {value}" for key, value in data.items() if key != "class_path")])

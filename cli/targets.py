"""What evaluate.py evaluates: a run's network and data, or a recipe's with published weights. Never random weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.names import Invocation, UsageError, recipes, resolve, unknown
from cli.runs import checkpoint_in, folder_of

if TYPE_CHECKING:
    from torch import nn

    from cli.parser import ConfiguredCLI


@dataclass
class Target:
    """What is evaluated: the network and data of a configuration, with the weights of a file in it.

    Attributes:
        cli: the configuration, built.
        source: file of the weights.
        folder: where evaluations of it go.
        recipe: name of the recipe.
    """

    cli: "ConfiguredCLI"
    source: Path
    folder: Path
    recipe: str

    @property
    def network(self) -> "nn.Module":
        """Images in [0, 1] -> logits."""
        network: nn.Module = self.cli.model.network
        return network


def target_of(invocation: Invocation) -> Target:
    """The network that a command line names, as a run or checkpoint, or as weights and their recipe.

    Raises:
        UsageError: it names none, two, or one that is not there.
    """
    places = [word for word in invocation.options if not word.startswith("--")]
    invocation.options = [word for word in invocation.options if word.startswith("--")]
    weights = invocation.taken.get("--weights")
    if len(places) + (weights is not None) != 1:
        raise UsageError("give one run folder or checkpoint, or --weights FILE --model RECIPE; see --help")
    if weights is not None:
        return from_weights(Path(weights), invocation)
    return from_run(checkpoint_in(Path(places[0]), prefer="best"), invocation)


def target_at(place: str, options: list[str], take: tuple[str, ...] = ()) -> Target:
    """The network that one word names: a run folder or checkpoint, or RECIPE=WEIGHTS_FILE.

    Args:
        place: the word.
        options: what else the command line says about networks and data.
        take: options among them that are not about either.

    Raises:
        UsageError: there is no such run, recipe or file.
    """
    recipe, _, file = place.partition("=")
    if not file:
        return from_run(checkpoint_in(Path(place), prefer="best"), resolve(options, take=take))
    if recipe not in recipes():
        raise UsageError(unknown("recipe", recipe, recipes(), "RECIPE=WEIGHTS_FILE"))
    return from_weights(Path(file), resolve([*options, f"--model={recipe}"], take=take))


def from_run(checkpoint: Path, invocation: Invocation) -> Target:
    """A run's model and data as they were configured, with the weights of one of its checkpoints."""
    import yaml

    from callbacks import CONFIG_KEY
    from models import load_tensors, network_tensors

    content = refusing(load_tensors, checkpoint)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UsageError(f"{checkpoint}: no checkpoint of train.py (for bare weights: --weights FILE --model RECIPE)")
    saved = content.get(CONFIG_KEY)
    if not saved and invocation.config is None:
        raise UsageError(f"{checkpoint}: holds no configuration; say which recipe it belongs to: --model RECIPE")
    settings = yaml.safe_load(saved["yaml"]) if saved and invocation.config is None else {}
    kept = {key: settings[key] for key in ("model", "data", "seed_everything") if key in settings}
    tensors = network_tensors(content["state_dict"])
    recipe = invocation.recipe or str(saved["recipe"] if saved else "")
    return _loaded(invocation, [kept] if kept else [], tensors, checkpoint, folder_of(checkpoint), recipe)


def from_weights(path: Path, invocation: Invocation) -> Target:
    """A recipe's network with published weights."""
    from models import read_weights

    if invocation.recipe is None:
        raise UsageError(f"--weights needs --model, the recipe they belong to; recipes: {', '.join(recipes())}")
    weights = refusing(read_weights, path)
    folder = Path("runs") / "weights" / path.stem
    target = _loaded(invocation, [], weights.tensors, path, folder, invocation.recipe)
    _compare_noise(target, weights.metadata)
    return target


def _loaded(
    invocation: Invocation, configs: list[dict[str, Any]], tensors: Any, source: Path, folder: Path, recipe: str
) -> Target:
    from cli.parser import ConfiguredCLI
    from models import load_weights

    cli = ConfiguredCLI(invocation, configs)
    refusing(load_weights, cli.model.network, tensors, str(source))
    return Target(cli, source, folder, recipe)


def refusing(function: Any, *arguments: Any) -> Any:
    """Call something that judges the user's files: what it refuses is the user's to mend."""
    try:
        return function(*arguments)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _compare_noise(target: Target, metadata: dict[str, str]) -> None:
    """Noise at another level than in training ruins an evaluation: refuse it where the file says its level."""
    from defenses import RobustNet

    network = target.network
    said = {level: float(metadata[f"noise_{level}"]) for level in ("init", "inner") if f"noise_{level}" in metadata}
    used = network.noise_levels if isinstance(network, RobustNet) else dict.fromkeys(said, 0.0)
    if wrong := [level for level in said if used[level] != said[level]]:
        texts = [f"{level} noise {said[level]:g} (the model: {used[level]})" for level in wrong]
        options = " ".join(f"--model.network.{level}.std {said[level]:g}" for level in wrong)
        raise UsageError(
            f"{target.source} was trained with {', '.join(texts)}; add {options}, or choose the recipe it belongs to"
        )

"""LightningCLI with one-line errors and with the facts that one part of a configuration knows about another."""

import importlib
import inspect
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

import datamodules  # noqa: F401  (imported so that the names of its classes resolve)
import defenses  # noqa: F401
import lightning_modules  # noqa: F401
import models  # noqa: F401
from attacks import Attack
from callbacks import at_radius
from cli.messages import shorten
from cli.names import CONFIGS, Invocation, UsageError, number

DEFAULT_DATA = "datamodules.CIFAR10"
_FROM_DATA = ("num_classes", "in_channels", "image_size")


class Parser(LightningArgumentParser):
    """Raises `UsageError` with one line instead of printing usage and leaving."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Called by jsonargparse with everything that it knows about a mistake."""
        options = [action.dest for action in self._actions]
        raise UsageError(shorten(message, options)) from ex


class ConfiguredCLI(LightningCLI):
    """Model, data and trainer from defaults, recipe and command line, in this order, built but not run.

    Args:
        invocation: the command line with its names resolved.
        configs: settings as in a YAML file, between the recipe and the command line.
    """

    def __init__(self, invocation: Invocation, configs: Sequence[dict[str, Any]] = ()) -> None:
        recipe = [read_settings(invocation.config)] if invocation.config else []
        # jsonargparse reads from left to right: files come first, then classes, then what lies in them.
        files = [option for option in invocation.options if option.startswith("--config=")]
        options = sorted((option for option in invocation.options if option not in files), key=_depth)
        more = [read_settings(Path(file.removeprefix("--config="))) for file in files]
        arguments = [*_settings([*recipe, *configs, *more], options), *options]
        with warnings.catch_warnings():
            # It cannot know that the arguments do come from the command line.
            warnings.filterwarnings("ignore", "LightningCLI's args parameter", UserWarning)
            try:
                super().__init__(
                    run=False,
                    args=arguments,
                    parser_class=Parser,
                    parser_kwargs={"default_config_files": [str(CONFIGS / "defaults.yaml")], "allow_abbrev": False},
                    save_config_callback=None,
                    seed_everything_default=0,
                    auto_configure_optimizers=False,
                    load_from_checkpoint_support=False,
                )
            except (ValueError, TypeError) as error:  # a constructor refused its arguments
                raise UsageError(shorten(str(error), [])) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The rule by which the best checkpoint is chosen."""
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")

    def before_instantiate_classes(self) -> None:
        """Tell the network what the images are, and all parts the seed."""
        data = _class_of(self.config.data)
        facts = {
            "num_classes": getattr(data, "num_classes", None),
            "in_channels": getattr(data, "channels", None),
            "image_size": getattr(data, "image_size", None),
        }
        for part in _classes(self.config.model):
            accepted = inspect.signature(_class_of(part)).parameters
            for name in _FROM_DATA:
                if name in accepted and facts[name] is not None:
                    part.init_args[name] = facts[name]
        for part in (self.config.model, self.config.data):
            if "seed" in inspect.signature(_class_of(part)).parameters:
                part.init_args["seed"] = int(self.config.seed_everything)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer | None:  # type: ignore[override]
        """None: the trainer is built when the folder of the run is known."""
        return None

    def config_text(self) -> str:
        """Model, data and training as YAML, everything resolved."""
        text: str = self.parser.dump(self.config, skip_none=False, skip_validation=True)
        return text


def _depth(option: str) -> int:
    return option.partition("=")[0].count(".")


def _settings(contents: list[dict[str, Any]], options: Sequence[str]) -> list[str]:
    """Settings as arguments, with a data set: the command line's, else the files', else CIFAR-10.

    A data set on the command line takes the place of a file's whole section: jsonargparse would hand arguments of the
    old class that the new one has too, its number of validation images say, on to the new one.
    """
    contents = [dict(content) for content in contents]
    chosen = any(option.startswith("--data=") for option in options)
    for content in contents if chosen else []:
        content.pop("data", None)
    if not chosen and not any("data" in content for content in contents):
        contents.insert(0, {"data": {"class_path": DEFAULT_DATA}})
    return [f"--config={yaml.safe_dump(content)}" for content in contents]


def read_settings(file: Path) -> dict[str, Any]:
    """The content of a YAML file of settings, fractions such as 8/255 as numbers.

    Raises:
        UsageError: it is no YAML, or no settings.
    """
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: no YAML file ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UsageError(f"{file}: holds {type(content).__name__}, not settings (name: value)")
    settings: dict[str, Any] = _with_fractions(content)
    return settings


def _with_fractions(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_fractions(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_fractions(part) for part in value]
    if isinstance(value, str) and (decimal := number(value)) != value:
        return float(decimal)
    return value


def read_suite(file: Path, eps: float | None) -> dict[str, Attack]:
    """The attacks of a suite by the names of their adversaries.

    Args:
        file: YAML, name -> class_path and init_args of an attack.
        eps: radius that takes the place of the file's, for attacks that have one.

    Raises:
        UsageError: the file does not describe attacks.
    """
    parser = Parser()
    parser.add_argument("--suite", type=dict[str, Attack])
    settings = yaml.safe_dump(read_settings(file), sort_keys=False)
    try:
        parsed = parser.parse_args([f"--suite={settings}"])
        attacks_by_name: dict[str, Attack] = parser.instantiate(parsed).suite
    except (UsageError, ValueError) as error:  # the parser or a constructor refused
        raise UsageError(f"{file}: {shorten(str(error), [])}") from error
    if eps is None:
        return attacks_by_name
    return {name: at_radius(attack, eps) for name, attack in attacks_by_name.items()}


def _class_of(part: Namespace) -> type:
    module, _, name = part.class_path.rpartition(".")
    found: type = getattr(importlib.import_module(module), name)
    return found


def _classes(part: Namespace) -> Iterator[Namespace]:
    """All nested configurations that name a class."""
    if "class_path" in part:
        if part.get("init_args") is None:
            part["init_args"] = Namespace()  # type: ignore[no-untyped-call]
        yield part
    for value in vars(part).values():
        if isinstance(value, Namespace):
            yield from _classes(value)

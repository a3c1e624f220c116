"""Short names on the command line, resolved before anything heavy is imported.

A recipe is a file in configs/models, a suite a file in configs/suites, a class whatever a package exports.
"""

import ast
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
_FRACTION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)/(\d+(?:\.\d*)?)")


class UsageError(Exception):
    """Wrong input from the command line: its message is the one line that the user sees (exit code 2)."""


@dataclass
class Invocation:
    """A command line with the names resolved.

    Attributes:
        recipe: name of the recipe or class after --model; names the folder of the run.
        config: the recipe's file, None for a class.
        options: what is left for the parser, in the user's order.
        taken: values of the options that the caller asked to have taken out.
    """

    recipe: str | None = None
    config: Path | None = None
    options: list[str] = field(default_factory=list)
    taken: dict[str, str] = field(default_factory=dict)


def resolve(arguments: Sequence[str], take: Iterable[str] = ()) -> Invocation:
    """Replace names by what they stand for.

    Args:
        arguments: the words after the program's name.
        take: options (with dashes) that go to `Invocation.taken` instead of `options`.

    Raises:
        UsageError: a name is unknown; the message has the nearest known ones.
    """
    found = Invocation()
    for option, value in _pairs(arguments):
        if option in take:
            found.taken[option] = _given(option, value)
        elif option == "--model":
            _resolve_model(found, value)
        else:
            found.options.append(_translated(option, value))
    return found


def changed(arguments: Sequence[str], options: dict[str, str]) -> list[str]:
    """The same command line with other values of some options, which come last.

    >>> changed(["runs/a", "--n", "50", "--seed=1"], {"--seed": "2"})
    ['runs/a', '--n', '50', '--seed', '2']
    """
    words: list[str] = []
    for option, value in _pairs(arguments):
        if option not in options and f"--{option}" not in options:
            words += [option] if value is None else [option, value]
    return [*words, *(word for pair in options.items() for word in pair)]


def _given(option: str, value: str | None) -> str:
    if value is None:
        raise UsageError(f"{option} needs a value")
    return value


def _translated(option: str, value: str | None) -> str:
    if option == "--data":
        return f"--data={_data_set(value)}"
    if option == "--seed":
        if value is None or not value.isdecimal():
            raise UsageError(f"--seed takes a whole number >= 0, got '{value or ''}'")
        return f"--seed_everything={value}"
    return option if value is None else f"{option}={number(value)}"


def _pairs(arguments: Sequence[str]) -> Iterable[tuple[str, str | None]]:
    """Options with their values, whether written `--a b` or `--a=b`; words without an option stand alone."""
    words = list(arguments)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            yield word, None
        elif "=" in word:
            option, value = word.split("=", 1)
            yield option, value
        else:
            yield word, words.pop(0) if words and not words[0].startswith("--") else None


def _resolve_model(found: Invocation, value: str | None) -> None:
    known = recipes()
    if value in known:
        found.recipe, found.config = value, known[value]
    elif value and value.endswith((".yaml", ".yml")):
        if not Path(value).is_file():
            raise UsageError(f"--model {value}: no such file")
        found.recipe, found.config = Path(value).stem, Path(value)
    elif value and "." in value:
        found.recipe = value.rsplit(".", 1)[1]
        found.options.append(f"--model={value}")
    else:
        raise UsageError(unknown("recipe", value, known, "see configs/models"))


def _data_set(value: str | None) -> str:
    """The class path that a name, in any case, stands for; class paths of the user's own pass through."""
    names = data_sets()
    by_lower = {name.lower(): name for name in names}
    if value and value.lower() in by_lower:
        return f"datamodules.{by_lower[value.lower()]}"
    if value and "." in value:
        return value
    raise UsageError(unknown("data set", value, names))


def data_sets() -> list[str]:
    """The data sets by the names of their classes."""
    return [name for name in exported("datamodules") if not name.endswith("DataModule")]


def recipes() -> dict[str, Path]:
    """The recipes by name."""
    return _yaml_files("models")


def suites() -> dict[str, Path]:
    """The suites of attacks by name."""
    return _yaml_files("suites")


def _yaml_files(folder: str) -> dict[str, Path]:
    return {path.stem: path for path in sorted((CONFIGS / folder).glob("*.yaml"))}


def exported(package: str) -> list[str]:
    """The names in `__all__` of a package of this project, read without importing it."""
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    raise LookupError(f"{package}/__init__.py has no __all__")


def unknown(kind: str, given: str | None, known: Iterable[str], where: str = "") -> str:
    """One line: what was given, the nearest known names, or all of them where none is near."""
    known = sorted(known)
    if not given:
        return f"no {kind} given; known: {', '.join(known)}"
    near = nearest(given, known)
    tail = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
    return f"unknown {kind} '{given}'; {tail}" + (f" ({where})" if where else "")


def nearest(given: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that look like `given`, best first; case does not count."""
    by_lower = {name.lower(): name for name in known}
    return [by_lower[match] for match in difflib.get_close_matches(given.lower(), by_lower, most)]


def number(value: str) -> str:
    """A fraction such as 8/255 as a decimal; anything else as it is.

    >>> number("1/4"), number("data/8")
    ('0.25', 'data/8')
    """
    match = _FRACTION.fullmatch(value)
    if match is None or float(match[2]) == 0:
        return value
    return repr(float(match[1]) / float(match[2]))


def number_in(taken: dict[str, str], option: str, kind: Any, least: int) -> Any:
    """The value of an option as an int or a float, fractions such as 8/255 included; None if it was not given.

    Raises:
        UsageError: it is no such number, or below `least`.
    """
    if option not in taken:
        return None
    given = taken[option]
    try:
        value = kind(number(given))
    except ValueError:
        value = None
    if value is None or not least <= value < float("inf"):
        what = "a whole number" if kind is int else "a number such as 0.031 or 8/255,"
        raise UsageError(f"{option} takes {what} >= {least}, got '{given}'")
    return value

"""One clear line for the user where jsonargparse would print a page."""

import importlib
import inspect
import re
from collections.abc import Iterable

from cli.names import exported, nearest, unknown

_PACKAGES = ("attacks", "datamodules", "defenses", "lightning_modules", "models")
_CLASS = re.compile(r"Problem with given class_path '([\w.]+)'")
_NOT_ACCEPTED = re.compile(r"Option '([\w.]+)' is not accepted")
_UNRECOGNIZED = re.compile(r"unrecognized arguments: --([\w.]+)")
_NO_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_KEY = re.compile(r'(?:Parser key|key) "?([\w.]+)"?')


def shorten(message: str, options: Iterable[str]) -> str:
    """The heart of an error of jsonargparse, with the nearest valid names.

    Args:
        message: as jsonargparse formats it: an outline whose deepest lines say what is wrong.
        options: the parser's own option names, without dashes.
    """
    owner = (_CLASS.findall(message) or [None])[-1]
    if match := _NOT_ACCEPTED.search(message) or _UNRECOGNIZED.search(message):
        return _unknown_option(match[1], owner, options)
    if match := _NO_CLASS.search(message):
        key = (_KEY.findall(message) or ["class"])[-1]
        names = [name for package in _PACKAGES for name in exported(package) if name[0].isupper()]
        return f"{key}: {unknown('class', match[1], names)}"
    return _innermost(message)


def _unknown_option(given: str, owner: str | None, options: Iterable[str]) -> str:
    """`given` is the path of the option as typed, below `owner` where that is known."""
    head, _, rest = given.partition(".")
    known = _parameters(owner) if owner else list(options)
    if owner and head in known and rest:  # the fault lies deeper, in settings that are no class of their own
        return f"{owner.rsplit('.', 1)[1]}: '{head}' has no option '{rest}'"
    near = nearest(head if owner else given, known)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; known: {', '.join(known)}" if owner else ""
    place = f" of {owner.rsplit('.', 1)[1]}" if owner else ""
    return f"unknown option '{head if owner else '--' + given}'{place}{hint}"


def _parameters(class_path: str) -> list[str]:
    module, _, name = class_path.rpartition(".")
    return [p for p in inspect.signature(getattr(importlib.import_module(module), name)).parameters if p != "self"]


def _innermost(message: str) -> str:
    """The line that says what was expected, behind the innermost key that it belongs to."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    facts = [
        line for line in lines if line.startswith(("Expected", "Not a valid", "Unable")) and "NoneType" not in line
    ]
    keys = _KEY.findall(message)
    if not facts:
        return lines[-1] if lines else "wrong arguments"
    fact = re.sub(r"<class '([\w.]+)'>", r"\1", facts[-1])
    return f"{keys[-1]}: {fact}" if keys else fact

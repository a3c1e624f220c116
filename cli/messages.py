"""One clear line for the user where jsonargparse would print a page."""

import re
from collections.abc import Iterable

from cli.names import exported, nearest, unknown

_PACKAGES = ("attacks", "datamodules", "defenses", "lightning_modules", "models")
_UNKNOWN_OPTION = re.compile(
    r"Option '(?P<a>[\w.]+)' is not accepted|unrecognized arguments: (?:--)?(?P<b>[^=\s]+)"
    r"|Group '(?P<group>[\w.]+)' does not accept option '(?P<c>[\w.]+)'"
)
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)|module '(\w+)' has no attribute '(\w+)'")
_KEY = re.compile(r'^Parser key "([\w.]+)"')
_NESTED = re.compile(r"Given value: NestedArg\(key='([\w.]+)', val='(.*)'\)", re.DOTALL)
_VALUE = re.compile(r"Given value: (\S+)$")
_EXPECTED = re.compile(r"Expected an? (?:<class '(?:\w+\.)*(\w+)'>|typing\.Literal\[(.*?)\])(?=$|\. Got| )")
# What jsonargparse wraps around the fact itself, and the type that every optional setting has besides its own.
_WRAPPING = (
    "Parser key", "Does not validate", "Subtypes:", "Errors:", "Given value", "Problem with given class_path",
    "Expected a path", "Expected a <class 'NoneType'>",
)  # fmt: skip


def shorten(message: str, options: Iterable[str]) -> str:
    """The heart of an error of jsonargparse, with the place, the given value and the nearest valid names.

    The parser of a nested class calls this first, knowing the options of that class; the line that it makes arrives
    inside the message of the parser around it, which knows the place.

    Args:
        message: as jsonargparse formats it: an outline whose deepest lines say what is wrong.
        options: the parser's own option names, without dashes.
    """
    lines = [line.strip(" -") for line in message.splitlines()]
    facts = [line for line in lines if line and not line.startswith(_WRAPPING)]
    fact = _explained(" or ".join(dict.fromkeys(facts)) or "wrong arguments", options)
    place, value = _place(message)
    if value and "expected" in fact and "got" not in fact:
        fact = f"{fact}, got '{value}'"
    # The nested parser said the last part of the place already.
    inner, colon, rest = fact.partition(": ")
    fact = rest if colon and place.endswith(inner) else fact
    return f"{place}: {fact}" if place else fact


def _place(message: str) -> tuple[str, str]:
    """Where the mistake is, as the user would type it, and the value given there; both may be empty."""
    key = _KEY.match(message)
    if key is None:
        return "", ""
    if nested := _NESTED.search(message):
        return f"--{key[1]}.{nested[1]}", nested[2]
    value = _VALUE.search(message)
    return key[1], value[1] if value else ""


def _explained(fact: str, options: Iterable[str]) -> str:
    if match := _UNKNOWN_OPTION.search(fact):
        group = f"{match['group']}." if match["group"] else ""
        return _unknown_option(group + (match["a"] or match["b"] or match["c"]), options)
    if match := _UNKNOWN_CLASS.search(fact):
        packages = [match[2]] if match[2] in _PACKAGES else [] if match[2] else _PACKAGES
        names = [name for package in packages for name in exported(package) if name[0].isupper()]
        return _unknown_class(match[1] or match[3], names) if names else fact
    if expected := _EXPECTED.findall(fact):
        given = re.search(r"Got value: (.*)", fact)
        kinds = [kind or values.replace("'", "") for kind, values in expected]
        return f"expected {' or '.join(kinds)}" + (f", got '{given[1]}'" if given else "")
    return fact


def _unknown_class(given: str, names: Iterable[str]) -> str:
    if nearest(given, names):
        return unknown("class", given, names)
    return f"unknown class '{given}'; known are those of {', '.join(_PACKAGES)}, and your own as package.Class"


def _unknown_option(given: str, options: Iterable[str]) -> str:
    # argparse's own: "ball.help" prints the options of a class.
    known = [option for option in options if not option.endswith("help") and option != "print_shtab"]
    head = given.partition(".")[0]
    # Settings of a nested class are known to that class only: below a wrong head nothing can be compared.
    heads = {option.partition(".")[0] for option in known}
    near = nearest(given if head in heads else head, known)
    tail = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(sorted(heads))}"
    return f"unknown option '{given}'; {tail}"

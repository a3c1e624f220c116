"""Suites of attacks by name, from YAML or ready-made, and the same suite at other radii."""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser

from attacks import Attack, Ball

SUITES = Path(__file__).resolve().parent.parent / "configs" / "suites"


def read_suite(suite: str | Path | Mapping[str, Attack]) -> dict[str, Attack]:
    """The attacks of a suite by the names of their adversaries.

    Args:
        suite: name of a file in configs/suites, path of a YAML file (name -> class_path and init_args of an attack,
            numbers also as fractions such as 8/255), or the attacks themselves.

    Raises:
        ValueError: there is no such suite, or it does not describe attacks; one line that says which and why.
    """
    if isinstance(suite, Mapping):
        return _checked(dict(suite), "a suite")
    known = {path.stem: path for path in sorted(SUITES.glob("*.yaml"))}
    file = known.get(str(suite), Path(suite))
    if not file.is_file():
        raise ValueError(f"suite '{suite}' is neither a file nor one of {', '.join(known)}")
    try:
        settings = _with_fractions(yaml.safe_load(file.read_text()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: no YAML file ({' '.join(str(error).split())})") from None
    return _checked(_built(settings, file), str(file))


def at_radius(attack: Attack, eps: float) -> Attack:
    """The attack with every ball in it, and in the attacks inside it, of radius `eps` in pixels of [0, 1]."""
    changed: Attack = _resized(attack, eps)
    return changed


def at_radii(
    attacks: Mapping[str, Attack], radii: Sequence[float | str]
) -> tuple[dict[str, Attack], dict[str, dict[str, float]]]:
    """A suite at one or several radii.

    Args:
        attacks: by the names of their adversaries.
        radii: in pixels of [0, 1], also as text such as 8/255. A single one keeps the names; several make
            `NAME_eps0.0078431` and so on of each attack that has a ball. None at all changes nothing.

    Returns:
        The attacks by name, and for each attack that is there several times {name: {name at a radius: radius}}.

    Raises:
        ValueError: a radius is no finite number >= 0, or two of them have the same name.
    """
    sizes = [_radius(eps) for eps in radii]
    if len({_shown(eps) for eps in sizes}) < len(sizes):
        raise ValueError(f"radii must differ in their first five digits, got {', '.join(map(str, radii))}")
    if len(sizes) < 2:
        return {name: at_radius(attack, *sizes) if sizes else attack for name, attack in attacks.items()}, {}
    found: dict[str, Attack] = {}
    curves: dict[str, dict[str, float]] = {}
    for name, attack in attacks.items():
        if at_radius(attack, sizes[0]) == at_radius(attack, sizes[1]):  # it has no ball
            found[name] = attack
            continue
        curves[name] = {f"{name}_eps{_shown(eps)}": eps for eps in sizes}
        found |= {at: at_radius(attack, eps) for at, eps in curves[name].items()}
    return found, curves


def _shown(eps: float) -> str:
    return f"{eps:.5g}"


def _radius(eps: float | str) -> float:
    value = _with_fractions(eps)
    with suppress(ValueError):
        if 0 <= (value := float(value)) < float("inf"):
            return value
    raise ValueError(f"a radius must be a finite number >= 0 in pixels of [0, 1], such as 8/255, got {eps}")


def _resized(part: Any, eps: float) -> Any:
    if isinstance(part, Ball):
        return dataclasses.replace(part, eps=eps)
    if isinstance(part, list | tuple):
        return type(part)(_resized(inner, eps) for inner in part)
    if not isinstance(part, Attack):
        return part
    fields = [field.name for field in dataclasses.fields(part) if field.init]  # type: ignore[arg-type]
    return dataclasses.replace(part, **{name: _resized(getattr(part, name), eps) for name in fields})  # type: ignore[type-var]


def _built(settings: Any, file: Path) -> dict[str, Attack]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--suite", type=dict[str, Attack])
    try:
        parsed = parser.parse_args([f"--suite={yaml.safe_dump(settings, sort_keys=False)}"])
        attacks: dict[str, Attack] = parser.instantiate(parsed).suite
    except Exception as error:  # jsonargparse's own kinds, argparse's, and whatever a constructor raises
        raise ValueError(f"{file}: does not describe attacks ({_heart(str(error))})") from error
    return attacks


def _heart(message: str) -> str:
    """Of jsonargparse's outline the deepest lines, which say what is wrong."""
    lines = [line for line in message.splitlines() if line.strip(" -")]
    deepest = max((len(line) - len(line.lstrip(" -")) for line in lines), default=0)
    facts = [line.strip(" -") for line in lines if len(line) - len(line.lstrip(" -")) == deepest]
    return "; ".join(dict.fromkeys(facts))


def _checked(attacks: dict[str, Attack], source: str) -> dict[str, Attack]:
    if not attacks or not all(isinstance(attack, Attack) for attack in attacks.values()):
        raise ValueError(f"{source} must hold attacks by name, at least one, got {attacks or 'none'}")
    if taken := {"clean", "worst_case"} & set(attacks):
        raise ValueError(f"{source} calls an attack {taken.pop()}, the name of a number that every evaluation has")
    return attacks


def _with_fractions(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_fractions(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_with_fractions(part) for part in value]
    if isinstance(value, str) and "/" in value:
        with suppress(ValueError, ZeroDivisionError):
            return float(Fraction(value))
    return value

"""Suites by name, from a file or as they are, and at other radii."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from attacks import DDN, PGD, Adversary, Attack, Ball, Linf
from callbacks.suites import SUITES, at_radii, at_radius, read_suite

PGD3 = PGD(Linf(0.1), step_size=0.05, steps=3)
FILE = """
pgd3:
  class_path: attacks.PGD
  init_args: {ball: {class_path: attacks.Linf, init_args: {eps: 1/10}}, step_size: 0.05, steps: 3}
"""


def balls(part: Any) -> Iterator[Ball]:
    if isinstance(part, Ball):
        yield part
    elif isinstance(part, list | tuple):
        for inner in part:
            yield from balls(inner)
    elif isinstance(part, Attack):
        for field in dataclasses.fields(part):  # type: ignore[arg-type]
            yield from balls(getattr(part, field.name))


def test_by_name_by_path_and_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(FILE)
    assert read_suite(tmp_path / "mine.yaml") == read_suite(str(tmp_path / "mine.yaml")) == {"pgd3": PGD3}
    assert read_suite({"pgd3": PGD3}) == {"pgd3": PGD3}
    assert read_suite("pgd") == {f"pgd{steps}": PGD(Linf(0.031), step_size=0.01, steps=steps) for steps in (7, 20, 40)}


@pytest.mark.parametrize("name", [path.stem for path in sorted(SUITES.glob("*.yaml"))])
def test_every_suite_is_read_and_a_radius_reaches_every_ball(name: str) -> None:
    attacks = read_suite(name)
    for attack in attacks.values():
        resized = list(balls(at_radius(attack, 0.3)))
        assert len(resized) == len(list(balls(attack)))
        assert {ball.eps for ball in resized} <= {0.3}


def test_several_radii_make_several_adversaries_of_what_has_a_ball() -> None:
    suite = {"eot": Adversary(PGD3, draws=2), "ddn": DDN(steps=3)}
    attacks, radii = at_radii(suite, ["2/255", 8 / 255])
    assert list(attacks) == ["eot_eps0.0078431", "eot_eps0.031373", "ddn"]
    assert radii == {"eot": {"eot_eps0.0078431": 2 / 255, "eot_eps0.031373": 8 / 255}}
    assert attacks["eot_eps0.031373"] == Adversary(PGD(Linf(8 / 255), step_size=0.05, steps=3), draws=2)
    assert attacks["ddn"] is suite["ddn"]


def test_one_radius_keeps_the_names_and_none_changes_nothing() -> None:
    suite: dict[str, Attack] = {"pgd3": PGD3}
    assert at_radii(suite, [0.2]) == ({"pgd3": PGD(Linf(0.2), step_size=0.05, steps=3)}, {})
    assert at_radii(suite, []) == (suite, {})


@pytest.mark.parametrize("radii", [[float("nan")], [float("inf")], [-0.1, 0.2], ["a/b"], ["1/0"]])
def test_no_radius(radii: list[Any]) -> None:
    with pytest.raises(ValueError, match="a radius must be a finite number >= 0"):
        at_radii({"pgd3": PGD3}, radii)


def test_radii_of_one_name() -> None:
    with pytest.raises(ValueError, match="must differ in their first five digits"):
        at_radii({"pgd3": PGD3}, [0.1, 0.1000001])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: {class_path: attacks.PGDD}", "no attribute 'PGDD'"),
        (FILE.replace("steps: 3", "stepz: 3"), "'stepz' is not accepted"),
        (FILE.replace("1/10", "-1"), "eps must be a finite radius >= 0"),
        ("- a", "Expected a <class 'dict'>"),
        ("a: [", "no YAML file"),
        ("", "does not describe attacks"),
        (FILE.replace("pgd3:", "clean:"), "calls an attack clean"),
    ],
)
def test_what_is_no_suite_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message) as refusal:
        read_suite(file)
    assert str(refusal.value).startswith(str(file))
    assert "\n" not in str(refusal.value)


def test_an_empty_suite_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one, got none"):
        read_suite({})

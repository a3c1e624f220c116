"""Sweeps set what they say, defenses are what they say, and what is missing is told."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from attacks import PGD, FixedCarliniWagner, Linf
from defenses import ColourDepth, ParamNet, RobustNet, has_shared_draws
from papers import AttackCurves, Bench, Claim, Defense, MissingNetwork, Ordering, Panel, Sweep, smoke


def quiet(text: str) -> None:
    """Says nothing."""


def bench(folder: Path, network: Callable[[str], nn.Module] = smoke.network) -> Bench:
    """On blobs."""
    return Bench(folder, network, smoke.split, say=quiet)


def test_a_sweep_changes_one_setting() -> None:
    sweep = Sweep(PGD(steps=40), "ball.eps", [0.01, 0.02])
    assert sweep.attacks() == {0.0: None, 0.01: PGD(Linf(0.01), steps=40), 0.02: PGD(Linf(0.02), steps=40)}


def test_counts_stay_whole_and_shown_strengths_are_the_keys() -> None:
    found = Sweep(PGD(), "steps", [0.0, 4.0], shown=[0.0, 9.0], clean=False).attacks()
    assert found == {0.0: PGD(steps=0), 9.0: PGD(steps=4)}
    assert all(type(attack.steps) is int for attack in found.values() if isinstance(attack, PGD))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"setting": "steps", "values": [3.0, 1.0]}, "ascending"),
        ({"setting": "steps", "values": [1.0], "shown": [1.0, 2.0]}, "as many strengths as values: 2 and 1"),
        ({"setting": "steps", "values": [0.0, 1.0]}, "beside the clean images"),
        ({"setting": "stepps", "values": [1.0]}, "PGD has no setting stepps"),
        ({"setting": "ball.eqs", "values": [1.0]}, "Linf has no setting eqs"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep(PGD(), **settings)  # type: ignore[arg-type]


def test_noise_at_test_time_leaves_the_bare_network_alone(tmp_path: Path) -> None:
    where = bench(tmp_path)
    x = torch.rand(2, 3, 16, 16)
    before = where.network("plain").module(x)
    parameters = Defense("plain", parameter_noise=0.1).on(where)
    features = Defense("plain", feature_noise=(0.2, 0.1)).on(where)
    behind = Defense("plain", [ColourDepth(values=2)]).on(where)
    assert isinstance(parameters.module, ParamNet)
    assert has_shared_draws(parameters.module)
    assert isinstance(features.module, RobustNet)
    assert features.module.noise_levels == {"init": 0.2, "inner": 0.1}
    assert torch.equal(where.network("plain").module(x), before)
    assert torch.equal(behind.module(x), where.network("plain").module(x.round()))
    other = Defense("plain", parameter_noise=0.2).on(where)
    assert len({network.key for network in (parameters, features, behind, other, where.network("plain"))}) == 5


def experiment(**settings: object) -> AttackCurves:
    """C&W on two networks, non-adaptive on the left, adaptive on the right."""
    given: dict[str, object] = {
        "n": 4,
        "draws": 2,
        "defenses": {"a": Defense("plain"), "b": Defense("other")},
        "sweeps": {"cw": Sweep(FixedCarliniWagner(steps=2, learning_rate=0.05), "c", [1.0, 100.0])},
        "panels": {"left": Panel("cw", made_on="a"), "right": Panel("cw", "l2")},
        "verdicts": [Claim("a is better", [Ordering("right", "a", "b")])],
    }
    return AttackCurves("a test", **{**given, **settings})  # type: ignore[arg-type]


def test_non_adaptive_images_are_made_once_on_the_one_network(tmp_path: Path) -> None:
    where = bench(tmp_path)
    found = experiment().run(where)
    points = {tuple(row[:3]): row for row in found.tables[0].rows}
    assert set(points) == {(panel, name, c) for panel in ("left", "right") for name in "ab" for c in (0.0, 1.0, 100.0)}
    for c in (1.0, 100.0):
        assert points["left", "a", c][4:] == points["left", "b", c][4:] == points["right", "a", c][4:]
        assert points["right", "b", c][4] != points["right", "a", c][4]
    # Attacks: 2 strengths on each network. Judged: 2 networks clean, 2 own attacks each, b on 2 of a's images.
    assert where.made == 2 * 2 + 2 + 2 * 2 + 2
    assert isinstance(found.figures["curves"], Figure)


def test_the_cost_counts_shared_images_once(tmp_path: Path) -> None:
    cost = experiment().cost(bench(tmp_path))
    assert cost.gradient == 4 * 2 * 2 * 2  # images, steps, strengths, networks
    assert cost.forward == cost.gradient + 4 * (2 + 4 + 2)


def test_missing_networks_are_told_and_left_out(tmp_path: Path) -> None:
    def network(name: str) -> nn.Module:
        if name == "other":
            raise MissingNetwork("train other")
        return smoke.network(name)

    found = experiment(panels={"right": Panel("cw", "l2"), "gone": Panel("cw", made_on="b")}).run(
        bench(tmp_path, network)
    )
    assert {row[1] for row in found.tables[0].rows} == {"a"}
    assert ["b", "missing: train other", None] in list(found.tables[1].rows)
    assert "Left out, since not trained yet: b" in found.tables[0].caption
    outcomes = {verdict.claim: (verdict.outcome, verdict.reason) for verdict in found.verdicts}
    assert outcomes["a is better"] == ("not testable here", "b: train other")
    assert outcomes["panel gone"][0] == "not testable here"


def test_printed_numbers_stand_beside_ours(tmp_path: Path) -> None:
    printed = {"left: a": {"0": 50.0, "1": 10.0, "L2 at 100": 0.5}, "right: b": {"99": 3.0}}
    found = experiment(printed=printed).run(bench(tmp_path))
    assert found.tables[0].name == "printed"
    rows = {(row[0], row[1]): row for row in found.tables[0].rows}
    assert set(rows) == {("left: a", "0"), ("left: a", "1"), ("left: a", "L2 at 100")}  # nothing lies as far as 99
    points = {tuple(row[:3]): row for row in found.tables[1].rows}
    assert rows["left: a", "1"][2] == points["left", "a", 1.0][3]
    assert rows["left: a", "L2 at 100"][3] == 0.5
    with pytest.raises(ValueError, match="unknown panel: middle: a; panels: left, right"):
        experiment(printed={"middle: a": {"0": 1.0}}).run(bench(tmp_path))

"""Passes counted while they happen and reckoned before, against what attacks are known to take."""

import pytest
import torch
from torch import nn

from attacks import L2, PGD, Adversary, Attack, AutoAttack, CarliniWagner, HopSkipJump, Linf, Square, StraightThrough
from defenses import ColourDepth, Defended, GaussianNoise, PNIWeights, RobustNet
from evaluation.cost import Cost, counting, per_image, timed
from evaluation.judge import examine, judge
from models import ResNet20

SHAPE = torch.zeros(3, 8, 8)
STEPS = PGD(Linf(0.1), 0.01, 7)


def images(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, 8, 8, generator=generator), torch.arange(n)


def test_passes_are_counted_whoever_asks() -> None:
    network, (x, y) = RobustNet(ResNet20()), images()
    with counting(network) as meter:
        examine(network, (x, y), 0, "pgd", Adversary(STEPS, draws=3), seed=0, draws=11)
    assert (meter.forward, meter.gradient) == (5 * (7 * 3 + 11), 5 * 7 * 3)
    with counting(network) as again:
        judge(network, x, 2)
    assert (again.forward, again.gradient) == (10, 0)
    assert (meter.forward, meter.gradient) == (5 * (7 * 3 + 11), 5 * 7 * 3)  # closed
    assert meter.cost.seconds > 0


@pytest.mark.parametrize(
    ("model", "attack", "expected"),
    [
        (ResNet20, STEPS, (7, 7)),
        (ResNet20, Adversary(STEPS, draws=4), (7, 7)),
        (lambda: RobustNet(ResNet20()), Adversary(STEPS, draws=4), (28, 28)),
        (lambda: PNIWeights(ResNet20()), Adversary(STEPS, StraightThrough(), draws=4), (28, 28)),
        (lambda: Defended(ResNet20(), [ColourDepth(2)]), Adversary(STEPS, StraightThrough()), (7, 7)),
        (ResNet20, PGD(L2(1.0), 0.1, 7, restarts=3), (24, 21)),
        (ResNet20, Square(Linf(0.1), queries=50), (50, 0)),
    ],
    ids=["PGD", "no draws to ask for", "activations", "weights", "channel", "restarts", "Square"],
)
def test_the_estimate_is_what_an_unbreakable_image_takes(
    model: type[nn.Module], attack: Attack, expected: tuple[int, int]
) -> None:
    (cost,) = per_image(model(), {"it": attack}, SHAPE, 10).values()
    assert (cost.forward, cost.gradient) == expected


def test_attacks_that_walk_along_the_boundary_find_one() -> None:
    costs = per_image(ResNet20(), {"hsj": HopSkipJump(queries=300), "cw": CarliniWagner(steps=20)}, SHAPE, 10)
    assert 100 < costs["hsj"].forward <= 300  # more than the search for a start
    assert costs["hsj"].gradient == 0
    assert 20 <= costs["cw"].gradient <= 1 + 5 * 20


def test_the_estimate_of_autoattack_is_that_of_its_parts() -> None:
    attack = AutoAttack(Linf(0.1), "standard", steps=10, queries=20, targets=3)
    cost = per_image(ResNet20(), {"aa": attack}, SHAPE, 10)["aa"]
    # APGD 10, towards 3 classes 30, FAB towards 3 classes 30.
    assert cost.gradient == 70


def test_the_model_is_not_asked_for_an_estimate() -> None:
    class Silent(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("asked")

    assert per_image(Silent(), {"pgd": STEPS}, SHAPE, 10)["pgd"].forward == 7


def test_timing_leaves_the_model_as_it_was() -> None:
    network = RobustNet(ResNet20(), init=GaussianNoise(0.1)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.inference_mode():
        forward, gradient = timed(network, images()[0])
    assert forward > 0
    assert gradient > 0
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_costs_add_up() -> None:
    assert Cost(1, 2, 0.5) + Cost(10, 20, 0.25) == Cost(11, 22, 0.75)
    assert Cost(1, 2, 0.5) * 3 == Cost(3, 6, 1.5)

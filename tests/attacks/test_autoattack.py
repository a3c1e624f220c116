"""Ensembles: never weaker than a part, nobody shown what is broken already; AutoAttack by name."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor, nn

from attacks import DLR, L2, PGD, Adversary, Attack, CrossEntropy, Goal, Linf, Margin, Trace
from attacks.apgd import APGD, TargetedAPGD
from attacks.autoattack import AutoAttack, Worst
from attacks.fab import FAB
from attacks.shown import Shown
from attacks.square import Square
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images

SMALL = {"steps": 10, "queries": 30}


def labels_of(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(-1)


@dataclass(frozen=True, eq=False)
class Told(Attack):
    """Sets the images it is told to, by their first pixel, to a value; remembers which it was shown."""

    moves: dict[float, float]
    shown: list[list[float]]

    def search(self, model: Shown, x: Tensor, goal: Goal) -> Trace:
        self.shown.append(x[:, 0, 0, 0].tolist())
        values = [self.moves.get(pixel, pixel) for pixel in self.shown[-1]]
        x_adv = torch.tensor(values).view(-1, 1, 1, 1).to(x)
        none = torch.zeros(len(x), dtype=torch.long)
        return Trace(x_adv, none, torch.tensor(values).view(1, -1).to(x), none > 0, none > 0)


def threshold(x: Tensor) -> Tensor:
    """Answers 1 for pixels above 0.5."""
    return torch.stack([torch.zeros_like(x[:, 0, 0, 0]), 10 * (x[:, 0, 0, 0] - 0.5)], 1)


def told() -> tuple[Tensor, Tensor, list[Told]]:
    """Four images of class 0, the last one wrong already; the first attack breaks the first, the second two."""
    x = torch.tensor([0.125, 0.25, 0.375, 0.75], dtype=torch.float64).view(4, 1, 1, 1)
    moves = [{0.125: 0.625, 0.25: 0.4375}, {0.125: 0.5625, 0.25: 0.875}, {0.375: 0.0}]
    return x, torch.zeros(4, dtype=torch.long), [Told(move, []) for move in moves]


@pytest.mark.parametrize("first_success", [False, True])
def test_images_broken_by_one_attack_are_not_shown_to_later_ones_if_that_is_enough(first_success: bool) -> None:
    x, y, parts = told()
    trace = Worst(tuple(parts)).run(threshold, x, y, first_success=first_success)
    everybody = [0.125, 0.25, 0.375, 0.75]
    if first_success:
        assert [part.shown for part in parts] == [[[0.125, 0.25, 0.375]], [[0.25, 0.375]], [[0.375]]]
        assert trace.queries.tolist() == [2, 3, 4, 1]
        assert trace.loss[:, 0].isnan().tolist() == [False, True, True]
    else:
        assert [part.shown for part in parts] == [[everybody]] * 3
        assert trace.queries.tolist() == [3] * 4
    # Broken before unbroken, then the larger margin; what an attack made worse is not taken.
    assert trace.x_adv.flatten().tolist() == [0.625, 0.875, 0.375, 0.75]
    assert trace.loss.shape == (3, 4)


@pytest.mark.parametrize("first_success", [False, True])
def test_an_ensemble_is_never_weaker_than_a_part(first_success: bool) -> None:
    model, x = Linear(5), images(40)
    y = labels_of(model, x)
    ball = Linf(float(model.nearest(x, y, "Linf").median()))
    parts = (
        PGD(ball, 0.01, 2),
        APGD(ball, CrossEntropy(), 3),
        TargetedAPGD(ball, 3, 1),
        Square(ball, 20),
        FAB(ball, 5, 2),
    )
    with drawing_from(Stream(0)):
        x_adv = Worst(parts).run(model, x, y, first_success=first_success).x_adv
    broken, margin = labels_of(model, x_adv) != y, Margin()(model(x_adv), Goal(y))
    # The parts once more, on the streams that they had.
    with drawing_from(Stream(0)):
        seeds = torch.rand(5, dtype=torch.float64, generator=Stream(0).generator(torch.device("cpu"))) * 2**32
    for part, seed in zip(parts, seeds.tolist(), strict=True):
        with drawing_from(Stream(int(seed))):
            alone = part(model, x, y)
        wrong = labels_of(model, alone) != y
        if not first_success:
            assert (broken | ~wrong).all()
            assert (margin >= Margin()(model(alone), Goal(y)) - 1e-12)[broken == wrong].all()
        else:
            assert broken.sum() >= wrong.sum()


@pytest.mark.parametrize("kind", [Linf, L2])
def test_autoattack_breaks_what_can_be_broken(kind: type[Linf] | type[L2]) -> None:
    model, x = Linear(5), images(21)
    y = labels_of(model, x)
    nearest = model.nearest(x, y, kind.__name__)
    ball = kind(float(nearest.median()))
    with drawing_from(Stream(0)):
        trace = AutoAttack(ball, steps=40, queries=50).run(model, x, y, first_success=True)
    broken = labels_of(model, trace.x_adv) != y
    assert broken[nearest < 0.98 * ball.eps].all()
    assert not broken[nearest > ball.eps].any()
    assert (distance(trace.x_adv, x, kind.__name__) <= ball.eps + 1e-12).all()


def test_the_versions_are_those_of_the_paper() -> None:
    ball = Linf(8 / 255)
    assert AutoAttack(ball).attacks == (
        APGD(ball, CrossEntropy(), 100, 1, 0.75),
        TargetedAPGD(ball, 100, 9, 1),
        FAB(ball, 100, 9, 0.1, 1.05, 0.9),
        Square(ball, 5000, 0.8),
    )
    assert AutoAttack(ball, "rand").attacks == (APGD(ball, CrossEntropy(), 100), APGD(ball, DLR(), 100))
    assert str(AutoAttack(ball)) == "AutoAttack (Linf, eps 8/255)"
    assert str(AutoAttack(L2(0.5), "rand", steps=10)) == "AutoAttack rand (L2, eps 0.5, reduced)"


class Counting(nn.Module):
    """Counts the images that it was asked about."""

    random, shared = True, False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        return self.model(x)


@pytest.mark.parametrize("first_success", [False, True])
def test_rand_sees_twenty_draws_and_nobody_leaves(first_success: bool) -> None:
    linear, x = Linear(5), images(3)
    y = labels_of(linear, x)
    model = Counting(NoisyLinear(linear, 0.1))
    with drawing_from(Stream(0)):
        trace = AutoAttack(Linf(0.3), "rand", steps=4).run(model, x, y, first_success=first_success)
    # For both parts 4 gradients, the last iterate, and what was found once more.
    assert trace.queries.tolist() == [20 * 2 * (4 + 1 + 1)] * 3
    assert model.images == trace.queries.sum()
    assert (labels_of(linear, trace.x_adv) != y).all()


def test_draws_are_those_of_the_adversary_where_there_is_one() -> None:
    model, x = NoisyLinear(Linear(5, dtype=torch.float32), 0.1), images(2)
    attack = Adversary(AutoAttack(Linf(0.1), "rand", steps=2), draws=3)
    for adversary in (attack, replace(attack, precision="bfloat16")):
        with drawing_from(Stream(0)):
            assert adversary.run(model, x.float(), torch.tensor([0, 1])).queries.tolist() == [3 * 8] * 2


def test_rand_on_a_model_that_is_not_random_asks_once() -> None:
    model, x = Linear(5), images(2)
    assert AutoAttack(Linf(0.1), "rand", steps=2).run(model, x, labels_of(model, x)).queries.tolist() == [8, 8]


@pytest.mark.parametrize("attack", [AutoAttack(Linf(0.0), **SMALL), AutoAttack(L2(0.0), "rand", **SMALL)])  # type: ignore[arg-type]
def test_radius_0_returns_the_images(attack: AutoAttack) -> None:
    model, x = Linear(5), images()
    with drawing_from(Stream(0)):
        assert torch.equal(attack(model, x, labels_of(model, x)), x)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^AutoAttack has the versions auto, standard and rand, got plus$"):
        AutoAttack(version="plus")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^AutoAttack takes draws >= 1, got 0$"):
        AutoAttack(draws=0)
    with pytest.raises(ValueError, match=r"^APGD takes steps >= 0"):
        AutoAttack(steps=-1)
    with pytest.raises(ValueError, match=r"^Worst needs at least one attack$"):
        Worst(())


def test_settings_print_compare_and_hash() -> None:
    worst = Worst([PGD(), APGD(steps=5)])  # type: ignore[arg-type]
    assert worst == Worst((PGD(), APGD(steps=5)))
    assert hash(worst) == hash(replace(worst))
    assert str(worst) == "worst of PGD-10 (Linf, eps 8/255, step 2/255), APGD-CE-5 (Linf, eps 8/255)"

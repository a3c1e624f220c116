"""Which adversaries checks add to a suite, and what they cost."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from attacks import DDN, FGSM, L2, PGD, Adversary, Attack, Linf, Oblivious, Square, StraightThrough
from defenses import Stream, drawing_from
from evaluation import Rows, counting
from evaluation.checks import cost_of_checks
from evaluation.checks.diagnostics import RandomPoints, diagnostics, gradients, reference
from tests.evaluation.checks_toys import DRAWS, EPS, PGD24, Scaled, evaluated, noisy, plain, rows_with


def evaluated_rows(right: dict[str, int]) -> dict[str, Rows]:
    return {name: rows_with(np.arange(60)[:, None] < count) for name, count in right.items()}


def test_the_strongest_attack_that_sees_the_model_is_varied() -> None:
    rows = evaluated_rows({"weak": 50, "strong": 20, "longer": 20, "blind": 0})
    suite: dict[str, Attack] = {
        "weak": FGSM(Linf(EPS)),
        "strong": PGD24,
        "longer": replace(PGD24, steps=48),
        "blind": Adversary(PGD24, Oblivious()),
    }
    at = reference(suite, rows)
    assert at is not None
    assert (at.name, at.attack) == ("longer", suite["longer"])
    other = reference({"l2": FGSM(L2(0.5))}, rows)
    assert other is not None
    assert other.name is None
    assert (other.ball, other.attack.steps) == (L2(0.5), 20)
    assert reference({"ddn": DDN()}, rows) is None


def test_quick_checks_stay_within_their_budget() -> None:
    """The suite `adaptive` is the longest that a quick check is made for."""
    attack = PGD(Linf(8 / 255), step_size=1 / 255, steps=100, momentum=0.95)
    suite: dict[str, Attack] = {"eot": Adversary(attack, StraightThrough(), draws=2)}
    at = reference(suite, evaluated_rows({"eot": 20}))
    assert at is not None
    plan = diagnostics(at, noisy(), suite, "quick", plain())
    assert sum(gradients(diagnostic.attack) for diagnostic in plan.values()) + 50 <= 420
    assert {"half_steps", "half_draws", "square", "frozen_noise", "bare", "oblivious", "surrogate"} <= set(plan)
    full = diagnostics(at, noisy(), suite, "full", None)
    assert gradients(full["double_steps"].attack) == gradients(full["double_draws"].attack) == 400
    assert "surrogate" not in full


def test_a_suite_with_square_has_it_once() -> None:
    suite: dict[str, Attack] = {"pgd": PGD24, "mine": Square(Linf(EPS), 50)}
    at = reference(suite, evaluated_rows({"pgd": 20}))
    assert at is not None
    assert "square" not in diagnostics(at, plain(), suite, "quick", None)
    assert "square" in diagnostics(at, plain(), {"pgd": PGD24}, "quick", None)


def test_random_points_stay_in_the_ball_and_keep_the_worst() -> None:
    x, y = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    for ball in (Linf(0.1), L2(0.5)):
        losses = []
        for trials in (1, 50):
            with drawing_from(Stream(1)):
                trace = RandomPoints(ball=ball, trials=trials).run(plain(), x, y)
            assert (ball.norm(trace.x_adv - x) <= ball.eps + 1e-6).all()
            losses.append(trace.loss[-1])
        assert (losses[1] >= losses[0]).all()
        assert (losses[1] > losses[0]).any()


@pytest.mark.parametrize("random", [True, False])
def test_the_cost_is_known_before(random: bool, tmp_path: Path) -> None:
    """Of a network that nothing breaks: each attack takes all its steps."""
    network = noisy() if random else Scaled(plain(), 0.0)
    suite: dict[str, Attack] = {"eot": Adversary(replace(PGD24, steps=6), draws=2)}
    run = evaluated(network, suite, tmp_path, n=6)
    if not random:  # logits of 0: class 0 is answered
        run.batches = [(x, torch.zeros_like(y)) for x, y in run.batches]
    with counting(network) as meter:
        run.checks()
    cost = cost_of_checks(network, suite, torch.Size((1, 8, 8)), DRAWS, "quick")
    assert 6 * cost.gradient == pytest.approx(meter.gradient, rel=0.1)
    assert 6 * cost.forward == pytest.approx(meter.forward, rel=0.1)


def test_more_is_asked_in_full_and_nothing_where_nothing_has_a_ball() -> None:
    image, suite = torch.Size((1, 8, 8)), {"pgd": PGD24}
    quick, full = (cost_of_checks(plain(), suite, image, 1, level) for level in ("quick", "full"))
    assert full.forward > 10_000 + quick.forward  # random points alone
    assert full.gradient > quick.gradient
    assert cost_of_checks(plain(), {"ddn": DDN()}, image, 1, "full").forward == 1
    other = cost_of_checks(plain(), suite, image, 1, "quick", surrogate=noisy())
    assert other.gradient == quick.gradient + 20

"""HopSkipJump: how near it comes to a boundary that is known, and what it may ask."""

import pytest
import torch
from torch import Tensor

from attacks import EOT
from attacks.hopskipjump import HopSkipJump
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images

every_norm = pytest.mark.parametrize("norm", ["L2", "Linf"])


@every_norm
def test_it_comes_near_the_boundary_of_a_linear_model(norm: str) -> None:
    model, x = Linear(), images()
    y = model(x).argmax(1)
    with drawing_from(Stream(0)):
        trace = HopSkipJump(norm, queries=4000).run(model, x, y)
    ratio = distance(trace.x_adv, x, norm) / model.nearest(x, y, norm)
    assert (ratio >= 1 - 1e-9).all()
    assert (ratio <= 1.02).all()
    assert (model(trace.x_adv).argmax(1) != y).all()


@every_norm
def test_in_more_dimensions_it_comes_near_with_more_queries(norm: str) -> None:
    model, x = Linear(2, (3, 6, 6)), images(4, (3, 6, 6))
    y, ratios = model(x).argmax(1), []
    for queries in (300, 1000, 4000):
        with drawing_from(Stream(0)):
            x_adv = HopSkipJump(norm, queries=queries)(model, x, y)
        ratios.append(distance(x_adv, x, norm) / model.nearest(x, y, norm))
    assert (ratios[1] <= ratios[0]).all()
    assert (ratios[2] <= ratios[1]).all()
    assert (ratios[2] <= (1.05 if norm == "L2" else 1.12)).all()


@every_norm
@pytest.mark.parametrize("queries", [0, 1, 10, 60, 333])
def test_the_budget_is_kept(norm: str, queries: int) -> None:
    model, x = Linear(3, (3, 8, 8)), images(4, (3, 8, 8))
    y = model(x).argmax(1)
    trace = HopSkipJump(norm, queries=queries, initial_evaluations=20).run(model, x, y)
    assert (trace.queries <= queries).all()
    unchanged = (trace.x_adv == x).flatten(1).all(1)
    assert ((model(trace.x_adv).argmax(1) != y) | unchanged).all()
    if queries <= 1:
        assert unchanged.all()
    if queries == 333:
        assert not unchanged.any()
        assert (trace.queries > 200).all()


def test_only_decisions_matter() -> None:
    model, x = Linear(3, (3, 6, 6)), images(4, (3, 6, 6))
    y = model(x).argmax(1)

    def decisions(batch: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(model(batch).argmax(1), 3).double() * 7 - 2

    results = []
    for shown in (model, decisions):
        with drawing_from(Stream(0)):
            results.append(HopSkipJump(queries=1000)(shown, x, y))
    assert torch.equal(results[0], results[1])


def test_the_answer_does_not_depend_on_who_has_left() -> None:
    model, x = Linear(2, (3, 6, 6)), images(4, (3, 6, 6))
    y, results = model(x).argmax(1), []
    for labels in (y, torch.stack([y[0], 1 - y[1], 1 - y[2], 1 - y[3]])):  # three of them wrong from the start
        with drawing_from(Stream(0)):
            results.append(HopSkipJump(queries=1000).run(model, x, labels))
    torch.testing.assert_close(results[0].x_adv[0], results[1].x_adv[0])
    assert torch.equal(results[1].x_adv[1:], x[1:])
    assert results[1].queries[1:].tolist() == [1] * 3


def test_without_an_error_the_image_is_returned() -> None:
    x = images()
    trace = HopSkipJump(starts=5).run(
        lambda batch: batch.new_tensor([[2.0, -1.0]]).expand(len(batch), 2), x, x.new_zeros(4).long()
    )
    assert torch.equal(trace.x_adv, x)
    assert trace.queries.tolist() == [6] * 4
    assert trace.loss.isnan().all()


def test_a_target_is_reached() -> None:
    model, x = Linear(3, (3, 6, 6)), images(4, (3, 6, 6))
    y = model(x).argmax(1)
    target = (y + 1) % 3
    with drawing_from(Stream(0)):
        x_adv = HopSkipJump(queries=2000)(model, x, y, target)
    assert torch.equal(model(x_adv).argmax(1), target)


def test_a_random_model_errs_in_most_draws() -> None:
    linear, x = Linear(), images(6)
    y, noisy = linear(x).argmax(1), NoisyLinear(linear, 0.02)
    with drawing_from(Stream(0)):
        x_adv = HopSkipJump(queries=2000)(EOT(noisy, 15), x, y)
        fresh = torch.stack([noisy(x_adv).argmax(1) != y for _ in range(200)]).double().mean(0)
    assert (fresh > 0.5).double().mean() >= 0.5
    ratio = distance(x_adv, x, "L2") / linear.nearest(x, y, "L2")
    assert ratio.median() < 2


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^HopSkipJump knows the norms L2 and Linf, got L1$"):
        HopSkipJump("L1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^HopSkipJump takes steps, queries, starts >= 0"):
        HopSkipJump(queries=-1)
    assert str(HopSkipJump("Linf", 10)) == "HopSkipJump-10 (Linf, 5000 queries)"

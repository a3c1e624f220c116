"""FAB where the nearest boundary is known, and its projection against a linear program's answer."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from torch import Tensor

from attacks import L2, Linf
from attacks.fab import FAB, onto_plane
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, distance, images

UNBOUNDED = {"Linf": Linf(1.0), "L2": L2(100.0)}
every_norm = pytest.mark.parametrize("norm", UNBOUNDED)


def labels_of(model: Linear, x: Tensor) -> Tensor:
    return model(x).detach().argmax(1)


@every_norm
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nearest_boundary_of_a_linear_model_is_found(norm: str, classes: int, dtype: torch.dtype) -> None:
    model, x = Linear(classes, dtype=dtype), images(20).to(dtype)
    y = labels_of(model, x)
    trace = FAB(UNBOUNDED[norm], 30).run(model, x, y)
    found, nearest = distance(trace.x_adv, x, norm), model.nearest(x, y, norm)
    assert (labels_of(model, trace.x_adv) != y).all()
    assert (nearest <= found).all()
    assert (found <= 1.02 * nearest).all()
    assert trace.queries.tolist() == [1 + (classes - 1) * 2 * 30] * 20


@every_norm
def test_a_class_is_reached_at_its_own_boundary(norm: str) -> None:
    """The target's region: its boundary lies where it overtakes whatever class is ahead there."""
    model, x = Linear(5), images(10)
    y = labels_of(model, x)
    target = (y + 1) % 5
    x_adv = FAB(UNBOUNDED[norm], 100)(model, x, y, target)
    reached = labels_of(model, x_adv) == target
    assert reached.sum() >= 9
    assert torch.equal(reached, (x_adv != x).flatten(1).any(1))
    z, rows = model(x).detach(), torch.arange(10)
    slope = torch.linalg.vector_norm(
        (model.w[target] - model.w[y]).detach().flatten(1), ord=1 if norm == "Linf" else 2, dim=1
    )
    least = (z[rows, y] - z[rows, target]) / slope  # of overtaking y alone
    assert (distance(x_adv, x, norm) >= least - 1e-9)[reached].all()
    assert (distance(x_adv, x, norm) <= 1.02 * least)[reached].sum() >= 5  # for most, no other class is in the way


@every_norm
@pytest.mark.parametrize("first_success", [False, True])
def test_only_what_lies_in_the_ball_counts(norm: str, first_success: bool) -> None:
    model, x = Linear(5), images(21)
    y = labels_of(model, x)
    nearest = model.nearest(x, y, norm)
    ball = type(UNBOUNDED[norm])(float(nearest.median()))
    trace = FAB(ball, 30).run(model, x, y, first_success=first_success)
    moved = (trace.x_adv != x).flatten(1).any(1)
    assert torch.equal(moved, labels_of(model, trace.x_adv) != y)
    assert (distance(trace.x_adv, x, norm) <= ball.eps).all()
    assert moved[nearest < 0.98 * ball.eps].all()
    assert not moved[nearest > ball.eps].any()
    assert ((trace.queries < 1 + 4 * 60) == (moved & first_success)).all()


def test_an_image_that_is_wrong_already_is_nearest_itself() -> None:
    model, x = Linear(5), images()
    y = (labels_of(model, x) + 1) % 5
    trace = FAB().run(model, x, y)
    assert torch.equal(trace.x_adv, x)
    assert trace.queries.tolist() == [1] * 4


def test_without_steps_nothing_moves() -> None:
    model, x = Linear(5), images()
    assert torch.equal(FAB(steps=0)(model, x, labels_of(model, x)), x)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), linf=st.booleans(), c=st.floats(-3, 3), zeros=st.booleans())
def test_the_projection_onto_plane_and_box_is_exact(seed: int, linf: bool, c: float, zeros: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(1, 1, 2, 3, generator=generator, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)
    w = torch.randn(1, 1, 2, 3, generator=generator, dtype=torch.float64)
    w = w * (torch.rand(w.shape, generator=generator) > 0.3) if zeros else w
    d = onto_plane(x, w, torch.tensor([c], dtype=torch.float64), Linf(1.0) if linf else L2(1.0)).flatten()
    assert ((x.flatten() + d >= 0) & (x.flatten() + d <= 1)).all()
    away = (-w.sign() * torch.tensor(c).sign()).flatten()
    room = torch.where(away > 0, 1 - x.flatten(), x.flatten()) * (away != 0)
    if (w.flatten().abs() * room).sum() <= abs(c):  # the plane is out of reach: as near to it as the box allows
        torch.testing.assert_close(d, away * room)
        return
    torch.testing.assert_close((w.flatten() * d).sum(), torch.tensor(-c, dtype=torch.float64), rtol=1e-9, atol=1e-9)
    if linf:
        # Variables d and s: least s with |d_i| <= s, w . d = -c, x + d in the box.
        eye, ones = torch.eye(6), torch.ones(6, 1)
        bounds = [(-p, 1 - p) for p in x.flatten().tolist()] + [(0, None)]
        rows = torch.cat([torch.cat([eye, -ones], 1), torch.cat([-eye, -ones], 1)])
        plane = [[*w.flatten().tolist(), 0.0]]
        best = linprog([0] * 6 + [1], rows.numpy(), [0] * 12, plane, [-c], bounds).fun
        assert float(d.abs().max()) == pytest.approx(best, abs=1e-7)
    else:
        best = minimize(
            lambda v: (v**2).sum(),
            d.numpy(),
            jac=lambda v: 2 * v,
            bounds=[(-p, 1 - p) for p in x.flatten().tolist()],
            constraints={
                "type": "eq",
                "fun": lambda v: v @ w.flatten().numpy() + c,
                "jac": lambda v: w.flatten().numpy(),
            },
            method="SLSQP",
        ).fun
        assert float((d**2).sum()) == pytest.approx(best, abs=1e-6)


def test_the_projection_of_an_image_does_not_depend_on_others() -> None:
    x, w, c = torch.rand(5, 3, 4, 4), torch.randn(5, 3, 4, 4), 4 * torch.randn(5)
    w[3] = 0
    for ball in (Linf(1.0), L2(1.0)):
        together = onto_plane(x, w, c, ball)
        assert together.isfinite().all()
        assert (together[3] == 0).all()
        for row in range(5):
            one = slice(row, row + 1)
            torch.testing.assert_close(onto_plane(x[one], w[one], c[one], ball), together[one])
            tiny = onto_plane(x[one], 1e-30 * w[one], 1e-30 * c[one], ball)
            torch.testing.assert_close(tiny, together[one], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("arguments", [{"alpha_max": 2.0}, {"eta": 0.9}, {"beta": 1.0}, {"beta": float("nan")}])
def test_impossible_settings_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"^FAB takes alpha_max in \[0, 1\], eta >= 1 and beta in \(0, 1\), got "):
        FAB(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^FAB takes steps >= 0 and targets >= 1, got 5 and 0$"):
        FAB(steps=5, targets=0)


def test_settings_print() -> None:
    assert str(FAB(L2(0.5), 50, 3)) == "FAB-T3-50 (L2, eps 0.5)"


@every_norm
def test_a_gradient_that_is_zero_is_told(norm: str) -> None:
    model, x = Linear(5), images()
    with drawing_from(Stream(0)):
        trace = FAB(UNBOUNDED[norm], 3).run(lambda x: model(x.round()), x, labels_of(model, x.round()))
    assert trace.zero_gradient.all()
    assert torch.equal(trace.x_adv, x)

"""APGD where the best answer is known, and where its step must be halved; its images against its own record."""

import pytest
import torch
from torch import Tensor, nn

from attacks import DLR, L2, CrossEntropy, Goal, Linf, Margin
from attacks.apgd import APGD, TargetedAPGD, checkpoints, likely_targets
from defenses import Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images

every_ball = pytest.mark.parametrize("ball", [Linf(0.1), L2(0.3)])


def labels_of(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(-1)


def lead(model: Linear, x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """z_t - z_y."""
    z, rows = model(x).detach(), torch.arange(len(x))
    return z[rows, t] - z[rows, y]


def most(model: Linear, y: Tensor, t: Tensor, ball: Linf | L2) -> Tensor:
    """By how much z_t - z_y can grow in the ball, far from the box: eps times the dual norm of the slope."""
    slope = (model.w[t] - model.w[y]).detach().flatten(1)
    return ball.eps * torch.linalg.vector_norm(slope, ord=1 if isinstance(ball, Linf) else 2, dim=1)


@every_ball
@pytest.mark.parametrize("loss", [CrossEntropy(), Margin()])
@pytest.mark.parametrize("first_success", [False, True])
def test_the_worst_loss_of_a_linear_model_is_found(
    ball: Linf | L2, loss: CrossEntropy | Margin, first_success: bool
) -> None:
    model, x = Linear(), images(6)
    y = labels_of(model, x)
    with drawing_from(Stream(0)):
        trace = APGD(ball, loss, 100).run(model, x, y, first_success=first_success)
    reached = lead(model, trace.x_adv, y, 1 - y)
    best = lead(model, x, y, 1 - y) + most(model, y, 1 - y, ball)
    assert (distance(trace.x_adv, x, type(ball).__name__) <= ball.eps + 1e-12).all()
    if first_success:
        assert torch.equal(reached > 0, best > 0)
        assert torch.equal(trace.queries < 101, best > 0)
    else:
        torch.testing.assert_close(reached, best, rtol=1e-3, atol=1e-3)
        assert trace.queries.tolist() == [101] * 6


@every_ball
def test_a_target_is_approached_as_far_as_can_be(ball: Linf | L2) -> None:
    model, x = Linear(5), images(6)
    y = labels_of(model, x)
    target = (y + 2) % 5
    with drawing_from(Stream(0)):
        targeted = TargetedAPGD(ball, 60, loss=DLR()).run(model, x, y, target)
        x_adv = APGD(L2(2.0), Margin(), 100)(model, x, y, target)
    assert targeted.loss.shape == (60, 6)  # one class only
    assert (labels_of(model, targeted.x_adv) == target).sum() >= (labels_of(model, x) == target).sum()
    assert torch.equal(labels_of(model, x_adv), target)


@pytest.mark.parametrize("kind", [Linf, L2])
def test_towards_all_classes_every_image_that_can_be_broken_is(kind: type[Linf] | type[L2]) -> None:
    model, x = Linear(5), images(40)
    y = labels_of(model, x)
    nearest = model.nearest(x, y, kind.__name__)
    ball = kind(float(nearest.median()))
    reachable = nearest < 0.98 * ball.eps
    with drawing_from(Stream(0)):
        trace = TargetedAPGD(ball, 50, targets=9).run(model, x, y)
    broken = labels_of(model, trace.x_adv) != y
    assert broken[reachable].all()
    assert not broken[nearest > ball.eps].any()
    assert trace.loss.shape == (4 * 50, 40)  # a model has only so many other classes
    assert trace.queries.tolist() == [1 + 4 * 51] * 40


def test_likely_targets_are_those_of_the_mean_over_draws() -> None:
    logits = torch.tensor([[[5.0, 1, 4, 0]], [[5, 3, 1, 0]], [[5, 4, 2, 0]]])
    assert [t.tolist() for t in likely_targets(Goal(torch.tensor([0])), logits, 2)] == [[1], [2]]
    assert [t.tolist() for t in likely_targets(Goal(torch.tensor([1])), logits, 9)] == [[0], [2], [3]]
    assert [t.tolist() for t in likely_targets(Goal(torch.tensor([1]), torch.tensor([3])), logits, 9)] == [[3]]


def test_checkpoints_are_those_of_the_paper() -> None:
    assert checkpoints(100) == [0, 22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1000)[:4] == [0, 220, 410, 570]
    assert checkpoints(5) == [0, 2, 3, 4]
    assert checkpoints(1) == [0]
    assert checkpoints(0) == []


class Scripted(nn.Module):
    """Its margin at the n-th call is script[n], whatever the image is, with a slope that changes sign at each call."""

    def __init__(self, script: list[float]) -> None:
        super().__init__()
        self.script = script
        self.seen: list[Tensor] = []

    def slope(self, call: int, like: Tensor) -> Tensor:
        return (-1) ** call * torch.tensor([1.0, -1.0, 1.0, 1.0] * 2).view(1, 2, 2, 2).to(like)

    def forward(self, x: Tensor) -> Tensor:
        call = len(self.seen)
        self.seen.append(x.detach().clone())
        value = (x * self.slope(call, x)).flatten(1).sum(1)
        value = value - value.detach() + self.script[call]
        return torch.stack([torch.full_like(value, 5.0), value + 5], -1)


def replayed(script: list[float], halved_at: set[int], eps: float = 0.25) -> tuple[list[Tensor], list[Tensor]]:
    """The iterates of APGD, and those of algorithm 1 with halvings at these steps, which go back to the best."""
    model, x, ball = Scripted(script), torch.full((1, 2, 2, 2), 0.5, dtype=torch.float64), Linf(eps)
    with drawing_from(Stream(0)):
        APGD(ball, Margin(), len(script) - 1).run(lambda x: model(x), x, torch.tensor([0]))  # a module would be traced
    iterates, eta = [model.seen[0]], 2 * eps
    before = iterates[0]
    for k in range(len(script) - 1):
        at, call = iterates[k], k
        if k in halved_at:
            call = max(range(k + 1), key=lambda i: (script[i], -i))
            at, eta = iterates[call], eta / 2
        z = ball.project(at + eta * model.slope(call, x), x)
        iterates.append(ball.project(at + (0.75 if k else 1.0) * (z - at) + (0.25 if k else 0.0) * (at - before), x))
        before = at
    return model.seen, iterates


@pytest.mark.parametrize(
    ("script", "halved_at"),
    [
        ([-float(k) for k in range(101)], {22, 41, 57, 70, 80, 87, 93, 99}),  # never a rise
        ([float(k) for k in range(101)], set()),  # always one
        ([float(k if k < 60 else 60 - k) for k in range(101)], {70, 80, 87, 93, 99}),
        ([float(k % 2) for k in range(101)], {22, 41, 57, 70, 80, 87, 93, 99}),  # every other step: too few
        # Four of five steps rise, but the first maximum stands: at every second checkpoint the step is what it was.
        ([9.0 if k == 1 else k % 5 for k in range(101)], {41, 70, 87, 99}),
    ],
)
def test_the_step_is_halved_at_the_checkpoints_if_the_loss_does_not_rise(
    script: list[float], halved_at: set[int]
) -> None:
    seen, expected = replayed(script, halved_at)
    for k in range(101):
        torch.testing.assert_close(seen[k], expected[k], msg=f"iterate {k}")


@every_ball
def test_the_best_iterate_is_the_one_with_the_largest_mean_over_draws(ball: Linf | L2) -> None:
    """Each draw shifts the scores by far more than the ball does; none of them tells where the mean is large."""

    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = Linear(3)
            self.seen: list[tuple[Tensor, Tensor]] = []

        def forward(self, x: Tensor) -> Tensor:
            z = torch.stack([self.linear(x)] * 4)
            shift = torch.zeros_like(z)
            shift[..., 0] = torch.tensor([30.0, -25.0, 40.0, -45.0]).roll(len(self.seen)).view(4, 1)  # mean 0
            self.seen.append((x.detach(), (z + shift).detach()))
            return z + shift

    model, x, y = Drawn(), images(3), torch.tensor([0, 0, 0])
    with drawing_from(Stream(0)):
        x_adv = APGD(ball, Margin(), 20)(lambda x: model(x), x, y)
    means = torch.stack([Margin()(logits, Goal(y)) for _, logits in model.seen])
    asked = torch.stack([seen for seen, _ in model.seen])
    for row, best in enumerate(means.argmax(0)):
        assert torch.equal(x_adv[row], asked[best, row])


def test_on_a_noisy_model_the_mean_loss_rises() -> None:
    from attacks import EOT

    linear, x = Linear(2, scale=0.3), images(8)
    y, ball = labels_of(linear, x), Linf(0.1)
    with drawing_from(Stream(0)):
        trace = APGD(ball, Margin(), 30).run(EOT(NoisyLinear(linear, 0.3), 20), x, y)
    gained = lead(linear, trace.x_adv, y, 1 - y) - lead(linear, x, y, 1 - y)
    torch.testing.assert_close(gained, most(linear, y, 1 - y, ball), rtol=0.1, atol=0)
    assert trace.queries.tolist() == [31 * 20] * 8


@pytest.mark.parametrize("attack", [APGD(Linf(0.1), steps=0), TargetedAPGD(Linf(0.1), steps=0), APGD(L2(0.0))])
def test_nothing_to_do_is_the_identity(attack: APGD | TargetedAPGD) -> None:
    x = images()
    model = Linear(5)
    assert torch.equal(attack(model, x, labels_of(model, x)), x)


def test_an_image_that_is_wrong_already_leaves_at_once() -> None:
    model, x = Linear(5), images()
    y = (labels_of(model, x) + 1) % 5
    trace = TargetedAPGD(Linf(0.01)).run(model, x, y, first_success=True)
    assert torch.equal(trace.x_adv, x)
    assert trace.queries.tolist() == [1] * 4


def test_impossible_settings_are_refused() -> None:
    for arguments in ({"steps": -1}, {"restarts": 0}, {"rho": 1.5}):
        with pytest.raises(ValueError, match=r"^APGD takes steps >= 0, restarts >= 1 and rho in \[0, 1\], got "):
            APGD(**arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^TargetedAPGD takes targets >= 1, got 0$"):
        TargetedAPGD(targets=0)
    with pytest.raises(ValueError, match="DLR needs at least 4 classes"):
        TargetedAPGD()(Linear(3), images(), torch.zeros(4, dtype=torch.long))


def test_settings_print() -> None:
    assert str(APGD()) == "APGD-CE-100 (Linf, eps 8/255)"
    assert str(APGD(L2(0.5), DLR(), 50, 2)) == "APGD-DLR-50 x 2 (L2, eps 0.5)"
    assert str(TargetedAPGD()) == "APGD-T9-100 (Linf, eps 8/255)"

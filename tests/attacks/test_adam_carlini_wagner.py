"""C&W with Adam against a plain loop over single images, and where the nearest boundary point is known."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attacks import AdamCarliniWagner, Adversary, StraightThrough
from defenses import ColourDepth, Defended, Gauss, Stream, drawing_from
from tests.attacks.toys import Linear, NoisyLinear, distance, images

PAPERS = (-0.049, 1.056)


class Network(nn.Module):
    """Smooth, five classes, in float64."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.conv = nn.Conv2d(2, 6, 3, padding=1).double()
            self.head = nn.Linear(6 * 16, 5).double()

    def forward(self, x: Tensor) -> Tensor:
        return 10 * self.head(torch.tanh(3 * self.conv(x)).flatten(1))


def saturated(batch: int = 4) -> Tensor:
    """Images some of whose pixels are 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(batch, 2, 4, 4, generator=generator, dtype=torch.float64) * 1.4 - 0.2).clamp(0, 1)


def hinge_of(model: nn.Module, image: Tensor, label: int, target: int | None, confidence: float) -> Tensor:
    logits = model(image[None])[0]
    chosen = label if target is None else target
    others = torch.stack([logit for number, logit in enumerate(logits) if number != chosen]).max()
    return (logits[chosen] - others if target is None else others - logits[chosen]) + confidence


class Reference:
    """One image [C, H, W] with PyTorch's own Adam and autograd: the best image of all, and the iterations."""

    def __init__(self, model: nn.Module, x: Tensor, label: int, target: int | None, attack: AdamCarliniWagner) -> None:
        self.model, self.x, self.label, self.target, self.attack = model, x, label, target, attack
        self.best, self.shortest, self.passes = x, math.inf, 0
        c, smallest, largest = attack.initial_c, 0.0, math.inf
        for _ in range(attack.search_steps):
            if self.minimise(c):
                largest = c
            else:
                smallest = c
            c = 10 * c if largest == math.inf else (smallest + largest) / 2

    def minimise(self, c: float) -> bool:
        (low, high), attack = self.attack.bounds, self.attack
        half, middle = (high - low) / 2, (high + low) / 2
        start = torch.atanh((self.x - middle) / half * 0.999999)
        rebuilt = start.tanh() * half + middle
        perturbation = torch.zeros_like(start, requires_grad=True)
        adam = torch.optim.Adam([perturbation], lr=attack.learning_rate, eps=1e-7)
        success, checked = False, math.inf
        for step in range(attack.steps):
            inside = torch.tanh(start + perturbation) * half + middle
            clipped = inside + (inside.clamp(0, 1) - inside).detach()
            hinge = hinge_of(self.model, clipped, self.label, self.target, attack.confidence)
            total = ((inside - rebuilt) ** 2).sum() / (high - low) ** 2 + c * hinge.clamp_min(0)
            adam.zero_grad()
            total.backward()
            adam.step()
            self.passes += 1
            success = self.offer(clipped.detach(), hinge.item()) or success
            if attack.abort_early and step % (attack.steps // 10) == 0:
                if not total.item() <= 0.9999 * checked:
                    break
                checked = total.item()
        return success

    def offer(self, image: Tensor, hinge: float) -> bool:
        length = float((image - self.x).norm())
        if hinge < 0 and length < self.shortest:
            self.best, self.shortest = image, length
        return hinge < 0


@pytest.mark.parametrize(
    "attack",
    [
        AdamCarliniWagner(100, bounds=PAPERS),
        AdamCarliniWagner(100),
        AdamCarliniWagner(60, 4, learning_rate=0.03, initial_c=1.0, abort_early=False, bounds=(-0.2, 1.1)),
        AdamCarliniWagner(60, 3, learning_rate=0.03, initial_c=1.0, confidence=0.5, bounds=(-0.2, 1.1)),
        AdamCarliniWagner(60, 1, learning_rate=0.03, initial_c=5.0, bounds=PAPERS),
    ],
    ids=str,
)
@pytest.mark.parametrize("targeted", [False, True])
def test_it_is_the_plain_loop_over_single_images(attack: AdamCarliniWagner, targeted: bool) -> None:
    model, x = Network(), saturated(3)
    y = model(x).argmax(1)
    target = (y + 1) % 5 if targeted else None
    trace = attack.run(model, x, y, target)
    assert (trace.x_adv != x).any()
    for row in range(len(x)):
        wanted = None if target is None else int(target[row])
        plain = Reference(model, x[row], int(y[row]), wanted, attack)
        torch.testing.assert_close(trace.x_adv[row], plain.best, rtol=0, atol=1e-4)
        assert trace.queries[row] == plain.passes


@pytest.mark.parametrize("bounds", [(0.0, 1.0), PAPERS])
@pytest.mark.parametrize("targeted", [False, True])
def test_it_comes_close_to_the_nearest_boundary_of_a_linear_model(bounds: tuple[float, float], targeted: bool) -> None:
    model, x = Linear(2), images(3)
    y = model(x).argmax(1)
    x_adv = AdamCarliniWagner(200, bounds=bounds)(model, x, y, 1 - y if targeted else None)
    assert (model(x_adv).argmax(1) == 1 - y).all()
    torch.testing.assert_close(distance(x_adv, x, "L2"), model.nearest(x, y, "L2"), rtol=0.05, atol=0)


def test_a_wider_box_lets_saturated_pixels_move_and_the_result_is_clipped() -> None:
    model, x = Linear(2), images(4).round()
    y = model(x).argmax(1)
    narrow = AdamCarliniWagner(80, learning_rate=0.02)(model, x, y)
    wide = AdamCarliniWagner(80, learning_rate=0.02, bounds=PAPERS)(model, x, y)
    assert (narrow - x).abs().amax() < 1e-3
    assert (model(wide).argmax(1) != y).all()
    assert 0 <= wide.amin() <= wide.amax() <= 1
    assert (wide == x).flatten(1).any(1).all()  # pushed outwards and clipped, while others moved


def test_images_that_are_wrong_already_come_back_and_leave() -> None:
    model, x = Linear(3), images(6)
    y = model(x).argmax(1)
    y[::2] = (y[::2] + 1) % 3
    trace = AdamCarliniWagner(20).run(model, x, y)
    assert torch.equal(trace.x_adv[::2], x[::2])
    assert trace.queries[::2].tolist() == [1] * 3
    assert (trace.queries[1::2] > 5).all()


def test_who_leaves_does_not_matter_to_the_others() -> None:
    model, x = Network(), saturated()
    y = model(x).argmax(1)
    attack = AdamCarliniWagner(40, 3, learning_rate=0.03, initial_c=0.1, bounds=PAPERS)
    whole = attack.run(model, x, y)
    assert len(set(whole.queries.tolist())) > 1  # everybody leaves in his own time
    for row in range(4):
        alone = attack.run(model, x[[row]], y[[row]])
        torch.testing.assert_close(alone.x_adv[0], whole.x_adv[row], rtol=0, atol=1e-9)
        assert alone.queries[0] == whole.queries[row]
    early = attack.run(model, x, y, first_success=True)
    assert (model(early.x_adv).argmax(1) != y).all()
    assert (early.queries < whole.queries).all()


@pytest.mark.parametrize("attack", [AdamCarliniWagner(0), AdamCarliniWagner(search_steps=0)])
def test_without_steps_the_images_come_back(attack: AdamCarliniWagner) -> None:
    x = images(3)
    trace = attack.run(Linear(), x, torch.zeros(3, dtype=torch.long))
    assert torch.equal(trace.x_adv, x)
    assert trace.queries.tolist() == [0, 0, 0]


def test_fewer_steps_than_checks_are_checked_each() -> None:
    model, x = Linear(2), images(3)
    trace = AdamCarliniWagner(3, 2).run(model, x, model(x).argmax(1))
    assert (trace.queries <= 6).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_a_confident_answer_wins_by_kappa(targeted: bool) -> None:
    model, x = Linear(3), images(8)
    y = model(x).argmax(1)
    target = (y + 1) % 3 if targeted else None
    attack = AdamCarliniWagner(100, learning_rate=0.02, confidence=0.5, initial_c=0.1)
    z = model(attack(model, x, y, target)).detach()
    chosen = y if target is None else target
    own, others = z.gather(1, chosen[:, None]).squeeze(1), z.scatter(1, chosen[:, None], -1e9).amax(1)
    lead = own - others if targeted else others - own
    assert (lead >= 0.5).all()
    assert (lead <= 0.8).all()


def test_one_lucky_draw_is_enough_and_no_others_are_asked() -> None:
    linear, x = Linear(2), images(16)
    noisy, y = NoisyLinear(linear, 0.05), linear(x).argmax(1)
    with drawing_from(Stream(1)):
        trace = AdamCarliniWagner(40, 2, initial_c=0.1, abort_early=False).run(noisy, x, y)
        wrong = torch.stack([noisy(trace.x_adv).argmax(1) != y for _ in range(100)]).double().mean(0)
    assert ((trace.queries == 80) | (trace.x_adv == x).flatten(1).all(1)).all()
    moved = (trace.x_adv != x).flatten(1).any(1)
    assert moved.any()
    assert (wrong[moved] < 0.5).any()  # right again on most other draws


@pytest.mark.parametrize("channel", [ColourDepth(4), Gauss(0.02)])
def test_the_papers_attack_on_a_channel(channel: Any) -> None:
    model, x = Defended(Network(), [channel]), saturated()
    with drawing_from(Stream(3)):
        y = model(x).argmax(1)
        attack = AdamCarliniWagner(60, 3, learning_rate=0.03, initial_c=1.0, bounds=PAPERS)
        trace = Adversary(attack, StraightThrough(everywhere=True, at_image=True)).run(model, x, y)
        answers = torch.stack([model(trace.x_adv).argmax(1) for _ in range(40)])
    assert (trace.x_adv != x).any()
    assert not trace.zero_gradient.any()
    assert (answers != y).any(0).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps": -1},
        {"search_steps": -1},
        {"learning_rate": 0.0},
        {"initial_c": math.inf},
        {"confidence": -1.0},
        {"bounds": (0.1, 1.0)},
        {"bounds": (0.0, 0.9)},
        {"bounds": (-math.inf, 1.0)},
        {"bounds": (0.0, math.nan)},
        {"bounds": (0.0, 0.5, 1.0)},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^AdamCarliniWagner takes [^\n]+$"):
        AdamCarliniWagner(**arguments)


def test_settings_print() -> None:
    assert str(AdamCarliniWagner(100)) == "C&W-Adam-5 x 100 (L2)"
    assert str(AdamCarliniWagner(confidence=1.0, bounds=PAPERS)) == (
        "C&W-Adam-5 x 1000 (L2, confidence 1, box -0.049 to 1.056)"
    )

"""What holds for every attack: where its images lie, what it leaves behind, what may not matter to it."""

import dataclasses
import inspect
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import attacks
from attacks import Attack, Ball
from defenses import Stream, drawing_from
from tests.attacks.catalogue import ATTACKS, BALLED, FREEZING, GRADIENT_FREE, MINIMAL_NORM

every_attack = pytest.mark.parametrize("name", ATTACKS)
CLASSES = 5


class Small(nn.Module):
    """Smooth, with BatchNorm and a spare part in train mode; answers `CLASSES` logits."""

    def __init__(self, channels: int = 3, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(channels, 6, 3, padding=1)
            self.norm = nn.BatchNorm2d(6)
            self.head = nn.Linear(6, CLASSES)
        self.norm.running_mean.fill_(0.1)
        self.scale = 8.0
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.head(torch.tanh(self.norm(self.conv(x))).mean((2, 3)))


def batch(
    size: int = 4, channels: int = 3, dtype: torch.dtype = torch.float32, side: int = 8, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Images, some of whose pixels are 0 or 1, and the model's own answers as labels, so that none is broken yet."""
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(size, channels, side, side, generator=generator, dtype=dtype) * 1.4 - 0.2).clamp(0, 1)
    with torch.no_grad():
        return x, Small(channels, dtype).eval()(x).argmax(1)


def test_every_attack_is_in_the_catalogue() -> None:
    exported = {
        thing for _, thing in inspect.getmembers(attacks) if inspect.isclass(thing) and issubclass(thing, Attack)
    }
    assert {type(attack) for attack in ATTACKS.values()} == exported - {Attack}


@every_attack
@settings(max_examples=6, deadline=None)
@given(
    channels=st.sampled_from([1, 3]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    channels_last=st.booleans(),
    targeted=st.booleans(),
    first_success=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_images_are_allowed_and_like_x(
    name: str, channels: int, dtype: torch.dtype, channels_last: bool, targeted: bool, first_success: bool, seed: int
) -> None:
    attack = ATTACKS[name]
    x, y = batch(3, channels, dtype, seed=seed)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    before = x.clone()
    target = (y + 1) % CLASSES if targeted else None
    with drawing_from(Stream(seed)):
        trace = attack.run(Small(channels, dtype), x, y, target, first_success)
    assert torch.equal(x, before)
    assert (trace.x_adv.shape, trace.x_adv.dtype) == (x.shape, dtype)
    assert trace.x_adv.stride() == x.stride() or channels == 1  # of one channel both layouts are the same
    assert not trace.x_adv.requires_grad
    assert trace.x_adv.data_ptr() != x.data_ptr()
    assert 0 <= trace.x_adv.min() <= trace.x_adv.max() <= 1
    assert trace.queries.shape == trace.zero_gradient.shape == (3,)
    assert trace.loss.shape[1:] == (3,)
    ball: Ball | None = getattr(attack, "ball", None) if name in BALLED else None
    if ball is not None:
        nearest = ball.project(trace.x_adv, x)
        torch.testing.assert_close(trace.x_adv, nearest, rtol=1e-5, atol=1e-6)


@every_attack
def test_it_does_something(name: str) -> None:
    x, y = batch(6)
    with drawing_from(Stream(0)):
        trace = ATTACKS[name].run(Small(), x, y)
    assert (trace.x_adv != x).any()
    assert (trace.queries > 0).all()
    if name not in GRADIENT_FREE:
        assert not trace.zero_gradient.any()


@every_attack
@pytest.mark.parametrize("context", [nullcontext, torch.no_grad, torch.inference_mode])
def test_it_leaves_no_trace(name: str, context: type) -> None:
    model = Small().train()
    model.norm.eval()
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 3 > 0)
        parameter.grad = torch.ones_like(parameter) if index % 2 else None
    state = {key: value.clone() for key, value in model.state_dict().items()}
    modes = {key: part.training for key, part in model.named_modules()}
    flags = [(p.requires_grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()]
    x, y = batch(2)
    random_state = torch.get_rng_state()
    with context(), drawing_from(Stream(0)):
        ATTACKS[name].run(model, x.clone(), y.clone())
    assert torch.equal(torch.get_rng_state(), random_state)  # every draw came from the stream
    assert {key: part.training for key, part in model.named_modules()} == modes
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    for parameter, (flag, grad) in zip(model.parameters(), flags, strict=True):
        assert parameter.requires_grad == flag
        assert parameter.grad is None if grad is None else torch.equal(parameter.grad, grad)


@every_attack
@pytest.mark.parametrize("first_success", [False, True])
def test_batch_mates_do_not_matter(name: str, first_success: bool) -> None:
    x, y = batch(4, dtype=torch.float64)
    others, labels = batch(4, dtype=torch.float64, seed=9)
    others[0], labels[0] = x[0], y[0]
    results = []
    for images, classes in ((x, y), (others, labels)):
        with drawing_from(Stream(1)):
            results.append(ATTACKS[name].run(Small(dtype=torch.float64), images, classes, None, first_success))
    torch.testing.assert_close(results[0].x_adv[0], results[1].x_adv[0])
    assert results[0].queries[0] == results[1].queries[0]


@every_attack
def test_pixels_at_the_border_move(name: str) -> None:
    """Black and white images: a change of variables without derivative there would leave them as they are."""
    x, _ = batch(4)
    x = x.round()
    y = Small().eval()(x).argmax(1)
    with drawing_from(Stream(0)):
        x_adv = ATTACKS[name](Small(), x, y)
    assert torch.equal(x_adv, x) == (name == FREEZING)  # the papers' variant, whose fault this is


class Shifted(nn.Module):
    """A model with a constant added to all its logits."""

    def __init__(self, model: nn.Module, by: float) -> None:
        super().__init__()
        self.model, self.by = model, by

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + self.by


@every_attack
def test_a_constant_added_to_all_logits_changes_nothing(name: str) -> None:
    x, y = batch(3, dtype=torch.float64)
    results = []
    for by in (0.0, -64.0):
        with drawing_from(Stream(1)):
            results.append(ATTACKS[name](Shifted(Small(dtype=torch.float64), by), x, y))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


class Rounded(nn.Module):
    """Rounds the image to black and white: the derivative is 0 everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Small()

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.round())


class Detached(Rounded):
    """Has no derivative at all."""

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x.detach().round())


@every_attack
@pytest.mark.parametrize("model", [Rounded, Detached])
def test_a_vanished_gradient_does_no_harm_and_is_told(name: str, model: type[nn.Module]) -> None:
    x, _ = batch(3)
    y = model().eval()(x).argmax(1)
    with drawing_from(Stream(0)):
        trace = ATTACKS[name].run(model(), x, y)
    assert trace.x_adv.isfinite().all()
    assert 0 <= trace.x_adv.min() <= trace.x_adv.max() <= 1
    if name not in GRADIENT_FREE:
        assert trace.zero_gradient.all()


@pytest.mark.parametrize("name", MINIMAL_NORM)
def test_minimal_norm_attacks_return_what_breaks_or_the_image(name: str) -> None:
    x, y = batch(6)
    y[0] = (y[0] + 1) % CLASSES  # wrong from the start
    model = Small().eval()
    with drawing_from(Stream(0)):
        x_adv = ATTACKS[name](model, x, y)
    unchanged = (x_adv == x).flatten(1).all(1)
    assert unchanged[0]
    assert ((model(x_adv).argmax(1) != y) | unchanged).all()


@every_attack
def test_an_empty_batch_is_an_answer(name: str) -> None:
    x, y = batch(2)
    trace = ATTACKS[name].run(Small(), x[:0], y[:0])
    assert trace.x_adv.shape == (0, 3, 8, 8)
    assert trace.queries.shape == (0,)


@every_attack
def test_a_model_that_answers_nonsense_is_refused(name: str) -> None:
    x, y = batch(2)
    with pytest.raises(ValueError, match="answers probabilities"):
        ATTACKS[name](lambda images: Small()(images).softmax(-1), x, y)
    with pytest.raises(FloatingPointError, match="NaN or infinity"), drawing_from(Stream(0)):
        ATTACKS[name](lambda images: Small()(images) * float("nan"), x, y)
    with pytest.raises(ValueError, match=r"a label or target is 5, the model has classes 0 to 4"):
        ATTACKS[name](Small(), x, torch.tensor([0, 5]))


@every_attack
def test_settings_print_compare_and_hash(name: str) -> None:
    attack = ATTACKS[name]
    assert hash(attack) == hash(attack)
    assert str(attack)
    assert len(str(attack)) < 120
    assert type(attack).__name__ in repr(attack)


@pytest.mark.parametrize("name", [name for name in ATTACKS if hasattr(ATTACKS[name], "restarts")])
def test_more_restarts_are_never_weaker(name: str) -> None:
    x, y = batch(16)
    model = Small().eval()
    broken = []
    for restarts in (1, 2, 4):
        with drawing_from(Stream(3)):
            x_adv = dataclasses.replace(ATTACKS[name], restarts=restarts)(model, x, y)  # type: ignore[call-arg, type-var]
        broken.append(model(x_adv).argmax(1) != y)
    assert not (broken[0] & ~broken[1]).any()
    assert not (broken[1] & ~broken[2]).any()

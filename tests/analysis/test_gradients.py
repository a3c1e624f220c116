"""Gradients per class against autograd and closed forms, and the anomaly where it is known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.derivatives import normalisation_scale
from analysis.gradients import GradientNorms, class_gradients, gradient_norms, norms_under_noise
from analysis.noisy_copies import noisy_copies
from defenses import Gauss, GaussianNoise, PNIWeights, RobustNet, Stream, drawing_from
from models import Normalized, ResNet20
from tests.attacks.test_no_trace import CONTEXTS, prepared, unchanged
from tests.attacks.toys import Linear, images, network

every_context = pytest.mark.parametrize("context", CONTEXTS)


def by_autograd(model: nn.Module, x: Tensor, label: int) -> Tensor:
    x = x.clone().requires_grad_()
    loss = F.cross_entropy(model(x), torch.full((len(x),), label), reduction="sum")
    return torch.autograd.grad(loss, x)[0]


def sure(lead: float, dtype: torch.dtype) -> tuple[Linear, Tensor]:
    """A linear network of two classes, an image at which class 0 leads by `lead`."""
    model, x = Linear(classes=2, dtype=dtype), images(1).to(dtype)
    with torch.no_grad():
        model.b[0] += lead - float(model(x)[0].diff().neg())  # up to rounding
    return model, x


def test_gradients_of_every_class_are_those_of_autograd() -> None:
    model, x = network(), images()
    gradients = class_gradients(model, x)
    assert gradients.shape == (4, 5, 2, 3, 3)
    for label in range(5):
        torch.testing.assert_close(gradients[:, label], by_autograd(model, x, label))
    norms = gradient_norms(model, x)
    torch.testing.assert_close(norms.norms[0], gradients.flatten(2).norm(dim=2))
    torch.testing.assert_close(norms.probs[0], model(x).softmax(1).detach())
    assert torch.equal(norms.predicted[0], model(x).argmax(1))


def test_gradients_are_slopes() -> None:
    model, x, h = network(), images(), 1e-5
    direction = torch.randn_like(x)
    for label, gradient in enumerate(class_gradients(model, x).unbind(1)):
        y = torch.full((4,), label)
        up, down = (F.cross_entropy(model(x + step * direction), y, reduction="none") for step in (h, -h))
        slope = (gradient * direction).flatten(1).sum(1)
        torch.testing.assert_close((up - down).detach() / (2 * h), slope, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("lead", "dtype"), [(500.0, torch.float64), (120.0, torch.float32)])
def test_norms_of_very_sure_answers_are_not_rounded_away(lead: float, dtype: torch.dtype) -> None:
    model, x = sure(lead, dtype)
    norms = gradient_norms(model, x).norms[0, 0]
    lead = float(model(x)[0].detach().double().diff().neg())
    length = float((model.w[0] - model.w[1]).detach().double().norm())
    assert float(norms[0]) == pytest.approx(math.exp(-lead) * length, rel=1e-5)
    assert float(norms[1]) == pytest.approx(length, rel=1e-5)
    assert float(by_autograd(model, x, 0).norm()) == 0  # as anyone else would have it


def test_the_anomaly_is_a_smaller_norm_of_another_class() -> None:
    probs = torch.tensor([[[0.6, 0.3, 0.1]] * 4])
    norms = torch.tensor([[[1.0, 2.0, 3.0], [1.0, 0.9, 3.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]]])
    found = GradientNorms(norms, probs, torch.arange(3).repeat(4, 1))
    assert found.anomalous.tolist() == [[False, True, False, False]]
    some = GradientNorms(norms[..., :2], probs, torch.tensor([[0, 1]] * 4))
    with pytest.raises(ValueError, match="needs the norms of all 3 classes"):
        _ = some.anomalous


def test_a_network_with_the_anomaly() -> None:
    # The gradient of class c is sum_k p_k w_k - w_c. Steep logits of 0 and 1 that nearly tie make those of 0 and 1
    # long; that of 2, which lies half way between them, is 0.
    model = Linear(classes=3, shape=(1, 1, 2))
    model.w.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], dtype=torch.float64).view(3, 1, 1, 2)
    model.b.data = torch.tensor([0.1, 0.0, -3.0], dtype=torch.float64)
    x = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    found = gradient_norms(model, x)
    p = model(x).softmax(1)[0].tolist()
    expected = [1 - p[0] + p[1], 1 + p[0] - p[1], p[0] - p[1]]
    assert found.norms[0, 0].tolist() == pytest.approx(expected)
    assert found.predicted.item() == 0
    assert found.anomalous.item()


def test_chunks_chosen_classes_and_scale() -> None:
    model, x = network(), images(5)
    whole = gradient_norms(model, x)
    torch.testing.assert_close(gradient_norms(model, x, chunk=2).norms, whole.norms)
    classes = torch.tensor([[0, 3], [1, 1], [4, 0], [2, 3], [3, 2]])
    some = gradient_norms(model, x, classes, chunk=3)
    torch.testing.assert_close(some.norms[0], whole.norms[0].gather(1, classes))
    assert torch.equal(some.classes, classes)
    torch.testing.assert_close(gradient_norms(model, x, scale=0.25).norms, 0.25 * whole.norms)


def test_the_scale_of_the_normalisation_gives_gradients_behind_it() -> None:
    inner, x = network(), images()
    mean, std = torch.tensor([0.4, 0.5]).view(2, 1, 1), torch.tensor([0.2, 0.3]).view(2, 1, 1)
    model = Normalized(inner, mean.flatten().tolist(), std.flatten().tolist()).double()
    found = class_gradients(model, x, scale=normalisation_scale(model))
    torch.testing.assert_close(found, class_gradients(inner, model.normalize(x)))
    assert normalisation_scale(inner) == 1


def test_each_draw_of_a_random_model_has_its_norms() -> None:
    model, x = RobustNet(network(), GaussianNoise(0.3)), images()
    with drawing_from(Stream(1)):
        found = gradient_norms(model, x, draws=3)
    assert found.norms.shape == (3, 4, 5)
    assert not torch.equal(found.norms[0], found.norms[1])
    stream = Stream(1)
    for draw in range(3):
        with drawing_from(stream):
            torch.testing.assert_close(gradient_norms(model, x).norms[0], found.norms[draw])


@every_context
@pytest.mark.parametrize("name", ["plain", "RobustNet", "PNIWeights"])
def test_no_trace_is_left(name: str, context: str) -> None:
    model = prepared(name)
    with unchanged(model), CONTEXTS[context]():
        x = torch.rand(3, 3, 8, 8)
        gradients = class_gradients(model, x, torch.tensor([[1], [2], [3]]))
        assert gradient_norms(model, x, chunk=2).norms.shape == (1, 3, 10)
    assert not gradients.is_inference()
    assert gradients.flatten(1).norm(dim=1).gt(0).all()


def test_noise_of_level_0_changes_nothing_and_other_noise_is_that_of_the_image() -> None:
    model, x = network(), images()
    none, some = norms_under_noise(model, x, None, [0.0, 0.1], Gauss, draws=2, first=10)
    clean = gradient_norms(model, x).norms
    torch.testing.assert_close(none.norms, clean.repeat(2, 1, 1))
    copies = torch.stack([noisy_copies(image, Gauss(0.1), 2, 0, 10 + place) for place, image in enumerate(x)])
    torch.testing.assert_close(some.norms[1], gradient_norms(model, copies[:, 1]).norms[0])
    (alone,) = norms_under_noise(model, x[2:], None, [0.1], Gauss, draws=2, first=12, chunk=1)
    torch.testing.assert_close(alone.norms, some.norms[:, 2:])
    (other,) = norms_under_noise(model, x, torch.zeros(4, 1, dtype=torch.int64), [0.1], Gauss, draws=2, seed=1)
    assert other.norms.shape == (2, 4, 1)
    assert not torch.isclose(other.norms[..., 0], some.norms[..., 0]).any()


class Broken(nn.Module):
    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return self.answer + 0 * x.flatten(1).sum(1, keepdim=True) if self.answer.dim() == 2 else self.answer


def test_bad_input_is_named() -> None:
    model, x = network(), images()
    with pytest.raises(ValueError, match="need images"):
        class_gradients(model, x[0])
    with pytest.raises(ValueError, match="classes 0 to 4, got classes from 0 to 5"):
        class_gradients(model, x, torch.tensor([[0], [1], [5], [2]]))
    with pytest.raises(ValueError, match="got 3 for 4 images"):
        gradient_norms(model, x, torch.zeros(3, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        gradient_norms(model, x, draws=0)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        gradient_norms(model, x, chunk=0)
    with pytest.raises(ValueError, match="got 0"):
        gradient_norms(model, x[:0])
    with pytest.raises(ValueError, match="2 classes or more"):
        gradient_norms(Broken(torch.zeros(4, 1)), x)
    with pytest.raises(ValueError, match="no derivative"):
        gradient_norms(lambda x: torch.zeros(4, 3), x)
    with pytest.raises(FloatingPointError, match="NaN"):
        gradient_norms(Broken(torch.full((4, 3), float("nan"))), x)


def test_noisy_weights_run() -> None:
    model = PNIWeights(ResNet20())
    with drawing_from(Stream(0)):
        found = gradient_norms(model, torch.rand(2, 3, 8, 8), draws=2)
    assert not torch.equal(found.norms[0], found.norms[1])

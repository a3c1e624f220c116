"""Eigenpairs of the input Hessian against dense Hessians, closed forms and finite differences."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from analysis.curvature import exact_curvature, lanczos_curvature, power_curvature, second_order_rest
from analysis.derivatives import cross_entropy, normalisation_scale
from analysis.eigenpairs import Eigenpairs
from attacks import Model
from defenses import (
    Defended,
    FFTCompression,
    GaussianNoise,
    PNIActivations,
    PNIWeights,
    RobustNet,
    Stream,
    drawing_from,
)
from models import Normalized, ResNet20
from tests.attacks.test_no_trace import CONTEXTS, prepared, unchanged
from tests.attacks.toys import Linear, images
from tests.attacks.toys import network as smooth

METHODS: dict[str, Callable[..., Eigenpairs]] = {
    "exact": exact_curvature,
    "lanczos": lanczos_curvature,
    "power": power_curvature,
}
SHAPE = (2, 4, 4)


def relu() -> nn.Sequential:
    """Piecewise linear, with BatchNorm that is not the identity and both kinds of pooling; float64."""
    layers = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 2, padding=1), nn.LeakyReLU(0.1), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(32, 5),
    )  # fmt: skip
    for _ in range(20):
        layers(torch.rand(8, *SHAPE))
    layers[-1].weight.data *= 4
    return layers.double().eval()


def dense(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """[B, N, N] by PyTorch, image by image."""

    def loss(image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(model(image[None]), label[None])

    size = x[0].numel()
    found = [
        torch.autograd.functional.hessian(lambda image, label=label: loss(image, label), image)
        for image, label in zip(x, y, strict=True)
    ]
    return torch.stack([torch.as_tensor(matrix).reshape(size, size) for matrix in found])


def largest(matrices: Tensor, k: int) -> Tensor:
    values = torch.linalg.eigvalsh(matrices)
    return values.gather(1, values.abs().argsort(1, descending=True)[:, :k])


def assert_pairs(matrices: Tensor, pairs: Eigenpairs, accuracy: float = 1e-9) -> None:
    vectors = pairs.vectors.flatten(2)
    products = torch.einsum("bij,bkj->bki", matrices, vectors)
    assert (products - pairs.values[..., None] * vectors).abs().amax() < accuracy * matrices.abs().amax()
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones_like(pairs.values))


def test_the_exact_path_is_the_dense_hessian_of_a_relu_network() -> None:
    model, x = relu(), images(6, SHAPE)
    pairs = exact_curvature(model, x, 4)
    for label in (0, 3):  # whatever the label
        matrices = dense(model, x, torch.full((6,), label))
        torch.testing.assert_close(pairs.values, largest(matrices, 4))
        assert_pairs(matrices, pairs)
        assert torch.linalg.matrix_rank(matrices, rtol=1e-10).amax() <= 4
    assert pairs.vectors.shape == (6, 4, *SHAPE)
    assert pairs.products.tolist() == [4] * 6
    assert pairs.converged(1e-12).all()
    assert second_order_rest(model, x).amax() < 1e-10


@pytest.mark.parametrize("make", [relu, smooth], ids=["relu", "smooth"])
def test_the_general_path_is_the_dense_hessian_of_any_network(make: Callable[[], nn.Module]) -> None:
    model, shape = make(), SHAPE if make is relu else (2, 3, 3)
    x, y = images(5, shape), torch.tensor([0, 1, 2, 3, 4])
    matrices = dense(model, x, y)
    pairs = lanczos_curvature(model, x, y, 3, steps=18, tolerance=1e-10)
    torch.testing.assert_close(pairs.values, largest(matrices, 3))
    assert_pairs(matrices, pairs)
    assert pairs.converged(1e-8).all()
    top = lanczos_curvature(model, x, y, 2, steps=18, tolerance=1e-10, which="algebraic")
    torch.testing.assert_close(top.values, torch.linalg.eigvalsh(matrices)[:, -2:].flip(1))
    power = power_curvature(model, x, y, 2, steps=2000, tolerance=1e-13)
    torch.testing.assert_close(power.values, largest(matrices, 2), rtol=1e-5, atol=1e-8)
    predicted = lanczos_curvature(model, x, steps=18, tolerance=1e-10)
    torch.testing.assert_close(predicted.values, largest(dense(model, x, model(x).argmax(1)), 1))


def test_the_exact_path_misses_what_a_smooth_network_bends() -> None:
    model, x = smooth(), images()
    matrices = dense(model, x, model(x).argmax(1))
    assert not torch.isclose(exact_curvature(model, x).values, largest(matrices, 1), rtol=0.01).all()
    rest = second_order_rest(model, x)
    assert (rest > 0.1).all()
    torch.testing.assert_close(second_order_rest(model, x[2:], first=2), rest[2:])


@pytest.mark.parametrize("make", [relu, smooth], ids=["relu", "smooth"])
def test_gradients_turn_as_the_top_pair_says(make: Callable[[], nn.Module]) -> None:
    model, shape = make(), SHAPE if make is relu else (2, 3, 3)
    x, h = images(4, shape), 1e-6
    y = model(x).argmax(1)
    pairs = (exact_curvature if make is relu else lanczos_curvature)(model, x)
    vector = pairs.vectors[:, 0]

    def gradient(at: Tensor) -> Tensor:
        at = at.requires_grad_()
        return torch.autograd.grad(F.cross_entropy(model(at), y, reduction="sum"), at)[0]

    turned = (gradient(x + h * vector) - gradient(x - h * vector)) / (2 * h)
    slope = (turned * vector).flatten(1).sum(1)
    torch.testing.assert_close(slope, pairs.values[:, 0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("lead", "dtype"), [(2.0, torch.float32), (25.0, torch.float32), (60.0, torch.float64)])
def test_very_sure_answers_have_their_closed_form(method: str, lead: float, dtype: torch.dtype) -> None:
    # Two classes of a linear network: p (1 - p) ||w_0 - w_1||^2, in the direction of the difference.
    model, x = Linear(classes=2, dtype=dtype), images(1).to(dtype)
    with torch.no_grad():
        model.b[0] += lead - float(model(x)[0].diff().neg())
    lead = float(model(x)[0].detach().double().diff().neg())
    difference = (model.w[0] - model.w[1]).detach().double()
    pairs = METHODS[method](model, x)
    bend = math.exp(-lead) / (1 + math.exp(-lead)) ** 2
    assert float(pairs.values) == pytest.approx(bend * float(difference.norm()) ** 2, rel=1e-4)
    cosine = float((pairs.vectors[0, 0].double() * difference).sum() / difference.norm())
    assert abs(cosine) == pytest.approx(1, rel=1e-4)


def test_the_cross_entropy_and_its_derivatives_are_pytorchs_where_those_are_right() -> None:
    logits, y = 3 * torch.randn(6, 5, dtype=torch.float64, requires_grad=True), torch.tensor([0, 1, 2, 3, 4, 0])
    torch.testing.assert_close(cross_entropy(logits, y), F.cross_entropy(logits, y, reduction="none"))
    ours, theirs = (
        torch.autograd.functional.hessian(lambda z, loss=loss: loss(z).sum(), logits.detach())
        for loss in (lambda z: cross_entropy(z, y), lambda z: F.cross_entropy(z, y, reduction="none"))
    )
    torch.testing.assert_close(ours, theirs)
    far = torch.tensor([[0.0, 90.0, 50.0]], dtype=torch.float64)
    torch.testing.assert_close(cross_entropy(far, torch.tensor([0])), torch.tensor([90.0], dtype=torch.float64))


def test_equal_eigenvalues() -> None:
    # Three equal logits with orthonormal gradients: S = (I - 1/3) / 3 has 1/3 twice.
    model = Linear(classes=3, shape=(1, 2, 2))
    model.w.data = torch.eye(4, dtype=torch.float64)[:3].view(3, 1, 2, 2)
    model.b.data.zero_()
    x = torch.zeros(2, 1, 2, 2, dtype=torch.float64)
    third = torch.full((2, 2), 1 / 3, dtype=torch.float64)
    for pairs in (exact_curvature(model, x, 2), lanczos_curvature(model, x, k=2, steps=4, tolerance=0.0)):
        torch.testing.assert_close(pairs.values, third)
        vectors = pairs.vectors.flatten(2)
        torch.testing.assert_close(vectors @ vectors.mT, torch.eye(2, dtype=torch.float64).repeat(2, 1, 1))


@pytest.mark.parametrize("method", METHODS)
def test_an_image_has_the_same_values_in_any_company(method: str) -> None:
    model, x = relu(), images(6, SHAPE)
    y = {} if method == "exact" else {"y": torch.tensor([0, 1, 2, 3, 4, 0])}
    together = METHODS[method](model, x, **y)
    torch.testing.assert_close(METHODS[method](model, x, **y, chunk=4).values, together.values, rtol=1e-6, atol=1e-12)
    some = {} if method == "exact" else {"y": y["y"][3:], "first": 3}
    alone = METHODS[method](model, x[3:], **some)
    torch.testing.assert_close(alone.values, together.values[3:], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_scale_of_the_normalisation_gives_the_hessian_behind_it(method: str) -> None:
    inner, x = relu(), images(3, SHAPE)
    model = Normalized(inner, [0.4, 0.5], [0.2, 0.3]).double()
    enough = {"steps": 2000, "tolerance": 1e-12} if method == "power" else {}
    found = METHODS[method](model, x, scale=normalisation_scale(model), **enough)
    expected = largest(dense(inner, model.normalize(x), model(x).argmax(1)), 1)
    torch.testing.assert_close(found.values, expected, rtol=1e-3, atol=0)


def test_a_random_model_is_asked_for_one_draw() -> None:
    x = images(3, SHAPE)
    noisy = RobustNet(relu(), GaussianNoise(0.3)), PNIWeights(relu()), PNIActivations(relu())
    for model in (*noisy, Defended(relu(), [FFTCompression(50)])):
        values = []
        for method in (exact_curvature, lanczos_curvature):
            with drawing_from(Stream(1)):
                values.append(method(model, x).values)
        torch.testing.assert_close(values[0], values[1], rtol=1e-5, atol=1e-12)
        with drawing_from(Stream(1)):
            assert second_order_rest(model, x).amax() < 1e-9


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("method", METHODS)
def test_no_trace_is_left(method: str, context: str) -> None:
    model = prepared("RobustNet")
    with unchanged(model), CONTEXTS[context]():
        pairs = METHODS[method](model, torch.rand(3, 3, 8, 8), chunk=2)
    assert (pairs.values > 0).all()
    assert not pairs.vectors.requires_grad


def test_resnet_20_is_piecewise_linear() -> None:
    model, x = ResNet20().eval(), torch.rand(4, 3, 16, 16)
    assert second_order_rest(model, x).amax() < 1e-4
    exact, general = exact_curvature(model, x, 3), lanczos_curvature(model, x, k=3)
    torch.testing.assert_close(general.values, exact.values, rtol=1e-3, atol=1e-6)


def test_bad_input_is_named() -> None:
    model, x = relu(), images(3, SHAPE)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"1 to 4, one less than the classes, got {k}"):
            exact_curvature(model, x, k)
    with pytest.raises(ValueError, match="got 2 for 3 images"):
        lanczos_curvature(model, x, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="classes 0 to 4, got classes from 0 to 9"):
        power_curvature(model, x, torch.tensor([0, 1, 9]))
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        exact_curvature(model, x, chunk=0)
    for method in METHODS.values():
        with pytest.raises(ValueError, match="at least 1 image, got 0"):
            method(model, x[:0])

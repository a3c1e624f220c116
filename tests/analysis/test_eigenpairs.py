"""Lanczos and power iteration against dense matrices whose spectrum is known."""

import pytest
import torch
from torch import Tensor

from analysis.eigenpairs import Eigenpairs, Operator, lanczos, power_iteration


def operator_of(matrices: Tensor) -> Operator:
    return lambda vectors: torch.einsum("bij,bj->bi", matrices, vectors)


def with_spectrum(*spectra: list[float]) -> Tensor:
    values = torch.tensor(spectra, dtype=torch.float64)
    bases = torch.linalg.qr(torch.randn(*values.shape, values.shape[1], dtype=torch.float64)).Q
    return bases @ torch.diag_embed(values) @ bases.mT


def symmetric(batch: int = 3, size: int = 30) -> Tensor:
    matrices = torch.randn(batch, size, size, dtype=torch.float64)
    return matrices + matrices.mT


def true_residuals(matrices: Tensor, pairs: Eigenpairs) -> Tensor:
    products = torch.einsum("bij,bkj->bki", matrices, pairs.vectors)
    return (products - pairs.values[..., None] * pairs.vectors).norm(dim=2)


@pytest.mark.parametrize("which", ["magnitude", "algebraic"])
def test_lanczos_finds_the_leading_pairs(which: str) -> None:
    matrices = symmetric()
    pairs = lanczos(operator_of(matrices), torch.randn(3, 30, dtype=torch.float64), 4, tolerance=1e-9, which=which)
    values = torch.linalg.eigvalsh(matrices)
    rank = values.abs() if which == "magnitude" else values
    expected = values.gather(1, rank.argsort(1, descending=True)[:, :4])
    torch.testing.assert_close(pairs.values, expected)
    assert (which == "magnitude") == bool((pairs.values < 0).any())
    torch.testing.assert_close(pairs.vectors @ pairs.vectors.mT, torch.eye(4, dtype=torch.float64).repeat(3, 1, 1))
    assert pairs.converged(1e-9).all()


def test_lanczos_says_when_it_has_not_converged() -> None:
    matrices = symmetric(size=60)
    pairs = lanczos(operator_of(matrices), torch.randn(3, 60, dtype=torch.float64), 2, steps=8, tolerance=1e-9)
    assert pairs.products.tolist() == [8, 8, 8]
    assert not pairs.converged().any()
    torch.testing.assert_close(pairs.residuals, true_residuals(matrices, pairs))
    # An eigenvalue lies within the residual.
    distance = (torch.linalg.eigvalsh(matrices)[:, None] - pairs.values[..., None]).abs().amin(2)
    assert (distance <= pairs.residuals).all()


def test_lanczos_stops_when_all_have_converged() -> None:
    spectra = [[100.0, *[0.01] * 49], [*range(1, 51)]]
    pairs = lanczos(operator_of(with_spectrum(*spectra)), torch.randn(2, 50, dtype=torch.float64), tolerance=1e-6)
    assert pairs.values[:, 0].tolist() == pytest.approx([100, 50])
    assert 10 < pairs.products[0] == pairs.products[1] < 50
    easy = lanczos(operator_of(with_spectrum(spectra[0])), torch.randn(1, 50, dtype=torch.float64), tolerance=1e-6)
    assert easy.products.item() <= 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_repeated_eigenvalues_low_rank_and_nothing_at_all(dtype: torch.dtype) -> None:
    spectra = [[3.0, 3.0, 3.0, -1.0] + [0.0] * 16, [2.0] * 20, [0.0] * 20, [5.0] + [0.0] * 19]
    matrices = with_spectrum(*spectra).to(dtype)
    pairs = lanczos(operator_of(matrices), torch.randn(4, 20, dtype=dtype), 4, steps=20, tolerance=0.0)
    expected = torch.tensor([[3, 3, 3, -1], [2, 2, 2, 2], [0, 0, 0, 0], [5, 0, 0, 0]], dtype=torch.float64)
    accuracy = 1e-5 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(pairs.values, expected, rtol=0, atol=accuracy)
    gram = pairs.vectors @ pairs.vectors.mT
    torch.testing.assert_close(gram, torch.eye(4, dtype=dtype).expand_as(gram), rtol=0, atol=accuracy)
    assert (true_residuals(matrices, pairs) < 10 * accuracy).all()


def test_a_matrix_no_larger_than_the_steps_is_known_entirely() -> None:
    matrices = symmetric(size=7)
    pairs = lanczos(operator_of(matrices), torch.randn(3, 7, dtype=torch.float64), 7, which="algebraic")
    torch.testing.assert_close(pairs.values, torch.linalg.eigvalsh(matrices).flip(1))
    assert pairs.products.tolist() == [7, 7, 7]


def reference(matrix: Tensor, start: Tensor, steps: int, tolerance: float) -> tuple[float, int]:
    """The papers' rule for one matrix."""
    vector, before, products = start / start.norm(), 0.0, 0
    while products < steps:
        product, products = matrix @ vector, products + 1
        value = float(vector @ product)
        if abs(value - before) <= tolerance * abs(value):
            break
        before, vector = value, product / product.norm()
    return value, products


def test_power_iteration_is_that_of_one_matrix_at_a_time() -> None:
    matrices = with_spectrum([9.0, 1.0, 0.5, -0.3] * 5, [-9.0, 3.0, 0.5, 0.1] * 5, [2.0, 1.99, -1.9, 0.0] * 5)
    start = torch.rand(3, 20, dtype=torch.float64)
    pairs = power_iteration(operator_of(matrices), start)
    alone = [reference(matrix, vector, 20, 1e-4) for matrix, vector in zip(matrices, start, strict=True)]
    assert pairs.values[:, 0].tolist() == pytest.approx([value for value, _ in alone], rel=1e-12)
    assert pairs.products.tolist() == [steps for _, steps in alone]
    assert len(set(pairs.products.tolist())) > 1
    torch.testing.assert_close(pairs.residuals, true_residuals(matrices, pairs))
    assert pairs.values[1, 0] == pytest.approx(-9, rel=1e-3)  # of the largest magnitude, whatever its sign
    assert pairs.converged(0.05)[:, 0].tolist() == [True, True, False]


def test_deflation_finds_further_pairs() -> None:
    matrices = with_spectrum([8.0, -4.0, 2.0, 1.0] + [0.0] * 6, [-27.0, 9.0, 3.0, 1.0] + [0.1] * 6)
    start = torch.rand(2, 10, dtype=torch.float64)
    pairs = power_iteration(operator_of(matrices), start, 3, steps=200, tolerance=1e-14)
    expected = torch.tensor([[8, -4, 2], [-27, 9, 3]], dtype=torch.float64)
    torch.testing.assert_close(pairs.values, expected, rtol=1e-6, atol=0)
    assert pairs.vectors.shape == (2, 3, 10)
    assert (true_residuals(matrices, pairs) < 1e-4).all()
    assert (pairs.products <= 600).all()


def test_power_iteration_of_nothing() -> None:
    pairs = power_iteration(torch.zeros_like, torch.rand(2, 5, dtype=torch.float64))
    assert pairs.values.tolist() == [[0], [0]]
    assert pairs.converged().all()
    assert pairs.products.tolist() == [1, 1]


def test_impossible_wishes_are_refused() -> None:
    operator, start = torch.zeros_like, torch.rand(2, 5)
    for k in (0, 6):
        with pytest.raises(ValueError, match="1 to 5"):
            lanczos(operator, start, k)
        with pytest.raises(ValueError, match="1 to 5"):
            power_iteration(operator, start, k)
    with pytest.raises(ValueError, match="1 to 3"):
        lanczos(operator, start, 4, steps=3)
    with pytest.raises(ValueError, match="got smallest"):
        lanczos(operator, start, which="smallest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="steps 0"):
        power_iteration(operator, start, steps=0)
